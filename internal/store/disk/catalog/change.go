package catalog

import (
	"encoding/json"
	"fmt"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/index"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/journal"
)

// maxSet bounds the notes that one call may set, in bytes of JSON.
const maxSet = 64 << 10

// Settle is store.Delivery's.
func (c *Catalog) Settle(id mail.ID, recipients []int) error {
	k, e, err := c.lockEntry(id, recipients)
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	news := c.index.Settle(e, recipients...)
	switch {
	case e.Left == 0:
		c.Finish(k, e, id)
		return c.enqueue(record.KindDone, record.Change{ID: id})
	case !news:
		return nil
	}
	e.Flags |= index.Stale
	return c.enqueue(record.KindSettled, record.Change{ID: id, Recipients: recipients})
}

// Defer is store.Delivery's.
func (c *Catalog) Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error {
	ch := record.Change{ID: id, Recipients: recipients, Attempts: max(0, min(attempts, 1<<31-1)), Next: index.Millis(next), Last: record.ClipReply(last)}
	_, e, err := c.lockEntry(id, recipients)
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	deferred := index.State{Last: c.index.Intern(ch.Last), Next: ch.Next, Attempts: int32(ch.Attempts)}
	for _, i := range recipients {
		if s := e.StateOf(i); !s.Settled {
			deferred.Hold = s.Hold
			*s = deferred
		}
	}
	e.Flags |= index.Stale
	return c.enqueue(record.KindDeferred, ch)
}

// SetNotes is store.Delivery's.
func (c *Catalog) SetNotes(id mail.ID, values map[string]any) error {
	ch := record.Change{ID: id, Notes: make(map[string]json.RawMessage, len(values))}
	for path, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("%w: %s: note %s: %w", store.ErrNotes, id, path, err)
		}
		ch.Notes[path] = b
	}

	// Notes stay in memory until the next spill, so they are bounded.
	if n := index.NewNoted(ch.Notes).JSONBytes(); n > maxSet {
		return fmt.Errorf("%w: %s: %d bytes at once, more than %d", store.ErrNotes, id, n, maxSet)
	}

	// The state file is read first if need be: its notes and these become one.
	k, e, err := c.lockEntry(id, nil)
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	if err := c.index.Notes.AddNotes(k, ch.Notes); err != nil {
		return fmt.Errorf("%w: %s: %w", store.ErrNotes, id, err)
	}
	e.Flags |= index.Stale
	return c.enqueue(record.KindNotes, ch)
}

// SetHeld holds or releases recipients; nil: all that are not settled. wait returns
// when that is durable.
func (c *Catalog) SetHeld(id mail.ID, recipients []int, on bool) (wait func() error, err error) {
	_, e, err := c.lockEntry(id, recipients)
	if err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	if recipients == nil {
		for i := range e.Recipients() {
			recipients = append(recipients, i)
		}
	}

	// Only what changes is recorded.
	var changed []int
	for _, i := range recipients {
		if s := e.StateOf(i); !s.Settled && (s.Hold == index.Held) != on {
			s.SetHeld(on)
			changed = append(changed, i)
		}
	}
	if len(changed) == 0 {
		return c.journal.Sync, nil // another call may have changed it just now
	}
	e.Flags |= index.Stale

	// The caller waits without the lock, and shares the sync with others.
	kind := journal.Kind(record.KindReleased)
	if on {
		kind = record.KindHeld
	}
	return c.journal.Submit(kind, record.EncodeChange(kind, record.Change{ID: id, Recipients: changed}))
}

// Remove takes a message out. It does not wait for the disk.
func (c *Catalog) Remove(id mail.ID) error {
	k, e, err := c.lockEntry(id, nil)
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	c.Finish(k, e, id)
	return c.enqueue(record.KindDone, record.Change{ID: id})
}

// enqueue records a change. Caller holds mu, so that records have the order of the
// changes in memory.
func (c *Catalog) enqueue(k journal.Kind, ch record.Change) error {
	return c.journal.Enqueue(k, record.EncodeChange(k, ch))
}

// lockEntry returns a message's whole entry with mu locked, unless it fails, and checks
// indices of recipients.
func (c *Catalog) lockEntry(id mail.ID, recipients []int) (index.Key, *index.Entry, error) {
	if c.options.ReadOnly {
		return index.Key{}, nil, store.ErrReadOnly
	}
	c.mu.Lock()
	k, e := c.index.Find(id)

	// A partial entry is completed without the lock; it may have rested again, or gone,
	// when the lock is taken again.
	for e != nil && e.Is(index.Partial) {
		c.mu.Unlock()
		if _, _, err := c.wakeEntry(id, true); err != nil {
			return k, nil, err
		}
		c.mu.Lock()
		k, e = c.index.Find(id)
	}

	// The lock is kept only for a message that is here.
	err := error(nil)
	if e == nil || e.Is(index.Arriving) {
		err = fmt.Errorf("%w: %s", store.ErrUnknown, id)
	} else {
		for _, i := range recipients {
			if i < 0 || i >= e.Recipients() {
				err = fmt.Errorf("queue: message %s has no recipient %d", id, i)
			}
		}
	}
	if err != nil {
		c.mu.Unlock()
		return k, nil, err
	}
	return k, e, nil
}
