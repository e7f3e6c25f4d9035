package schedule

// countUnit counts u among d's units.
func (s *Schedule) countUnit(d *domain, u *Unit) {
	if d.Units == 0 || u.Arrived() < d.Oldest {
		d.Oldest, d.Stale = u.Arrived(), false
	}
	d.Units++
}

// dismiss is the opposite; u is in no structure of d any more.
func (s *Schedule) dismiss(d *domain, u *Unit) {
	if u.Arrived() == d.Oldest {
		d.Stale = true
	}
	if d.Units--; d.Units == 0 {
		s.retire(d)
	}
}

// retire forgets a domain without units, at once if nothing was learned of it.
func (s *Schedule) retire(d *domain) {
	d.Idle = s.seen
	switch {
	case d.Listed:
	case d.Plain(s.seen):
		s.eraseDomain(d)
	default:
		d.Listed = true
		s.idle = append(s.idle, d)
		if len(s.idle) > maxIdle {
			s.unlistFirst()
		}
	}
}

// unlistFirst takes the first domain off the idle list, and forgets it if it still
// has no units.
func (s *Schedule) unlistFirst() {
	d := s.idle[0]
	s.idle[0] = nil
	if s.idle = s.idle[1:]; len(s.idle) == 0 {
		s.idle = nil
	}

	// Mail may have come meanwhile.
	d.Listed = false
	if d.Units == 0 {
		s.eraseDomain(d)
	}
}

func (s *Schedule) eraseDomain(d *domain) {
	s.dispatch.LeaveSite(d)
	delete(s.domains, d.Key())
}

// forgetIdle forgets what was learned of domains that have had no mail for long. It
// looks at two at a time, so that it never takes long.
func (s *Schedule) forgetIdle(now int64) {
	for range min(2, len(s.idle)) {
		d := s.idle[0]
		if d.Units == 0 && (d.Busy(now) || now-d.Idle < int64(idleFor)) {
			s.idle = append(s.idle[1:], d)
			continue
		}
		s.unlistFirst()
	}
}
