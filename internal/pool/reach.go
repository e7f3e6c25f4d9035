package pool

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net"
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

// patience is how long, from its begin, a probe of an address known to be down
// is waited for, and then the greeting of the server there. connect is the time
// for a connection.
func (r *reach) patience(connect time.Duration) time.Duration {
	if r.probing {
		return min(max(connect/100, 100*time.Millisecond), time.Second)
	}
	return time.Second
}

// site is what can be unreachable.
type site struct {
	network, addr string
	bind          netip.Addr
}

// reach is the record of a site. Its fields are guarded by Pool.mu.
type reach struct {
	dialing  int
	changed  chan struct{} // closed and replaced when a dial ends
	wellAt   time.Time     // last success
	lateAt   time.Time     // another address of the host answered, and this one had not for a while
	failures int           // since then, a burst counted once
	failedAt time.Time
	until    time.Time // back-off: nobody dials before
	last     *smtpclient.Failure

	// After the back-off: the probe, which is a socket that Run connects, or the
	// dial that follows it.
	began   time.Time
	probing bool
	spare   net.Conn // what the probe got, for the dial
}

// dialLimit is how many may dial at once.
func (r *reach) dialLimit(now time.Time) int {
	switch {
	case r.failures > 0:
		return 1
	case now.Sub(r.wellAt) < proofLasts:
		return math.MaxInt
	}
	return strangers
}

// doubtful reports whether other addresses of the same host are better.
func (r *reach) doubtful(now time.Time) bool { return r.failures > 0 || now.Sub(r.lateAt) < remembered }

func (r *reach) isIdle(now time.Time) bool {
	return r.dialing == 0 && !r.probing && r.spare == nil && now.Sub(r.failedAt) > remembered && now.Sub(r.wellAt) > proofLasts && now.Sub(r.lateAt) > remembered
}

// enterSite waits until a site may be dialed, or says that it cannot be reached. o
// tells how it is reached. What a probe has connected already is returned too.
func (p *Pool) enterSite(ctx context.Context, s site, o smtpclient.Options) (*reach, net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.sites[s]
	if r == nil {
		r = &reach{changed: make(chan struct{})}
		p.sites[s] = r
	}

	// Every wait ends with another look at the record.
	for {
		now := time.Now()
		var tired <-chan time.Time
		switch {
		case now.Before(r.until):
			return nil, nil, p.refuse(r)

		// The back-off is over: Run finds out, and nobody waits for it any longer than
		// patience.
		case r.failures > 0 && r.dialing == 0 && !r.probing && r.spare == nil && p.running:
			p.probeSite(r, s, o)
			continue

		// Somebody is finding out already.
		case r.failures > 0 && (r.dialing > 0 || r.probing):
			left := time.Until(r.began.Add(r.patience(o.ConnectTimeout)))
			if left <= 0 {
				return nil, nil, p.refuse(r)
			}
			t := time.NewTimer(left)
			defer t.Stop()
			tired = t.C

		// There is room: a socket that a probe left is used first.
		case r.dialing < r.dialLimit(now):
			r.dialing++
			if r.failures > 0 {
				r.began = now
			}
			spare := r.spare
			if r.spare = nil; spare == nil {
				p.stats.Dials++
			}
			return r, spare, nil
		}

		// Wait without the lock until a dial ends, patience is over, or the caller leaves.
		changed := r.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-tired:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, nil, noSlot(s.addr, err)
		}
	}
}

// refuse returns the failure that a site is left alone for. p.mu is held.
func (p *Pool) refuse(r *reach) error {
	p.stats.Refused++
	f := *r.last
	return &f
}

// probeSite connects to a site that was down, in a goroutine of Run, so that no
// message has to wait until a dead address is seen to be dead still. p.mu is held.
func (p *Pool) probeSite(r *reach, s site, o smtpclient.Options) {
	// It is no attempt of a message, and so its time is not taken from one.
	r.probing, r.began = true, time.Now()
	p.stats.Dials++
	ctx := p.ctx
	p.quits.Go(func() {
		start := time.Now()
		raw, err := p.dialTCP(ctx, o)
		p.mu.Lock()
		defer p.mu.Unlock()
		r.probing = false
		switch {
		case err != nil:
			p.record(r, start, judgeDial(ctx, start, slow, err), err)
		case p.stopped:
			raw.Close()
		default:
			r.spare, r.began = raw, time.Now()
		}
		r.notify()
	})
}

// notify wakes all that wait for a change. Pool.mu is held.
func (r *reach) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// verdict is the meaning of a dial for its site.
type verdict uint8

const (
	nothingKnown verdict = iota
	well
	late // answered by none yet, while another address was
	answers
	down
)

// judgeDial says what the end of a dial that began at start means. If ctx cut it off
// it has failed when it had enough time.
func judgeDial(ctx context.Context, start time.Time, enough time.Duration, err error) verdict {
	var f *smtpclient.Failure
	switch {
	case err == nil:
		return well
	case !errors.As(err, &f) || ctx.Err() != nil && time.Since(start) < enough:
		return nothingKnown
	case f.Unreachable():
		return down
	}
	return answers
}

// leaveSite records how a dial that began at start ended.
func (p *Pool) leaveSite(r *reach, start time.Time, v verdict, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.dialing--
	p.record(r, start, v, err)
	r.notify()
}

// record takes note of a verdict. p.mu is held.
func (p *Pool) record(r *reach, start time.Time, v verdict, err error) {
	now := time.Now()
	switch v {
	case well:
		r.wellAt, r.failures, r.until, r.lateAt = now, 0, time.Time{}, time.Time{}
	case answers:
		r.failures, r.until, r.lateAt = 0, time.Time{}, time.Time{}
	case late:
		r.lateAt = now
	case down:
		if r.failures > 0 && start.Before(r.failedAt) { // one of a burst
			return
		}
		var f *smtpclient.Failure
		errors.As(err, &f)
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
