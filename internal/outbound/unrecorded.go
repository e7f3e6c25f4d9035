package outbound

import (
	"time"

	"go.uber.org/zap"

	"tarishi/internal/outbound/account"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/store"
)

// noteUnrecorded keeps recipients for another try. The caller holds o.mu.
func (o *Outbound) noteUnrecorded(d account.Unrecorded) {
	if len(o.unrecorded) == 0 || d.Next.Before(o.recordAt) {
		o.recordAt = d.Next
	}
	o.unrecorded = append(o.unrecorded, d)
}

// dueUnrecorded takes those that are due off the list. The caller holds o.mu.
func (o *Outbound) dueUnrecorded(now time.Time) []account.Unrecorded {
	if len(o.unrecorded) == 0 || o.recordAt.After(now) {
		return nil
	}

	// The list is made anew, and with it the time of the next look.
	all := o.unrecorded
	o.unrecorded = nil
	var due []account.Unrecorded
	for _, d := range all {
		if d.Next.After(now) {
			o.noteUnrecorded(d)
		} else {
			due = append(due, d)
		}
	}
	return due
}

// recordAgain records recipients, and keeps those for which that is still not
// possible.
func (o *Outbound) recordAgain(settled []account.Unrecorded) {
	for _, d := range settled {
		err := o.o.Queue.Settle(d.ID, d.Recipients)
		if err == nil || store.IsUnknown(err) {
			o.mu.Lock()
			o.held.Unmark(d.ID, d.Recipients) // they may have been held meanwhile
			o.mu.Unlock()
			continue
		}
		o.o.Log.Error("recipients are done with, but the queue still cannot record it", zap.String("uuid", string(d.ID)), zap.Ints("recipients", d.Recipients), zap.Error(err))

		// The disk may be full: ask again later.
		d.Next = o.o.Now().Add(attempt.LocalWait)
		o.mu.Lock()
		o.noteUnrecorded(d)
		o.mu.Unlock()
		o.signal()
	}
}
