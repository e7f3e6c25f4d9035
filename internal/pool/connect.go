package pool

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/smtpclient"
)

const (
	// stagger is the Connection Attempt Delay of RFC 8305 section 5.
	stagger = 250 * time.Millisecond

	connectTimeout = 30 * time.Second // where Options have none
	clearFor       = time.Hour        // how long a failed handshake is remembered
	maxClear       = 4096             // of how many addresses
)

// suite is what a TLS handshake can fail with.
type suite struct {
	addr   string
	config *tls.Config
}

// connect makes a connection to one of t's addresses; of is t's key.
func (p *Pool) connect(ctx context.Context, t *Target, of key) (*kept, error) {
	if err := needsToken(ctx, t); err != nil {
		return nil, err
	}
	budget := cmp.Or(max(t.ConnectTimeout, 0), connectTimeout)
	rest := []string{t.Addr}
	if len(t.Addrs) > 0 {
		if rest = p.orderAddrs(t); len(rest) == 0 {
			return nil, &smtpclient.Failure{
				Stage: smtpclient.StageConnect, Err: errors.New("no address of the family of " + t.Bind.String()),
				Fresh: true, Addr: t.Addrs[0].String(),
			}
		}
	}
	var last error
	for {
		// Each round races the addresses that are left for a socket, and then talks to the
		// server there; the time for connecting is for all rounds together.
		d, err := p.raceAddrs(ctx, t, &rest, budget)
		if d == nil {
			// What a server said tells more than that the others are not there.
			if last != nil {
				err = last
			}
			return nil, err
		}
		budget -= d.took
		k, err := p.prepare(ctx, t, of, d, budget)
		if err == nil {
			return k, nil
		}
		if last = err; len(rest) == 0 || budget <= 0 || ctx.Err() != nil || !elsewhere(err) {
			return nil, err
		}
		p.log.Debug("trying the host's next address", zap.Error(err))
	}
}

// needsToken fails if t needs an access token and there is none: no server is bothered then.
func needsToken(ctx context.Context, t *Target) error {
	if t.Tokens == nil {
		return nil
	}
	_, err := t.Tokens.Token(ctx)
	switch {
	case ctx.Err() != nil:
		return noSlot(t.firstAddr(), ctx.Err())
	case err != nil:
		return &smtpclient.Failure{Stage: smtpclient.StageAuth, Err: err, Fresh: true, Addr: t.firstAddr()}
	}
	return nil
}

// elsewhere reports whether another address of the same host may do better.
// Credentials that were refused are not tried on all of them.
func elsewhere(err error) bool {
	var f *smtpclient.Failure
	return errors.As(err, &f) && (f.Stage != smtpclient.StageAuth || f.Reply == nil || !f.Reply.Permanent())
}

// orderAddrs returns t's addresses in the order in which they are tried: the families
// in turn (RFC 8305 section 4), those that failed lately last.
func (p *Pool) orderAddrs(t *Target) []string {
	// An address of the wrong family cannot be reached from Bind.
	var families [2][]netip.AddrPort // the first one's, the other
	for _, a := range t.Addrs {
		is4 := a.Addr().Unmap().Is4()
		if t.Bind.IsValid() && t.Bind.Unmap().Is4() != is4 {
			continue
		}
		i := 0
		if len(families[0]) > 0 && families[0][0].Addr().Unmap().Is4() != is4 {
			i = 1
		}
		families[i] = append(families[i], a)
	}

	// One of each family in turn; those known to be bad lose their place, but are not given
	// up.
	var good, bad []string
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for i := range max(len(families[0]), len(families[1])) {
		for _, f := range families {
			if i >= len(f) {
				continue
			}
			addr := f[i].String()
			if r := p.sites[t.site(addr)]; r != nil && r.doubtful(now) {
				bad = append(bad, addr)
			} else {
				good = append(good, addr)
			}
		}
	}
	return append(good, bad...)
}

func (t *Target) site(addr string) site { return site{t.Network, addr, t.Bind} }

// dialed is a socket that connected, entered at its site.
type dialed struct {
	addr  string
	raw   net.Conn
	reach *reach
	start time.Time
	took  time.Duration // of the whole race
}

// raceAddrs connects to the first of addrs that answers, and takes it and those that
// were tried in vain off the list. All sockets but the one that is returned are
// closed then. A nil dialed comes with the last error.
func (p *Pool) raceAddrs(ctx context.Context, t *Target, addrs *[]string, budget time.Duration) (*dialed, error) {
	begin := time.Now()
	if len(*addrs) == 1 { // nobody to race with
		d := &dialed{addr: (*addrs)[0]}
		*addrs = nil
		err := p.dialAddr(ctx, t, d, budget)
		if err != nil {
			return nil, err
		}
		d.took = time.Since(begin)
		return d, nil
	}

	// The addresses that nobody has tried yet, or that lost only because another was
	// faster, stay for the next round.
	inner, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	r := heat{pool: p, target: t, budget: budget, list: *addrs, settled: make([]bool, len(*addrs)), results: make(chan runner)}
	won, last := r.runToEnd(inner, cancel)
	*addrs = nil
	for i, addr := range r.list {
		if !r.settled[i] {
			*addrs = append(*addrs, addr)
		}
	}
	if won == nil {
		return nil, last
	}
	won.took = time.Since(begin)
	return won, nil
}

