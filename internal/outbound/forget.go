package outbound

import (
	"slices"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/schedule"
)

// Forget drops messages that were taken out of the queue. An attempt that runs
// is not stopped.
func (o *Outbound) Forget(ids ...mail.ID) {
	gone := make(map[mail.ID]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var units []*schedule.Unit
	o.schedule.WalkOf(func(u *schedule.Unit) bool {
		if !u.Running() {
			units = append(units, u)
		}
		return true
	}, ids...)
	for _, u := range units {
		delete(o.kept, u)
		o.schedule.Drop(u)
	}
	o.gathering.Forget(gone)
	o.unrecorded = slices.DeleteFunc(o.unrecorded, func(d attempt.Unrecorded) bool { return gone[d.ID] })
	for _, id := range ids {
		delete(o.held, id)
	}
}
