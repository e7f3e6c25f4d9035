package schedule

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Expire hands out up to limit units whose lifetime ended while they were
// ready: their site has no place, is suspended, or nobody asks Due. Those of
// which the sender is to be warned come too. They take no places.
func (s *Schedule) Expire(now time.Time, limit int) []*Unit {
	at := now.UnixNano()
	s.promote(at)
	s.sweep(at)
	var out []*Unit
	for len(out) < limit && s.dooming < maxDoomed && s.doomed.n > 0 {
		u := s.doomed.pop()
		switch end, warning := u.ends(); {
		case end <= at:
			u.flags |= expired
		case warning <= at:
			u.flags |= late
		default: // its site is back
			s.makeReady(u, at, true)
			continue
		}
		s.list(u, span{})
		s.dooming++
		out = append(out, u)
	}
	return out
}

// nextSweep is when the ready units are to be looked at.
func (s *Schedule) nextSweep() int64 {
	if s.units == len(s.waiting)+len(s.runs)+s.doomed.n {
		return math.MaxInt64
	}
	return max(s.sweepAt, s.restAt)
}

// sweep dooms the ready units whose lifetime is over, or many of them. It looks
// at every ready unit, and is to take no noticeable part of the time.
func (s *Schedule) sweep(now int64) {
	if s.nextSweep() > now {
		return
	}
	looked, next := 0, int64(math.MaxInt64)
	var over []*Unit
	all := s.walkReady(func(u *Unit) bool {
		looked++
		if end := u.end(); end <= now {
			over = append(over, u)
		} else {
			next = min(next, end)
		}
		return len(over) < maxAtOnce
	})
	if !all {
		next = now
	}
	s.sweepAt = next
	s.restAt = now + int64(100*time.Millisecond) + int64(looked)*int64(20*time.Microsecond)
	slices.SortFunc(over, func(a, b *Unit) int { return cmp.Compare(a.received, b.received) })
	for _, u := range over {
		s.unready(u)
		u.state = doomed
		s.doomed.push(u)
	}
}

// end is when Expire is to hand out a unit that is ready.
func (u *Unit) end() int64 {
	end, warning := u.ends()
	return min(end, warning)
}

// ends returns when a unit that is ready is given up, and when its sender is
// warned.
func (u *Unit) ends() (end, warning int64) {
	end, warning = math.MaxInt64, math.MaxInt64
	l := u.dest.limits
	if l.Warning > 0 && u.flags&(marked|fromNull) == 0 && u.received < math.MaxInt64-int64(l.Warning) {
		warning = max(u.received+int64(l.Warning), u.next+int64(lastTry))
	}
	if l.Lifetime > 0 && u.received <= math.MaxInt64-int64(l.Lifetime) {
		end = u.received + int64(l.Lifetime)
		if u.flags&overdue != 0 {
			end = max(end, u.next+int64(lastTry))
		}
	}
	if t := u.dest.site; t != nil && t.until != 0 && l.Patience > 0 {
		if from := max(u.received, t.since); from <= math.MaxInt64-int64(l.Patience) {
			end = min(end, from+int64(l.Patience))
		}
	}
	return end, warning
}
