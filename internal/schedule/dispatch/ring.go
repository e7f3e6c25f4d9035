package dispatch

// siteRing is the domains in turn within a site, and the site's place
// in the ring of its class.
type siteRing struct {
	head, tail *Domain
	link       *site
	queued     bool
}

func (t *site) pending() bool {
	return t.rings[fresh].head != nil || t.rings[retry].head != nil || t.rings[null].head != nil
}

func (r *siteRing) push(d *Domain, c class) {
	l := &d.lists[c]
	if l.queued {
		return
	}
	l.queued, l.link, l.before = true, nil, r.tail
	if r.tail == nil {
		r.head = d
	} else {
		r.tail.lists[c].link = d
	}
	r.tail = d
}

func (r *siteRing) pop(c class) *Domain {
	d := r.head
	r.remove(d, c)
	return d
}

// remove takes out a domain that is queued here.
func (r *siteRing) remove(d *Domain, c class) {
	l := &d.lists[c]
	if l.before == nil {
		r.head = l.link
	} else {
		l.before.lists[c].link = l.link
	}
	if l.link == nil {
		r.tail = l.before
	} else {
		l.link.lists[c].before = l.before
	}
	l.link, l.before, l.queued = nil, nil, false
}

// ring is the sites in turn, first come first served.
type ring struct{ head, tail *site }

func (r *ring) push(t *site, c class) {
	l := &t.rings[c]
	if l.queued {
		return
	}
	l.queued, l.link = true, nil
	if r.tail == nil {
		r.head = t
	} else {
		r.tail.rings[c].link = t
	}
	r.tail = t
}

func (r *ring) pop(c class) *site {
	t := r.head
	l := &t.rings[c]
	if r.head = l.link; r.head == nil {
		r.tail = nil
	}
	l.link, l.queued = nil, false
	return t
}
