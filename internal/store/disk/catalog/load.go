package catalog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/index"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// moves is how often a message can move while it is looked for: from the journal to
// the spool, and out of the queue.
const moves = 5

// Load is store.Delivery's. The content fails at its end if it is not what was
// accepted. A message with a damaged envelope goes to corrupt/ and is unknown.
func (c *Catalog) Load(id mail.ID) (*mail.Envelope, mail.Content, error) {
	p, at, err := c.loadMessage(id, true)
	if errors.Is(err, errDamaged) && !c.options.ReadOnly {
		if e := c.quarantineFound(id, err); e != nil && !errors.Is(e, store.ErrUnknown) {
			return nil, nil, fmt.Errorf("queue: damaged message %s stays: %w", id, errors.Join(err, e))
		}
		return nil, nil, fmt.Errorf("%w: %s is in corrupt/", store.ErrUnknown, id)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("queue: load %s: %w", id, err)
	}
	return p.Envelope, &content{catalog: c, id: id, size: at.Size, sum: p.Sum, kept: p.Content}, nil
}

// loadMessage returns what was promised about a message and a copy of its whole entry. keep
// says that the entry will soon be needed again.
func (c *Catalog) loadMessage(id mail.ID, keep bool) (p index.Promise, at index.Entry, err error) {
	for range moves {
		// Notes are asked for first: once a file has them they are not here any more.
		notes := c.notesOf(id)
		if at, err = c.Lookup(id); err != nil {
			return index.Promise{}, at, err
		}
		if kept, ok := c.takeRecent(id, keep); ok {
			notes.AmendEnvelope(kept.Envelope)
			return kept, at, nil
		}

		// A partial entry is completed by its state file. Either way the envelope must
		// be about as many recipients as the entry.
		if !at.Is(index.Partial) {
			p, err = c.promised(id, at.Loc)
		} else if p, at, err = c.wakeEntry(id, keep); p.Envelope == nil && err == nil {
			err = errWoken
		}
		if err == nil && len(p.Envelope.Recipients) != at.Recipients() {
			err = fmt.Errorf("%w: %d recipients are known, %d are in the envelope", errDamaged, at.Recipients(), len(p.Envelope.Recipients))
		}
		if err == nil {
			notes.AmendEnvelope(p.Envelope)
		}
		if !hasMoved(err) {
			break
		}
	}
	if err == nil || !damaged(err) && !errors.Is(err, store.ErrUnknown) {
		c.noteUnreadable(id, false, err)
	}
	return p, at, err
}

// notesOf returns what neither a message's record nor its state file says of its notes.
func (c *Catalog) notesOf(id mail.ID) *index.Noted {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.index.Notes.IsEmpty() {
		return nil
	}
	k, _ := c.index.Key(id)
	return c.index.Notes.NotedOf(k)
}

