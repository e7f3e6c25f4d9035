package schedule

import "time"

// Locate says to which site a running unit's domain belongs: a name for those
// that share their MX, or "" for a site of its own, and the site's limits (nil:
// those that Options.Limits gave). All units of the domain follow. It returns
// false when that site has no place for the unit now, which then is ready again
// and does not belong to the caller any more.
func (s *Schedule) Locate(u *Unit, name string, l *Limits, now time.Time) bool {
	d, at := u.dest, now.UnixNano()
	if l == nil {
		l = d.limits
	}
	from := d.site
	to := from
	switch {
	case name == "" && from.shared:
		to = newSite(d.name, l)
	case name != "" && (!from.shared || from.name != name):
		if to = s.sites[name]; to == nil {
			to = newSite(name, l)
			to.shared = true
			s.sites[name] = to
		}
	}
	if d.ready > 0 && (d.limits != l || to != from) { // they may be given up earlier there
		s.sweepAt = min(s.sweepAt, at)
	}
	d.limits = l
	to.obey(l)
	if to == from && u.state != displaced && from.running <= from.places() {
		s.offer(to, at) // it may bear more now
		return true
	}
	outside := s.leave(from, u)
	s.unslow(u)
	if to != from {
		s.move(d, to)
		s.offer(from, at)
	}
	if why, _ := s.blocked(to, at); why != open {
		s.free(u)
		s.makeReady(u, at, true)
		s.offer(to, at)
		s.readmit(at)
		return false
	}
	to.take(u, at)
	if outside {
		to.late++
		d.late++
	}
	s.reslow(to, u, at)
	s.offer(to, at)
	return true
}

// Reroute says that a running unit goes another way than its domain: route names
// it, "" is the domain's. What goes one way to a domain is apart from all other
// mail for it: Locate and Report are about that alone.
func (s *Schedule) Reroute(u *Unit, route string, now time.Time) {
	old, at := u.dest, now.UnixNano()
	if old.route == route {
		return
	}
	to := &domain{name: old.name, route: route}
	if d := s.domains[to.key()]; d != nil {
		to = d
	} else {
		to.limits = s.limits(to.name)
		s.domains[to.key()] = to
	}
	to.settle()
	from := old.site
	outside := s.leave(from, u)
	s.offer(from, at)
	s.dismiss(u)
	to.admit(u)
	u.state = displaced
	to.active++
	to.site.running++
	if outside {
		to.late++
		to.site.late++
	}
}

// move makes d, of which one running unit is not counted any more, part of
// another site. The others that run come along: the site may have too many until
// each of them is located.
func (s *Schedule) move(d *domain, to *site) {
	from := d.site
	if from.probe != nil && from.probe.dest == d {
		from.probe = nil
	}
	if d.active > 0 {
		for _, u := range s.runs {
			if u.dest == d {
				u.state = displaced
			}
		}
	}
	for c := range classes {
		if d.lists != nil && d.lists[c].queued {
			from.rings[c].remove(d, c)
		}
	}
	from.running -= d.active
	to.running += d.active
	from.late -= d.late
	to.late += d.late
	s.leaveSite(d)
	d.site = to
	to.domains++
	for c := range classes {
		if d.lists != nil && d.lists[c].n > 0 {
			to.rings[c].push(d, c)
		}
	}
}

// leaveSite takes d out of its site's count; the last one forgets the site.
func (s *Schedule) leaveSite(d *domain) {
	t := d.site
	d.site = nil
	if t == nil {
		return
	}
	if t.domains--; t.domains > 0 {
		return
	}
	if t.shared {
		delete(s.sites, t.name)
	}
}
