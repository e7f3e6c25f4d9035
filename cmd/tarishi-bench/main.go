// Command tarishi-bench measures a built Tarishi on loopback: relaying in
// session and queueing, with few and many clients, large messages and many
// recipients, and Postfix on the same load where it is installed. It prints a
// markdown table.
//
// Load generator, servers, DNS and sink share the machine, so that the numbers
// are for comparing systems within one run and for nothing else. Runs of the
// systems are interleaved and the median is printed. The servers run in
// folders of their own and end with the command.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// scenario is one load, the same for every system.
type scenario struct {
	name       string
	clients    int
	size       int
	recipients int
}

var scenarios = []scenario{
	{"1 client, 4 KiB", 1, 4 << 10, 1},
	{"20 clients, 4 KiB", 20, 4 << 10, 1},
	{"100 clients, 4 KiB", 100, 4 << 10, 1},
	{"20 clients, 64 KiB", 20, 64 << 10, 1},
	{"20 clients, 4 KiB, 10 recipients", 20, 4 << 10, 10},
}

// options are the command line.
type options struct {
	tarishi    string
	dir        string
	total      time.Duration
	runs       int
	only       *regexp.Regexp
	pipelining bool
	postfix    bool
}

func main() {
	o := options{}
	flag.StringVar(&o.tarishi, "tarishi", "bin/tarishi", "the `binary` to measure")
	flag.StringVar(&o.dir, "dir", "", "where the servers' folders and queues are made; default: the system's temporary `folder`")
	flag.DurationVar(&o.total, "time", 2*time.Minute, "about how long everything may take")
	flag.IntVar(&o.runs, "k", 3, "runs of each scenario and system; the median is printed")
	flag.BoolVar(&o.pipelining, "pipelining", true, "the load generator pipelines")
	flag.BoolVar(&o.postfix, "postfix", true, "measure Postfix too, if it is installed")
	only := flag.String("only", "", "run the scenarios that match this `pattern`")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err != nil || flag.NArg() > 0 || o.runs < 1 || o.total <= 0 {
		fmt.Fprintln(os.Stderr, "tarishi-bench: bad arguments", err)
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err = run(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tarishi-bench:", err)
		os.Exit(1)
	}
}

// run measures everything and prints the table to out.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	if _, err := os.Stat(o.tarishi); err != nil {
		return fmt.Errorf("nothing to measure, run make build: %w", err)
	}
	binary, err := filepath.Abs(o.tarishi)
	if err != nil {
		return err
	}
	var chosen []scenario
	for _, s := range scenarios {
		if o.only.MatchString(s.name) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no scenario matches %q", o.only)
	}
	dir, err := os.MkdirTemp(o.dir, "tarishi-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // Postfix runs under users of its own
		return err
	}
	systems, stop, err := startSystems(ctx, binary, dir, o.postfix, progress)
	defer stop()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.total+o.total/4)
	defer cancel()
	// Draining takes as long as sending at worst where the queue is the bottleneck.
	each := o.total / time.Duration(2*o.runs*len(chosen)*len(systems))
	each = min(max(each, 300*time.Millisecond), 10*time.Second)
	results := make(map[cell][]result)
	run := uint16(0)
	for k := range o.runs {
		for _, sc := range chosen {
			for i := range systems {
				sys := systems[(i+k)%len(systems)] // nobody is always first
				if ctx.Err() != nil {
					break
				}
				run++
				r := measure(ctx, sys, sc, run, each, o.pipelining)
				fmt.Fprintf(progress, "run %d of %d: %s, %s: %s\n", k+1, o.runs, sc.name, sys.name, r)
				if ctx.Err() == nil || k == 0 {
					results[cell{sc.name, sys.name}] = append(results[cell{sc.name, sys.name}], r)
				}
			}
		}
	}
	fmt.Fprintf(out, "%s, %d CPUs, %s per run, median of %d, pipelining %v\n\n",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), each.Round(time.Millisecond), o.runs, o.pipelining)
	printTable(out, chosen, systems, results)
	return firstLoss(results)
}

// firstLoss makes an error of a server that lost or doubled mail.
func firstLoss(results map[cell][]result) error {
	for c, rs := range results {
		if i := slices.IndexFunc(rs, func(r result) bool { return r.drained && (r.tally.Lost+r.tally.Duplicates) > 0 }); i >= 0 {
			return fmt.Errorf("%s, %s: %d recipients lost, %d doubled", c.scenario, c.system, rs[i].tally.Lost, rs[i].tally.Duplicates)
		}
	}
	return nil
}
