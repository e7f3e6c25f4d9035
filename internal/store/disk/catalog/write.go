package catalog

import (
	"encoding/json"
	"errors"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/index"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// Written is a message with files in a batch: they are not durable yet.
type Written struct {
	ID    mail.ID
	Loc   journal.Location // in the journal, where the message was taken from; zero: files
	notes *index.Noted     // that the files have
}

// WriteFiles writes a message's files. ok is false if the message is gone, or its files
// said all before.
func (c *Catalog) WriteFiles(b *spool.Batch, id mail.ID) (w Written, ok bool, err error) {
	mu := c.filesOf(id)
	mu.Lock()
	defer mu.Unlock()

	// A partial entry that is stale is completed first: its file is about to be replaced.
	at, ok := c.takeStale(id)
	if ok && at.Is(index.Partial) {
		if _, _, err := c.wakeLocked(id, true); err != nil && !errors.Is(err, store.ErrUnknown) {
			return Written{}, false, err
		}
		at, ok = c.takeStale(id)
	}
	if !ok {
		return Written{}, false, nil
	}

	// If the notes change from now on, the message is stale again.
	notes := c.notesOf(id)
	p, err := c.promised(id, at.Loc)
	lost := damaged(err)
	if err == nil {
		if err = c.writeState(b, id, at, p, notes); err == nil {
			return Written{ID: id, Loc: at.Loc, notes: notes}, true, nil
		}
		// A folder that is missing says nothing about the message.
		lost = errors.Is(err, errDamaged) || errors.Is(err, spool.ErrDamaged)
	}
	if lost {
		return Written{}, false, c.Condemn(id, at, err)
	}
	c.markStale(id)
	return Written{}, false, err
}

// takeStale returns a copy of a message's entry if its files do not say all. From then
// on changes make it stale again.
func (c *Catalog) takeStale(id mail.ID) (index.Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, e := c.index.Find(id)
	if e == nil || e.Spooled() && !e.Is(index.Stale) {
		return index.Entry{}, false
	}
	at := e.Copy()
	if !e.Is(index.Partial) {
		e.Flags &^= index.Stale
	}
	return at, true
}

// markStale undoes that a message's state file was thought to say all.
func (c *Catalog) markStale(id mail.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, e := c.index.Find(id); e != nil && !e.Is(index.Partial) {
		e.Flags |= index.Stale
	}
}

func (c *Catalog) writeState(b *spool.Batch, id mail.ID, at index.Entry, p index.Promise, notes *index.Noted) error {
	c.amendFile(p.Envelope, notes)
	st := &spool.State{Size: at.Size, Content: p.Sum, Envelope: p.Envelope, Recipients: make([]spool.Recipient, at.Recipients())}
	for i := range st.Recipients {
		st.Recipients[i] = at.StateOf(i).Document()
	}
	if at.Spooled() || at.Is(index.Large) {
		return b.Write(st, nil)
	}
	return b.Write(st, placed{c, id, at})
}

// amendFile changes the notes of an envelope that goes into a file, which must not
// become too large to be read back.
func (c *Catalog) amendFile(env *mail.Envelope, n *index.Noted) {
	if n == nil {
		return
	}
	before := env.Notes.Clone()
	n.AmendEnvelope(env)
	if b, err := json.Marshal(env.Notes); err != nil || len(b) > index.MaxNotes {
		c.log.Error("queue: notes of a message are too large, the latest are dropped", zap.String("uuid", string(env.ID)), zap.Int("bytes", len(b)), zap.Error(err))
		env.Notes = before
	}
}

// Spilled notes that the files of messages are durable: the journal is not needed for
// them any more.
func (c *Catalog) Spilled(all []Written) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range all {
		k, e := c.index.Find(w.ID)
		if e == nil { // settled meanwhile
			c.AddTrash(w.ID)
			continue
		}
		// The entry may have changed while its files were written; where it stands may
		// not.
		if e.Loc == w.Loc && !e.Spooled() {
			c.releaseRecord(e.Loc)
			e.Loc = journal.Location{}
			e.Flags &^= index.Large | index.Files
			c.index.Recent.TakePromise(k) // it has waited, and may for long
		}
		// Notes that came later are still to be written.
		if e.Spooled() && c.index.Notes.NotedOf(k) == w.notes { // else they have changed since
			c.index.Notes.DropNotes(k)
		}
		c.index.LetRest(k, e)
	}
}

// NotSpilled is for messages with files that may be in place or not, as the batch failed:
// they must go when the message is finished, or has been.
func (c *Catalog) NotSpilled(all []Written) {
	for _, w := range all {
		c.markStale(w.ID)
		c.mu.Lock()
		if _, e := c.index.Find(w.ID); e == nil {
			c.AddTrash(w.ID)
		} else if !e.Spooled() {
			e.Flags |= index.Files
		}
		c.mu.Unlock()
	}
}

// Demand is what the files of messages would take that are in the journal by now.
func (c *Catalog) Demand(ids []mail.ID) (bytes, inodes int64) {
	const block = 4096 // bytes that a file is rounded up to
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		_, e := c.index.Find(id)
		if e == nil || e.Spooled() {
			continue
		}
		inodes++
		bytes += block
		if !e.Is(index.Large) {
			inodes++
			bytes += e.Size + block
		}
	}
	return bytes, inodes
}

// ErrArriving says that a segment has the record of a Put that has not returned yet.
var ErrArriving = errors.New("message is arriving")

// IsNeeded reports whether the record at loc, which is about a message, is still needed:
// it is the message's own, or says more than its files do.
func (c *Catalog) IsNeeded(id mail.ID, loc journal.Location) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, e := c.index.Find(id)
	switch {
	case e == nil:
		return false, nil
	case e.Is(index.Arriving):
		return false, ErrArriving
	}
	return e.Loc == loc || e.Spooled() && e.Is(index.Stale), nil
}

// InSegment returns the messages that a segment should hold.
func (c *Catalog) InSegment(number uint32) (ids []mail.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shares[number].Messages == 0 {
		return nil
	}
	for k, e := range c.index.All() {
		if e.Loc.Segment == number {
			ids = append(ids, c.index.ID(k))
		}
	}
	return ids
}
