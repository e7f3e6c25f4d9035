package world

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEveryRecipient holds that each recipient of a sick world has exactly one
// fate, whenever one looks.
func TestEveryRecipient(t *testing.T) {
	w := newWorld(t, true, 0)
	p := write(w, size(t), rand.New(rand.NewPCG(1, 2)))
	dir := t.TempDir()
	lost := map[string]bool{}

	r := newRelay(t, w, dir)
	p.submit(r)
	r.begin()
	r.until("half of the healthy are served", time.Minute, func() bool { return r.count() >= p.healthy/2 })
	r.stop()
	maps.Copy(lost, p.unreported(r))
	servedBefore := r.count()

	r = newRelay(t, w, dir)
	p.account(t, "stopped half-way", w, r, lost, nil)
	r.begin()
	limit := time.Duration(size(t))*10*time.Millisecond + time.Minute
	r.until("the healthy are served", limit, func() bool { return servedBefore+r.count() >= p.healthy })
	r.until("nothing more happens", limit, func() bool { return quiet(w, r, p, lost) })
	var why map[string]string
	r.until("all that waits has a reason", limit, func() bool {
		why = r.reasons()
		return !slices.ContainsFunc(slices.Collect(maps.Values(why)), func(s string) bool { return s == "ready" })
	})
	r.stop()
	maps.Copy(lost, p.unreported(r))

	r = newRelay(t, w, dir)
	p.account(t, "at rest", w, r, lost, why)
	w.heal()
	r.begin()
	r.until("the queue is loaded", time.Minute, func() bool { return r.logs.FilterMessage("queue loaded").Len() > 0 })
	r.out.Flush("")
	r.until("the queue is empty", limit, func() bool { return r.queue.Stat().Messages == 0 })
	r.stop()
	maps.Copy(lost, p.unreported(r))
	r = newRelay(t, w, dir)
	p.account(t, "all well", w, r, lost, map[string]string{})
	r.begin()
	r.stop()
	for _, s := range w.servers {
		if v := s.Violations(); len(v) > 0 {
			t.Errorf("%q", v)
		}
	}
}

// quiet reports whether every recipient has a fate of its kind.
func quiet(w *world, r *relay, p *post, before map[string]bool) bool {
	time.Sleep(100*time.Millisecond + time.Duration(len(p.kinds))*50*time.Microsecond) // it is much to look at
	lost := p.unreported(r)
	maps.Copy(lost, before)
	got, _ := fates(w, r, lost)
	for a, k := range p.kinds {
		if k != nil && (len(got[a]) != 1 || !strings.Contains(k.fates, got[a])) {
			return false
		}
	}
	return true
}

// TestSpeed tells at which speed healthy domains are served beside sick ones and
// without. It fails only if they are not served. Healthy servers take their time,
// so that places for attempts are what is short, not the processor.
func TestSpeed(t *testing.T) {
	const latency = 50 * time.Millisecond
	sick, well := newWorld(t, true, latency), newWorld(t, false, latency)
	p := write(sick, size(t), rand.New(rand.NewPCG(3, 4)))
	alone := serve(t, well, p.well())
	beside := serve(t, sick, p)
	t.Logf("%d recipients in %d healthy domains: %.0f/s beside %d sick ones, %.0f/s without, ratio %.2f",
		p.healthy, len(sick.healthy), beside, domains-len(sick.healthy), alone, beside/alone)
}

// serve returns how many recipients in healthy domains are served in a second.
func serve(t *testing.T, w *world, p *post) float64 {
	r := newRelay(t, w, t.TempDir())
	defer r.stop()
	p.submit(r)
	begin := time.Now()
	r.begin()
	r.until("the healthy are served", time.Duration(size(t))*10*time.Millisecond+time.Minute, func() bool { return r.count() >= p.healthy })
	return r.rate(begin)
}
