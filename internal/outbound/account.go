package outbound

import (
	"time"

	"go.uber.org/zap"

	"tarishi/internal/reply"
)

// rest is recipients that stay scheduled.
type rest struct {
	index    []int
	attempts int
	next     time.Time
}

// all is r for every recipient.
func (a *attempt) all(r *reply.Reply) []*reply.Reply {
	replies := make([]*reply.Reply, len(a.index))
	for i := range replies {
		replies[i] = r
	}
	return replies
}

// open returns the recipients that are not accounted for.
func (a *attempt) open() []int {
	var open []int
	for i, done := range a.accounted {
		if !done {
			open = append(open, i)
		}
	}
	return open
}

// keep leaves recipients in the schedule, as r says.
func (a *attempt) keep(recipients []int, r rest) {
	if len(recipients) == 0 {
		return
	}
	r.index = a.account(recipients)
	a.later = append(a.later, r)
}

// account marks recipients as accounted for and returns their indices.
func (a *attempt) account(recipients []int) []int {
	for _, i := range recipients {
		a.accounted[i] = true
	}
	return a.indices(recipients)
}

// indices returns recipients by their indices in the queue's envelope.
func (a *attempt) indices(recipients []int) []int {
	index := make([]int, len(recipients))
	for n, i := range recipients {
		index[n] = a.index[i]
	}
	return index
}

// settle records in the queue that recipients are done with. Where that is not
// possible now it is all that remains to be done for them.
func (a *attempt) settle(recipients []int) {
	index := a.account(recipients)
	if err := a.o.o.Queue.Settle(a.unit.ID(), index); err != nil && !a.o.unknown(err) {
		a.log("recipients are done with, but the queue cannot record it", zap.Ints("recipients", index), zap.Error(err))
		a.unrecorded = append(a.unrecorded, unrecorded{a.unit.ID(), a.unit.Domain(), index, a.now().Add(localWait)})
	}
}

// vanished is for recipients of a message that somebody took out of the queue.
func (a *attempt) vanished(recipients []int) {
	a.account(recipients)
	a.o.o.Log.Warn("message is not in the queue any more", zap.String("uuid", string(a.unit.ID())))
}
