package dispatch

import (
	"math"
	"time"

	"tarishi/internal/schedule/throttle"
	"tarishi/internal/schedule/unit"
)

// site is what the domains that share their MX share: places, rate and
// suspension. A domain without known MX has a site for itself.
type site struct {
	throttle.State
	name    string
	shared  bool // it is in Dispatcher.sites
	leftOut bool // in Dispatcher.leftOut
	queued  bool // in slowness.waiting
	called  bool // in slowness.called: it is its turn
	alarmed bool // in Dispatcher.alarms
	domains int32
	rings   [classes]siteRing

	running int32
	outside int32 // of them, without a place
	probe   *Unit // that runs while the site is suspended

	alarmPlace int32
	alarmAt    int64
}

func newSite(name string, l *throttle.Limits) *site {
	return &site{name: name, State: throttle.New(l)}
}

// At and Place are for Dispatcher.alarms.
func (t *site) At() int64     { return t.alarmAt }
func (t *site) Place() *int32 { return &t.alarmPlace }

// setAlarm has a site offered again at a time.
func (s *Dispatcher) setAlarm(t *site, at int64) {
	if t.alarmed {
		if t.alarmAt == at {
			return
		}
		s.alarms.Remove(t)
	}
	t.alarmed, t.alarmAt = true, at
	s.alarms.Push(t)
}

func (s *Dispatcher) cancelAlarm(t *site) {
	if t.alarmed {
		t.alarmed = false
		s.alarms.Remove(t)
	}
}

// obstacle is why a site gets no place.
type obstacle uint8

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

// obstacleOf says what keeps the site's ready units, and until when if time alone
// ends it.
func (s *Dispatcher) obstacleOf(t *site, now int64) (why obstacle, until int64) {
	// First what ends by itself or with one of the site's own attempts, then what others hold.
	switch probeAt := t.Suspended(); {
	case probeAt != 0 && t.probe != nil:
		return probed, 0
	case probeAt > now:
		return suspended, probeAt
	case probeAt != 0: // the one place of a probe
	case t.running >= t.Places():
		return full, 0
	case t.isStuck():
		return stuck, 0
	case s.hasShare(t):
		return crowded, 0
	}
	switch {
	case s.o.Outside > 0 && t.Slow() && (!s.slowRoom() || !t.called && len(s.slowWait) > 0):
		return slowed, 0
	case s.leavesQuarter(t):
		return crowded, 0
	}
	if at, limited := t.NextByRate(now); limited {
		return rated, at
	}
	return open, 0
}

// takePlace notes that u, a unit of the site, has been handed out.
func (t *site) takePlace(u *Unit, now int64) {
	t.running++
	u.dest.active++
	if u.State() == unit.Displaced {
		u.SetState(unit.Running)
	}
	if t.Suspended() != 0 {
		t.probe = u
	}
	t.Begin(now)
}

// leavePlace is the opposite, but for the rate. A unit without a place is counted as
// such elsewhere then.
func (s *Dispatcher) leavePlace(t *site, u *Unit) (outside bool) {
	t.running--
	u.dest.active--
	if t.probe == u {
		t.probe = nil
	}
	outside = s.spans[*u.Place()].outside
	if outside {
		t.outside--
		u.dest.outside--
	}
	return outside
}

// isPlain reports whether a new site of the same domain would be just the same.
func (t *site) isPlain(now int64) bool {
	return !t.shared && t.running == 0 && t.State.Plain(now)
}

// SiteStat describes a domain's site: 0, zero and "" where there is no
// limit, suspension or error.
type SiteStat struct {
	Name           string
	Limit          int // attempts at a time, now
	Rate           throttle.Rate
	SuspendedUntil time.Time
	LastError      string
}

// Site describes the domain's site.
func (d *Domain) Site() SiteStat {
	// While nothing of the domain is due it may have no site: a new one would be the same.
	t := d.site
	if t == nil {
		t = newSite(d.Name, d.limits)
		t.SetLastError(d.lastError)
	}
	v := SiteStat{Name: t.name, Rate: t.Limits().Rate, LastError: t.LastError()}
	if p := t.Places(); p < math.MaxInt32 {
		v.Limit = int(p)
	}
	if until := t.Suspended(); until != 0 {
		v.SuspendedUntil = time.Unix(0, until)
	}
	return v
}
