package attempt

import (
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/remember"
	"tarishi/internal/reply"
	"tarishi/internal/store"
)

// Left is what an attempt leaves.
type Left struct {
	Later      []Rest
	Unrecorded []Unrecorded
	Kept       remember.Kept // for what stays scheduled
}

// Rest is recipients that stay scheduled, by their indices in the queue's envelope.
type Rest struct {
	Index    []int
	Attempts int
	Next     time.Time
}

// Unrecorded is settled recipients that the queue could not record: it is asked again
// until it does. That is no delivery: it waits for no place, rate or destination.
type Unrecorded struct {
	ID         mail.ID
	Domain     string
	Recipients []int
	Next       time.Time // when the queue is asked again
}

// replyToAll is r for every recipient.
func (a *Attempt) replyToAll(r *reply.Reply) []*reply.Reply {
	replies := make([]*reply.Reply, len(a.index))
	for i := range replies {
		replies[i] = r
	}
	return replies
}

// unaccounted returns the recipients that are not accounted for.
func (a *Attempt) unaccounted() []int {
	var open []int
	for i, done := range a.accounted {
		if !done {
			open = append(open, i)
		}
	}
	return open
}

// keepScheduled leaves recipients in the schedule, as r says.
func (a *Attempt) keepScheduled(recipients []int, r Rest) {
	if len(recipients) == 0 {
		return
	}
	r.Index = a.account(recipients)
	a.left.Later = append(a.left.Later, r)
}

// account marks recipients as accounted for and returns their indices.
func (a *Attempt) account(recipients []int) []int {
	for _, i := range recipients {
		a.accounted[i] = true
	}
	return a.indices(recipients)
}

// indices returns recipients by their indices in the queue's envelope.
func (a *Attempt) indices(recipients []int) []int {
	index := make([]int, len(recipients))
	for n, i := range recipients {
		index[n] = a.index[i]
	}
	return index
}

// settle records in the queue that recipients are done with. Where that is not
// possible now it is all that remains to be done for them.
func (a *Attempt) settle(recipients []int) {
	index := a.account(recipients)
	if err := a.m.o.Queue.Settle(a.unit.ID(), index); err != nil && !store.IsUnknown(err) {
		a.logError("recipients are done with, but the queue cannot record it", zap.Ints("recipients", index), zap.Error(err))
		a.left.Unrecorded = append(a.left.Unrecorded, Unrecorded{ID: a.unit.ID(), Domain: a.unit.Domain(), Recipients: index, Next: a.now().Add(LocalWait)})
	}
}

// vanished is for recipients of a message that somebody took out of the queue.
func (a *Attempt) vanished(recipients []int) {
	a.account(recipients)
	a.m.o.Log.Warn("message is not in the queue any more", zap.String("uuid", string(a.unit.ID())))
}
