package schedule

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Servers that accept a connection and then say nothing, or next to nothing, cost
// little but the place that an attempt holds. A few hundred such destinations
// would hold all of them, and nobody can tell them from others before they are
// tried. So:
//
//   - An attempt that has no outcome after a while (strangerPatience, or longer
//     where the destination is known) gives its place over when others wait for
//     one, and goes on outside: at most Options.Outside do. Meanwhile its site
//     gets no further place.
//   - A site is slow when its last attempt had no success within slowAfter. The
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
	strangerPatience = 750 * time.Millisecond // at a site of which nothing is known
	leastPatience    = 1500 * time.Millisecond
	slowAfter        = 10 * time.Second
	slowTurn         = 2 * time.Minute // RFC 5321 section 4.5.3.2 asks for five, and nobody waits for it then
	leastRecall      = 2 * time.Second // what an attempt has at least
	reviewPause      = 50 * time.Millisecond

	usual = 8 // an attempt is late when it takes so many times as long as others did
)

// delays is what a Schedule knows of attempts that take long.
type delays struct {
	watching bool
	outside  int     // running without a place
	slow     int     // running at slow sites, or for longer than slowAfter
	slowWait []*site // slow ones with something ready and no place, in turn
	called   []*site // those of which it is the turn
	pace     int32   // as site.pace, of all
	reviewAt int64   // no running unit passes a bound before
	lateAt   int64   // no unit that runs gives its place over before
}

func (d *delays) init(o Options) {
	d.watching = o.Outside > 0 || o.Deadline > 0
	d.reviewAt, d.lateAt = math.MaxInt64, math.MaxInt64
}

// rewind follows a clock that was set back.
func (s *Schedule) rewind(by int64) {
	if !s.watching {
		return
	}
	s.reviewAt, s.lateAt = 0, 0
	for i := range s.spans {
		if r := &s.spans[i]; r.began > 0 {
			r.began = max(1, r.began-by)
		}
	}
}

// Recall is a running unit whose attempt is to be ended if that is possible.
type Recall struct {
	Unit *Unit
	// Overdue is set when it had as much time as an attempt may take. Otherwise it
	// makes room for others, and nothing follows about its destination.
	Overdue bool
}

