package throttle

import (
	"math"
	"time"
)

// Bounds of the time that an attempt takes.
const (
	// SlowAfter is how long the last attempt at a site was without success when the
	// site counts as slow.
	SlowAfter = 10 * time.Second

	// StrangerPatience is the shortest Patience: at an unknown site.
	StrangerPatience = 750 * time.Millisecond
	leastPatience    = 1500 * time.Millisecond // at one that takes mail

	// usual is how many times as long as others an attempt takes when it is late.
	usual = 8
)

// Pace is how long attempts that reach their destination take: a mean in which the
// last ones count most, in milliseconds, at least 1. 0 means that it is not known.
type Pace int32

// Mix adds one attempt to the mean.
func (p *Pace) Mix(took time.Duration) {
	ms := Pace(min(took/time.Millisecond+1, math.MaxInt32/8))

	// The first attempt is all that is known.
	if *p == 0 {
		*p = ms
		return
	}
	*p = max(1, *p+(ms-*p)/4)
}

// Late returns how long an attempt may take at that pace: between least and
// SlowAfter.
func (p Pace) Late(least time.Duration) time.Duration {
	return min(max(usual*time.Duration(p)*time.Millisecond, least), SlowAfter)
}

// Learn notes how long an attempt took, after its outcome was reported.
func (t *State) Learn(took time.Duration) {
	if !t.trusted {
		t.slow = t.slow || took >= SlowAfter
		return
	}
	t.slow = false
	t.pace.Mix(took)
}

// Slow reports whether the last attempt had no success within SlowAfter.
func (t *State) Slow() bool { return t.slow }

// MarkSlow notes that an attempt, which still runs, has taken too long.
func (t *State) MarkSlow() { t.slow = true }

// Steady reports whether a site takes mail though it needs long for it.
func (t *State) Steady() bool {
	return t.trusted && time.Duration(t.pace)*time.Millisecond >= SlowAfter/2
}

// Patience is for how long an attempt keeps its place though others wait for one.
// others is the pace of all sites together.
func (t *State) Patience(others Pace) time.Duration {
	switch {
	case t.slow:
		return SlowAfter
	case !t.trusted:
		return StrangerPatience
	}
	return max(t.pace, others).Late(leastPatience)
}
