package dispatch

import (
	"tarishi/internal/schedule/throttle"
	"tarishi/internal/schedule/unit"
)

// Locate says to which site a running unit's domain belongs: a name for those
// that share their MX, or "" for a site for itself, and the site's limits (nil:
// those of the domain). All units of the domain follow. It is not located when that
// site has no place for it now: then it is ready again. moved reports whether the
// domain has changed its site.
func (s *Dispatcher) Locate(u *Unit, name string, l *throttle.Limits, now int64) (located, moved bool) {
	d := u.dest
	if l == nil {
		l = d.limits
	}
	from := d.site
	to := s.siteOf(d, name, l)
	d.limits = l
	to.SetLimits(l, now)

	// Its probe was handed out beside those that ran before, whatever the limit is.
	stays := to == from && u.State() != unit.Displaced
	if stays && (from.probe == u || from.running <= from.Places()) {
		s.offerTurn(to, now) // it may bear more now
		return true, false
	}

	// The unit leaves its place and takes one at the other site, if there is one.
	outside := s.leavePlace(from, u)
	s.uncountSlow(u)
	if to != from {
		s.moveDomain(d, to)
		s.offerTurn(from, now)
	}
	if why, _ := s.obstacleOf(to, now); why != open {
		s.freePlace(u)
		s.PutReady(u, now, true)
		s.offerTurn(to, now)
		s.readmit(now)
		return false, to != from
	}
	to.takePlace(u, now)
	if outside {
		to.outside++
		d.outside++
	}
	s.recountSlow(to, u, now)
	s.offerTurn(to, now)
	return true, to != from
}

// siteOf returns the site that has a name, or d's own, which may have to be made.
func (s *Dispatcher) siteOf(d *Domain, name string, l *throttle.Limits) *site {
	// A site that has the name already keeps what was learned of it.
	from := d.site
	switch {
	case name == "" && from.shared:
		return newSite(d.Name, l)
	case name == "" || from.shared && from.name == name:
		return from
	}
	to := s.sites[name]
	if to == nil {
		to = newSite(name, l)
		to.shared = true
		s.sites[name] = to
	}
	return to
}

// Reroute makes a running unit one of another domain. It is displaced until it is
// located.
func (s *Dispatcher) Reroute(u *Unit, to *Domain, now int64) {
	to.settle()
	from := u.dest.site
	outside := s.leavePlace(from, u)
	s.offerTurn(from, now)
	u.dest = to
	u.SetState(unit.Displaced)
	to.active++
	to.site.running++
	if outside {
		to.outside++
		to.site.outside++
	}
}

// moveDomain makes d, which has one running unit that is not counted any more, part of
// another site. The others that run come along: the site may have too many until
// each of them is located.
func (s *Dispatcher) moveDomain(d *Domain, to *site) {
	from := d.site

	// The probe says nothing about the site that it leaves.
	if from.probe != nil && from.probe.dest == d {
		from.probe = nil
	}

	// They are counted at the new site until each of them is located.
	if d.active > 0 {
		for _, u := range s.runs {
			if u.dest == d {
				u.SetState(unit.Displaced)
			}
		}
	}
	for c := range classes {
		if d.lists != nil && d.lists[c].queued {
			from.rings[c].remove(d, c)
		}
	}

	// Counts follow the domain, and so does its place in the rings.
	from.running -= d.active
	to.running += d.active
	from.outside -= d.outside
	to.outside += d.outside
	s.LeaveSite(d)
	d.site = to
	to.domains++
	for c := range classes {
		if d.lists != nil && d.lists[c].Len() > 0 {
			to.rings[c].push(d, c)
		}
	}
}

// LeaveSite takes d out of its site's count; the last one forgets the site.
func (s *Dispatcher) LeaveSite(d *Domain) {
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
