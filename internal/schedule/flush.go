package schedule

import (
	"slices"
	"time"

	"tarishi/internal/mail"
)

// Flush makes what waits for domain due at now; domain "" means every one. A
// suspended site is probed at once. It returns how many units became due.
func (s *Schedule) Flush(domain string, now time.Time) int {
	at := now.UnixNano()
	s.follow(at)
	for _, d := range s.domains {
		if t := d.site; t != nil && t.until > at && (domain == "" || d.name == domain) {
			t.until = at
			s.offer(t, at)
		}
	}
	n := 0
	for _, u := range s.waiting {
		if domain == "" || u.dest.name == domain {
			u.next = min(u.next, at)
			n++
		}
	}
	if domain != "" { // else what was in order still is
		s.waiting.order()
	}
	s.promote(at)
	return n
}

// FlushMessage is Flush for the units of one message. Those that wait for a
// suspended site count, too.
func (s *Schedule) FlushMessage(id mail.ID, now time.Time) int {
	at := now.UnixNano()
	n, probe := 0, []*site{}
	s.WalkOf(func(u *Unit) bool {
		t := u.dest.site
		late := t != nil && t.until > at
		if late && !slices.Contains(probe, t) {
			probe = append(probe, t)
		}
		switch {
		case u.state == waiting:
			u.next = min(u.next, at)
			n++
		case u.state == ready && late:
			n++
		}
		return true
	}, id)
	for _, t := range probe {
		t.until = at
		s.offer(t, at)
	}
	s.waiting.order()
	s.promote(at)
	return n
}

// Hasten makes a unit that waits due now, as Flush does.
func (s *Schedule) Hasten(u *Unit, now time.Time) {
	if u.state != waiting {
		return
	}
	s.waiting.remove(int(u.index))
	u.next = min(u.next, now.UnixNano())
	s.makeReady(u, now.UnixNano(), true)
}
