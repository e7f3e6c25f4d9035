package outbound

import "time"

// recall ends attempts that have to end. The caller holds o.mu.
func (o *Outbound) recall(now time.Time) {
	for _, c := range o.schedule.Recall(now) {
		if a := o.running[c.Unit]; a != nil {
			a.Recall(c.Overdue)
		}
	}
}
