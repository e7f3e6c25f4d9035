package catalog

import (
	"bytes"
	"fmt"
	"io"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/index"
	"tarishi/internal/store/disk/quarantine"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/journal"
)

// KeepSettled writes down which recipients of messages in corrupt/, or on their way
// there, are settled.
func (c *Catalog) KeepSettled(s *quarantine.Settled, name, reason string) error {
	if c.options.ReadOnly {
		return nil
	}
	return s.KeepIn(c.spool, name, reason, c.log)
}

// KeepSettledOf is KeepSettled for one message that goes to corrupt/.
func (c *Catalog) KeepSettledOf(id mail.ID, settled []int, cause error) error {
	var s quarantine.Settled
	if len(settled) > 0 {
		s.AddRecipients(id, settled)
	}
	return c.KeepSettled(&s, string(id)+"."+quarantine.SettledName, cause.Error())
}

// PreserveDamage keeps a range of the journal that cannot be read.
func (c *Catalog) PreserveDamage(d journal.Damage) error {
	c.log.Error("queue: journal is damaged", zap.Uint32("segment", d.Segment), zap.Int64("offset", d.Offset),
		zap.Int64("length", d.Length), zap.String("reason", d.Reason))
	if c.options.ReadOnly {
		return nil
	}
	return c.spool.Preserve(fmt.Sprintf("%08d.log@%d+%d", d.Segment, d.Offset, d.Length), d.Reason, d.Data)
}

// PreserveRecord keeps a record that makes no sense.
func (c *Catalog) PreserveRecord(r journal.Record) error {
	c.log.Error("queue: malformed record", zap.Uint32("segment", r.Location.Segment), zap.Uint32("offset", r.Location.Offset))
	if c.options.ReadOnly {
		return nil
	}
	return c.spool.Preserve(fmt.Sprintf("%08d.log@%d+%d", r.Location.Segment, r.Location.Offset, r.Location.Length),
		record.ErrMalformed.Error(), bytes.NewReader(r.Payload))
}

// Quarantine moves the files of a message to corrupt/.
func (c *Catalog) Quarantine(id mail.ID, cause error) error {
	c.log.Error("queue: message cannot be read and goes to corrupt/", zap.String("uuid", string(id)), zap.Error(cause))
	if c.options.ReadOnly {
		return nil
	}
	return c.spool.Quarantine(id, cause.Error())
}

// Condemn moves a message that can never be read out of the way: its record, the
// recipients known to be settled, and its files, in this order.
func (c *Catalog) Condemn(id mail.ID, at index.Entry, cause error) error {
	// The record comes first: it may be all that is left.
	if at.Loc.Segment != 0 && !c.options.ReadOnly {
		r, err := c.journal.Open(at.Loc)
		if err != nil {
			return err
		}
		err = c.spool.Preserve(string(id)+".record", cause.Error(), io.NewSectionReader(r, 0, r.Size()))
		r.Close()
		if err != nil {
			return err
		}
	}

	// Recipients that have the message must not get it again when it is brought back.
	if err := c.KeepSettledOf(id, at.SettledRecipients(), cause); err != nil {
		return err
	}
	if err := c.Quarantine(id, cause); err != nil {
		return err
	}

	// It is forgotten only when it is safe in corrupt/.
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, e := c.index.Find(id); e != nil {
		c.Discard(k, e)
	}
	return nil
}

// quarantineFound is Condemn for a message that a reader found damaged.
func (c *Catalog) quarantineFound(id mail.ID, cause error) error {
	mu := c.filesOf(id)
	mu.Lock()
	defer mu.Unlock()
	at, err := c.Lookup(id)
	if err == nil && at.Is(index.Partial) { // so that the sums stay right
		if _, _, err = c.wakeLocked(id, true); err == nil {
			at, err = c.Lookup(id)
		}
	}
	if err != nil {
		return err
	}
	return c.Condemn(id, at, cause)
}
