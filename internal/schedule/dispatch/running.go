package dispatch

import (
	"time"

	"tarishi/internal/schedule/throttle"
	"tarishi/internal/schedule/unit"
)

// addRunning puts a unit among those that run.
func (s *Dispatcher) addRunning(u *Unit, r span) {
	u.SetState(unit.Running)
	*u.Place() = int32(len(s.runs))
	s.runs, s.spans = append(s.runs, u), append(s.spans, r)
}

// removeRunning takes a unit out of those that run.
func (s *Dispatcher) removeRunning(u *Unit) span {
	// The last one takes the place that is free.
	end := len(s.runs) - 1
	last, r := s.runs[end], s.spans[*u.Place()]
	s.runs[*u.Place()], s.spans[*u.Place()] = last, s.spans[end]
	*last.Place() = *u.Place()
	s.runs[end] = nil
	s.runs, s.spans = s.runs[:end], s.spans[:end]
	return r
}

// Release ends a running unit: its place is free, and its site gets its turns back
// if it was left out for its limit. The unit is in no state then.
func (s *Dispatcher) Release(u *Unit, now int64) {
	// The site first: its places depend on its running units.
	t := u.dest.site
	s.leavePlace(t, u)
	s.freePlace(u)
	if t.pending() {
		s.offerTurn(t, now)
	}
	s.readmit(now)
}

// freePlace takes a unit that was handed out away from the counts of those that run.
func (s *Dispatcher) freePlace(u *Unit) {
	r := s.removeRunning(u)
	if r.slow {
		s.slow--
	}

	// Its place was given over before.
	if r.outside {
		s.outside--
		return
	}
	s.running--
	s.byClass[r.class]--
}

// span is how a unit runs.
type span struct {
	began    int64
	class    class
	outside  bool // it has no place
	slow     bool // it is counted in slowness.slow
	answered bool // its outcome is known
	recalled bool
	overdue  bool // and was recalled for that
}

// startUnit makes a unit run that pick has taken off its list.
func (s *Dispatcher) startUnit(u *Unit, now int64) {
	r := span{began: max(now, 1), class: u.classOf()}
	if s.o.Outside > 0 && u.dest.site.Slow() {
		r.slow = true
		s.slow++
		u.dest.site.called = false
	}
	s.addRunning(u, r)
	s.running++
	s.byClass[r.class]++

	// A new attempt may pass its first bounds earlier than the others.
	if s.watching {
		s.reviewAt = min(s.reviewAt, now+int64(s.firstBound()))
		s.lateAt = min(s.lateAt, now+int64(throttle.StrangerPatience))
	}
}

// firstBound is after how long anything may have to be done about a unit that
// begins to run.
func (s *Dispatcher) firstBound() time.Duration {
	if s.o.Outside == 0 {
		return s.o.Deadline
	}
	if s.o.Deadline > 0 {
		return min(throttle.SlowAfter, s.o.Deadline)
	}
	return throttle.SlowAfter
}