// heat is one race of the addresses in list.
type heat struct {
	pool    *Pool
	target  *Target
	budget  time.Duration
	list    []string
	settled []bool // answered, or tried in vain
	results chan runner
	started int
	pending int // started, and not ended
}

// runner is how one address fared.
type runner struct {
	dialed
	err  error
	lane int // in heat.list
}

// startNext dials the next address.
func (h *heat) startNext(ctx context.Context) {
	a := runner{dialed: dialed{addr: h.list[h.started]}, lane: h.started}
	h.started++
	h.pending++
	go func() {
		a.err = h.pool.dialAddr(ctx, h.target, &a.dialed, h.budget)
		h.results <- a
	}()
}

// runToEnd starts one address after another until one has answered, and waits for all that
// were started: each reports itself to its site first. stop ends those that are late.
func (h *heat) runToEnd(ctx context.Context, stop func()) (won *dialed, last error) {
	tick := time.NewTimer(stagger)
	defer tick.Stop()
	h.startNext(ctx)
	for h.pending > 0 {
		select {
		case <-tick.C:
			if won == nil && h.started < len(h.list) {
				h.startNext(ctx)
				tick.Reset(stagger)
			}

		// The first socket wins. Later ones are closed without a word about their address;
		// a failure starts the next address at once.
		case a := <-h.results:
			h.pending--
			switch {
			case a.err == nil && won == nil:
				won, h.settled[a.lane] = &a.dialed, true
				stop()
			case a.err == nil:
				a.raw.Close()
				h.pool.leaveSite(a.reach, a.start, nothingKnown, nil)
			case won == nil:
				h.settled[a.lane] = true
				if last = a.err; h.started < len(h.list) && ctx.Err() == nil {
					h.startNext(ctx)
					tick.Reset(stagger)
				}
			}
		}
	}
	return won, last
}

// dialAddr connects to d.addr, which may be dialed then; on success the site is left
// by prepare.
func (p *Pool) dialAddr(ctx context.Context, t *Target, d *dialed, budget time.Duration) error {
	o := t.Options
	o.Addr, o.ConnectTimeout = d.addr, budget
	r, raw, err := p.enterSite(ctx, t.site(d.addr), o)
	if err != nil {
		return err
	}
	d.start, d.reach, d.raw = time.Now(), r, raw
	if raw != nil {
		return nil
	}
	if d.raw, err = p.dialTCP(ctx, o); err == nil {
		return nil
	}

	// An address that was cut off because another one won is not down, but it may be slow.
	v := judgeDial(ctx, d.start, min(slow, budget/2), err)
	if errors.Is(context.Cause(ctx), context.Canceled) && len(t.Addrs) > 1 && v != answers {
		v = nothingKnown
		if time.Since(d.start) >= stagger {
			v = late
		}
	}
	p.leaveSite(r, d.start, v, err)
	return err
}

// prepare makes a connection of a socket, in clear if TLS is an offer that does
// not work.
func (p *Pool) prepare(ctx context.Context, t *Target, of key, d *dialed, budget time.Duration) (*kept, error) {
	if err := p.refused(of, true); err != nil { // since this one began
		d.raw.Close()
		p.leaveSite(d.reach, d.start, nothingKnown, nil)
		return nil, err
	}
	start := time.Now()
	o := t.Options
	o.Addr = d.addr
	s := suite{d.addr, t.TLSConfig}
	may := t.TLS == smtpclient.TLSMay && !t.ImplicitTLS
	if may && p.speaksClear(s) {
		o.TLS = smtpclient.TLSNone
	}

	// With TLS as an offer a handshake that fails must not keep mail back: one more
	// connection goes on in clear, and the address is remembered. A new access token that the
	// server did not wait for is shown on another connection too.
	c, err := p.open(ctx, d.raw, o)
	o.ConnectTimeout = max(budget, time.Second)
	if f := failureOf(err); f != nil && f.Handshake && may && ctx.Err() == nil {
		p.log.Debug("TLS handshake failed, going on in clear", zap.String("addr", d.addr), zap.Error(err))
		o.TLS = smtpclient.TLSNone
		if c, err = p.reopen(ctx, o); err == nil {
			p.rememberClear(s)
		}
	}
	if f := failureOf(err); f != nil && f.Renewed && ctx.Err() == nil {
		c, err = p.reopen(ctx, o)
	}

	// What the conversation came to is recorded for the credentials and for the address.
	p.answered(of, start, err)
	p.leaveSite(d.reach, d.start, judgeDial(ctx, d.start, slow, err), err)
	if err != nil {
		return nil, err
	}
	return &kept{Conn: c, born: time.Now()}, nil
}

// reopen makes one more connection to an address that a connection was made to just now.
func (p *Pool) reopen(ctx context.Context, o smtpclient.Options) (Conn, error) {
	p.mu.Lock()
	p.stats.Dials++
	p.mu.Unlock()
	raw, err := p.dialTCP(ctx, o)
	if err != nil {
		return nil, err
	}
	return p.open(ctx, raw, o)
}

// speaksClear reports whether a handshake failed lately.
func (p *Pool) speaksClear(s suite) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, found := p.clear[s]
	return found && time.Now().Before(until)
}

func (p *Pool) rememberClear(s suite) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.clear) >= maxClear { // forgetting one costs one handshake
		for other := range p.clear {
			delete(p.clear, other)
			break
		}
	}
	p.clear[s] = time.Now().Add(clearFor)
}
