package schedule

import (
	"cmp"
	"math"
	"slices"
	"time"

	"tarishi/internal/schedule/unit"
)

// Expire hands out up to limit units that outlived their lifetime while they were
// ready: their site has no place, is suspended, or nobody asks Due. Those of
// which the sender is to be warned come too. They take no places.
func (s *Schedule) Expire(now time.Time, limit int) []*Unit {
	at := now.UnixNano()
	s.promote(at)
	s.sweepExpired(at)
	var out []*Unit
	for len(out) < limit && s.given.Len() < maxDoomed && s.doomed.Len() > 0 {
		u := s.doomed.Pop()

		// A site that is back gives its units a longer life again.
		switch end, warning := deadlines(u); {
		case end <= at:
			u.Set(unit.Expired)
		case warning <= at:
			u.Set(unit.Late)
		default: // its site is back
			s.putReady(u, at, true)
			continue
		}
		u.SetState(unit.Running)
		s.given.Push(u)
		out = append(out, u)
	}
	return out
}

// nextSweep is when the ready units are to be looked at.
func (s *Schedule) nextSweep() int64 {
	if s.units == len(s.waiting)+len(s.dispatch.Running())+s.given.Len()+s.doomed.Len() {
		return math.MaxInt64
	}
	return max(s.sweepAt, s.restAt)
}

// sweepExpired dooms the ready units that have outlived their lifetime, or many of them. It looks
// at every ready unit, and is to take no noticeable part of the time.
func (s *Schedule) sweepExpired(now int64) {
	// Nothing can have ended yet.
	if s.nextSweep() > now {
		return
	}
	looked, next := 0, int64(math.MaxInt64)
	var over []*Unit
	all := s.walkReady(func(u *Unit) bool {
		looked++
		if by := handOutBy(u); by <= now {
			over = append(over, u)
		} else {
			next = min(next, by)
		}
		return len(over) < maxAtOnce
	})
	if !all {
		next = now
	}

	// The next look waits in proportion to the work of this one.
	s.sweepAt = next
	s.restAt = now + int64(100*time.Millisecond) + int64(looked)*int64(20*time.Microsecond)

	// The oldest messages are given up first.
	slices.SortFunc(over, func(a, b *Unit) int { return cmp.Compare(a.Arrived(), b.Arrived()) })
	for _, u := range over {
		s.dispatch.TakeReady(u)
		u.SetState(unit.Doomed)
		s.doomed.Push(u)
	}
}

// handOutBy returns when Expire is to hand out a unit that is ready.
func handOutBy(u *Unit) int64 {
	end, warning := deadlines(u)
	return min(end, warning)
}

// deadlines returns when a unit that is ready is given up, and when its sender is
// warned.
func deadlines(u *Unit) (end, warning int64) {
	// A unit that was too old when it came in has time for one attempt.
	end, warning = math.MaxInt64, math.MaxInt64
	l, received := u.Dest().Limits(), u.Arrived()
	if l.Warning > 0 && !u.Has(unit.Marked|unit.FromNull) && received < math.MaxInt64-int64(l.Warning) {
		warning = max(received+int64(l.Warning), u.At()+int64(lastTry))
	}
	if l.Lifetime > 0 && received <= math.MaxInt64-int64(l.Lifetime) {
		end = received + int64(l.Lifetime)
		if u.Has(unit.Overdue) {
			end = max(end, u.At()+int64(lastTry))
		}
	}

	// While the destination is suspended nothing is attempted, so the lifetime may be
	// over earlier.
	if until, since := u.Dest().Suspended(); until != 0 && l.Patience > 0 {
		if from := max(received, since); from <= math.MaxInt64-int64(l.Patience) {
			end = min(end, from+int64(l.Patience))
		}
	}
	return end, warning
}
