package disk

import (
	"fmt"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store"
)

// Settle notes that nothing is left to do for recipients, given by their
// indices in Envelope.Recipients: they are delivered, or failed and their DSN is
// durable. A message without any other recipient is forgotten. It does not wait
// for the disk. Recipients that are settled already are no error.
func (q *Store) Settle(id mail.ID, recipients []int) error {
	k, e, err := q.claim(id, recipients)
	if err != nil {
		return err
	}
	defer q.mu.Unlock()
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
func (q *Store) Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error {
	c := change{id: id, recipients: recipients, attempts: max(0, min(attempts, 1<<31-1)), next: millis(next), last: clip(last)}
	_, e, err := q.claim(id, recipients)
	if err != nil {
		return err
	}
	defer q.mu.Unlock()
	deferred := state{last: q.index.texts.intern(c.last), next: c.next, attempts: int32(c.attempts)}
	for _, i := range recipients {
		if s := e.state(i); !s.settled {
			deferred.hold = s.hold
			*s = deferred
		}
	}
	e.flags |= stale
	return q.journal.Enqueue(kindDeferred, encodeChange(kindDeferred, c))
}

// Remove takes a message out of the queue, whatever its recipients wait for. It
// is durable when Remove returns nil.
func (q *Store) Remove(id mail.ID) error {
	if err := q.remove(id); err != nil {
		return err
	}
	return q.journal.Sync()
}

func (q *Store) remove(id mail.ID) error {
	k, e, err := q.claim(id, nil)
	if err != nil {
		return err
	}
	defer q.mu.Unlock()
	q.finish(k, e, id)
	return q.journal.Enqueue(kindDone, encodeChange(kindDone, change{id: id}))
}

// Sync returns when everything recorded so far is on stable storage.
func (q *Store) Sync() error {
	if q.look {
		return store.ErrReadOnly
	}
	return q.journal.Sync()
}

// claim returns a message's whole entry with q.mu locked, unless it fails, and
// checks indices of recipients.
func (q *Store) claim(id mail.ID, recipients []int) (key, *entry, error) {
	if q.look {
		return key{}, nil, store.ErrReadOnly
	}
	q.mu.Lock()
	k, e := q.index.find(id)
	for e != nil && e.is(partial) {
		q.mu.Unlock()
		if _, _, err := q.wake(id, true); err != nil {
			return k, nil, err
		}
		q.mu.Lock()
		k, e = q.index.find(id)
	}
	err := error(nil)
	if e == nil || e.is(arriving) {
		err = fmt.Errorf("%w: %s", store.ErrUnknown, id)
	} else {
		for _, i := range recipients {
			if i < 0 || i >= e.recipients() {
				err = fmt.Errorf("queue: message %s has no recipient %d", id, i)
			}
		}
	}
	if err != nil {
		q.mu.Unlock()
		return k, nil, err
	}
	return k, e, nil
}

// finish takes a message out of the index. Caller holds q.mu.
func (q *Store) finish(k key, e *entry, id mail.ID) {
	q.index.remove(k)
	q.forget(e.loc)
	if e.spooled() || e.is(large|files) {
		q.trash = append(q.trash, id)
	}
}
