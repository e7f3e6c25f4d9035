package pool

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/smtpclient"
)

const (
	firstRefusal = 10 * time.Second
	lastRefusal  = 5 * time.Minute
	maxRefusals  = 4096
)

// refusal is the record of credentials that a server refused for good. Its
// fields are guarded by Pool.mu.
type refusal struct {
	times  int // in a row, a burst counted once
	at     time.Time
	until  time.Time // nobody tries before
	trying bool      // after that, one does
	last   *smtpclient.Failure
}

// authenticates reports whether a connection for k has credentials to show.
func (k *key) authenticates() bool { return k.authType != "" || k.authUser != "" }

// refused returns the failure for which the credentials of k are left alone, if
// they are. With claim the caller goes on to AUTH if they are not, and tells
// answered of the end.
func (p *Pool) refused(k key, claim bool) error {
	if !k.authenticates() {
		return nil
	}
	k.single = 0
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.refusals[k]
	switch {
	case r == nil:
		return nil
	case r.trying || time.Now().Before(r.until):
		p.stats.Refused++
		f := *r.last
		return &f
	}
	r.trying = claim
	return nil
}

// answered records how an attempt to authenticate that began at start ended.
func (p *Pool) answered(k key, start time.Time, err error) {
	if !k.authenticates() {
		return
	}
	k.single = 0
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.refusals[k]
	f := (*smtpclient.Failure)(nil)
	switch {
	// Taken: whatever was held against the credentials is over.
	case err == nil:
		delete(p.refusals, k)
		return
	case !errors.As(err, &f) || f.Stage != smtpclient.StageAuth || f.Reply == nil || !f.Reply.Permanent():
		if r != nil && !start.Before(r.at) {
			r.trying = false
		}
		return
	case r == nil:
		if len(p.refusals) >= maxRefusals { // forgetting one costs one attempt
			for other := range p.refusals {
				delete(p.refusals, other)
				break
			}
		}
		r = &refusal{}
		p.refusals[k] = r
	case start.Before(r.at): // one of a burst
		return
	}

	// Each refusal in a row doubles the time for which they are not shown.
	now := time.Now()
	r.times++
	r.at, r.trying, r.last = now, false, f
	r.until = now.Add(min(firstRefusal<<min(r.times-1, 10), lastRefusal))
	p.log.Warn("credentials refused, not shown again for a while", zap.Error(f), zap.Int("times", r.times), zap.Time("until", r.until))
}
