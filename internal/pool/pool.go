// Package pool keeps client connections and shares them: Send carries one
// transaction on a kept connection or on a new one.
//
//   - A connection is shared only by transactions for which nothing makes a
//     difference: all of smtpclient.Options but its timeouts is the key.
//   - At most MaxConnections are open for a key; who needs one more waits, first
//     come first served, until its context ends. The connection used last is
//     used first, so that those not needed grow old.
//   - A kept connection that proves dead before any content was sent costs one
//     repetition on a new connection. Nothing else is repeated, so that no
//     message is sent twice by this package.
//   - The addresses of one host are tried as RFC 8305 says: families in turn, the
//     next one a quarter of a second after the one before, until one answers, and
//     all within one ConnectTimeout. When the server there does not let us as far
//     as MAIL the others are tried in the same Send.
//   - With TLSMay a handshake that fails is followed by one connection in clear.
//     If that works, that address is spoken to in clear for an hour.
//   - An address that cannot be reached is left alone for a time that grows from
//     one second to a minute; meanwhile it is passed over, or Send fails at once
//     with the same error. Then Run probes it, one connection tries, and who wants
//     one waits for what becomes of that for a moment: a dead address costs one
//     ConnectTimeout, not one a message. An address not known to be well is dialed
//     by few at once.
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
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
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
	stats    Stats
	serial   atomic.Uint64
	ctx      context.Context // of Run
	running  bool            // Run is there to own goroutines
	stopped  bool            // Run has ended: nothing is kept any more
	quits    sync.WaitGroup  // added to only while running
}

// Stats counts since the start (Dials, Reuses, Retries) and tells the present
// (Open, Idle, Waiting).
type Stats struct {
	Dials   int // connections tried, also in vain
	Reuses  int // transactions on kept connections
	Retries int // repetitions after a kept connection proved dead
	Refused int // times that nothing was tried because of the back-off of an address or of credentials

	Open    int // connections, with those being made or said goodbye to
	Idle    int // of them, unused
	Waiting int // Sends that wait for a connection
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
// (a nil *kept). The one who hands over has accounted for it.
type waiter struct{ ready chan *kept }

// New returns an empty Pool.
func New(o Options) *Pool {
	p := &Pool{
		log: o.Log, dialTCP: o.Connect, open: o.Open,
		hosts: map[key]*host{}, sites: map[site]*reach{}, clear: map[suite]time.Time{}, refusals: map[key]*refusal{},
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

// Send carries one transaction to t; see smtpclient.Client.Send for what it
// returns. It waits for a slot, and for the server, until ctx ends.
func (p *Pool) Send(ctx context.Context, t Target, env *mail.Envelope, content mail.Content) (smtpclient.Result, error) {
	h, k, err := p.acquire(ctx, &t)
	if err != nil {
		return nothing(err), err
	}
	reused := k != nil
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
		k.messages++
		start := time.Now()
		res, err := k.Send(ctx, env, content)
		var f *smtpclient.Failure
		if errors.As(err, &f) && f.Stage == smtpclient.StageAuth {
			p.answered(h.key, start, err)
		}
		if reused && errors.As(err, &f) && f.Stale() && ctx.Err() == nil {
			p.log.Debug("kept connection is dead", zap.String("addr", f.Addr), zap.Error(err))
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

// nothing is the Result of a Send that ended before it had a connection.
func nothing(err error) smtpclient.Result {
	res := smtpclient.Result{TLS: "none"}
	var f *smtpclient.Failure
	if errors.As(err, &f) {
		res.Addr = f.Addr
	}
	return res
}

// acquire returns a kept connection, or nil and the right to make one.
func (p *Pool) acquire(ctx context.Context, t *Target) (*host, *kept, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, noSlot(t.name(), err)
	}
	key := p.key(t)
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
		return nil, nil, noSlot(t.name(), ctx.Err())
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

// name is what errors call t before there is an address.
func (t *Target) name() string {
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
		p.free(h)
	case !k.Reusable():
		k.Close()
		p.free(h)
	case t.IdleTimeout > 0 && !p.stopped && h.key.single == 0 && !worn(t, k, now):
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

// HostStat tells of the connections of one key. It has no credentials.
type HostStat struct {
	Host     string // the server's name; "": none was given
	Addr     string // address or socket; "" where one of several serves
	Port     int    // where Addr is ""
	Protocol mail.Protocol
	TLS      smtpclient.TLSPolicy
	AuthUser string
	Open     int // as in Stats
	Idle     int
	Waiting  int
}

// Hosts returns the keys that have a connection or somebody who waits for one,
// in order of Host and Addr.
func (p *Pool) Hosts() []HostStat {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]HostStat, 0, len(p.hosts))
	for k, h := range p.hosts {
		all = append(all, HostStat{
			Host: k.host, Addr: k.addr, Port: int(k.port), Protocol: k.protocol, TLS: k.tls, AuthUser: k.authUser,
			Open: h.open, Idle: len(h.idle), Waiting: len(h.waiters),
		})
	}
	slices.SortFunc(all, func(a, b HostStat) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Addr, b.Addr), cmp.Compare(a.Port, b.Port),
			cmp.Compare(a.AuthUser, b.AuthUser), cmp.Compare(a.TLS, b.TLS))
	})
	return all
}

// AddrStat tells of an address that could not be reached lately.
type AddrStat struct {
	Addr     string     // address or socket
	Bind     netip.Addr // as in smtpclient.Options
	Failures int        // in a row
	Until    time.Time  // left alone until then
	Last     string     // the last failure
}

// Unreachable returns the addresses whose last connection failed, in order.
func (p *Pool) Unreachable() []AddrStat {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []AddrStat
	for s, r := range p.sites {
		if r.failures > 0 {
			all = append(all, AddrStat{Addr: s.addr, Bind: s.bind, Failures: r.failures, Until: r.until, Last: r.last.Error()})
		}
	}
	slices.SortFunc(all, func(a, b AddrStat) int { return cmp.Or(cmp.Compare(a.Addr, b.Addr), a.Bind.Compare(b.Bind)) })
	return all
}

// Run closes connections that were idle for too long. When ctx ends it says
// goodbye to all idle ones and returns nil; from then on no connection is kept.
// Those in use are closed by their Send. Run is called once.
func (p *Pool) Run(ctx context.Context) error {
	p.mu.Lock()
	p.ctx, p.running = ctx, true
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
		if r.spare != nil && (now.IsZero() || now.Sub(r.began) > time.Second) { // nobody came for it
			r.spare.Close()
			r.spare = nil
			r.failures, r.until = 0, time.Time{}
		}
		if r.idle(now) {
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
}
