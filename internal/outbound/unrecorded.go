package outbound

import (
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
)

// unrecorded: settled recipients whose record failed; retried until the queue accepts
// it. That is no delivery: it waits for no place, rate or destination.
type unrecorded struct {
	id         mail.ID
	domain     string
	recipients []int
	next       time.Time // when the queue is asked again
}

// noteUnrecorded keeps recipients for another try. The caller holds o.mu.
func (o *Outbound) noteUnrecorded(d unrecorded) {
	if len(o.unrecorded) == 0 || d.next.Before(o.recordAt) {
		o.recordAt = d.next
	}
	o.unrecorded = append(o.unrecorded, d)
}

// dueUnrecorded takes those whose time has come off the list. The caller holds
// o.mu.
func (o *Outbound) dueUnrecorded(now time.Time) []unrecorded {
	if len(o.unrecorded) == 0 || o.recordAt.After(now) {
		return nil
	}
	all := o.unrecorded
	o.unrecorded = nil
	var due []unrecorded
	for _, d := range all {
		if d.next.After(now) {
			o.noteUnrecorded(d)
		} else {
			due = append(due, d)
		}
	}
	return due
}

// recordAgain records recipients, and keeps those for which that is still not
// possible.
func (o *Outbound) recordAgain(settled []unrecorded) {
	for _, d := range settled {
		err := o.o.Queue.Settle(d.id, d.recipients)
		if err == nil || o.unknown(err) {
			o.mu.Lock()
			o.unmark(d.id, d.recipients) // they may have been held meanwhile
			o.mu.Unlock()
			continue
		}
		o.o.Log.Error("recipients are done with, but the queue still cannot record it", zap.String("uuid", string(d.id)), zap.Ints("recipients", d.recipients), zap.Error(err))
		d.next = o.o.Now().Add(localWait)
		o.mu.Lock()
		o.noteUnrecorded(d)
		o.mu.Unlock()
		o.signal()
	}
}
