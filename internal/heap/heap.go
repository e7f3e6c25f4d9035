// Package heap sets how often the garbage collector runs. Go's default, a heap of
// twice what lives, has a small daemon collect for every few hundred messages, which
// takes a tenth of its CPU time: below a floor there is nothing to be saved by that.
// Above it the default holds, so a daemon with much to remember needs no more memory.
package heap

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

const (
	usual = 100 // Go's default for GOGC
	// most bounds GOGC, and with it how far the heap grows when much comes to live in it
	// before the pacer hears of a collection.
	most = 400
)

// KeepFloor has the heap grow to floor bytes before it is collected, or to what GOGC
// says by default if that is more, until stop is called. It does nothing where the
// environment sets GOGC.
func KeepFloor(floor int64) (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}

	// The first percentage is set at once: without it, start-up alone would collect many times.
	p := &pacer{floor: floor, percent: usual}
	p.adjust()
	p.awaitCollection()
	return func() {
		p.stopped.Store(true)
		debug.SetGCPercent(usual)
	}
}

// pacer adjusts the percentage after each collection.
type pacer struct {
	floor   int64
	percent int
	stopped atomic.Bool
}

// awaitCollection runs the pacer again after the next collection. A finalizer reports
// the collection, so an idle daemon is not woken.
func (p *pacer) awaitCollection() {
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		if !p.stopped.Load() {
			p.adjust()
			p.awaitCollection()
		}
	})
}

// sentinel has a pointer so that it is not allocated together with others.
type sentinel struct{ _ *sentinel }

// adjust sets the percentage anew where it is off by more than a tenth: to set it
// stops the world for a moment.
func (p *pacer) adjust() {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(sample)
	var sizes [3]int64
	for i := range sample {
		if sample[i].Value.Kind() == metrics.KindUint64 {
			sizes[i] = int64(sample[i].Value.Uint64())
		}
	}

	// Small changes are not worth stopping the world for. The default is always restored exactly.
	want := percentage(p.floor, sizes[0], sizes[1]+sizes[2])
	if d := want - p.percent; d > p.percent/10 || -d > p.percent/10 || want == usual && d != 0 {
		p.percent = want
		debug.SetGCPercent(want)
	}
}

// percentage returns the GOGC that has the heap grow to floor: the collector runs when
// it has grown by so much of live and roots.
func percentage(floor, live, roots int64) int {
	return int(min(max(usual, usual*(floor-live)/max(live+roots, 1<<20)), most))
}
