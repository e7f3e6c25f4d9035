package pool

import (
	"context"
	"time"
)

// Run closes connections that were idle for too long. When ctx ends it says
// goodbye to all idle ones and returns nil; from then on no connection is kept.
// Those in use are closed by their Send. Run is called once.
func (p *Pool) Run(ctx context.Context) error {
	p.mu.Lock()
	p.ctx, p.running = ctx, true
	p.mu.Unlock()

	// Idle times are seconds, so that a look each second is enough.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			p.mu.Lock()
			p.stopped = true
			p.reapIdle(time.Time{})
			p.running = false
			p.mu.Unlock()
			p.quits.Wait()
			return nil
		case now := <-tick.C:
			p.mu.Lock()
			p.reapIdle(now)
			p.mu.Unlock()
		}
	}
}

// reapIdle retires connections that are idle for too long at now, at the zero time everything,
// and forgets addresses that nobody asked for lately. p.mu is held.
func (p *Pool) reapIdle(now time.Time) {
	// Connections first, then the records of addresses, credentials and servers.
	for _, h := range p.hosts {
		n := 0
		for _, k := range h.idle {
			if !now.IsZero() && now.Before(k.until) {
				h.idle[n] = k
				n++
				continue
			}
			p.retire(h, k)
		}
		p.stats.Idle -= len(h.idle) - n
		clear(h.idle[n:])
		h.idle = h.idle[:n]
	}
	for s, r := range p.sites {
		if r.spare != nil && (now.IsZero() || now.Sub(r.began) > time.Second) { // nobody came for it
			r.spare.Close()
			r.spare = nil
			r.failures, r.until = 0, time.Time{}
		}
		if r.isIdle(now) {
			delete(p.sites, s)
		}
	}
	for k, r := range p.refusals {
		if !r.trying && now.Sub(r.until) > remembered {
			delete(p.refusals, k)
		}
	}
	for s, until := range p.clear {
		if !now.Before(until) {
			delete(p.clear, s)
		}
	}
	for s, r := range p.rations {
		if !now.Before(r.until) {
			delete(p.rations, s)
		}
	}
}
