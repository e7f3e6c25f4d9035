package limit

import (
	"context"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/ledger"
)

const (
	// deliveryLife is how long the count of a domain stands in Redis after its last delivery
	// began or was renewed.
	deliveryLife = 5 * time.Minute

	// claimLife is how long a delivery counts of which no hook says what became of it: its
	// message was removed, or another plugin postponed it.
	claimLife = 15 * time.Minute

	// noteClaim is the delivery's note with its claim.
	noteClaim = "limit_claim"
)

// claim is a delivery that counts among those to its domain.
type claim struct{ hold *ledger.Hold }

// checkDelivery postpones a delivery to a domain that has too many of them at a time, or had
// too many lately.
func (l *limiter) checkDelivery(ctx context.Context, e *hook.Event, f *force) hook.Verdict {
	domain := e.Delivery.Domain()
	if limit := f.Outbound.limits[domain]; f.Outbound.Enabled && limit > 0 && !l.admit(ctx, e, f, limit) {
		return hook.Verdict{Code: hook.Delay, Delay: f.Outbound.Delay}
	}
	if !f.RateOutbound.Enabled {
		return hook.Proceed()
	}

	// The nearest domain with a rate counts all that are below it.
	key, r, ok := f.RateOutbound.ofDomain(domain)
	if !ok {
		key, r = domain, f.RateOutbound.Default
	}
	if r.Limit == 0 {
		return hook.Proceed()
	}
	n, err := f.counts.Add(ctx, ledger.Key{Name: rateOutbound + ":" + key}, 1, ledger.Life{For: r.Window})
	if err != nil {
		l.log.Warn("delivery cannot be counted", zap.String("uuid", string(e.Delivery.ID())), zap.String("domain", domain), zap.Error(err))
	}
	if n <= r.Limit {
		return hook.Proceed()
	}
	l.release(e)
	return hook.Verdict{Code: hook.Delay, Delay: r.Window}
}

// admit reports whether there is room for one more delivery to its domain, which it takes.
func (l *limiter) admit(ctx context.Context, e *hook.Event, f *force, limit int64) bool {
	// An attempt that was interrupted has left its claim.
	domain := e.Delivery.Domain()
	if c, ok := e.Delivery.Notes().Get(noteClaim).(*claim); ok && l.prolong(c) {
		return true
	}
	h, err := f.counts.Hold(ctx, ledger.Key{Name: "outbound-rate:" + domain, Field: "TOTAL"}, deliveryLife)
	if err != nil {
		l.log.Warn("delivery cannot be counted", zap.String("uuid", string(e.Delivery.ID())), zap.String("domain", domain), zap.Error(err))
		return true
	}
	if h.Count > limit {
		h.Release()
		return false
	}

	// The note is no JSON, so it ends with the process, as the attempt does.
	c := &claim{h}
	l.mu.Lock()
	l.claims[c] = time.Now()
	l.mu.Unlock()
	e.Delivery.Notes().Set(noteClaim, c)
	return true
}

// prolong reports whether a claim still counts, and has it count for longer.
func (l *limiter) prolong(c *claim) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.claims[c]
	if ok {
		l.claims[c] = time.Now()
	}
	return ok
}

// releaseDelivery ends what a delivery counts for, at the first hook that says what became
// of some of its recipients: by then nothing is being sent.
func (l *limiter) releaseDelivery(_ context.Context, e *hook.Event, _ *force) hook.Verdict {
	l.release(e)
	return hook.Proceed()
}

func (l *limiter) release(e *hook.Event) {
	c, ok := e.Delivery.Notes().Get(noteClaim).(*claim)
	if !ok {
		return
	}
	e.Delivery.Notes().Remove(noteClaim)
	l.endClaim(c)
}

// endClaim ends a claim, unless that was done.
func (l *limiter) endClaim(c *claim) {
	l.mu.Lock()
	_, ok := l.claims[c]
	delete(l.claims, c)
	l.mu.Unlock()
	if ok { // the lock is not held while Redis is waited for
		c.hold.Release()
	}
}

// oldClaims are those that nothing was heard of for long.
func (l *limiter) oldClaims() (old []*claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c, since := range l.claims {
		if time.Since(since) >= claimLife {
			old = append(old, c)
		}
	}
	return old
}

// expireClaims ends the claims of deliveries not heard of for long, until ctx
// ends.
func (l *limiter) expireClaims(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, c := range l.oldClaims() {
				l.endClaim(c)
			}
		case <-ctx.Done():
			return
		}
	}
}
