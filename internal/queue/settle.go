package queue

import (
	"fmt"
	"time"

	"tarishi/internal/mail"
)

// Settle notes that nothing is left to do for recipients, given by their
// indices in Envelope.Recipients: they are delivered, or failed and their DSN is
// durable. A message without any other recipient is forgotten. It does not wait
// for the disk. Recipients that are settled already are no error.
func (q *Queue) Settle(id mail.ID, recipients []int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, e, err := q.pending(id, recipients)
	if err != nil {
		return err
	}
	before := e.left
	for _, i := range recipients {
		e.settle(i)
	}
	q.index.recipients -= int(before - e.left)
	switch {
	case e.left == 0:
		q.finish(k, e, id)
		return q.journal.Enqueue(kindDone, encodeChange(kindDone, change{id: id}))
	case e.left == before:
		return nil
	}
	e.flags |= stale
	return q.journal.Enqueue(kindSettled, encodeChange(kindSettled, change{id: id, recipients: recipients}))
}

// Defer notes that recipients are to be tried again: how many attempts have
// failed so far, when the next is due (the zero time: at once), and the reply
// that deferred them. It does not wait for the disk: losing it costs an early
// attempt. Settled recipients are passed over.
func (q *Queue) Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error {
	c := change{id: id, recipients: recipients, attempts: max(0, min(attempts, 1<<31-1)), next: millis(next), last: clip(last)}
	q.mu.Lock()
	defer q.mu.Unlock()
	_, e, err := q.pending(id, recipients)
	if err != nil {
		return err
	}
	c.last = q.index.texts.intern(c.last)
	for _, i := range recipients {
		if s := e.state(i); !s.settled {
			*s = state{last: c.last, next: c.next, attempts: int32(c.attempts)}
		}
	}
	e.flags |= stale
	return q.journal.Enqueue(kindDeferred, encodeChange(kindDeferred, c))
}

// pending finds a message and checks indices. Caller holds q.mu.
func (q *Queue) pending(id mail.ID, recipients []int) (key, *entry, error) {
	k, e := q.index.find(id)
	if e == nil || e.is(arriving) {
		return k, nil, fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	for _, i := range recipients {
		if i < 0 || i >= e.recipients() {
			return k, nil, fmt.Errorf("queue: message %s has no recipient %d", id, i)
		}
	}
	return k, e, nil
}

// finish takes a message out of the index. Caller holds q.mu.
func (q *Queue) finish(k key, e *entry, id mail.ID) {
	q.index.remove(k)
	q.forget(e.loc)
	if e.spooled() || e.is(large|files) {
		q.trash = append(q.trash, id)
	}
}
