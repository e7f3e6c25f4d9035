package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tarishi/internal/test/load"
	"tarishi/internal/test/load/instance"
)

// result is one run.
type result struct {
	accepted    float64 // messages a second
	delivered   float64 // recipients a second, until the sink had all
	latency     load.Latency
	messages    int
	connections int     // at the sink: those that were open and new ones
	cpu         float64 // milliseconds a message
	tool        float64 // the same, of this program: generator, sink and DNS
	questions   float64 // to the DNS, a message
	memory      float64 // MiB
	tally       load.Tally
	drained     bool // the queue had time to empty
	err         error
}

func (r result) String() string {
	s := fmt.Sprintf("%.0f msg/s accepted, %.0f recipients/s delivered, %d lost, %d doubled", r.accepted, r.delivered, r.tally.Lost, r.tally.Duplicates)
	if !r.drained {
		s += ", not waited for to the end"
	}
	if r.err != nil {
		s += "; first trouble: " + r.err.Error()
	}
	return s
}

// runLoad sends a load for some time and waits until the sink has what was
// accepted.
func (b *bench) runLoad(ctx context.Context, sys *system, l workload, duration time.Duration) result {
	syscall.Sync() // nobody pays for what an earlier run left to be written
	before, seen := sys.usage(), sys.sink.Stats()
	tool, asked := load.OwnCPU(), b.senders.Questions()
	report, tally, drained := b.sendLoad(ctx, sys, l, duration, 5*duration+5*time.Second)
	after := sys.usage()
	messages := float64(max(report.Accepted, 1))

	// Shared pages are divided among processes where the kernel can do that. A server of many
	// processes would look too large otherwise.
	memory := after.PSS
	if memory == 0 {
		memory = after.RSS
	}
	return result{
		accepted:    float64(report.Accepted) / report.Elapsed.Seconds(),
		delivered:   float64(tally.Delivered) / tally.Elapsed.Seconds(),
		latency:     report.Latency,
		messages:    report.Accepted,
		connections: sys.sink.Stats().Connections - seen.Connections + seen.Open,
		cpu:         float64((after.CPU - before.CPU).Microseconds()) / 1000 / messages,
		tool:        float64((load.OwnCPU() - tool).Microseconds()) / 1000 / messages,
		questions:   float64(b.senders.Questions()-asked) / messages,
		memory:      float64(memory) / (1 << 20),
		tally:       tally,
		drained:     drained,
		err:         errors.Join(report.Err, sys.exitError()),
	}
}

// sendLoad sends a load, as many messages as fit into duration if it does not say
// how many. Then it waits, no longer than patience, until the sink has what was
// accepted: drained tells whether that was enough.
func (b *bench) sendLoad(ctx context.Context, sys *system, l workload, duration, patience time.Duration) (report *load.Report, tally load.Tally, drained bool) {
	b.started++
	run := uint16(b.started)
	defer sys.sink.Forget(run)
	all := load.Load{
		Addr: sys.addr, Run: run, Clients: l.clients, Messages: l.messages, Duration: duration, Size: l.size,
		Recipients: l.recipients, Domain: domain, Domains: l.destinations, Pipelining: b.pipelining,
		PerSession: l.perSession, StartTLS: l.certificate != "",
	}
	if l.checked {
		b.senders.Dress(&all)
	}
	report = all.Send(ctx)

	// A queue accepts faster than it delivers. Its rate counts until the sink has the last
	// recipient.
	drain, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tally = sys.sink.Await(drain, report)
	return report, tally, drain.Err() == nil
}

// exitError tells why a server that should run does not.
func (s *system) exitError() error {
	if s.server == nil {
		return nil
	}
	return s.server.Ended()
}

// usage is what the server's processes have used; nothing without a server.
func (s *system) usage() load.Usage {
	if s.server == nil {
		return load.Usage{}
	}
	u, _ := load.UsageOf(s.server.PID())
	return u
}

// countSyncs runs each system of p once under strace.
func countSyncs(ctx context.Context, b *bench, p part) error {
	if !instance.HasStrace() {
		fmt.Fprintln(b.out, "Not counted: strace is not installed, or may not trace.")
		return nil
	}
	fmt.Fprintln(b.out, "| load | system | messages | syncs | syncs/msg |\n|---|---|---:|---:|---:|")
	for _, l := range p.loads {
		for _, name := range l.systems {
			if b.missing[name] != "" {
				continue
			}
			x, syncs, err := b.runTraced(ctx, p, l, name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			fmt.Fprintf(b.progress, "%s: %s, %s: %s\n", p.name, l.name, name, x)
			fmt.Fprintf(b.out, "| %s | %s | %d | %d | %.3f |\n", l.name, name, x.messages, syncs, float64(syncs)/float64(max(x.messages, 1)))
			b.checkResult(p.name, l.name, name, x)
		}
	}
	b.printMissing(p)
	return nil
}

// runTraced runs one system of p under strace and stops it.
func (b *bench) runTraced(ctx context.Context, p part, l workload, name string) (x result, syncs int, err error) {
	file := filepath.Join(b.dir, "syncs-"+strings.ReplaceAll(name, " ", "-"))
	alone := l
	alone.systems = []string{name}
	f, err := b.startSystems(ctx, part{name: p.name, loads: []workload{alone}}, func(string) []string { return instance.CountSyncs(file) })
	if err == nil {
		x = b.runLoad(ctx, f.systems[l.fleetKey(name)], l, b.each)
	}
	f.stopAll()
	if err != nil {
		return x, 0, err
	}

	// strace writes its table when the server ends, and may need a moment for that.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	syncs, err = instance.Syncs(ctx, file)
	return x, syncs, err
}

// measureMemory sends large messages through a fresh queue and prints the largest
// growth of its resident set.
func measureMemory(ctx context.Context, b *bench, p part) error {
	f, err := b.startSystems(ctx, p, nil)
	defer f.stopAll()
	if err != nil {
		return err
	}
	fmt.Fprintln(b.out, "| load | system | resident before, MiB | at most, MiB | seconds to accept | seconds to deliver |\n|---|---|---:|---:|---:|---:|")
	for _, l := range p.loads {
		for _, name := range l.systems {
			sys := f.systems[name]
			atFirst := sys.usage().RSS
			report, tally, drained := b.sendLoad(ctx, sys, l, 0, time.Minute)
			x := result{tally: tally, drained: drained, err: report.Err, messages: report.Accepted}

			// The peak is the kernel's figure: a sample could miss it.
			peak := sys.usage().Peak
			fmt.Fprintf(b.out, "| %s | %s | %.0f | %.0f | %.1f | %.1f |\n", l.name, name, float64(atFirst)/(1<<20), float64(peak)/(1<<20),
				report.Elapsed.Seconds(), tally.Elapsed.Seconds())
			b.checkResult(p.name, l.name, name, x)
			b.wantBelow(64, ratio{name: name + ", resident set grows by, MiB", value: float64(peak-atFirst) / (1 << 20), runs: 1})
		}
	}
	return nil
}

// median of values, which it sorts; the mean of the middle two of an even
// number.
func median(values []float64) float64 {
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}
