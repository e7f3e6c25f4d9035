package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"tarishi/internal/loadtest"
)

// cell is a place in the table.
type cell struct{ scenario, system string }

// result is one run.
type result struct {
	accepted    float64 // messages a second
	delivered   float64 // recipients a second, until the sink had all
	latency     loadtest.Latency
	messages    int
	connections int     // to the sink
	cpu         float64 // milliseconds a message
	memory      float64 // MB
	tally       loadtest.Tally
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

// measure makes one run and waits until the sink has what was accepted.
func measure(ctx context.Context, sys *system, sc scenario, run uint16, each time.Duration, pipelining bool) result {
	before, conns := sys.usage(), sys.sink.Stats().Connections
	report := loadtest.Load{
		Addr: sys.addr, Run: run, Clients: sc.clients, Duration: each, Size: sc.size,
		Recipients: sc.recipients, Domain: domain, Pipelining: pipelining,
	}.Send(ctx)
	drain, cancel := context.WithTimeout(ctx, 5*each+5*time.Second)
	defer cancel()
	tally := sys.sink.Await(drain, report)
	after := sys.usage()
	defer sys.sink.Forget(run)
	memory := after.PSS
	if memory == 0 {
		memory = after.RSS
	}
	return result{
		accepted:    float64(report.Accepted) / report.Elapsed.Seconds(),
		delivered:   float64(tally.Delivered) / tally.Elapsed.Seconds(),
		latency:     report.Latency,
		messages:    report.Accepted,
		connections: sys.sink.Stats().Connections - conns,
		cpu:         float64((after.CPU - before.CPU).Microseconds()) / 1000 / float64(max(report.Accepted, 1)),
		memory:      float64(memory) / (1 << 20),
		tally:       tally,
		drained:     drain.Err() == nil,
		err:         report.Err,
	}
}

// usage is what the server's processes have used; nothing without a server.
func (s *system) usage() loadtest.Usage {
	if s.server == nil {
		return loadtest.Usage{}
	}
	u, _ := loadtest.UsageOf(s.server.PID())
	return u
}

// printTable prints the medians, each system's speed also as a multiple of
// Postfix's in the same scenario.
func printTable(out io.Writer, chosen []scenario, systems []*system, results map[cell][]result) {
	fmt.Fprintln(out, "| scenario | system | accepted msg/s | delivered rcpt/s | ack p50 / p95 / p99 / max, ms | sink connections of messages | CPU ms/msg | memory MB | lost | doubled | × Postfix accepted / delivered |")
	fmt.Fprintln(out, "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
	for _, sc := range chosen {
		base := results[cell{sc.name, postfixName}]
		for _, sys := range systems {
			rs := results[cell{sc.name, sys.name}]
			if len(rs) == 0 {
				continue
			}
			ratio := "–"
			if len(base) > 0 && sys.name != postfixName && sys.server != nil {
				ratio = fmt.Sprintf("%.1f / %.1f", median(rs, result.acceptedRate)/median(base, result.acceptedRate),
					median(rs, result.deliveredRate)/median(base, result.deliveredRate))
			}
			lost, doubled, note := 0, 0, ""
			for _, r := range rs {
				lost += r.tally.Lost
				doubled += r.tally.Duplicates
				if !r.drained {
					note = " (not drained)"
				}
			}
			fmt.Fprintf(out, "| %s | %s | %.0f | %.0f | %s | %.0f of %.0f | %.2f | %.0f | %d%s | %d | %s |\n", sc.name, sys.name,
				median(rs, result.acceptedRate), median(rs, result.deliveredRate), latencies(rs),
				median(rs, func(r result) float64 { return float64(r.connections) }),
				median(rs, func(r result) float64 { return float64(r.messages) }),
				median(rs, func(r result) float64 { return r.cpu }), median(rs, func(r result) float64 { return r.memory }),
				lost, note, doubled, ratio)
		}
	}
	fmt.Fprintln(out, "\nAck: from MAIL to the reply to the final dot. Memory: of all the server's processes, shared pages divided (PSS). "+
		"A relay passes the sink's answer on; both queues sync before they answer.")
}

func (r result) acceptedRate() float64  { return r.accepted }
func (r result) deliveredRate() float64 { return r.delivered }

func latencies(rs []result) string {
	ms := func(f func(loadtest.Latency) time.Duration) float64 {
		return median(rs, func(r result) float64 { return float64(f(r.latency).Microseconds()) / 1000 })
	}
	return fmt.Sprintf("%.1f / %.1f / %.1f / %.0f",
		ms(func(l loadtest.Latency) time.Duration { return l.P50 }), ms(func(l loadtest.Latency) time.Duration { return l.P95 }),
		ms(func(l loadtest.Latency) time.Duration { return l.P99 }), ms(func(l loadtest.Latency) time.Duration { return l.Max }))
}

// median of f over the runs; the mean of the middle two of an even number.
func median(rs []result, f func(result) float64) float64 {
	values := make([]float64, len(rs))
	for i, r := range rs {
		values[i] = f(r)
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}