// takeRecent returns what memory keeps of a message that nobody has loaded yet.
func (c *Catalog) takeRecent(id mail.ID, want bool) (index.Promise, bool) {
	if !want {
		return index.Promise{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k, e := c.index.Find(id)
	if e == nil {
		return index.Promise{}, false
	}
	return c.index.Recent.TakePromise(k)
}

// errWoken says that another goroutine was faster.
var errWoken = errors.New("entry is whole by now")

func hasMoved(err error) bool {
	return errors.Is(err, journal.ErrGone) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errWoken)
}

// promised reads an envelope from the journal or, with no location, the spool.
func (c *Catalog) promised(id mail.ID, loc journal.Location) (index.Promise, error) {
	if loc.Segment == 0 {
		st, err := c.spool.LoadState(id)
		if err != nil {
			return index.Promise{}, err
		}
		return index.Promise{Envelope: st.Envelope, Sum: st.Content}, nil
	}

	// Most envelopes fit into the first read; of the content nothing more is read.
	r, err := c.journal.Open(loc)
	if err != nil {
		return index.Promise{}, err
	}
	defer r.Close()
	b := make([]byte, min(r.Size(), 4096))
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return index.Promise{}, err
	}
	m, err := record.DecodeMessage(b, r.Size())
	if err == nil && m.ID != id {
		err = record.ErrMalformed
	}
	if err != nil {
		return index.Promise{}, fmt.Errorf("%w: %w", errDamaged, err)
	}

	// A message for many recipients has a longer envelope.
	if have := int64(len(b)); have < m.Offset() {
		b = slices.Grow(b, int(m.Offset()-have))[:m.Offset()]
		if _, err := r.ReadAt(b[have:], have); err != nil && !errors.Is(err, io.EOF) {
			return index.Promise{}, err
		}
	}

	// The frame has a checksum of all, which was not read: that of the envelope alone
	// decides.
	env, err := record.DecodeEnvelope(b[:m.Offset()], m)
	if err != nil {
		return index.Promise{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return index.Promise{Envelope: env, Sum: m.Sum}, nil
}

// wakeEntry reads the state file of a message that has only a partial entry. It returns
// its contents and a copy of the whole entry, which it leaves in the index if keep is
// set or the file does not say all. A message with damaged files goes to corrupt/
// and is unknown. No envelope and no error mean that the entry is not partial any more.
func (c *Catalog) wakeEntry(id mail.ID, keep bool) (index.Promise, index.Entry, error) {
	mu := c.filesOf(id)
	mu.Lock()
	defer mu.Unlock()
	return c.wakeLocked(id, keep)
}

// wakeLocked is wake for callers that hold the lock of the message's files. Only they
// make a partial entry whole.
func (c *Catalog) wakeLocked(id mail.ID, keep bool) (index.Promise, index.Entry, error) {
	c.mu.Lock()
	k, e := c.index.Find(id)
	whole := e != nil && !e.Is(index.Partial)
	c.mu.Unlock()
	switch {
	case e == nil:
		return index.Promise{}, index.Entry{}, fmt.Errorf("%w: %s", store.ErrUnknown, id)
	case whole:
		return index.Promise{}, index.Entry{}, nil
	}

	// The file is read without mu: others must not wait for the disk.
	st, err := c.readState(id)
	if err != nil {
		return index.Promise{}, index.Entry{}, c.unwoken(id, k, e, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	full := c.index.WakeEntry(k, e, st)
	if full.Left == 0 {
		c.Finish(k, full, id)
		return index.Promise{}, index.Entry{}, fmt.Errorf("%w: %s", store.ErrUnknown, id)
	}

	// The caller gets a copy: the entry may change, or rest, as soon as the lock is given
	// up.
	at := full.Copy()
	if !keep {
		c.index.LetRest(k, full)
	}
	return index.Promise{Envelope: st.Envelope, Sum: st.Content}, at, nil
}

// unwoken deals with a state file that could not be read, and returns the error of
// wake.
func (c *Catalog) unwoken(id mail.ID, k index.Key, e *index.Entry, err error) error {
	// Only a newer version and damage take the message out; what cannot be read now stays.
	switch {
	case errors.Is(err, spool.ErrVersion):
		c.mu.Lock()
		c.index.Remove(k)
		c.index.Unreadable.AddNewer(id)
		c.mu.Unlock()
		return fmt.Errorf("%w: %s: %w", store.ErrUnknown, id, err)
	case errors.Is(err, spool.ErrDamaged), errors.Is(err, fs.ErrNotExist):
		size, _ := c.spool.ContentSize(id) // with its state nobody else knows that
		if err := c.Condemn(id, *e, err); err != nil {
			return err
		}
		c.mu.Lock()
		c.index.Uncount(e, size)
		c.mu.Unlock()
		return fmt.Errorf("%w: %s is in corrupt/", store.ErrUnknown, id)
	}
	return err
}

// readState reads a state file and compares it with the content's.
func (c *Catalog) readState(id mail.ID) (*spool.State, error) {
	st, err := c.spool.LoadState(id)
	if err != nil {
		return nil, err
	}
	n, err := c.spool.ContentSize(id)
	if err != nil {
		return nil, err
	}
	if n != st.Size {
		return nil, fmt.Errorf("%w: the content should have %d bytes and has %d", spool.ErrDamaged, st.Size, n)
	}
	return st, nil
}

// Find is store.Delivery's. It logs what cannot be read.
func (c *Catalog) Find(id mail.ID) (p mail.Pending, ok bool) {
	p, err := c.findPending(id)
	if err != nil && !errors.Is(err, store.ErrUnknown) {
		c.log.Error("queue: message cannot be read", zap.String("uuid", string(id)), zap.Error(err))
	}
	return p, err == nil
}

func (c *Catalog) findPending(id mail.ID) (mail.Pending, error) {
	promise, at, err := c.loadMessage(id, false)
	if err != nil {
		return mail.Pending{}, err
	}
	env := promise.Envelope
	p := mail.Pending{
		ID: id, From: env.From, Received: env.Received, Size: at.Size,
		Recipients: make([]mail.PendingRecipient, 0, at.Left),
	}

	// Settled recipients are nobody's business any more.
	for i, r := range env.Recipients {
		if s := at.StateOf(i); !s.Settled {
			p.Recipients = append(p.Recipients, mail.PendingRecipient{
				Index: i, Address: r.Address, Attempts: int(s.Attempts), Next: s.Due(), Last: s.LastReply(),
				Held: s.Hold == index.Held,
			})
		}
	}
	return p, nil
}
