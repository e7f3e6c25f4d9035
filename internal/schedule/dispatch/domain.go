package dispatch

import (
	"tarishi/internal/schedule/order"
	"tarishi/internal/schedule/throttle"
	"tarishi/internal/schedule/unit"
)

// Domain is one destination as the units name it, or what of it goes one way of
// its own. It belongs to a site while something of it is ready or runs, and for as
// long as something is known of that site.
type Domain struct {
	Name  string
	Route string // see schedule.Schedule.Reroute
	Tally

	site    *site // nil: none is needed now
	limits  *throttle.Limits
	lists   *[classes]domainList // nil: nothing is ready
	ready   int32
	active  int32 // running, in its site's count
	outside int32 // of them, without a place

	lastError string // the site's, while there is none
}

// Tally is what package schedule counts of a domain.
type Tally struct {
	Units  int32 // in any state
	Stale  bool  // Oldest is too low
	Listed bool  // among those that had no units and are kept
	Oldest int64 // arrival of the oldest unit
	Idle   int64 // when there was a unit last
}

// domainList has the ready units of a domain, and its place in its site's ring.
type domainList struct {
	order.List[*Unit]
	link   *Domain // behind it in the ring
	before *Domain
	queued bool
}

// NewDomain returns a domain without units.
func NewDomain(name, route string, l *throttle.Limits) *Domain {
	return &Domain{Name: name, Route: route, limits: l}
}

// Key is the domain's name among all, also in lists for people.
func (d *Domain) Key() string {
	if d.Route == "" {
		return d.Name
	}
	return d.Name + " via " + d.Route
}

// Limits returns what holds for the domain's mail.
func (d *Domain) Limits() *throttle.Limits { return d.limits }

// Ready and Active return how many units are ready, and how many run.
func (d *Domain) Ready() int  { return int(d.ready) }
func (d *Domain) Active() int { return int(d.active) }

// Walk calls fn for each ready unit until it returns false, and then returns false
// too.
func (d *Domain) Walk(fn func(*Unit) bool) bool {
	if d.ready == 0 {
		return true
	}
	for c := range classes {
		if !d.lists[c].Walk(fn) {
			return false
		}
	}
	return true
}

// Suspended returns until when the domain's site is suspended, and since when; 0: it
// is not.
func (d *Domain) Suspended() (until, since int64) {
	if d.site == nil || d.site.Suspended() == 0 {
		return 0, 0
	}
	return d.site.Suspended(), d.site.SuspendedSince()
}

// SiteName returns the name of the domain's site, which it must have.
func (d *Domain) SiteName() string { return d.site.name }

// HasSite reports whether the domain has a site now.
func (d *Domain) HasSite() bool { return d.site != nil }

// Busy reports whether something is known of the domain's site that only time takes
// away; Plain, whether nothing is known that a new site would not do as well.
func (d *Domain) Busy(now int64) bool  { return d.site != nil && d.site.Busy(now) }
func (d *Domain) Plain(now int64) bool { return d.site == nil || d.site.isPlain(now) }

// LastError returns what was last reported of the domain's site; "": nothing.
func (d *Domain) LastError() string {
	if d.site == nil {
		return d.lastError
	}
	return d.site.LastError()
}

// settle gives d a site if it has none.
func (d *Domain) settle() {
	if d.site == nil {
		d.site = newSite(d.Name, d.limits)
		d.site.domains = 1
		d.site.SetLastError(d.lastError)
	}
}

// ProbeNow has the suspended site of a domain probed at once.
func (s *Dispatcher) ProbeNow(d *Domain, now int64) {
	d.site.ProbeNow(now)
	s.offerTurn(d.site, now)
}

// Shrink drops what a domain has only while mail of it is due: with many domains
// nearly all wait.
func (s *Dispatcher) Shrink(d *Domain, now int64) {
	if d.ready > 0 {
		return
	}
	d.lists = nil
	if t := d.site; t != nil && t.isPlain(now) {
		d.lastError = t.LastError()
		s.LeaveSite(d)
	}
}

// PutReady makes a unit ready, behind what came before it or in front.
func (s *Dispatcher) PutReady(u *Unit, now int64, first bool) {
	d, c := u.dest, u.classOf()
	u.SetState(unit.Ready)
	if d.lists == nil {
		d.lists = new([classes]domainList)
	}
	d.settle()
	if first {
		d.lists[c].PushFront(u)
	} else {
		d.lists[c].Push(u)
	}
	d.ready++

	// The site has its turn if this domain is the first with something ready.
	if t := d.site; !d.lists[c].queued {
		t.rings[c].push(d, c)
		if !t.rings[c].queued {
			s.offerTurn(t, now)
		}
	}
}

// TakeReady takes a ready unit out of its list.
func (s *Dispatcher) TakeReady(u *Unit) {
	d, c := u.dest, u.classOf()
	d.lists[c].Remove(u)
	d.ready--
	if d.lists[c].Len() == 0 && d.lists[c].queued {
		d.site.rings[c].remove(d, c)
	}
	if !d.site.pending() {
		s.cancelAlarm(d.site)
	}
}
