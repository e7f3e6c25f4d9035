package schedule

import (
	"tarishi/internal/mail"
)

// Len returns the number of units in any state.
func (s *Schedule) Len() int { return s.units }

// Stat counts the units by state; doomed ones count as ready.
type Stat struct{ Waiting, Ready, Running int }

// Stat returns how many units are in each state.
func (s *Schedule) Stat() Stat {
	running := len(s.dispatch.Running()) + s.given.Len()
	return Stat{
		Waiting: len(s.waiting),
		Ready:   s.units - len(s.waiting) - running,
		Running: running,
	}
}

// Walk calls fn for each unit, in no order, until it returns false. fn must not
// change the Schedule; units that it collects may be dropped afterwards.
func (s *Schedule) Walk(fn func(*Unit) bool) {
	for _, all := range [][]*Unit{s.waiting, s.dispatch.Running()} {
		for _, u := range all {
			if !fn(u) {
				return
			}
		}
	}
	if s.given.Walk(fn) && s.doomed.Walk(fn) {
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
	s.Walk(func(u *Unit) bool { return !u.IsOf(keys, others) || fn(u) })
}

// walkReady calls fn for each ready unit until it returns false.
func (s *Schedule) walkReady(fn func(*Unit) bool) bool {
	for _, d := range s.domains {
		if !d.Walk(fn) {
			return false
		}
	}
	return true
}
