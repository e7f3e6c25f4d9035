package dispatch

import (
	"cmp"
	"math"
	"slices"
	"time"

	"tarishi/internal/schedule/throttle"
)

// Servers that accept a connection and then say nothing, or next to nothing, cost
// little but the place that an attempt holds. A few hundred such destinations
// would hold all of them, and nobody can tell them from others before they are
// tried. So:
//
//   - An attempt that has no outcome after a while (throttle.StrangerPatience, or
//     longer where the destination is known) gives its place over when others wait for
//     one, and goes on outside: at most Options.Outside do. Meanwhile its site
//     gets no further place.
//   - A site is slow when its last attempt had no success within SlowAfter. The
//     attempts at slow sites, and all that take longer than that, are one group
//     that gets new places only while it has less than a quarter of all. Sites
//     that take mail, and need that long, are no part of it: they leave a quarter
//     free.
//   - What makes that group larger than a quarter is recalled after slowAfter, if it
//     is outside or others wait. While slow sites wait, one that has had slowTurn is
//     too. If there is no room outside, the oldest are recalled earlier.
//
// So strangers cost time only when they prove slow, a server that takes its time
// gets its mail with a later attempt, in the slow group, and everybody else waits
// no longer than it takes to try those in front once.
const (
	slowTurn    = 2 * time.Minute // RFC 5321 section 4.5.3.2 asks for five, and nobody waits for it then
	leastRecall = 2 * time.Second // what an attempt has at least
	reviewPause = 50 * time.Millisecond
)

// slowness is what a Dispatcher knows of attempts that take long.
type slowness struct {
	watching bool
	outside  int           // running without a place
	slow     int           // running at slow sites, or for longer than throttle.SlowAfter
	slowWait []*site       // slow ones with something ready and no place, in turn
	called   []*site       // those that may begin an attempt next
	pace     throttle.Pace // of all sites
	reviewAt int64         // no running unit passes a bound before
	lateAt   int64         // no unit that runs gives its place over before
}

// rewindSpans follows a clock that was set back.
func (s *Dispatcher) rewindSpans(by int64) {
	if !s.watching {
		return
	}
	s.reviewAt, s.lateAt = 0, 0
	for i := range s.spans {
		s.spans[i].began = max(1, s.spans[i].began-by)
	}
}

// Recall is a running unit with an attempt to be ended if that is possible.
type Recall struct {
	Unit *Unit
	// Overdue is set when it had as much time as an attempt may take. Otherwise it
	// makes room for others, and nothing follows about its destination.
	Overdue bool
}

// Recall returns the units with an attempt to be ended. They run until
// Done, Defer or Drop as all others. Each is returned once, or a second time as
// overdue. It also takes places from those that are late, so it is to be called
// before Due.
func (s *Dispatcher) Recall(at int64) []Recall {
	if !s.watching || at < s.reviewAt && (at < s.lateAt || !s.wanted(at)) {
		return nil
	}

	// One look at all that runs: it finds bounds that were passed, and the next ones.
	var over []Recall
	next, lateAt := int64(math.MaxInt64), at+int64(throttle.StrangerPatience)
	var leaving, outside, slow []delayed
	for i, u := range s.runs {
		r := &s.spans[i]
		if r.answered {
			continue
		}
		if s.o.Outside > 0 && at-r.began >= int64(throttle.SlowAfter) && !r.slow && !u.dest.site.Steady() {
			s.countSlow(u.dest.site, r)
		}
		end := s.overdueAt(u, r)
		if end <= at && !r.overdue {
			r.recalled, r.overdue = true, true
			over = append(over, Recall{u, true})
		}
		if r.slow {
			slow = append(slow, delayed{r, u})
		}
		next = min(next, r.nextBound(at, end))
		switch patience := r.began + int64(u.dest.site.Patience(s.pace)); {
		case r.outside:
			outside = append(outside, delayed{r, u})
		case s.o.Outside == 0:
		case patience <= at:
			leaving = append(leaving, delayed{r, u})
		default:
			lateAt = min(lateAt, patience)
		}
	}

	// Until then there is nothing to review.
	s.reviewAt, s.lateAt = next, max(lateAt, at+int64(reviewPause))
	if s.o.Outside == 0 {
		return over
	}
	slices.SortFunc(outside, byBegin)
	slices.SortFunc(slow, byBegin)

	// Places are taken away only while others wait for one.
	wanted := s.wanted(at)
	if wanted {
		over = append(over, s.giveOver(at, leaving, outside)...)
	}
	return append(over, s.thinOut(at, slow, wanted || len(s.slowWait) > 0)...)
}

// delayed is a unit that runs for longer than it should, or without a place.
type delayed struct {
	*span
	u *Unit
}

func byBegin(a, b delayed) int { return cmp.Compare(a.began, b.began) }

// overdueAt is when r is overdue.
func (s *Dispatcher) overdueAt(u *Unit, r *span) int64 {
	if s.o.Deadline <= 0 {
		return math.MaxInt64
	}
	end := r.began + int64(s.o.Deadline)
	return end + int64(u.Many()-1)*int64(time.Second)
}

// nextBound is when r passes the next of its bounds.
func (r *span) nextBound(now, end int64) int64 {
	next := int64(math.MaxInt64)
	for _, at := range [...]int64{r.began + int64(throttle.SlowAfter), r.began + int64(slowTurn), end} {
		if at > now {
			next = min(next, at)
		}
	}
	return next
}

