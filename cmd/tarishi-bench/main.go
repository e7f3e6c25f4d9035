// Command tarishi-bench measures a built Tarishi on loopback and other servers
// with the same load beside it: Haraka, which npm installs into the user's cache
// folder on first use, and Postfix, where they can be had. It prints markdown
// tables and, for each ratio that is wanted, one line.
//
//	durable   accepting into the queue: with fsync, without, and with one file
//	          and one fsync for each message
//	relay     passing on while the client waits
//	rtt       one connection to a next hop 50 ms away, pipelined and not
//	outbound  from the client through the queue to one destination and to 1,000
//	syncs     fsyncs a message, counted by strace in runs of their own
//	memory    20 messages of 50 MB at once
//	shapes    1 client, 20 clients, 10 recipients
//	starttls  one message a connection, in clear and with STARTTLS
//	plugins   the plugins that check mail, with clients that have names in a DNS
//	idle      memory of sessions that have said EHLO and wait
//
// The last four run only if -part asks for them. With -baseline BINARY an older
// Tarishi runs beside the new one in every part, in turn within each round, and
// the ratios of rate and of CPU a message are printed.
//
// Load generator, servers, DNS and sink share the machine, so that the numbers
// are for comparing systems within one run and for nothing else. Runs of the
// systems of a part are interleaved; tables have medians, and a ratio is the
// median of the rounds' ratios. The servers run in folders of their own and end
// with the command.
//
// The exit status is 1 if a server lost or doubled mail or could not be
// measured, and 0 however slow it was.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"tarishi/internal/test/load/checks"
	"tarishi/internal/test/load/fileserver"
	"tarishi/internal/test/load/mount"
	"tarishi/internal/test/namespace"
)

// options are the command line.
type options struct {
	tarishi    string
	baseline   string
	dir        string
	cache      string
	total      time.Duration
	runs       int
	parts      []string
	only       *regexp.Regexp
	pipelining bool
	postfix    bool
	haraka     bool
	args       []string // what all of this was read from
	world      bool     // every address is a local one
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	command := ""
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	var err error
	switch command {
	case fileServerCommand:
		err = fileserver.Serve(ctx, os.Args[2:])
	case worldCommand:
		err = runInWorld(ctx, os.Args[2:])
	default:
		err = runParts(ctx, parseFlags(os.Args[1:]), os.Stdout, os.Stderr)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tarishi-bench:", err)
		os.Exit(1)
	}
}

// parseFlags reads the command line, or ends the process.
func parseFlags(args []string) options {
	o := options{args: args}
	flag.StringVar(&o.tarishi, "tarishi", "bin/tarishi", "the `binary` to measure")
	flag.StringVar(&o.baseline, "baseline", "", "an older `binary` to measure beside it")
	flag.StringVar(&o.dir, "dir", "", "where the servers' folders and queues are made: a `folder` on the disk to measure; default: the system's temporary one")
	flag.StringVar(&o.cache, "cache", "", "where Haraka is installed: a `folder`; default: tarishi-bench in the user's cache folder")
	flag.DurationVar(&o.total, "time", 5*time.Minute, "about how long everything may take")
	flag.IntVar(&o.runs, "k", 3, "rounds: runs of each system with each load")
	flag.BoolVar(&o.pipelining, "pipelining", true, "the load generator pipelines")
	flag.BoolVar(&o.postfix, "postfix", true, "measure Postfix too, if it is installed")
	flag.BoolVar(&o.haraka, "haraka", true, "measure Haraka too, if node and npm are installed")
	names := flag.String("part", strings.Join(defaultParts(), ","), "run these `parts`, of "+strings.Join(partNames(), ", "))
	only := flag.String("only", "", "run the loads whose \"part: load\" matches this `pattern`")
	flag.CommandLine.Parse(args)

	// Mistakes end the process here. A run of five minutes must not fail at its end because of a
	// flag.
	o.parts = strings.Split(*names, ",")
	pattern, err := regexp.Compile(*only)
	switch {
	case err != nil:
	case flag.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case o.runs < 1 || o.total <= 0:
		err = errors.New("-k and -time must be above 0")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "tarishi-bench: %v\nTry '%s -h'.\n", err, os.Args[0])
		os.Exit(2)
	}
	o.only = pattern
	return o
}

// fileServerCommand is what the command runs itself with for the server that
// has one file for each message.
const fileServerCommand = "file-server"

// bench is one run of the command.
type bench struct {
	options
	binary   string
	older    string // the binary of -baseline; "": none
	self     string // this program
	program  string // Haraka; "": absent
	missing  map[string]string
	each     time.Duration // of one run
	disk     mount.Mount
	out      io.Writer
	progress io.Writer
	started  int             // runs of a load, which number them
	part     string          // that is being measured
	senders  *checks.Senders // of the part that is being measured; nil: none
	ratios   []ratio
	faults   []error // losses, duplicates, servers that failed
}

