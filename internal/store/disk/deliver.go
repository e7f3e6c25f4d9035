package disk

import (
	"context"
	"fmt"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/index"
	"tarishi/internal/store/disk/quarantine"
)

// Watch implements store.Store. Nobody else adds messages or takes them away, so the
// Deliverer is never called.
func (q *Store) Watch(store.Deliverer) {}

// Permit implements store.Store: the holder of the lock owns every message.
func (q *Store) Permit(mail.ID) error { return nil }

// Adopt implements store.Store: it passes on what was there when the store was opened
// and still is. No message is passed twice, however often Adopt is called.
func (q *Store) Adopt(fn func(mail.Pending) bool) (left int) {
	q.adopting.Lock()
	keys := q.found
	q.found = nil
	q.adopting.Unlock()

	// The keys are visited without the lock: fn starts work, and a million messages take a while.
	again := q.catalog.VisitKeys(keys, fn)
	if len(again) > 0 {
		q.adopting.Lock()
		q.found = again
		q.adopting.Unlock()
	}
	return len(again)
}

// Load implements store.Store. A message with a damaged envelope goes to corrupt/ and
// is unknown. The content's reader fails at its end if it is not as it was accepted,
// and stays valid when the message leaves.
func (q *Store) Load(id mail.ID) (*mail.Envelope, mail.Content, error) { return q.catalog.Load(id) }

// Find implements store.Store. It logs what cannot be read.
func (q *Store) Find(id mail.ID) (mail.Pending, bool) { return q.catalog.Find(id) }

// Settle implements store.Store.
func (q *Store) Settle(id mail.ID, recipients []int) error { return q.catalog.Settle(id, recipients) }

// Defer implements store.Store.
func (q *Store) Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error {
	return q.catalog.Defer(id, recipients, attempts, next, last)
}

// SetNotes implements store.Store. No path may lie within another one that was ever
// set.
func (q *Store) SetNotes(id mail.ID, values map[string]any) error {
	return q.catalog.SetNotes(id, values)
}

// Hold implements store.Store. A held recipient can still be settled, deferred and
// removed.
func (q *Store) Hold(id mail.ID, recipients []int) error { return q.setHeld(id, recipients, true) }

// Release implements store.Store.
func (q *Store) Release(id mail.ID, recipients []int) error {
	return q.setHeld(id, recipients, false)
}

func (q *Store) setHeld(id mail.ID, recipients []int, on bool) error {
	wait, err := q.catalog.SetHeld(id, recipients, on)
	if err != nil {
		return err
	}
	return wait()
}

// Path implements store.Store: the file goes away with the message. It may wait for the
// work in the background.
func (q *Store) Path(id mail.ID) (string, error) {
	if q.readOnly {
		return "", store.ErrReadOnly
	}
	at, err := q.catalog.Lookup(id)
	if err != nil {
		return "", err
	}

	// A hook wants a file, and a message in the journal has none. It is spilled now instead of
	// later.
	if !at.Spooled() && !at.Is(index.Large) {
		if err := q.spiller.SpillNow(context.Background(), id); err != nil {
			return "", fmt.Errorf("queue: spill %s: %w", id, err)
		}

		// The message may have been delivered while it was spilled.
		if _, err := q.catalog.Lookup(id); err != nil {
			return "", err
		}
	}
	return q.spool.Path(id), nil
}

// Walk implements store.Store: those in the journal come first, in the order of their
// arrival. One line of the log counts what cannot be read.
func (q *Store) Walk(fn func(mail.Pending) bool) { q.catalog.VisitKeys(q.catalog.AllKeys(), fn) }

// WalkUnreadable implements store.Store, in the order of the IDs.
func (q *Store) WalkUnreadable(fn func(id mail.ID, reason string) bool) {
	q.catalog.WalkUnreadable(fn)
}

// Unreadable implements store.Store. Before Adopt has passed all messages on, some may
// not have been tried yet.
func (q *Store) Unreadable() store.Unreadable { return q.catalog.Unreadable() }

// Stat implements store.Store.
func (q *Store) Stat() store.Stat { return q.catalog.Stat() }

// Remove implements store.Store.
func (q *Store) Remove(id mail.ID) error {
	if err := q.catalog.Remove(id); err != nil {
		return err
	}
	return q.journal.Sync()
}

// Sync implements store.Store.
func (q *Store) Sync() error {
	if q.readOnly {
		return store.ErrReadOnly
	}
	return q.journal.Sync()
}

// Contains reports whether a message is here.
func (q *Store) Contains(id mail.ID) bool { return q.catalog.Contains(id) }

// Restoration is what Restore did with one file in corrupt/.
type Restoration = quarantine.Restoration

// Restore brings back what corrupt/ holds and can be read by now, see
// quarantine.Restore. It is for a store from which nothing is delivered meanwhile. A
// dry run changes nothing, and may be made on a store of OpenReadOnly.
func (q *Store) Restore(ctx context.Context, dryRun bool) ([]Restoration, error) {
	if q.readOnly && !dryRun {
		return nil, store.ErrReadOnly
	}
	return quarantine.Restore(ctx, quarantine.Options{Spool: q.spool, Store: q, DryRun: dryRun, Log: q.log})
}
