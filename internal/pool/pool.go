// Package pool keeps client connections and shares them: Send carries one
// transaction on a kept connection or on a new one.
//
//   - A connection is shared only by transactions for which nothing makes a
//     difference: all of smtpclient.Options but its timeouts is the key.
//   - At most MaxConnections are open for a key; a Send that needs one more waits,
//     first come first served, until its context ends. The connection used last is
//     used first, so that those not needed grow old. Each Send brings the limit that holds
//     for it: where that was lowered, it waits until fewer connections are in use.
//   - A connection with a key that no Send has any more, since the configuration has
//     changed, is closed when the idle time of its last Send is over. None is cut off.
//   - A kept connection that proves dead before any content was sent costs one
//     repetition on a new connection, and so does one on which MAIL is refused, or
//     all recipients in a way that may be the connection's fault (Result.Repeatable):
//     what counts is the answer on the new one. Nothing else is repeated, so that no
//     message is sent twice by this package. A server that took there a message
//     that it had refused gets no more messages on one connection than before the refusal, for
//     ten minutes.
//   - The addresses of one host are tried as RFC 8305 says: families in turn, the
//     next one a quarter of a second after the one before, until one answers, and
//     all within one ConnectTimeout. When the server there does not let us as far
//     as MAIL the others are tried in the same Send.
//   - With TLSMay a handshake that fails, or a server that hangs up at STARTTLS, is
//     followed by one connection in clear.
//     If that works, that address is spoken to in clear for an hour.
//   - An address that cannot be reached is left alone for a time that grows from
//     one second to a minute; meanwhile it is passed over, or Send fails at once
//     with the same error. Then Run probes it, one connection tries, and others
//     wait a moment for its outcome: a dead address costs one
//     ConnectTimeout, not one a message. An address not known to be well is dialed
//     by few at once.
//   - A server that says how many messages it takes on a connection (RFC 9422, LIMITS) gets no more.
//   - Credentials that a server refused with a 5yz are not shown again for a time
//     that grows from ten seconds to five minutes, since many lock an account
//     after some attempts. Meanwhile no connection is made for the key, and Send
//     fails at once with the same error; then one connection tries. Other
//     credentials are another key.
//
// Errors of Send are *smtpclient.Failure; its Addr, and that of a Result, tell
// which address it was.
package pool

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// Target says where a transaction goes, and how connections to there are kept.
type Target struct {
	smtpclient.Options

	// Addrs, if set, are all addresses of one host, in order of preference, with
	// one port and one TLS policy; Options.Addr is empty then, and Host names
	// the host. A connection to any of them serves. Those that do not go with
	// Bind's family are left out.
	Addrs []netip.AddrPort

	MaxConnections int           // open at the same time; 0: no limit
	MaxMessages    int           // transactions on one connection; 0: no limit
	MaxAge         time.Duration // of a connection that is used again; 0: no limit
	IdleTimeout    time.Duration // how long one is kept unused; 0: not at all
}

// Conn is what the pool needs of a connection; *smtpclient.Client is one.
type Conn interface {
	Send(ctx context.Context, env *mail.Envelope, content mail.Content) (smtpclient.Result, error)
	Reusable() bool
	MaxMessages() int // transactions that the server takes on it; 0: not known
	Quit()
	Close() error
}

// Options configure a Pool. Connect and Open take the place of smtpclient's
// functions of these names; what Open is given, it owns.
type Options struct {
	Log     *zap.Logger // for developers; nil: none
	Connect func(ctx context.Context, o smtpclient.Options) (net.Conn, error)
	Open    func(ctx context.Context, raw net.Conn, o smtpclient.Options) (Conn, error)
}

// Pool is a set of kept connections. Its methods may be called from any
// goroutine.
type Pool struct {
	log     *zap.Logger
	dialTCP func(ctx context.Context, o smtpclient.Options) (net.Conn, error)
	open    func(ctx context.Context, raw net.Conn, o smtpclient.Options) (Conn, error)

	mu       sync.Mutex
	hosts    map[key]*host
	sites    map[site]*reach
	clear    map[suite]time.Time // handshakes not to be tried before then
	refusals map[key]*refusal    // of credentials
	rations  map[server]ration   // of servers that take only some messages a connection
	stats    Stats
	serial   atomic.Uint64
	ctx      context.Context // of Run
	running  bool            // Run is there to own goroutines
	stopped  bool            // Run has ended: nothing is kept any more
	quits    sync.WaitGroup  // added to only while running
}

