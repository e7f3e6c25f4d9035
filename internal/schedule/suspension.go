package schedule

import "time"

// Outcome is what an attempt tells about its destination.
type Outcome struct {
	Reached   bool   // a server let us speak of the mail; false: there is none that does
	Throttled bool   // it said that this was too much, or did not answer in time
	Local     bool   // it failed on this host: only Err is to be noted
	Err       string // the last reply or error, unless all went well
}

// Change is what a report changes for a site.
type Change uint8

// The changes of a site.
const (
	Same Change = iota
	Suspended
	Resumed
)

// Report notes what became of a running unit's attempt. It comes before Done or
// Defer. An attempt that says nothing about the destination is not reported. It
// returns what that changes for which site, and when a suspended one is probed.
func (s *Schedule) Report(u *Unit, o Outcome, now time.Time) (site string, change Change, probe time.Time) {
	t := u.dest.site
	if !u.Running() || u.flags&(expired|late) != 0 {
		return "", Same, time.Time{}
	}
	was := t.until != 0
	s.report(t, u, o, now.UnixNano())
	switch is := t.until != 0; {
	case is && !was:
		return t.name, Suspended, time.Unix(0, t.until)
	case was && !is:
		return t.name, Resumed, time.Time{}
	}
	return t.name, Same, time.Time{}
}

func (s *Schedule) report(t *site, u *Unit, o Outcome, at int64) {
	if o.Err != "" {
		t.lastError = o.Err
	}
	s.spans[u.index].answered = true
	if o.Local {
		return
	}
	t.trusted = o.Reached && !o.Throttled
	s.learn(t, u, at)
	switch {
	case t.settle > 0:
		t.settle--
	case o.Throttled || !o.Reached:
		if t.limit > t.low() {
			t.limit = max(t.low(), min(t.limit, max(t.running, 1))/2)
			t.settle, t.good, t.braked = t.running-1, 0, true
		}
	case t.running >= t.limit && t.limit < t.high():
		if t.good++; !t.braked || t.good >= t.limit {
			t.limit++
			t.good = 0
		}
	}
	switch {
	case o.Reached:
		t.fails = 0
		if t.until != 0 {
			t.until, t.probes = 0, 0
			t.limit, t.good, t.settle, t.braked = min(t.start(), max(2, t.low())), 0, 0, false
		}
	case t.until == 0:
		if t.fails++; t.fails >= min(t.limit, doubt) || t.running == 1 {
			t.fails = 0
			s.suspend(t, at)
		}
	case t.probe == u:
		t.probes++
		s.suspend(t, at)
	}
	s.offer(t, at)
}

// suspend sets when the site is probed next.
func (s *Schedule) suspend(t *site, now int64) {
	wait := firstProbe << min(t.probes, 16)
	if n := len(t.limits.Probes); n > 0 {
		wait = t.limits.Probes[min(int(t.probes), n-1)] / 2
	}
	wait = min(wait, longestProbe)
	if s.o.Random != nil { // a fifth more or less
		wait += time.Duration((s.o.Random()*2 - 1) / 5 * float64(wait))
	}
	if t.until == 0 {
		t.since = now
	}
	t.until = now + int64(max(wait, time.Millisecond))
	s.sweepAt = min(s.sweepAt, now) // some may be past their patience
}
