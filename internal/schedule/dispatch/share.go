package dispatch

// While others wait, and while it is not known to take mail, a site gets a place
// only while it has less than three times the places that would be left: that is
// not quite three quarters of all, and however many want all they can get, some
// places are left for those that have none. A site that takes mail may have all if
// nobody else waits; the first place that it leaves is then for the next one.

// share: a site may have so many times the places that are left.
const share = 3

// hasShare reports whether a site has all that it may have of the places.
func (s *Dispatcher) hasShare(t *site) bool {
	return s.sharing && t.running > 0 && int(t.running) >= share*(s.placesLeft()-1) && !(t.Trusted() && s.waitsAlone(t))
}

// leavesQuarter reports whether a site that takes mail, but needs long for it, must
// leave the last quarter of the places to others.
func (s *Dispatcher) leavesQuarter(t *site) bool {
	return t.Steady() && t.running > 0 && s.placesLeft() <= s.o.Concurrency/4 && s.o.Outside > 0
}

// hasRoom reports whether one more of a class may run.
func (s *Dispatcher) hasRoom(c class) bool {
	if s.running >= s.o.Concurrency || s.byClass[c] >= s.caps[c] {
		return false
	}
	return c == null || s.running-s.byClass[null] < s.o.Concurrency-s.reserve
}

// frontSite returns the first site of a class that has a place for a unit. Those
// that have none lose their turn until they are offered again.
func (s *Dispatcher) frontSite(c class, now int64) *site {
	for t := s.rings[c].head; t != nil; t = s.rings[c].head {
		if t.rings[c].head != nil {
			why, until := s.obstacleOf(t, now)
			if why == open {
				return t
			}
			s.keepWaiting(t, why, until, now)
		}
		s.rings[c].pop(c)
	}
	return nil
}

// waitsAlone reports whether no other site is waiting for a place.
func (s *Dispatcher) waitsAlone(t *site) bool {
	for c := range classes {
		if h := s.rings[c].head; h != nil && (h != t || t.rings[c].link != nil) {
			return false
		}
	}
	return len(s.leftOut) == 0 || len(s.leftOut) == 1 && t.leftOut
}

// placesLeft is how many places are left for other mail than the null sender's.
func (s *Dispatcher) placesLeft() int {
	return s.o.Concurrency - s.reserve - (s.running - s.byClass[null])
}

// offerTurn gives a site its turns if it has something ready and a place for it, or
// an alarm for when it has.
func (s *Dispatcher) offerTurn(t *site, now int64) {
	if !t.pending() {
		s.cancelAlarm(t)
		return
	}

	// Of the reasons to wait only time needs an alarm; the others end with an event.
	why, until := s.obstacleOf(t, now)
	switch {
	case why == open:
		s.cancelAlarm(t)
		for c := range classes {
			if r := &t.rings[c]; r.head != nil && !r.queued {
				s.rings[c].push(t, c)
			}
		}
	case until > 0:
		s.setAlarm(t, until)
	default:
		s.cancelAlarm(t)
		s.keepWaiting(t, why, until, now)
	}
}

// keepWaiting keeps a site that has something ready and no place until there may be
// one: the end of an attempt of the site offers it again in any case.
func (s *Dispatcher) keepWaiting(t *site, why obstacle, until, now int64) {
	switch {
	case until > 0:
		s.setAlarm(t, until)
	case why == crowded:
		s.leaveOut(t)
	case why == slowed:
		s.queueSlow(t, now)
	}
}

// leaveOut keeps a crowded site until any unit ends.
func (s *Dispatcher) leaveOut(t *site) {
	if !t.leftOut {
		t.leftOut = true
		s.leftOut = append(s.leftOut, t)
	}
}

// readmit offers the crowded sites again. There are never more of them than
// running units.
func (s *Dispatcher) readmit(now int64) {
	// The list is made anew: some are crowded still.
	all := s.leftOut
	s.leftOut = all[:0]
	for _, t := range all {
		t.leftOut = false
		s.offerTurn(t, now)
	}
	clear(all[len(s.leftOut):])
}
