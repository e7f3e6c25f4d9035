package listener

import (
	"sync"
	"time"
)

const (
	// manyConnections is how many connections have to end before their memory is worth
	// looking for: with fewer, the runtime's own pace will do.
	manyConnections = 1000
	// reclaimDelay lets the connections that end together end.
	reclaimDelay = 10 * time.Second
	// reclaimPause is between two times: each costs a collection of the whole heap.
	reclaimPause = time.Minute
)

// reclaimer gives memory back to the system when many connections have ended, and with
// them most of what there were. The runtime would do that at its next collection,
// which a server that has nothing to do never needs.
type reclaimer struct {
	free func() // gives the memory back

	mu    sync.Mutex
	most  int         // connections since the last time
	last  time.Time   // when that was
	timer *time.Timer // runs; nil: none does
	ended bool
}

// noteOpen is called with the number of connections when that changes.
func (r *reclaimer) noteOpen(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most = max(r.most, n)
	if r.timer != nil || r.ended || r.most-n < max(manyConnections, r.most/2) {
		return
	}
	wait := max(reclaimDelay, time.Until(r.last.Add(reclaimPause)))
	r.timer = time.AfterFunc(wait, r.giveBack)
}

func (r *reclaimer) giveBack() {
	r.mu.Lock()
	ended := r.ended
	r.timer, r.most, r.last = nil, 0, time.Now()
	r.mu.Unlock()
	if !ended {
		r.free() // takes its time, and connections go on
	}
}

// end ends it.
func (r *reclaimer) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if r.timer != nil {
		r.timer.Stop()
	}
}