// host is the connections of one key. It exists while it has any.
type host struct {
	key     key
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
// (a nil *kept). The slot is accounted for already.
type waiter struct {
	ready chan *kept
	most  int // its MaxConnections
}

// inUse returns how many connections carry a transaction, or are being made. Pool.mu is held.
func (h *host) inUse() int { return h.open - len(h.idle) }

// New returns an empty Pool.
func New(o Options) *Pool {
	p := &Pool{
		log: o.Log, dialTCP: o.Connect, open: o.Open,
		hosts: map[key]*host{}, sites: map[site]*reach{}, clear: map[suite]time.Time{}, refusals: map[key]*refusal{},
		rations: map[server]ration{},
	}
	if p.log == nil {
		p.log = zap.NewNop()
	}
	if p.dialTCP == nil {
		p.dialTCP = smtpclient.Connect
	}
	if p.open == nil {
		p.open = func(ctx context.Context, raw net.Conn, o smtpclient.Options) (Conn, error) {
			c, err := smtpclient.Open(ctx, raw, o)
			if err != nil {
				return nil, err
			}
			return c, nil
		}
	}
	return p
}

// Send carries one transaction to t, with the results of smtpclient.Client.Send. It waits for a slot, and for the server, until ctx ends.
func (p *Pool) Send(ctx context.Context, t Target, env *mail.Envelope, content mail.Content) (smtpclient.Result, error) {
	h, k, err := p.acquire(ctx, &t)
	if err != nil {
		return nothing(err), err
	}
	reused, refusedAfter := k != nil, 0
	for {
		// With XCLIENT a kept connection authenticates anew.
		if k == nil || t.Forwards == mail.XClient {
			if err := p.refused(h.key, false); err != nil {
				p.release(h, &t, k)
				return nothing(err), err
			}
		}
		if k == nil {
			if k, err = p.connect(ctx, &t, h.key); err != nil {
				p.release(h, &t, nil)
				return nothing(err), err
			}
		}

		// The transaction itself. That credentials were refused on a kept connection, which
		// XCLIENT makes possible, counts as on a new one.
		k.messages++
		start := time.Now()
		res, err := k.Send(ctx, env, content)
		f := failureOf(err)
		if f != nil && f.Stage == smtpclient.StageAuth {
			p.answered(h.key, start, err)
		}
		if reused && (err == nil && res.Repeatable || f != nil && f.Stale()) {
			if ctx.Err() == nil {
				refusedAfter = p.discard(k, res, f)
				k, reused = nil, false
				continue
			}
			if err == nil { // what a new connection would bring is not known
				p.release(h, &t, k)
				err = noSlot(res.Addr, ctx.Err())
				return nothing(err), err
			}
		}

		// The server took the message on a new connection, after it had refused it on the
		// kept one: it counts messages.
		if refusedAfter > 0 && err == nil && res.Begun {
			p.ration(h.key.server(), refusedAfter)
		}
		p.release(h, &t, k)
		return res, err
	}
}

// discard gives up a kept connection that is dead, as f says, or on which a message was
// refused, before the transaction is repeated on a new one. It returns how many messages
// the server took before the refusal; 0: it says itself when it has enough.
func (p *Pool) discard(k *kept, res smtpclient.Result, f *smtpclient.Failure) (refusedAfter int) {
	// It counts whatever the reason: each costs the server a connection.
	p.mu.Lock()
	p.stats.Retries++
	p.mu.Unlock()
	if f != nil {
		p.log.Debug("kept connection is dead", zap.String("addr", f.Addr), zap.Error(f))
		k.Close()
		return 0
	}
	p.log.Debug("refused on a kept connection", zap.String("addr", res.Addr), zap.Int("messages", k.messages-1), zap.Stringer("reply", res.Replies[0]))
	if k.Reusable() {
		refusedAfter = k.messages - 1
	}
	k.Quit() // before the next one: the server may take one connection at a time
	return refusedAfter
}

// failureOf returns the Failure that err is; nil: none.
func failureOf(err error) *smtpclient.Failure {
	if err == nil {
		return nil
	}
	var f *smtpclient.Failure
	errors.As(err, &f)
	return f
}

// nothing is the Result of a Send that ended before it had a connection.
func nothing(err error) smtpclient.Result {
	res := smtpclient.Result{TLS: "none"}
	if f := failureOf(err); f != nil {
		res.Addr = f.Addr
	}
	return res
}

// acquire returns a kept connection, or nil and the right to make one.
func (p *Pool) acquire(ctx context.Context, t *Target) (*host, *kept, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, noSlot(t.firstAddr(), err)
	}

	// A kept connection that has done enough, or is too old, is retired on the way; the one
	// used last comes first.
	key := p.key(t)
	p.mu.Lock()
	h := p.hosts[key]
	if h == nil {
		h = &host{key: key}
		p.hosts[key] = h
	}
	full := t.MaxConnections > 0 && h.inUse() >= t.MaxConnections // though some are idle: the limit was lowered
	for n := len(h.idle); n > 0 && !full; n = len(h.idle) {
		k := h.idle[n-1]
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		p.stats.Idle--
		if now := time.Now(); p.isWorn(h.key, t, k, now) || !now.Before(k.until) {
			p.retire(h, k)
			continue
		}
		p.stats.Reuses++
		p.mu.Unlock()
		return h, k, nil
	}

	// None is kept: make one if the cap allows it, else wait in line.
	p.hosts[key] = h // retire may have made it forgotten
	if t.MaxConnections <= 0 || !full && h.open < t.MaxConnections {
		h.open++
		p.stats.Open++
		p.mu.Unlock()
		return h, nil, nil
	}
	w := &waiter{ready: make(chan *kept, 1), most: t.MaxConnections}
	h.waiters = append(h.waiters, w)
	p.stats.Waiting++
	p.mu.Unlock()
	select {
	case k := <-w.ready:
		return h, k, nil
	case <-ctx.Done():
		p.abandon(h, t, w)
		return nil, nil, noSlot(t.firstAddr(), ctx.Err())
	}
}

