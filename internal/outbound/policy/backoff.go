package policy

import (
	"math"
	"time"
)

// Backoff says how long a deferred delivery waits, and when it has waited long
// enough.
type Backoff struct {
	// Intervals are the waits after the first, second, … deferral. After one
	// more deferral than there are intervals the delivery has expired.
	Intervals []time.Duration
	// MaxLifetime is how long after its arrival a message expires, however
	// many intervals are left; 0: it does not.
	MaxLifetime time.Duration
	// Jitter is by how much of itself a wait may be longer or shorter: 0 to 1.
	Jitter float64
}

// Interval returns the wait after deferral number attempts, counted from 1. ok
// is false when that were too many failures.
func (b Backoff) Interval(attempts int) (wait time.Duration, ok bool) {
	if attempts < 1 || attempts > len(b.Intervals) {
		return 0, false
	}
	return b.Intervals[attempts-1], true
}

// Spread returns wait with its jitter: random in [0,1) says how much of it.
func (b Backoff) Spread(wait time.Duration, random float64) time.Duration {
	more := (random*2 - 1) * b.Jitter * float64(wait)
	if more >= float64(math.MaxInt64-wait) {
		return math.MaxInt64
	}
	return max(0, wait+time.Duration(more))
}

// Patience is how long all attempts together take when each fails at once, and
// a quarter more; at least five minutes. Mail for a suspended destination,
// so that its attempts do not count up, is kept as long.
func (b Backoff) Patience() time.Duration {
	sum := time.Duration(0)
	for _, w := range b.Intervals {
		if sum += w; sum < 0 || sum > 1<<61 {
			return 1 << 61
		}
	}
	return max(sum+sum/4, 5*time.Minute)
}

// Expired reports whether a message that arrived at received has outlived its
// lifetime at now.
func (b Backoff) Expired(received, now time.Time) bool {
	return b.MaxLifetime > 0 && !now.Before(received.Add(b.MaxLifetime))
}

// Until returns now + wait, but no later than the end of the lifetime: the
// last attempt is made there.
func (b Backoff) Until(received, now time.Time, wait time.Duration) time.Time {
	next := now.Add(wait)
	if b.MaxLifetime > 0 {
		if end := received.Add(b.MaxLifetime); end.Before(next) {
			return end
		}
	}
	return next
}
