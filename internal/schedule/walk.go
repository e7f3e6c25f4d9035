package schedule

import "tarishi/internal/mail"

// Len returns the number of units in any state.
func (s *Schedule) Len() int { return s.units }

// Stat counts the units by state; doomed ones count as ready.
type Stat struct{ Waiting, Ready, Running int }

// Stat returns how many units are in each state.
func (s *Schedule) Stat() Stat {
	return Stat{
		Waiting: len(s.waiting),
		Ready:   s.units - len(s.waiting) - len(s.runs),
		Running: len(s.runs),
	}
}

// Walk calls fn for each unit, in no order, until it returns false. fn must not
// change the Schedule; what it collects may be dropped afterwards.
func (s *Schedule) Walk(fn func(*Unit) bool) {
	for _, all := range [][]*Unit{s.waiting, s.runs} {
		for _, u := range all {
			if !fn(u) {
				return
			}
		}
	}
	if s.doomed.walk(fn) {
		s.walkReady(fn)
	}
}

// WalkOf is Walk for the units of some messages. It looks at all units too, but
// makes no text of their ids, which takes most of the time.
func (s *Schedule) WalkOf(fn func(*Unit) bool, messages ...mail.ID) {
	keys, others := map[mail.Key]bool{}, map[mail.ID]bool{}
	for _, id := range messages {
		if k, ok := id.Key(); ok {
			keys[k] = true
		} else {
			others[id] = true
		}
	}
	s.Walk(func(u *Unit) bool {
		wanted := keys[u.id]
		if u.more != nil && u.more.id != "" {
			wanted = others[u.more.id]
		}
		return !wanted || fn(u)
	})
}

// walkReady calls fn for each ready unit until it returns false.
func (s *Schedule) walkReady(fn func(*Unit) bool) bool {
	for _, d := range s.domains {
		if d.ready == 0 {
			continue
		}
		for c := range classes {
			if !d.lists[c].walk(fn) {
				return false
			}
		}
	}
	return true
}