// abandon takes w out of the line; a connection or slot that it got meanwhile goes on
// to the next.
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

// firstAddr is what errors call t before there is an address.
func (t *Target) firstAddr() string {
	if len(t.Addrs) > 0 {
		return t.Addrs[0].String()
	}
	return t.Addr
}

func noSlot(addr string, err error) error {
	return &smtpclient.Failure{
		Stage: smtpclient.StageConnect, Reply: reply.New(451, "4.4.5", "No connection slot to the next hop"),
		Err: err, Fresh: true, Addr: addr,
	}
}

// release gives back a connection, or with nil the right to one.
func (p *Pool) release(h *host, t *Target, k *kept) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case k == nil:
		p.freeSlot(h)
	case !k.Reusable():
		k.Close()
		p.freeSlot(h)
	case t.IdleTimeout > 0 && !p.stopped && h.key.single == 0 && !p.isWorn(h.key, t, k, now):
		p.keepIdle(h, k, now.Add(t.IdleTimeout))
	case p.running:
		p.retire(h, k)
	default: // no Run to do it
		p.mu.Unlock()
		k.Quit()
		p.mu.Lock()
		p.freeSlot(h)
	}
}

// keepIdle hands k to the first waiter, or lays it by. p.mu is held.
func (p *Pool) keepIdle(h *host, k *kept, until time.Time) {
	if w := p.nextWaiter(h); w != nil {
		p.stats.Reuses++
		w.ready <- k
		return
	}
	k.until = until
	h.idle = append(h.idle, k)
	p.stats.Idle++
}

// freeSlot hands the right to a connection to the first waiter, or gives it up. p.mu is
// held.
func (p *Pool) freeSlot(h *host) {
	if w := p.nextWaiter(h); w != nil {
		w.ready <- nil
		return
	}
	h.open--
	p.stats.Open--
	p.forget(h)
}

// nextWaiter takes the first out of the line, unless even with the connection that is being
// given back more are in use than it may have: then others are to come back first. p.mu is
// held.
func (p *Pool) nextWaiter(h *host) *waiter {
	if len(h.waiters) == 0 || h.inUse() > h.waiters[0].most {
		return nil
	}
	w := h.waiters[0]
	h.waiters[0] = nil
	h.waiters = h.waiters[1:]
	p.stats.Waiting--
	return w
}

// isWorn reports whether k, a connection of that key, has done enough. p.mu is held.
func (p *Pool) isWorn(of key, t *Target, k *kept, now time.Time) bool {
	most := k.MaxMessages()
	return t.MaxMessages > 0 && k.messages >= t.MaxMessages || most > 0 && k.messages >= most || t.MaxAge > 0 && now.Sub(k.born) >= t.MaxAge ||
		len(p.rations) > 0 && p.rations[of.server()].isSpent(k.messages, now)
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
		p.freeSlot(h)
		return
	}
	p.quits.Go(func() {
		k.Quit()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.freeSlot(h)
	})
}
