package queue

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/journal"
	"tarishi/internal/mail"
)

// errDamaged says that a message can never be read.
var errDamaged = errors.New("message is damaged")

// where returns a copy of what the index knows about a message. It has no
// states.
func (q *Queue) where(id mail.ID) (entry, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, e := q.index.find(id)
	if e == nil || e.is(arriving) {
		return entry{}, fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	return entry{loc: e.loc, flags: e.flags, size: e.size}, nil
}

// moves is how often a message can move while it is looked for: from the
// journal to the spool, and out of the queue.
const moves = 3

// Load returns a message's envelope, with all recipients it had when it was
// accepted, and its content. The content can be opened as long as the message is
// in the queue; a reader stays valid until it is closed.
func (q *Queue) Load(id mail.ID) (*mail.Envelope, mail.Content, error) {
	var err error
	for range moves {
		var at entry
		if at, err = q.where(id); err != nil {
			return nil, nil, err
		}
		var env *mail.Envelope
		if env, err = q.envelope(id, at.loc); err == nil {
			return env, &content{q: q, id: id, size: at.size}, nil
		}
		if !moved(err) {
			break
		}
	}
	return nil, nil, fmt.Errorf("queue: load %s: %w", id, err)
}

func moved(err error) bool {
	return errors.Is(err, journal.ErrGone) || errors.Is(err, fs.ErrNotExist)
}

// envelope reads an envelope from the journal or, with no location, the spool.
func (q *Queue) envelope(id mail.ID, loc journal.Location) (*mail.Envelope, error) {
	if loc.Segment == 0 {
		st, err := q.spool.LoadState(id)
		if err != nil {
			return nil, err
		}
		return st.Envelope, nil
	}
	r, err := q.journal.Open(loc)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, min(r.Size(), 4096))
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	m, err := decodeMessage(b, r.Size())
	if err == nil && m.id != id {
		err = errRecord
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if have := int64(len(b)); have < m.offset() {
		b = slices.Grow(b, int(m.offset()-have))[:m.offset()]
		if _, err := r.ReadAt(b[have:], have); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	env, err := decodeEnvelope(b[m.offset()-m.envelope:m.offset()], m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return env, nil
}

// content is the Content of a message in the queue, wherever that is when it is
// opened.
type content struct {
	q    *Queue
	id   mail.ID
	size int64
}

// Size implements mail.Content.
func (c *content) Size() int64 { return c.size }

// Open implements mail.Content.
func (c *content) Open() (io.ReadCloser, error) {
	var err error
	for range moves {
		var at entry
		if at, err = c.q.where(c.id); err != nil {
			return nil, err
		}
		var r io.ReadCloser
		if r, err = c.q.open(c.id, at); err == nil {
			return r, nil
		}
		if !moved(err) {
			break
		}
	}
	return nil, fmt.Errorf("queue: open %s: %w", c.id, err)
}

// placed is a content at a place that does not change while it is read.
type placed struct {
	q  *Queue
	id mail.ID
	at entry
}

func (p placed) Size() int64                  { return p.at.size }
func (p placed) Open() (io.ReadCloser, error) { return p.q.open(p.id, p.at) }

func (q *Queue) open(id mail.ID, at entry) (io.ReadCloser, error) {
	if at.spooled() || at.is(large) {
		f, err := q.spool.OpenContent(id)
		if err != nil {
			return nil, err
		}
		n, err := f.Size()
		if err == nil && n != at.size {
			err = fmt.Errorf("%w: %d bytes instead of %d", errDamaged, n, at.size)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		return newReader(f, 0, at.size, func() { f.Close() }), nil
	}
	r, err := q.journal.Open(at.loc)
	if err != nil {
		return nil, err
	}
	return newReader(r, r.Size()-at.size, at.size, func() { r.Close() }), nil
}

// Walk calls fn with every message, those in the journal in the order of their
// arrival, until it returns false. Messages that come or go meanwhile may be
// seen or not. One that cannot be read is logged and left out.
func (q *Queue) Walk(fn func(mail.Pending) bool) {
	type place struct {
		k   key
		loc journal.Location
	}
	q.mu.Lock()
	places := make([]place, 0, len(q.index.entries))
	for k, e := range q.index.entries {
		places = append(places, place{k, e.loc})
	}
	q.mu.Unlock()
	slices.SortFunc(places, func(a, b place) int {
		if a.loc.Segment != b.loc.Segment {
			return int(int64(a.loc.Segment) - int64(b.loc.Segment))
		}
		return int(int64(a.loc.Offset) - int64(b.loc.Offset))
	})
	for _, p := range places {
		q.mu.Lock()
		id := q.index.id(p.k)
		q.mu.Unlock()
		if id == "" {
			continue
		}
		env, _, err := q.Load(id)
		if err == nil {
			if m, ok := q.describe(id, env); ok && !fn(m) {
				return
			}
		} else if !errors.Is(err, ErrUnknown) {
			q.log.Error("queue: message cannot be read", zap.String("uuid", string(id)), zap.Error(err))
		}
	}
}

// describe makes the Pending of a message; false: it is not in the queue.
func (q *Queue) describe(id mail.ID, env *mail.Envelope) (mail.Pending, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, e := q.index.find(id)
	if e == nil || e.is(arriving) || e.recipients() != len(env.Recipients) {
		return mail.Pending{}, false
	}
	p := mail.Pending{
		ID: id, From: env.From, Received: env.Received, Size: e.size,
		Recipients: make([]mail.PendingRecipient, 0, e.left),
	}
	for i, r := range env.Recipients {
		if s := e.state(i); !s.settled {
			p.Recipients = append(p.Recipients, mail.PendingRecipient{
				Index: i, Address: r.Address, Attempts: int(s.attempts), Next: s.at(), Last: s.last,
			})
		}
	}
	return p, true
}

// Path returns the name of a file with the message's content, which it makes if
// need be. The file goes away with the message. It may wait for the work in the
// background.
func (q *Queue) Path(id mail.ID) (string, error) {
	q.maintaining.Lock()
	defer q.maintaining.Unlock()
	at, err := q.where(id)
	if err != nil {
		return "", err
	}
	if !at.spooled() && !at.is(large) {
		if err := q.spill([]mail.ID{id}); err != nil {
			return "", fmt.Errorf("queue: spill %s: %w", id, err)
		}
		if _, err := q.where(id); err != nil {
			return "", err
		}
	}
	return q.spool.Path(id), nil
}
