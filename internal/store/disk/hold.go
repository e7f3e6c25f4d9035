package disk

import (
	"tarishi/internal/mail"
	"tarishi/internal/store/journal"
)

// Hold keeps recipients, given by their indices in Envelope.Recipients, from
// being tried until Release; nil means all that are not settled. It is durable
// when Hold returns nil. A held recipient can still be settled, deferred and
// removed. Recipients that are held or settled already are no error.
func (q *Store) Hold(id mail.ID, recipients []int) error {
	return q.setHeld(id, recipients, true)
}

// Release ends what Hold began, in the same way.
func (q *Store) Release(id mail.ID, recipients []int) error {
	return q.setHeld(id, recipients, false)
}

func (q *Store) setHeld(id mail.ID, recipients []int, on bool) error {
	wait, err := q.recordHeld(id, recipients, on)
	if err != nil {
		return err
	}
	return wait()
}

// recordHeld returns how to wait until the change is durable.
func (q *Store) recordHeld(id mail.ID, recipients []int, on bool) (wait func() error, err error) {
	_, e, err := q.claim(id, recipients)
	if err != nil {
		return nil, err
	}
	defer q.mu.Unlock()
	if recipients == nil {
		for i := range e.recipients() {
			recipients = append(recipients, i)
		}
	}
	var changed []int
	for _, i := range recipients {
		if s := e.state(i); !s.settled && (s.hold == held) != on {
			s.setHeld(on)
			changed = append(changed, i)
		}
	}
	if len(changed) == 0 {
		return q.journal.Sync, nil // another call may have changed it just now
	}
	e.flags |= stale
	kind := journal.Kind(kindReleased)
	if on {
		kind = kindHeld
	}
	return q.journal.Submit(kind, encodeChange(kind, change{id: id, recipients: changed}))
}
