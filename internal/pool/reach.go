package pool

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/smtpclient"
)

const (
	firstWindow = time.Second
	lastWindow  = time.Minute
	proofLasts  = time.Minute      // how long a success vouches for an address
	strangers   = 4                // dials at once to an address without proof
	remembered  = 10 * time.Minute // after the last failure
	slow        = time.Second      // a dial cut off by its context counts as failed from here on
)

// site is what can be unreachable.
type site struct {
	network, addr string
	bind          netip.Addr
}

// reach is what is known of a site. Its fields are guarded by Pool.mu.
type reach struct {
	dialing  int
	changed  chan struct{} // closed and replaced when a dial ends
	wellAt   time.Time     // last success
	failures int           // since then, a burst counted once
	failedAt time.Time
	until    time.Time // back-off: nobody dials before
	last     *smtpclient.Failure
}

// limit is how many may dial at once.
func (r *reach) limit(now time.Time) int {
	switch {
	case r.failures > 0:
		return 1
	case now.Sub(r.wellAt) < proofLasts:
		return math.MaxInt
	}
	return strangers
}

func (r *reach) idle(now time.Time) bool {
	return r.dialing == 0 && now.Sub(r.failedAt) > remembered && now.Sub(r.wellAt) > proofLasts
}

// connect makes a connection when the site may be dialed.
func (p *Pool) connect(ctx context.Context, t *Target) (*kept, error) {
	r, err := p.enter(ctx, t)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	c, err := p.dial(ctx, t.Options)
	var f *smtpclient.Failure
	if errors.As(err, &f) && f.Handshake && t.TLS == smtpclient.TLSMay && !t.ImplicitTLS && ctx.Err() == nil {
		p.log.Debug("TLS handshake failed, going on in clear", zap.String("addr", t.Addr), zap.Error(err))
		o := t.Options
		o.TLS = smtpclient.TLSNone
		p.mu.Lock()
		p.stats.Dials++
		p.mu.Unlock()
		c, err = p.dial(ctx, o)
	}
	p.leave(ctx, r, start, err)
	if err != nil {
		return nil, err
	}
	return &kept{Conn: c, born: time.Now()}, nil
}

// enter waits until t's site may be dialed, or says that it cannot be reached.
func (p *Pool) enter(ctx context.Context, t *Target) (*reach, error) {
	s := site{t.Network, t.Addr, t.Bind}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.sites[s]
	if r == nil {
		r = &reach{changed: make(chan struct{})}
		p.sites[s] = r
	}
	for {
		now := time.Now()
		if now.Before(r.until) {
			p.stats.Refused++
			f := *r.last
			return nil, &f
		}
		if r.dialing < r.limit(now) {
			r.dialing++
			p.stats.Dials++
			return r, nil
		}
		changed := r.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, noSlot(t, err)
		}
	}
}

// leave records how a dial that began at start ended.
func (p *Pool) leave(ctx context.Context, r *reach, start time.Time, err error) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	r.dialing--
	close(r.changed)
	r.changed = make(chan struct{})
	var f *smtpclient.Failure
	switch {
	case err == nil:
		r.wellAt, r.failures, r.until = now, 0, time.Time{}
	case !errors.As(err, &f) || ctx.Err() != nil && now.Sub(start) < slow:
	case !f.Unreachable():
		r.failures, r.until = 0, time.Time{}
	case r.failures > 0 && start.Before(r.failedAt): // one of a burst
	default:
		r.failures++
		r.failedAt, r.last = now, f
		r.until = now.Add(window(r.failures))
		p.log.Debug("address is left alone", zap.Error(f), zap.Int("failures", r.failures), zap.Time("until", r.until))
	}
}

// window is how long a site is left alone after its n-th failure, n from 1.
func window(n int) time.Duration {
	d := min(firstWindow<<min(n-1, 10), lastWindow)
	return d - rand.N(d/4)
}
