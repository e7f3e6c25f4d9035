package catalog

import (
	"fmt"
	"slices"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/record"
)

// AddTrash notes a finished message that has files. Caller holds mu, or nobody else knows
// the catalog yet.
func (c *Catalog) AddTrash(id mail.ID) { c.trash = append(c.trash, id) }

// TrashSize is how many finished messages still have files.
func (c *Catalog) TrashSize() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.trash)
}

// EmptyTrash removes the files of finished messages, after the record that they are
// finished is durable.
func (c *Catalog) EmptyTrash() error {
	c.mu.Lock()
	ids := c.trash
	c.trash = nil
	c.mu.Unlock()

	// What cannot be removed now is tried again.
	left := ids[:0]
	err := c.journal.Sync()
	if err != nil {
		left = ids
	} else {
		for _, id := range ids {
			if e := c.removeFiles(id); e != nil {
				left, err = append(left, id), e // the last error stands for all
			}
		}
	}
	if len(left) > 0 {
		c.mu.Lock()
		c.trash = append(c.trash, left...)
		c.mu.Unlock()
	}
	return err
}

func (c *Catalog) removeFiles(id mail.ID) error {
	mu := c.filesOf(id)
	mu.Lock()
	defer mu.Unlock()
	c.mu.Lock()
	_, e := c.index.Find(id)
	c.mu.Unlock()
	if e != nil {
		return nil // the same ID came again
	}
	return c.spool.Remove(id)
}

// maxRepeated bounds what RepeatDone writes each time.
const maxRepeated = 1000

// RepeatDone writes once more that messages are finished, if their files cannot be
// removed, so that the segment that says so is not needed for them: a few such files
// must not keep the journal from getting shorter.
func (c *Catalog) RepeatDone() error {
	c.mu.Lock()
	ids := slices.Clone(c.trash)
	c.mu.Unlock()
	if len(ids) > maxRepeated {
		return fmt.Errorf("queue: files of %d finished messages cannot be removed", len(ids))
	}
	for _, id := range ids {
		if err := c.repeat(id); err != nil {
			return err
		}
	}
	return c.journal.Sync()
}

func (c *Catalog) repeat(id mail.ID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, e := c.index.Find(id); e != nil {
		return nil // the same ID came again
	}
	return c.enqueue(record.KindDone, record.Change{ID: id})
}