// runParts measures the chosen parts and prints their tables to out.
func runParts(ctx context.Context, o options, out, progress io.Writer) error {
	if _, err := os.Stat(o.tarishi); err != nil {
		return fmt.Errorf("nothing to measure, run make build: %w", err)
	}
	chosen, err := chooseParts(o)
	if err != nil {
		return err
	}
	b, err := prepareBench(o, out, progress)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)

	// The time is shared among the systems that are there, so absent ones make the runs of the
	// others longer.
	b.findPeers(ctx)
	inWorld := func(p part) bool { return p.world }
	if !o.world && slices.ContainsFunc(chosen, inWorld) {
		why := namespace.Try()
		if why == nil {
			return b.enterWorld(ctx)
		}
		fmt.Fprintf(out, "Not measured: part %s: %v\n", chosen[slices.IndexFunc(chosen, inWorld)].name, why)
		chosen = slices.DeleteFunc(chosen, inWorld)
	}
	b.each = b.duration(chosen)
	most := o.total + o.total/2
	for _, p := range chosen {
		most += p.fixed
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	fmt.Fprintf(out, "%s, %d CPUs, %s per run, %d rounds, pipelining %v, queues on %s\n",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), b.each.Round(time.Millisecond), o.runs, o.pipelining, b.disk)

	// A part that fails is reported at the end. The figures of the others are still good.
	for _, p := range chosen {
		fmt.Fprintf(out, "\n### %s\n\n%s\n\n", p.name, p.about)
		b.part = p.name
		if err := p.measure(ctx, b, p); err != nil {
			b.faults = append(b.faults, fmt.Errorf("%s: %w", p.name, err))
		}
		if ctx.Err() != nil {
			b.faults = append(b.faults, fmt.Errorf("stopped in part %s: %w", p.name, ctx.Err()))
			break
		}
	}
	b.printRatios()
	return errors.Join(b.faults...)
}

// prepareBench finds the binaries and makes the folder below which everything runs; the
// caller removes it.
func prepareBench(o options, out, progress io.Writer) (*bench, error) {
	// Paths become absolute, since each server runs in its own folder.
	b := &bench{options: o, missing: map[string]string{}, out: out, progress: progress}
	var err error
	if b.binary, err = filepath.Abs(o.tarishi); err != nil {
		return nil, err
	}
	if o.baseline != "" {
		if _, err := os.Stat(o.baseline); err != nil {
			return nil, fmt.Errorf("-baseline: %w", err)
		}
		if b.older, err = filepath.Abs(o.baseline); err != nil {
			return nil, err
		}
	}
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}

	// All folders are below one, on the disk that is to be measured, and go with it.
	if b.dir, err = os.MkdirTemp(o.dir, "tarishi-bench-"); err != nil {
		return nil, err
	}
	if err = os.Chmod(b.dir, 0o755); err == nil { // Postfix runs as other users
		b.disk, err = mount.Of(b.dir)
	}
	if err != nil {
		os.RemoveAll(b.dir)
		return nil, err
	}
	return b, nil
}

// chooseParts picks the parts and their loads that the options ask for.
func chooseParts(o options) ([]part, error) {
	var chosen []part
	for _, name := range o.parts {
		i := slices.IndexFunc(parts, func(p part) bool { return p.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("no part %q: there are %s", name, strings.Join(partNames(), ", "))
		}

		// The table of parts stays as it is: only a copy loses the loads that were not chosen.
		p := parts[i]
		p.loads = nil
		for _, l := range parts[i].loads {
			if o.only.MatchString(p.name + ": " + l.name) {
				if o.baseline != "" {
					l.systems = withBaseline(l.systems)
				}
				p.loads = append(p.loads, l)
			}
		}
		if len(p.loads) > 0 {
			chosen = append(chosen, p)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("nothing to measure matches %q", o.only)
	}
	return chosen, nil
}

// duration is how long one run may be, so that all keep within the time.
func (b *bench) duration(chosen []part) time.Duration {
	runs, fixed := 0.0, time.Duration(0)
	for _, p := range chosen {
		fixed += p.fixed
		warm := map[string]bool{}

		// Each system also runs once to warm up, for a third of a run.
		for _, l := range p.loads {
			for _, s := range l.systems {
				if b.missing[s] != "" {
					continue
				}
				runs += l.weight() * float64(b.rounds(p))
				if !warm[s] && !p.once {
					runs += l.weight() / 3
				}
				warm[s] = true
			}
		}
	}

	// Runs below 300 ms measure noise, and beyond 10 s nothing new is learnt.
	each := time.Duration(float64(b.total-fixed) / max(runs, 1))
	return min(max(each, 300*time.Millisecond), 10*time.Second)
}

// rounds is how often every load of a part runs.
func (b *bench) rounds(p part) int {
	if p.once {
		return 1
	}
	return b.runs
}
