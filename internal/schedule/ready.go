package schedule

import "time"

// place puts a unit that is in no structure where its time says.
func (s *Schedule) place(u *Unit, now time.Time) {
	at := now.UnixNano()
	if u.next <= at {
		s.makeReady(u, at, false)
		return
	}
	u.state = waiting
	s.waiting.push(u)
	s.shrink(u.dest, at)
}

func (s *Schedule) makeReady(u *Unit, now int64, first bool) {
	d, c := u.dest, u.class()
	u.state = ready
	if d.lists == nil {
		d.lists = new([classes]domainList)
	}
	d.settle()
	if first {
		d.lists[c].unshift(u)
	} else {
		d.lists[c].push(u)
	}
	d.ready++
	s.sweepAt = min(s.sweepAt, u.end())
	if t := d.site; !d.lists[c].queued {
		t.rings[c].push(d, c)
		if !t.rings[c].queued {
			s.offer(t, now)
		}
	}
}

// unready takes a ready unit out of its list.
func (s *Schedule) unready(u *Unit) {
	d, c := u.dest, u.class()
	d.lists[c].remove(u)
	d.ready--
	if d.lists[c].n == 0 && d.lists[c].queued {
		d.site.rings[c].remove(d, c)
	}
	if !d.site.pending() {
		s.alarms.remove(d.site)
	}
}