// Recall returns the units of which the attempts are to be ended. They run until
// Done, Defer or Drop as all others. Each is returned once, or a second time as
// overdue. It also takes places from those that are late, so it is to be called
// before Due.
func (s *Schedule) Recall(now time.Time) []Recall {
	at := now.UnixNano()
	s.follow(at)
	if !s.watching || at < s.reviewAt && (at < s.lateAt || !s.wanted(at)) {
		return nil
	}
	var over []Recall
	next, lateAt := int64(math.MaxInt64), at+int64(strangerPatience)
	var leaving, outside, slow []delayed
	for i, u := range s.runs {
		r := &s.spans[i]
		if r.began == 0 || r.answered {
			continue
		}
		if s.o.Outside > 0 && at-r.began >= int64(slowAfter) && !r.slow && !u.dest.site.steady() {
			u.dest.site.slow, r.slow = true, true
			s.slow++
		}
		end := s.end(u, r)
		if end <= at && !r.overdue {
			r.recalled, r.overdue = true, true
			over = append(over, Recall{u, true})
		}
		if r.slow {
			slow = append(slow, delayed{r, u})
		}
		next = min(next, r.bound(at, end))
		switch patience := r.began + int64(s.patience(u.dest.site)); {
		case r.outside:
			outside = append(outside, delayed{r, u})
		case s.o.Outside == 0:
		case patience <= at:
			leaving = append(leaving, delayed{r, u})
		default:
			lateAt = min(lateAt, patience)
		}
	}
	s.reviewAt, s.lateAt = next, max(lateAt, at+int64(reviewPause))
	if s.o.Outside == 0 {
		return over
	}
	slices.SortFunc(outside, byBegin)
	slices.SortFunc(slow, byBegin)
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

// end is when r is overdue.
func (s *Schedule) end(u *Unit, r *span) int64 {
	if s.o.Deadline <= 0 {
		return math.MaxInt64
	}
	end := r.began + int64(s.o.Deadline)
	if m := u.more; m != nil && len(m.recipients) > 1 {
		end += int64(len(m.recipients)-1) * int64(time.Second)
	}
	return end
}

// bound is when r passes the next of its bounds.
func (r *span) bound(now, end int64) int64 {
	next := int64(math.MaxInt64)
	for _, at := range [...]int64{r.began + int64(slowAfter), r.began + int64(slowTurn), end} {
		if at > now {
			next = min(next, at)
		}
	}
	return next
}

// patience is for how long an attempt at a site keeps its place though others
// wait for one.
func (s *Schedule) patience(t *site) time.Duration {
	if t.slow {
		return slowAfter
	}
	if !t.trusted {
		return strangerPatience
	}
	pace := time.Duration(max(t.pace, s.pace)) * time.Millisecond
	return min(max(usual*pace, leastPatience), slowAfter)
}

// giveOver takes the places of late attempts, the oldest first. Where there is no
// room outside, it returns those that make some.
func (s *Schedule) giveOver(now int64, leaving, outside []delayed) (over []Recall) {
	slices.SortFunc(leaving, byBegin)
	n := min(len(leaving), max(0, s.o.Outside-s.outside))
	for _, r := range leaving[:n] {
		r.outside = true
		s.outside++
		s.running--
		s.byClass[r.class]--
		r.u.dest.late++
		r.u.dest.site.late++
		if r.slow {
			s.reviewAt = min(s.reviewAt, now+int64(reviewPause)) // there may be too many of them
		}
	}
	if n > 0 {
		s.readmit(now)
	}
	least := int64(slowAfter) / 2
	if s.pace > 0 {
		least = min(max(usual*int64(s.pace)*int64(time.Millisecond), int64(leastRecall)), int64(slowAfter))
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
func (s *Schedule) thinOut(now int64, slow []delayed, waiting bool) (over []Recall) {
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
		if !r.recalled && now-r.began >= int64(slowAfter) && (r.outside || waiting) {
			over = append(over, s.recall(r))
			n--
		}
	}
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
func (s *Schedule) recall(r delayed) Recall {
	r.recalled = true
	r.u.dest.site.slow = true
	return Recall{Unit: r.u}
}

// wanted reports whether something is ready for which there is no place.
func (s *Schedule) wanted(now int64) bool {
	for c := range classes {
		if !s.room(c) && s.front(c, now) != nil {
			return true
		}
	}
	return false
}

// nextReview is when Recall has something to do; wanted: places are.
func (s *Schedule) nextReview(wanted bool) int64 {
	next := int64(math.MaxInt64)
	if len(s.runs) > s.dooming {
		next = s.reviewAt
		if wanted && s.o.Outside > 0 {
			next = min(next, s.lateAt)
		}
	}
	return next
}

// stuck reports whether the attempts at a site that run outside are a reason to
// begin no other.
func (t *site) stuck() bool {
	if t.trusted {
		return t.late > t.limit/2
	}
	return t.late > 0
}

// slowShare is how many attempts at slow sites may run.
func (s *Schedule) slowShare() int { return max(1, s.o.Concurrency/4) }

func (s *Schedule) slowRoom() bool { return s.slow < s.slowShare() }

// steady reports whether a site takes mail though it needs long for it.
func (t *site) steady() bool {
	return t.trusted && time.Duration(t.pace)*time.Millisecond >= slowAfter/2
}

// queueSlow keeps a slow site until there is room for it.
func (s *Schedule) queueSlow(t *site) {
	if t.queued {
		return
	}
	t.queued = true
	s.slowWait = append(s.slowWait, t)
	s.reviewAt = min(s.reviewAt, s.seen+int64(time.Second)) // some may have had their turn
}

// admitSlow offers as many of the slow sites that wait as there is room for, beside
// those that were offered and have not begun.
func (s *Schedule) admitSlow(now int64) {
	if len(s.slowWait) == 0 && len(s.called) == 0 {
		return
	}
	s.called = slices.DeleteFunc(s.called, func(t *site) bool {
		t.called = t.called && (t.rings[fresh].queued || t.rings[retry].queued || t.rings[null].queued)
		return !t.called
	})
	for n := min(s.slowShare()-s.slow-len(s.called), len(s.slowWait)); n > 0; n-- {
		t := s.slowWait[0]
		s.slowWait[0] = nil
		s.slowWait = s.slowWait[1:]
		t.queued = false
		if !t.called {
			t.called = true
			s.called = append(s.called, t)
		}
		s.offer(t, now)
	}
}

// unslow takes a running unit out of the slow ones, reslow puts it back if it is
// one at t.
func (s *Schedule) unslow(u *Unit) {
	if r := &s.spans[u.index]; r.slow {
		r.slow = false
		s.slow--
	}
}

func (s *Schedule) reslow(t *site, u *Unit, now int64) {
	r := &s.spans[u.index]
	if s.o.Outside > 0 && !r.slow && (t.slow || now-r.began >= int64(slowAfter) && !t.steady()) {
		r.slow, t.slow = true, true
		s.slow++
	}
}

// learn notes how long a running unit's attempt took.
func (s *Schedule) learn(t *site, u *Unit, now int64) {
	if s.o.Outside == 0 {
		return
	}
	r := &s.spans[u.index]
	took := max(now-r.began, 0)
	if !t.trusted {
		t.slow = t.slow || took >= int64(slowAfter)
		return
	}
	t.slow = false
	ms := int32(min(took/int64(time.Millisecond)+1, math.MaxInt32/8))
	t.pace, s.pace = mix(t.pace, ms), mix(s.pace, ms)
}

// mix is a mean in which the last values count most.
func mix(mean, value int32) int32 {
	if mean == 0 {
		return value
	}
	return max(1, mean+(value-mean)/4)
}