// giveOver takes the places of late attempts, the oldest first. Where there is no
// room outside, it returns those that make some.
func (s *Dispatcher) giveOver(now int64, leaving, outside []delayed) (over []Recall) {
	slices.SortFunc(leaving, byBegin)

	// The site keeps what runs outside in its count: it gets no further place for that.
	n := min(len(leaving), max(0, s.o.Outside-s.outside))
	for _, r := range leaving[:n] {
		r.outside = true
		s.outside++
		s.running--
		s.byClass[r.class]--
		r.u.dest.outside++
		r.u.dest.site.outside++
		if r.slow {
			s.reviewAt = min(s.reviewAt, now+int64(reviewPause)) // there may be too many of them
		}
	}
	if n > 0 {
		s.readmit(now)
	}

	// Outside there is a bound too: the oldest go first, if they had a fair time.
	least := int64(throttle.SlowAfter) / 2
	if s.pace > 0 {
		least = int64(s.pace.Late(leastRecall))
	}
	for _, r := range outside {
		if n == len(leaving) || now-r.began < least {
			break
		}
		if !r.recalled {
			over = append(over, s.recall(r))
		}
		n++
	}
	return over
}

// thinOut returns the slow attempts that are too many, the youngest first, and
// those that have had their turn while others wait for one. slow are in the order
// in which they began; waiting: others are.
func (s *Dispatcher) thinOut(now int64, slow []delayed, waiting bool) (over []Recall) {
	// Recalled ones still run, but are on their way out.
	n := len(slow)
	for _, r := range slow {
		if r.recalled {
			n--
		}
	}
	for _, r := range slices.Backward(slow) {
		if n <= s.slowShare() {
			break
		}
		if !r.recalled && now-r.began >= int64(throttle.SlowAfter) && (r.outside || waiting) {
			over = append(over, s.recall(r))
			n--
		}
	}

	// A site that has had its turn makes room for the next slow one.
	turns := len(s.slowWait) - (s.slowShare() - n)
	for _, r := range slow {
		if turns <= 0 || now-r.began < int64(slowTurn) {
			break
		}
		if !r.recalled {
			r.recalled, r.overdue = true, true
			over = append(over, Recall{r.u, true})
			turns--
		}
	}
	return over
}

// recall has r make room.
func (s *Dispatcher) recall(r delayed) Recall {
	r.recalled = true
	r.u.dest.site.MarkSlow()
	return Recall{Unit: r.u}
}

// wanted reports whether something is ready for which there is no place.
func (s *Dispatcher) wanted(now int64) bool {
	for c := range classes {
		if !s.hasRoom(c) && s.frontSite(c, now) != nil {
			return true
		}
	}
	return false
}

// nextReview is when Recall has something to do; wanted: places are.
func (s *Dispatcher) nextReview(wanted bool) int64 {
	next := int64(math.MaxInt64)
	if len(s.runs) > 0 {
		next = s.reviewAt
		if wanted && s.o.Outside > 0 {
			next = min(next, s.lateAt)
		}
	}
	return next
}

// isStuck reports whether the attempts at a site that run outside are a reason to
// begin no other.
func (t *site) isStuck() bool {
	if t.Trusted() {
		return t.outside > t.Window()/2
	}
	return t.outside > 0
}

// slowShare is how many attempts at slow sites may run.
func (s *Dispatcher) slowShare() int { return max(1, s.o.Concurrency/4) }

func (s *Dispatcher) slowRoom() bool { return s.slow < s.slowShare() }

// queueSlow keeps a slow site until there is room for it.
func (s *Dispatcher) queueSlow(t *site, now int64) {
	if t.queued {
		return
	}
	t.queued = true
	s.slowWait = append(s.slowWait, t)
	s.reviewAt = min(s.reviewAt, now+int64(time.Second)) // some may have had their turn
}

// admitSlow offers as many of the slow sites that wait as there is room for, beside
// those that were offered and have not begun. It reports whether it has offered any.
func (s *Dispatcher) admitSlow(now int64) bool {
	if len(s.slowWait) == 0 && len(s.called) == 0 {
		return false
	}

	// A site that was called and has nothing ready any more lost its turn.
	s.called = slices.DeleteFunc(s.called, func(t *site) bool {
		t.called = t.called && (t.rings[fresh].queued || t.rings[retry].queued || t.rings[null].queued)
		return !t.called
	})
	n := min(s.slowShare()-s.slow-len(s.called), len(s.slowWait))
	for range n {
		t := s.slowWait[0]
		s.slowWait[0] = nil
		s.slowWait = s.slowWait[1:]
		t.queued = false
		if !t.called {
			t.called = true
			s.called = append(s.called, t)
		}
		s.offerTurn(t, now)
	}
	return n > 0
}

// countSlow counts a running unit at t as slow, and t as a slow site.
func (s *Dispatcher) countSlow(t *site, r *span) {
	t.MarkSlow()
	r.slow = true
	s.slow++
}

// uncountSlow takes a running unit out of the slow ones; recountSlow puts it back if
// it is one at t.
func (s *Dispatcher) uncountSlow(u *Unit) {
	if r := &s.spans[*u.Place()]; r.slow {
		r.slow = false
		s.slow--
	}
}

func (s *Dispatcher) recountSlow(t *site, u *Unit, now int64) {
	r := &s.spans[*u.Place()]
	if s.o.Outside > 0 && !r.slow && (t.Slow() || now-r.began >= int64(throttle.SlowAfter) && !t.Steady()) {
		s.countSlow(t, r)
	}
}

// learnPace notes how long an attempt took that has an outcome.
func (s *Dispatcher) learnPace(t *site, took time.Duration) {
	t.Learn(took)
	if t.Trusted() {
		s.pace.Mix(took)
	}
}
