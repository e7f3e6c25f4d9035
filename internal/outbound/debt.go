package outbound

import (
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
)

// debt is recipients that are done with, and a queue that could not record it.
// It is no delivery: it waits for no place, rate or destination.
type debt struct {
	id         mail.ID
	domain     string
	recipients []int
	next       time.Time // when the queue is asked again
}

// owe notes a debt. The caller holds o.mu.
func (o *Outbound) owe(d debt) {
	if len(o.debts) == 0 || d.next.Before(o.repayAt) {
		o.repayAt = d.next
	}
	o.debts = append(o.debts, d)
}

// payable takes the debts whose time has come off the list. The caller holds
// o.mu.
func (o *Outbound) payable(now time.Time) []debt {
	if len(o.debts) == 0 || o.repayAt.After(now) {
		return nil
	}
	all := o.debts
	o.debts = nil
	var due []debt
	for _, d := range all {
		if d.next.After(now) {
			o.owe(d)
		} else {
			due = append(due, d)
		}
	}
	return due
}

// repay records debts, and keeps those for which that is still not possible.
func (o *Outbound) repay(debts []debt) {
	for _, d := range debts {
		err := o.o.Queue.Settle(d.id, d.recipients)
		if err == nil || unknown(err) {
			o.mu.Lock()
			o.unmark(d.id, d.recipients) // they may have been held meanwhile
			o.mu.Unlock()
			continue
		}
		o.o.Log.Error("recipients are done with, but the queue still cannot record it", zap.String("uuid", string(d.id)), zap.Ints("recipients", d.recipients), zap.Error(err))
		d.next = o.o.Now().Add(localWait)
		o.mu.Lock()
		o.owe(d)
		o.mu.Unlock()
		o.signal()
	}
}
