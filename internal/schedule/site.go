package schedule

import (
	"math"
	"time"
)

const (
	firstProbe   = 30 * time.Second
	longestProbe = 15 * time.Minute
	// doubt is how many attempts in a row that reach nobody suspend a site of
	// which more are running.
	doubt = 10
)

// site is what the domains that share their MX share: places, rate and
// suspension. A domain whose MX are not known has one of its own.
type site struct {
	name    string
	shared  bool // it is in Schedule.sites
	domains int32
	limits  *Limits
	rings   [classes]siteRing

	running int32
	limit   int32 // of running; between Low and High
	good    int32 // successes at the limit since it last moved
	settle  int32 // results that are older than the last cut of limit
	braked  bool  // limit was cut before: it grows slowly

	tat       int64 // when the rate's allowance is used up evenly
	fails     int32 // attempts in a row that reached nobody
	until     int64 // suspended: when the next probe is due; 0: it is not
	since     int64 // suspended
	probes    int32 // that failed
	probe     *Unit // that runs
	trusted   bool  // the last attempt was not in vain, nor too much
	leftOut   bool  // in Schedule.leftOut
	slow      bool  // the last attempt had no success within slowAfter
	queued    bool  // in Schedule.slowWait
	called    bool  // in Schedule.called: it is its turn
	late      int32 // running without a place
	pace      int32 // how long attempts that reach it take: milliseconds, at least 1; 0: not known
	alarm     int32 // place in Schedule.alarms, from 1; 0: none
	alarmAt   int64
	lastError string
}

func newSite(name string, l *Limits) *site {
	t := &site{name: name}
	t.obey(l)
	t.limit = t.start()
	return t
}

func (t *site) obey(l *Limits) {
	if t.limits == l {
		return
	}
	t.limits = l
	t.limit = min(max(t.limit, t.low()), t.high())
}

func (t *site) high() int32 {
	if t.limits.High <= 0 || t.limits.High > math.MaxInt32 {
		return math.MaxInt32
	}
	return int32(t.limits.High)
}

func (t *site) low() int32 { return min(max(1, int32(min(t.limits.Low, math.MaxInt32))), t.high()) }

func (t *site) start() int32 {
	if t.limits.Start <= 0 || t.limits.Start > math.MaxInt32 {
		return t.high()
	}
	return min(max(int32(t.limits.Start), t.low()), t.high())
}

// places is how many may run now: each failure in a row takes one away.
func (t *site) places() int32 {
	if t.fails > 0 {
		return max(t.limit-t.fails, min(2, t.limit))
	}
	return t.limit
}

const (
	open obstacle = iota
	full
	crowded // it has all that it may have of the places that are left
	rated
	suspended
	probed // a probe is running
	stuck  // attempts at it run without a place
	slowed // it is slow, and others are too
)

// take notes that u, a unit of the site, has been handed out.
func (t *site) take(u *Unit, now int64) {
	t.running++
	u.dest.active++
	if u.state == displaced {
		u.state = running
	}
	if t.until != 0 {
		t.probe = u
	}
	if i := t.limits.Rate.interval(); i > 0 {
		t.tat = max(t.tat, now) + i
	}
}

// leave is the opposite, but for the rate. A unit without a place is counted as
// such elsewhere then.
func (s *Schedule) leave(t *site, u *Unit) (outside bool) {
	t.running--
	u.dest.active--
	if t.probe == u {
		t.probe = nil
	}
	outside = s.spans[u.index].outside
	if outside {
		t.late--
		u.dest.late--
	}
	return outside
}

// plain reports whether a new site of the same domain would be just the same.
func (t *site) plain(now int64) bool {
	return !t.shared && t.running == 0 && t.until == 0 && t.fails == 0 && t.tat <= now && t.limit == t.start() && !t.braked && !t.slow
}
