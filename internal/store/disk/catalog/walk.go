package catalog

import (
	"errors"
	"sync"
	"sync/atomic"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/index"
)

// State files are read by a few at a time: a disk is faster that way, and those that
// accept mail meanwhile are not crowded out.
const (
	readers = 16
	chunk   = 32 * readers
)

// AllKeys returns the keys of all messages: first those in the journal, in the order of
// their arrival.
func (c *Catalog) AllKeys() []index.Key {
	c.mu.Lock()
	s := c.index.Snapshot()
	c.mu.Unlock()
	return s.Ordered()
}

// VisitKeys calls fn with messages until it returns false. It returns the keys, in the
// memory of the argument, of those that fn did not get and that cannot be read now.
// One line of the log counts the latter.
func (c *Catalog) VisitKeys(keys []index.Key, fn func(mail.Pending) bool) (again []index.Key) {
	defer c.logUnreadable()
	again = keys[:0]
	var found [chunk]mail.Pending
	var errs [chunk]error
	for len(keys) > 0 {
		// Chunk by chunk, so that memory does not grow with the number of messages.
		part := keys[:min(len(keys), chunk)]
		var next atomic.Int64
		var wg sync.WaitGroup
		for range min(readers, len(part)) {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < len(part); i = int(next.Add(1)) - 1 {
					found[i], errs[i] = c.findPending(c.idOfKey(part[i]))
				}
			})
		}
		wg.Wait()

		// They are passed on in the order of their keys, not in that of the reads.
		for i, k := range part {
			switch {
			case errs[i] == nil:
				if !fn(found[i]) {
					return append(again, keys[i+1:]...)
				}
			case !errors.Is(errs[i], store.ErrUnknown):
				again = append(again, k)
			}
		}
		keys = keys[len(part):]
	}
	return again
}

// idOfKey returns the ID of a key, "" if it is unknown.
func (c *Catalog) idOfKey(k index.Key) mail.ID {
	if !k.IsOdd() {
		return mail.Key(k).ID()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index.ID(k)
}
