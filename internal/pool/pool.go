// Package pool keeps client connections and shares them: Send carries one
// transaction on a kept connection or on a new one.
//
//   - A connection is shared only by transactions for which nothing makes a
//     difference: the whole smtpclient.Options but its timeouts is the key.
//   - At most MaxConnections are open for a key; who needs one more waits, first
//     come first served, until its context ends. The connection used last is
//     used first, so that those not needed grow old.
//   - A kept connection that proves dead at MAIL, before any content was sent,
//     costs one repetition on a new connection. Nothing else is repeated, so
//     that no message is sent twice by this package.
//   - With TLSMay a handshake that fails is followed by one connection in clear.
//   - An address that cannot be reached is left alone for a time that grows from
//     one second to a minute; meanwhile Send fails at once with the same error.
//     Then one connection tries first, and who else wants one waits for what
//     becomes of it. An address not known to be well is dialed by few at once.
//
// Errors of Send are *smtpclient.Failure.
package pool

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// Target says where a transaction goes, and how connections to there are kept.
type Target struct {
	smtpclient.Options

	MaxConnections int           // open at the same time; 0: no limit
	MaxMessages    int           // transactions on one connection; 0: no limit
	MaxAge         time.Duration // of a connection that is used again; 0: no limit
	IdleTimeout    time.Duration // how long one is kept unused; 0: not at all
}

// key is the identity of a target: all that makes two connections different.
func (t *Target) key() smtpclient.Options {
	k := t.Options
	k.ConnectTimeout, k.GreetingTimeout, k.CommandTimeout = 0, 0, 0
	k.DataTimeout, k.BlockTimeout, k.SubmissionTimeout = 0, 0, 0
	return k
}

// Conn is what the pool needs of a connection; *smtpclient.Client is one.
type Conn interface {
	Send(ctx context.Context, env *mail.Envelope, content mail.Content) (smtpclient.Result, error)
	Reusable() bool
	Quit()
	Close() error
}

// Options configure a Pool.
type Options struct {
	Log  *zap.Logger                                                   // for developers; nil: none
	Dial func(ctx context.Context, o smtpclient.Options) (Conn, error) // nil: smtpclient.Dial
}

// Pool is a set of kept connections. Its methods may be called from any
// goroutine.
type Pool struct {
	log  *zap.Logger
	dial func(ctx context.Context, o smtpclient.Options) (Conn, error)

	mu      sync.Mutex
	hosts   map[smtpclient.Options]*host
	sites   map[site]*reach
	stats   Stats
	running bool           // Run is there to own goroutines
	stopped bool           // Run has ended: nothing is kept any more
	quits   sync.WaitGroup // added to only while running
}

// Stats counts since the start (Dials, Reuses, Retries) and tells the present
// (Open, Idle, Waiting).
type Stats struct {
	Dials   int // connections tried, also in vain
	Reuses  int // transactions on kept connections
	Retries int // repetitions after a kept connection proved dead
	Refused int // Sends that failed at once because of an address's back-off

	Open    int // connections, with those being made or said goodbye to
	Idle    int // of them, unused
	Waiting int // Sends that wait for a connection
}

// host is the connections of one key. It exists while it has any.
type host struct {
	key     smtpclient.Options
	open    int
	idle    []*kept   // used last is last
	waiters []*waiter // first come first
}

// kept is an open connection.
type kept struct {
	Conn
	born     time.Time
	until    time.Time // while idle: when it is closed
	messages int
}

// waiter is a Send that waits for a connection or for the right to make one
// (a nil *kept). The one who hands over has accounted for it.
type waiter struct{ ready chan *kept }

// New returns an empty Pool.
func New(o Options) *Pool {
	p := &Pool{
		log: o.Log, dial: o.Dial,
		hosts: map[smtpclient.Options]*host{}, sites: map[site]*reach{},
	}
	if p.log == nil {
		p.log = zap.NewNop()
	}
	if p.dial == nil {
		p.dial = func(ctx context.Context, o smtpclient.Options) (Conn, error) {
			c, err := smtpclient.Dial(ctx, o)
			if err != nil {
				return nil, err
			}
			return c, nil
		}
	}
	return p
}

// Send carries one transaction to t; see smtpclient.Client.Send for what it
// returns. It waits for a slot, and for the server, until ctx ends.
func (p *Pool) Send(ctx context.Context, t Target, env *mail.Envelope, content mail.Content) (smtpclient.Result, error) {
	h, k, err := p.acquire(ctx, &t)
	if err != nil {
		return smtpclient.Result{TLS: "none", Addr: t.Addr}, err
	}
	reused := k != nil
	for {
		if k == nil {
			if k, err = p.connect(ctx, &t); err != nil {
				p.release(h, &t, nil)
				return smtpclient.Result{TLS: "none", Addr: t.Addr}, err
			}
		}
		k.messages++
		res, err := k.Send(ctx, env, content)
		var f *smtpclient.Failure
		if reused && errors.As(err, &f) && f.Stale() && ctx.Err() == nil {
			p.log.Debug("kept connection is dead", zap.String("addr", t.Addr), zap.Error(err))
			k.Close()
			k, reused = nil, false
			p.mu.Lock()
			p.stats.Retries++
			p.mu.Unlock()
			continue
		}
		p.release(h, &t, k)
		return res, err
	}
}

