package main

import (
	"fmt"
	"io"
	"math"
	"time"

	"tarishi/internal/test/load"
)

// key is a place in a table.
type key struct{ load, system string }

// results are the runs of each place, in the order of the rounds.
type results map[key][]result

// metrics of a result.
func acceptedRate(r result) float64  { return r.accepted }
func deliveredRate(r result) float64 { return r.delivered }
func cpuTime(r result) float64       { return r.cpu }

func medianOf(rs []result, f func(result) float64) float64 {
	values := make([]float64, len(rs))
	for i, r := range rs {
		values[i] = f(r)
	}
	return median(values)
}

// printTable prints the medians of all runs.
func (r results) printTable(out io.Writer, loads []workload) {
	fmt.Fprintln(out, "| load | system | accepted msg/s | delivered rcpt/s | ack p50 / p95 / p99 / max, ms | sink connections of messages | CPU ms/msg | the tool's | memory MiB | lost | doubled |")
	fmt.Fprintln(out, "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
	var troubles []string
	for _, l := range loads {
		for _, system := range l.systems {
			rs := r[key{l.name, system}]
			if len(rs) == 0 {
				continue
			}

			// Losses add up over the rounds, where a median would hide a single one.
			lost, doubled, note := 0, 0, ""
			for _, x := range rs {
				lost += x.tally.Lost
				doubled += x.tally.Duplicates
				if !x.drained {
					note = " (not drained)"
				}
				if x.err != nil {
					troubles = append(troubles, fmt.Sprintf("%s, %s: %v", l.name, system, x.err))
				}
			}
			fmt.Fprintf(out, "| %s | %s | %.0f | %.0f | %s | %.0f of %.0f | %.2f | %.2f | %.0f | %d%s | %d |\n", l.name, system,
				medianOf(rs, acceptedRate), medianOf(rs, deliveredRate), latencies(rs),
				medianOf(rs, func(x result) float64 { return float64(x.connections) }),
				medianOf(rs, func(x result) float64 { return float64(x.messages) }),
				medianOf(rs, cpuTime), medianOf(rs, func(x result) float64 { return x.tool }), medianOf(rs, func(x result) float64 { return x.memory }),
				lost, note, doubled)
		}
	}
	for _, t := range troubles {
		fmt.Fprintf(out, "\nTrouble: %s\n", t)
	}
}

func latencies(rs []result) string {
	ms := func(f func(load.Latency) time.Duration) float64 {
		return medianOf(rs, func(r result) float64 { return float64(f(r.latency).Microseconds()) / 1000 })
	}
	return fmt.Sprintf("%.1f / %.1f / %.1f / %.0f",
		ms(func(l load.Latency) time.Duration { return l.P50 }), ms(func(l load.Latency) time.Duration { return l.P95 }),
		ms(func(l load.Latency) time.Duration { return l.P99 }), ms(func(l load.Latency) time.Duration { return l.Max }))
}

// ratio is a figure, with a bound or without. runs is of how many rounds; 0: it could
// not be measured.
type ratio struct {
	name  string
	value float64
	runs  int

	part  string
	bound string // "≥ 8"; "": none
	ok    bool
}

// ratioOf compares two systems under one load: the median of the rounds' ratios.
func (r results) ratioOf(name string, f func(result) float64, load, ours, theirs string) ratio {
	return r.ratioBetween(name, f, key{load, ours}, key{load, theirs})
}

// ratioBetween compares any two places.
func (r results) ratioBetween(name string, f func(result) float64, ours, theirs key) ratio {
	return r.pair(name, ours, theirs, func(a, b result) float64 { return f(a) / f(b) })
}

// differenceOf is how much more of a figure one system has than another under one load: the
// median of the rounds' differences.
func (r results) differenceOf(name string, f func(result) float64, load, ours, theirs string) ratio {
	return r.pair(name, key{load, ours}, key{load, theirs}, func(a, b result) float64 { return f(a) - f(b) })
}

// pair is the median of what a comparison finds in each round.
func (r results) pair(name string, ours, theirs key, compare func(a, b result) float64) ratio {
	var values []float64

	// Rounds are compared in pairs, as both systems ran in the same minute.
	for i := range min(len(r[ours]), len(r[theirs])) {
		if v := compare(r[ours][i], r[theirs][i]); !math.IsNaN(v) && !math.IsInf(v, 0) {
			values = append(values, v)
		}
	}
	return ofRounds(name, values)
}

// medianFigure is the median of a figure that one system has.
func (r results) medianFigure(name, load, system string, f func(result) float64) ratio {
	var values []float64
	for _, x := range r[key{load, system}] {
		if v := f(x); !math.IsNaN(v) && !math.IsInf(v, 0) {
			values = append(values, v)
		}
	}
	return ofRounds(name, values)
}

func ofRounds(name string, values []float64) ratio {
	if len(values) == 0 {
		return ratio{name: name}
	}
	return ratio{name: name, value: median(values), runs: len(values)}
}

// wantAtLeast, wantAtMost and wantBelow keep a ratio with its bound.
func (b *bench) wantAtLeast(bound float64, r ratio) {
	b.keepRatio(r, fmt.Sprintf("≥ %.4g", bound), r.value >= bound)
}

func (b *bench) wantAtMost(bound float64, r ratio) {
	b.keepRatio(r, fmt.Sprintf("≤ %.4g", bound), r.value <= bound)
}

func (b *bench) wantBelow(bound float64, r ratio) {
	b.keepRatio(r, fmt.Sprintf("< %.4g", bound), r.value < bound)
}

// addRatio keeps a ratio for which nothing is wanted.
func (b *bench) addRatio(r ratio) { b.keepRatio(r, "", true) }

func (b *bench) keepRatio(r ratio, bound string, ok bool) {
	r.part, r.bound, r.ok = b.part, bound, ok
	b.ratios = append(b.ratios, r)
}

// String is the ratio's line.
func (r ratio) String() string {
	if r.runs == 0 && r.bound == "" {
		return fmt.Sprintf("%s: %s: not measured", r.part, r.name)
	}
	if r.runs == 0 {
		return fmt.Sprintf("%s: %s: not measured (wanted %s)", r.part, r.name, r.bound)
	}
	verdict := "ok"
	if !r.ok {
		verdict = "MISSED"
	}
	value := fmt.Sprintf("%.2f", r.value)
	if r.value >= 20 {
		value = fmt.Sprintf("%.0f", r.value)
	}
	if r.bound == "" {
		return fmt.Sprintf("%s: %s: %s", r.part, r.name, value)
	}
	return fmt.Sprintf("%s: %s: %s (wanted %s) %s", r.part, r.name, value, r.bound, verdict)
}

// printRatios prints a line for each.
func (b *bench) printRatios() {
	if len(b.ratios) == 0 {
		return
	}
	fmt.Fprint(b.out, "\n### Ratios\n\n")
	for _, r := range b.ratios {
		fmt.Fprintln(b.out, "- "+r.String())
	}
}
