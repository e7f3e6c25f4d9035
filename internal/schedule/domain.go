package schedule

// domain is one destination as the units name it, or what of it goes one way of
// its own; it belongs to a site.
type domain struct {
	name   string
	route  string // see Reroute
	site   *site  // nil: none is needed now
	limits *Limits
	lists  *[classes]domainList // nil: nothing is ready
	units  int32                // in any state
	ready  int32
	active int32 // running, in its site's count
	late   int32 // of them, without a place
	stale  bool  // oldest is too low
	oldest int64 // arrival of the oldest unit
	idle   int64 // when there was a unit last
	listed bool  // in Schedule.idle

	lastError string // the site's, while there is none
}

// key is the domain's name in Schedule.domains, and what it is shown as.
func (d *domain) key() string {
	if d.route == "" {
		return d.name
	}
	return d.name + " via " + d.route
}

// domainList is what is ready for a domain, and its place in its site's ring.
type domainList struct {
	list
	link   *domain // behind it in the ring
	before *domain
	queued bool
}

// admit makes u one of d's units.
func (d *domain) admit(u *Unit) {
	if d.units == 0 || u.received < d.oldest {
		d.oldest, d.stale = u.received, false
	}
	d.units++
	u.dest = d
}

// dismiss is the opposite; u is in no structure of its domain any more.
func (s *Schedule) dismiss(u *Unit) {
	d := u.dest
	if u.received == d.oldest {
		d.stale = true
	}
	if d.units--; d.units == 0 {
		s.retire(d)
	}
}

// retire forgets a domain without units, at once if nothing was learned of it.
func (s *Schedule) retire(d *domain) {
	d.idle = s.seen
	if d.listed {
		return
	}
	if d.site == nil || d.site.plain(s.seen) {
		s.erase(d)
		return
	}
	d.listed = true
	s.idle = append(s.idle, d)
	if len(s.idle) > maxIdle {
		s.unidle()
	}
}

// unidle takes the first domain off the list, and forgets it if it still has no
// units.
func (s *Schedule) unidle() {
	d := s.idle[0]
	s.idle[0] = nil
	if s.idle = s.idle[1:]; len(s.idle) == 0 {
		s.idle = nil
	}
	d.listed = false
	if d.units == 0 {
		s.erase(d)
	}
}

func (s *Schedule) erase(d *domain) {
	s.leaveSite(d)
	delete(s.domains, d.key())
}

// forget forgets what was learned of domains that have had no mail for long. It
// looks at two at a time, so that it never takes long.
func (s *Schedule) forget(now int64) {
	for range min(2, len(s.idle)) {
		d := s.idle[0]
		busy := d.site != nil && (d.site.tat > now || d.site.until > now)
		if d.units == 0 && (busy || now-d.idle < int64(idleFor)) {
			s.idle = append(s.idle[1:], d)
			continue
		}
		s.unidle()
	}
}

// shrink drops what a domain has only while mail of it is due: with many
// domains nearly all wait.
func (s *Schedule) shrink(d *domain, now int64) {
	if d.ready > 0 {
		return
	}
	d.lists = nil
	if t := d.site; t != nil && t.plain(now) {
		d.lastError = t.lastError
		s.leaveSite(d)
	}
}

// settle gives d a site if it has none.
func (d *domain) settle() {
	if d.site == nil {
		d.site = newSite(d.name, d.limits)
		d.site.domains, d.site.lastError = 1, d.lastError
	}
}
