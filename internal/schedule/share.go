package schedule

// pick takes the next ready unit off its list, or returns nil.
func (s *Schedule) pick(now int64) *Unit {
	order := [classes]class{fresh, null, retry}
	switch {
	case s.turn == tenth-1:
		order = [classes]class{retry, null, fresh}
	case s.turn == tenth/2-1 || s.running >= s.o.Concurrency-s.reserve:
		order = [classes]class{null, fresh, retry}
	}
	for _, c := range order {
		if !s.room(c) {
			continue
		}
		t := s.front(c, now)
		if t == nil {
			continue
		}
		r := &t.rings[c]
		s.rings[c].pop(c)
		d := r.pop(c)
		u := d.lists[c].pop()
		d.ready--
		if d.lists[c].n > 0 {
			r.push(d, c)
		}
		t.take(u, now)
		s.offer(t, now)
		s.turn = (s.turn + 1) % tenth
		return u
	}
	return nil
}

// room reports whether one more of a class may run.
func (s *Schedule) room(c class) bool {
	if s.running >= s.o.Concurrency || s.byClass[c] >= s.caps[c] {
		return false
	}
	return c == null || s.running-s.byClass[null] < s.o.Concurrency-s.reserve
}

// front returns the first site of a class that has a place for a unit. Those
// that have none lose their turn until they are offered again.
func (s *Schedule) front(c class, now int64) *site {
	for t := s.rings[c].head; t != nil; t = s.rings[c].head {
		if t.rings[c].head != nil {
			why, until := s.blocked(t, now)
			if why == open {
				return t
			}
			s.await(t, why, until)
		}
		s.rings[c].pop(c)
	}
	return nil
}

// obstacle is why a site gets no place.
type obstacle uint8

// blocked says what keeps the site's ready units, and until when if time alone
// ends it.
func (s *Schedule) blocked(t *site, now int64) (why obstacle, until int64) {
	switch {
	case t.until != 0 && t.probe != nil:
		return probed, 0
	case t.until > now:
		return suspended, t.until
	case t.until != 0: // the one place of a probe
	case t.running >= t.places():
		return full, 0
	case t.stuck():
		return stuck, 0
	case s.sharing && t.running > 0 && int(t.running) >= share*(s.left()-1) && !(t.trusted && s.alone(t)):
		return crowded, 0
	}
	switch {
	case t.slow && (!s.slowRoom() || !t.called && len(s.slowWait) > 0):
		return slowed, 0
	case t.steady() && t.running > 0 && s.left() <= s.o.Concurrency/4 && s.o.Outside > 0:
		return crowded, 0
	}
	if i := t.limits.Rate.interval(); i > 0 {
		if at := t.tat - t.limits.Rate.slack(); at > now {
			return rated, at
		}
	}
	return open, 0
}

// alone reports whether no other site is waiting for a place.
func (s *Schedule) alone(t *site) bool {
	for c := range classes {
		if h := s.rings[c].head; h != nil && (h != t || t.rings[c].link != nil) {
			return false
		}
	}
	return len(s.leftOut) == 0 || len(s.leftOut) == 1 && t.leftOut
}

// left is how many places are left for other mail than the null sender's.
func (s *Schedule) left() int {
	return s.o.Concurrency - s.reserve - (s.running - s.byClass[null])
}

// offer gives a site its turns if it has something ready and a place for it, or
// an alarm for when it has.
func (s *Schedule) offer(t *site, now int64) {
	if !t.pending() {
		s.alarms.remove(t)
		return
	}
	why, until := s.blocked(t, now)
	switch {
	case why == open:
		s.alarms.remove(t)
		for c := range classes {
			if r := &t.rings[c]; r.head != nil && !r.queued {
				s.rings[c].push(t, c)
			}
		}
	case until > 0:
		s.alarms.set(t, until)
	default:
		s.alarms.remove(t)
		s.await(t, why, until)
	}
}

// await keeps a site that has something ready and no place until there may be
// one: the end of one of its own attempts offers it again in any case.
func (s *Schedule) await(t *site, why obstacle, until int64) {
	switch {
	case until > 0:
		s.alarms.set(t, until)
	case why == crowded:
		s.leaveOut(t)
	case why == slowed:
		s.queueSlow(t)
	}
}

// leaveOut keeps a crowded site until any unit ends.
func (s *Schedule) leaveOut(t *site) {
	if !t.leftOut {
		t.leftOut = true
		s.leftOut = append(s.leftOut, t)
	}
}

// readmit offers the crowded sites again. There are never more of them than
// running units.
func (s *Schedule) readmit(now int64) {
	all := s.leftOut
	s.leftOut = all[:0]
	for _, t := range all {
		t.leftOut = false
		s.offer(t, now)
	}
	clear(all[len(s.leftOut):])
}
