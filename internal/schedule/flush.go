package schedule

import (
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/schedule/unit"
)

// Flush makes what waits for domain due at now; domain "" means every one. A
// suspended site is probed at once. It returns how many units became due.
func (s *Schedule) Flush(domain string, now time.Time) int {
	at := now.UnixNano()
	s.follow(at)
	for _, d := range s.domains {
		if until, _ := d.Suspended(); until > at && (domain == "" || d.Name == domain) {
			s.dispatch.ProbeNow(d, at)
		}
	}

	// All at once, and one repair of the heap behind it.
	n := 0
	for _, u := range s.waiting {
		if domain == "" || u.Domain() == domain {
			u.SetAt(min(u.At(), at))
			n++
		}
	}
	if domain != "" { // else what was in order still is
		s.waiting.Restore()
	}
	s.promote(at)
	return n
}

// FlushMessages is Flush for the units of some messages. Those that wait for a
// suspended site count, too.
func (s *Schedule) FlushMessages(now time.Time, messages ...mail.ID) int {
	at := now.UnixNano()
	n, probe := 0, map[*domain]bool{}
	s.WalkOf(func(u *Unit) bool {
		until, _ := u.Dest().Suspended()
		if until > at {
			probe[u.Dest()] = true
		}

		// Ready units wait for the probe, and are flushed by it too.
		switch {
		case u.State() == unit.Waiting:
			u.SetAt(min(u.At(), at))
			n++
		case u.State() == unit.Ready && until > at:
			n++
		}
		return true
	}, messages...)

	// The probes are due now; Walk must not see the sites move.
	for d := range probe {
		s.dispatch.ProbeNow(d, at)
	}
	s.waiting.Restore()
	s.promote(at)
	return n
}

// Hasten makes a unit that waits due now, as Flush does.
func (s *Schedule) Hasten(u *Unit, now time.Time) {
	if u.State() != unit.Waiting {
		return
	}
	at := now.UnixNano()
	s.waiting.Remove(u)
	u.SetAt(min(u.At(), at))
	s.putReady(u, at, true)
}
