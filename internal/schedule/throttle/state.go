package throttle

import "time"

const (
	firstProbe   = 30 * time.Second
	longestProbe = 15 * time.Minute
	// doubt is how many attempts in a row that reach nobody suspend a site where
	// more are running.
	doubt = 10
)

// State is the knowledge about one site. Make it with New.
type State struct {
	limits *Limits

	limit  int32 // of running attempts; between Low and High
	good   int32 // successes at the limit since it last moved
	stale  int32 // results to come of attempts that began before the last cut of limit
	braked bool  // limit was cut before: it grows slowly

	trusted bool // the last attempt was not in vain, nor too much
	slow    bool // the last attempt had no success within SlowAfter
	pace    Pace

	fails  int32 // attempts in a row that reached nobody
	probes int32 // that failed
	until  int64 // suspended: when the next probe is due; 0: it is not
	since  int64 // suspended

	spent     int64 // when the rate's allowance is used up evenly (GCRA's theoretical arrival time)
	lastError string
}

// New returns the State of an unknown site.
func New(l *Limits) State {
	return State{limits: l, limit: l.startLimit()}
}

// Limits returns what the site may be asked to bear.
func (t *State) Limits() *Limits { return t.limits }

// SetLimits replaces the limits. What was learned is kept as far as they allow it.
func (t *State) SetLimits(l *Limits, now int64) {
	if t.limits == l {
		return
	}
	was, is := t.limits.Rate.interval(), l.Rate.interval()
	t.limits = l
	t.limit = min(max(t.limit, l.lowLimit()), l.highLimit())

	// As many attempts as before have used up the rate. Without the conversion a site
	// with a rate of a few an hour would go on waiting for hours when it gets a higher one.
	switch ahead := t.spent - now; {
	case was == is || ahead <= 0:
	case is == 0:
		t.spent = now
	default:
		t.spent = now + int64(float64(ahead)/float64(was)*float64(is))
	}
}

// Places returns how many attempts may run now: each failure in a row takes one
// away.
func (t *State) Places() int32 {
	if t.fails > 0 {
		return max(t.limit-t.fails, min(2, t.limit))
	}
	return t.limit
}

// Window returns the limit of attempts at a time without regard to failures.
func (t *State) Window() int32 { return t.limit }

// NextByRate returns when the rate lets the next attempt begin; not limited: at
// once.
func (t *State) NextByRate(now int64) (at int64, limited bool) {
	if t.limits.Rate.interval() == 0 {
		return now, false
	}
	at = t.spent - t.limits.Rate.slack()
	return at, at > now
}

// Begin notes that an attempt begins.
func (t *State) Begin(now int64) {
	if i := t.limits.Rate.interval(); i > 0 {
		t.spent = max(t.spent, now) + i
	}
}

// Suspended returns until when the site is suspended; 0: it is not. At that time
// it is to be probed by one attempt.
func (t *State) Suspended() int64 { return t.until }

// SuspendedSince returns when the suspension began. It means nothing while there
// is none.
func (t *State) SuspendedSince() int64 { return t.since }

// ProbeNow makes the next probe of a suspended site due at now.
func (t *State) ProbeNow(now int64) { t.until = now }

// LastError returns the last error that was reported; "": none.
func (t *State) LastError() string { return t.lastError }

// SetLastError carries on what a State before this one knew.
func (t *State) SetLastError(text string) { t.lastError = text }

// Trusted reports whether the last attempt was neither in vain nor too much.
func (t *State) Trusted() bool { return t.trusted }

// Busy reports whether the State holds something that only time takes away: a
// suspension or a rate that is used up.
func (t *State) Busy(now int64) bool { return t.spent > now || t.until > now }

// Plain reports whether a new State would let the site do just the same.
func (t *State) Plain(now int64) bool {
	return t.until == 0 && t.fails == 0 && t.spent <= now && t.limit == t.limits.startLimit() && !t.braked && !t.slow
}

// Rewind follows a clock that was set back by so much.
func (t *State) Rewind(by int64) {
	t.spent -= by
	if t.until != 0 {
		t.until, t.since = max(1, t.until-by), t.since-by
	}
}

// Report learns from an attempt that has an outcome. running is how many run with
// it, probe whether it is the probe of a suspended site; random in [0,1) spreads
// the time of the next probe (nil: it is not spread). It returns whether a
// suspension began or was extended.
func (t *State) Report(o Outcome, running int32, probe bool, now int64, random func() float64) (suspended bool) {
	if o.Err != "" {
		t.lastError = o.Err
	}
	if o.Local {
		return false
	}
	t.trusted = o.Reached && !o.Throttled
	t.adaptLimit(running)

	// Suspension: enough attempts in a row that reach nobody begin it, a probe that
	// reaches somebody ends it.
	switch {
	case o.Reached:
		t.fails = 0
		if t.until != 0 {
			t.resume()
		}
	case t.until == 0:
		if t.fails++; t.fails < min(t.limit, doubt) && running != 1 {
			return false
		}
		t.fails = 0
		t.suspend(now, random)
		return true
	case probe:
		t.probes++
		t.suspend(now, random)
		return true
	}
	return false
}

// adaptLimit moves the limit of attempts at a time: additive increase, multiplicative
// decrease.
func (t *State) adaptLimit(running int32) {
	// A cut takes half at once and a success gives one back, so that sites settle below what
	// they refuse.
	low, high := t.limits.lowLimit(), t.limits.highLimit()
	switch {
	case t.stale > 0: // one cut answers all attempts that ran when it was made
		t.stale--
	case !t.trusted:
		if t.limit > low {
			t.limit = max(low, min(t.limit, max(running, 1))/2)
			t.stale, t.good, t.braked = running-1, 0, true
		}
	case running >= t.limit && t.limit < high:
		if t.good++; !t.braked || t.good >= t.limit {
			t.limit++
			t.good = 0
		}
	}
}

// suspend sets when the site is probed next.
func (t *State) suspend(now int64, random func() float64) {
	// Each probe that fails makes the next one wait longer.
	wait := firstProbe << min(t.probes, 16)
	if n := len(t.limits.Probes); n > 0 {
		wait = t.limits.Probes[min(int(t.probes), n-1)] / 2
	}
	wait = min(wait, longestProbe)
	if random != nil { // a fifth more or less
		wait += time.Duration((random()*2 - 1) / 5 * float64(wait))
	}
	if t.until == 0 {
		t.since = now
	}
	t.until = now + int64(max(wait, time.Millisecond))
}

// resume ends a suspension. The site is pressed carefully at first.
func (t *State) resume() {
	// All that waited would come at once otherwise, and take it down again.
	t.until, t.probes = 0, 0
	t.limit = min(t.limits.startLimit(), max(2, t.limits.lowLimit()))
	t.good, t.stale, t.braked = 0, 0, false
}