// acquire returns a kept connection, or nil and the right to make one.
func (p *Pool) acquire(ctx context.Context, t *Target) (*host, *kept, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, noSlot(t, err)
	}
	key := t.key()
	p.mu.Lock()
	h := p.hosts[key]
	if h == nil {
		h = &host{key: key}
		p.hosts[key] = h
	}
	for n := len(h.idle); n > 0; n = len(h.idle) {
		k := h.idle[n-1]
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		p.stats.Idle--
		if now := time.Now(); worn(t, k, now) || !now.Before(k.until) {
			p.retire(h, k)
			continue
		}
		p.stats.Reuses++
		p.mu.Unlock()
		return h, k, nil
	}
	p.hosts[key] = h // retire may have made it forgotten
	if t.MaxConnections <= 0 || h.open < t.MaxConnections {
		h.open++
		p.stats.Open++
		p.mu.Unlock()
		return h, nil, nil
	}
	w := &waiter{ready: make(chan *kept, 1)}
	h.waiters = append(h.waiters, w)
	p.stats.Waiting++
	p.mu.Unlock()
	select {
	case k := <-w.ready:
		return h, k, nil
	case <-ctx.Done():
		p.abandon(h, t, w)
		return nil, nil, noSlot(t, ctx.Err())
	}
}

// abandon takes w out of the line; what it was handed meanwhile goes on to the
// next.
func (p *Pool) abandon(h *host, t *Target, w *waiter) {
	p.mu.Lock()
	for i := range h.waiters {
		if h.waiters[i] == w {
			h.waiters = append(h.waiters[:i], h.waiters[i+1:]...)
			p.stats.Waiting--
			p.mu.Unlock()
			return
		}
	}
	p.mu.Unlock()
	p.release(h, t, <-w.ready)
}

func noSlot(t *Target, err error) error {
	return &smtpclient.Failure{
		Stage: smtpclient.StageConnect, Reply: reply.New(451, "4.4.5", "No connection slot to the next hop"),
		Err: err, Fresh: true, Addr: t.Addr,
	}
}

// release gives back a connection, or with nil the right to one.
func (p *Pool) release(h *host, t *Target, k *kept) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case k == nil:
		p.free(h)
	case !k.Reusable():
		k.Close()
		p.free(h)
	case t.IdleTimeout > 0 && !p.stopped && !worn(t, k, now):
		p.keep(h, k, now.Add(t.IdleTimeout))
	case p.running:
		p.retire(h, k)
	default: // no Run to do it
		p.mu.Unlock()
		k.Quit()
		p.mu.Lock()
		p.free(h)
	}
}

// keep hands k to who waits, or lays it by. p.mu is held.
func (p *Pool) keep(h *host, k *kept, until time.Time) {
	if w := p.next(h); w != nil {
		p.stats.Reuses++
		w.ready <- k
		return
	}
	k.until = until
	h.idle = append(h.idle, k)
	p.stats.Idle++
}

// free hands the right to a connection to who waits, or gives it up. p.mu is
// held.
func (p *Pool) free(h *host) {
	if w := p.next(h); w != nil {
		w.ready <- nil
		return
	}
	h.open--
	p.stats.Open--
	p.forget(h)
}

// next takes the first out of the line. p.mu is held.
func (p *Pool) next(h *host) *waiter {
	if len(h.waiters) == 0 {
		return nil
	}
	w := h.waiters[0]
	h.waiters[0] = nil
	h.waiters = h.waiters[1:]
	p.stats.Waiting--
	return w
}

// worn reports whether k has done enough.
func worn(t *Target, k *kept, now time.Time) bool {
	return t.MaxMessages > 0 && k.messages >= t.MaxMessages || t.MaxAge > 0 && now.Sub(k.born) >= t.MaxAge
}

// forget drops a host that has nothing. p.mu is held.
func (p *Pool) forget(h *host) {
	if h.open == 0 && len(h.waiters) == 0 && p.hosts[h.key] == h {
		delete(p.hosts, h.key)
	}
}

// retire says goodbye to a connection that is in no list any more, in a
// goroutine of Run. Its slot is free when the server has said goodbye too, so
// that no server sees more than MaxConnections. p.mu is held.
func (p *Pool) retire(h *host, k *kept) {
	if !p.running || !k.Reusable() {
		k.Close()
		p.free(h)
		return
	}
	p.quits.Go(func() {
		k.Quit()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.free(h)
	})
}

// Stats returns the counters.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Run closes connections that were idle for too long. When ctx ends it says
// goodbye to all idle ones and returns nil; from then on no connection is kept.
// Those in use are closed by their Send. Run is called once.
func (p *Pool) Run(ctx context.Context) error {
	p.mu.Lock()
	p.running = true
	p.mu.Unlock()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			p.mu.Lock()
			p.stopped = true
			p.reap(time.Time{})
			p.running = false
			p.mu.Unlock()
			p.quits.Wait()
			return nil
		case now := <-tick.C:
			p.mu.Lock()
			p.reap(now)
			p.mu.Unlock()
		}
	}
}

// reap retires what is idle for too long at now, at the zero time everything,
// and forgets addresses that nobody asked for lately. p.mu is held.
func (p *Pool) reap(now time.Time) {
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
		if r.idle(now) {
			delete(p.sites, s)
		}
	}
}
