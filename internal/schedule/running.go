package schedule

import "time"

// list puts a unit among those that run.
func (s *Schedule) list(u *Unit, r span) {
	u.state = running
	u.index = int32(len(s.runs))
	s.runs, s.spans = append(s.runs, u), append(s.spans, r)
}

// unlist takes a unit out of those that run.
func (s *Schedule) unlist(u *Unit) span {
	end := len(s.runs) - 1
	last, r := s.runs[end], s.spans[u.index]
	s.runs[u.index], s.spans[u.index] = last, s.spans[end]
	last.index = u.index
	s.runs[end] = nil
	s.runs, s.spans = s.runs[:end], s.spans[:end]
	return r
}

// release takes a running unit's places away from the counts; its site gets its
// turns back if it was left out for its limit.
func (s *Schedule) release(u *Unit, now int64) {
	if !u.Running() {
		panic("schedule: a unit that is not running ends")
	}
	if u.flags&(expired|late) != 0 {
		s.unlist(u)
		s.dooming--
		return
	}
	t := u.dest.site
	s.leave(t, u)
	s.free(u)
	if t.pending() {
		s.offer(t, now)
	}
	s.readmit(now)
}

// free takes a unit that Due handed out away from the counts of those that run.
func (s *Schedule) free(u *Unit) {
	r := s.unlist(u)
	if r.slow {
		s.slow--
	}
	if r.outside {
		s.outside--
		return
	}
	s.running--
	s.byClass[r.class]--
}

// span is how a unit runs that Due handed out.
type span struct {
	began    int64 // 0: Expire's
	class    class
	outside  bool // it has no place
	slow     bool // it is in Schedule.slow
	answered bool // its outcome is known
	recalled bool
	overdue  bool // and was recalled for that
}

// begin makes a unit run that Due hands out.
func (s *Schedule) begin(u *Unit, now int64) {
	r := span{began: max(now, 1), class: u.class()}
	if s.o.Outside > 0 && u.dest.site.slow {
		r.slow = true
		s.slow++
		u.dest.site.called = false
	}
	s.list(u, r)
	s.running++
	s.byClass[r.class]++
	if s.watching {
		s.reviewAt = min(s.reviewAt, now+int64(s.firstBound()))
		s.lateAt = min(s.lateAt, now+int64(strangerPatience))
	}
}

// firstBound is after how long anything may have to be done about a unit that
// begins to run.
func (s *Schedule) firstBound() time.Duration {
	if s.o.Outside == 0 {
		return s.o.Deadline
	}
	if s.o.Deadline > 0 {
		return min(slowAfter, s.o.Deadline)
	}
	return slowAfter
}
