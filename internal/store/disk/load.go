package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// errDamaged says that a message can never be read.
var errDamaged = errors.New("message is damaged")

// where returns a copy of what the index knows about a message.
func (q *Store) where(id mail.ID) (entry, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, e := q.index.find(id)
	if e == nil || e.is(arriving) {
		return entry{}, fmt.Errorf("%w: %s", store.ErrUnknown, id)
	}
	at := *e
	if e.many != nil {
		many := e.states()
		at.many = &many
	}
	return at, nil
}

// moves is how often a message can move while it is looked for: from the
// journal to the spool, and out of the queue.
const moves = 5

// Load returns a message's envelope, with all recipients it had when it was
// accepted, and its content. The content can be opened as long as the message is
// in the queue; a reader stays valid until it is closed. A message whose envelope
// is damaged goes to corrupt/ and is unknown.
func (q *Store) Load(id mail.ID) (*mail.Envelope, mail.Content, error) {
	p, at, err := q.load(id, true)
	if errors.Is(err, errDamaged) && !q.look {
		if e := q.spoil(id, err); e != nil && !errors.Is(e, store.ErrUnknown) {
			return nil, nil, fmt.Errorf("queue: damaged message %s stays: %w", id, errors.Join(err, e))
		}
		return nil, nil, fmt.Errorf("%w: %s is in corrupt/", store.ErrUnknown, id)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("queue: load %s: %w", id, err)
	}
	return p.envelope, &content{q: q, id: id, size: at.size, sum: p.sum}, nil
}

// promise is what was said about a message when it was accepted.
type promise struct {
	envelope *mail.Envelope
	sum      spool.Sum // of the content
}

// load returns what was promised about a message and a copy of its whole entry.
// keep says that the entry will soon be needed again.
func (q *Store) load(id mail.ID, keep bool) (p promise, at entry, err error) {
	for range moves {
		notes := q.noted(id)
		if at, err = q.where(id); err != nil {
			return promise{}, at, err
		}
		if kept, ok := q.takeRecent(id, keep); ok {
			notes.amend(kept.envelope)
			return kept, at, nil
		}
		if !at.is(partial) {
			p, err = q.promised(id, at.loc)
		} else if p, at, err = q.wake(id, keep); p.envelope == nil && err == nil {
			err = errWoken
		}
		if err == nil && len(p.envelope.Recipients) != at.recipients() {
			err = fmt.Errorf("%w: %d recipients are known, %d are in the envelope", errDamaged, at.recipients(), len(p.envelope.Recipients))
		}
		if err == nil {
			notes.amend(p.envelope)
		}
		if !moved(err) {
			break
		}
	}
	if err == nil || !damaged(err) && !errors.Is(err, store.ErrUnknown) {
		q.noteUnreadable(id, false, err)
	}
	return p, at, err
}

// takeRecent returns what memory keeps of a message that nobody has loaded yet.
func (q *Store) takeRecent(id mail.ID, want bool) (promise, bool) {
	if !want {
		return promise{}, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	k, e := q.index.find(id)
	if e == nil {
		return promise{}, false
	}
	return q.index.recent.take(k)
}

// errWoken says that somebody else was faster.
var errWoken = errors.New("entry is whole by now")

func moved(err error) bool {
	return errors.Is(err, journal.ErrGone) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errWoken)
}

// promised reads an envelope from the journal or, with no location, the spool.
func (q *Store) promised(id mail.ID, loc journal.Location) (promise, error) {
	if loc.Segment == 0 {
		st, err := q.spool.LoadState(id)
		if err != nil {
			return promise{}, err
		}
		return promise{st.Envelope, st.Content}, nil
	}
	r, err := q.journal.Open(loc)
	if err != nil {
		return promise{}, err
	}
	defer r.Close()
	b := make([]byte, min(r.Size(), 4096))
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return promise{}, err
	}
	m, err := decodeMessage(b, r.Size())
	if err == nil && m.id != id {
		err = errRecord
	}
	if err != nil {
		return promise{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if have := int64(len(b)); have < m.offset() {
		b = slices.Grow(b, int(m.offset()-have))[:m.offset()]
		if _, err := r.ReadAt(b[have:], have); err != nil && !errors.Is(err, io.EOF) {
			return promise{}, err
		}
	}
	env, err := decodeEnvelope(b[:m.offset()], m)
	if err != nil {
		return promise{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return promise{env, m.sum}, nil
}

// content is the Content of a message in the queue, wherever that is when it is
// opened.
type content struct {
	q    *Store
	id   mail.ID
	size int64
	sum  spool.Sum
}

// Size implements mail.Content.
func (c *content) Size() int64 { return c.size }

// Open implements mail.Content. The reader fails at the end of a content that is
// not what was accepted. Such a message goes to corrupt/.
func (c *content) Open() (io.ReadCloser, error) {
	var err error
	for range moves {
		var at entry
		if at, err = c.q.where(c.id); err != nil {
			return nil, err
		}
		at.size = c.size // a partial entry does not know it
		var r *reader
		if r, err = c.q.open(c.id, at); err == nil {
			c.q.noteUnreadable(c.id, true, nil)
			if !c.sum.Known {
				return r, nil
			}
			return &checked{r: r, left: c.size, want: c.sum, spoilt: c.spoilt}, nil
		}
		if !moved(err) {
			break
		}
	}
	if damaged(err) {
		return nil, c.spoilt(err)
	}
	c.q.noteUnreadable(c.id, true, err)
	return nil, fmt.Errorf("queue: open %s: %w", c.id, err)
}

// spoilt moves a message out of the way whose content is damaged. It returns the
// error to tell.
func (c *content) spoilt(cause error) error {
	if err := c.q.spoil(c.id, cause); err != nil && !errors.Is(err, store.ErrUnknown) {
		c.q.log.Error("queue: damaged message stays", zap.String("uuid", string(c.id)), zap.Error(err))
	}
	return fmt.Errorf("queue: read %s: %w", c.id, cause)
}

// damaged says that a message's files or record will never be better.
func damaged(err error) bool {
	return errors.Is(err, errDamaged) || errors.Is(err, spool.ErrDamaged) || errors.Is(err, fs.ErrNotExist)
}

// spoil is condemn for those who find a content damaged.
func (q *Store) spoil(id mail.ID, cause error) error {
	mu := q.filesOf(id)
	mu.Lock()
	defer mu.Unlock()
	at, err := q.where(id)
	if err == nil && at.is(partial) { // so that the sums stay right
		if _, _, err = q.wakeLocked(id, true); err == nil {
			at, err = q.where(id)
		}
	}
	if err != nil {
		return err
	}
	return q.condemn(id, at, cause)
}

// placed is a content at a place that does not change while it is read.
type placed struct {
	q  *Store
	id mail.ID
	at entry
}

func (p placed) Size() int64 { return p.at.size }

func (p placed) Open() (io.ReadCloser, error) {
	r, err := p.q.open(p.id, p.at)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (q *Store) open(id mail.ID, at entry) (*reader, error) {
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

// wake reads the state file of a message that has only a partial entry. It
// returns what it says and a copy of the whole entry, which it leaves in the
// index if keep is set or the file does not say all. A message whose files are
// damaged goes to corrupt/ and is unknown. No envelope and no error mean that the
// entry is not partial any more.
func (q *Store) wake(id mail.ID, keep bool) (promise, entry, error) {
	mu := q.filesOf(id)
	mu.Lock()
	defer mu.Unlock()
	return q.wakeLocked(id, keep)
}

// wakeLocked is wake for those who hold the lock of the message's files. Only
// they make a partial entry whole.
func (q *Store) wakeLocked(id mail.ID, keep bool) (promise, entry, error) {
	q.mu.Lock()
	k, e := q.index.find(id)
	whole := e != nil && !e.is(partial)
	q.mu.Unlock()
	switch {
	case e == nil:
		return promise{}, entry{}, fmt.Errorf("%w: %s", store.ErrUnknown, id)
	case whole:
		return promise{}, entry{}, nil
	}
	st, err := q.readState(id)
	switch {
	case errors.Is(err, spool.ErrVersion):
		q.mu.Lock()
		q.index.remove(k)
		q.index.unreadable.newer[id] = true
		q.mu.Unlock()
		return promise{}, entry{}, fmt.Errorf("%w: %s: %w", store.ErrUnknown, id, err)
	case errors.Is(err, spool.ErrDamaged), errors.Is(err, fs.ErrNotExist):
		size, _ := q.spool.ContentSize(id) // with its state nobody else knows that
		if err := q.condemn(id, *e, err); err != nil {
			return promise{}, entry{}, err
		}
		if e.is(counted) {
			q.mu.Lock()
			q.index.bytes -= max(0, size)
			q.mu.Unlock()
		}
		return promise{}, entry{}, fmt.Errorf("%w: %s is in corrupt/", store.ErrUnknown, id)
	case err != nil:
		return promise{}, entry{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	full := e.complete(st, &q.index.texts)
	q.index.recipients += int(full.left) - int(e.left)
	if !e.is(counted) {
		q.index.bytes += full.size
	}
	q.index.entries[k] = full
	if full.left == 0 {
		q.finish(k, full, id)
		return promise{}, entry{}, fmt.Errorf("%w: %s", store.ErrUnknown, id)
	}
	at := *full
	if full.many != nil {
		many := full.states()
		at.many = &many
	}
	if !keep {
		q.rest(k, full)
	}
	return promise{st.Envelope, st.Content}, at, nil
}

// rest lets a message sleep whose files say all. Caller holds q.mu.
func (q *Store) rest(k key, e *entry) {
	if !e.spooled() || e.is(arriving|stale|partial) {
		return
	}
	d := q.index.dormant[e.left]
	if d == nil {
		d = &entry{flags: partial | counted, left: e.left}
		q.index.dormant[e.left] = d
	}
	q.index.entries[k] = d
}

// readState reads a state file and compares it with the content's.
func (q *Store) readState(id mail.ID) (*spool.State, error) {
	st, err := q.spool.LoadState(id)
	if err != nil {
		return nil, err
	}
	n, err := q.spool.ContentSize(id)
	if err != nil {
		return nil, err
	}
	if n != st.Size {
		return nil, fmt.Errorf("%w: the content should have %d bytes and has %d", spool.ErrDamaged, st.Size, n)
	}
	return st, nil
}

// Find returns what is pending of one message; ok is false when it is not in
// the queue (any more), or cannot be read, which is logged.
func (q *Store) Find(id mail.ID) (p mail.Pending, ok bool) {
	p, err := q.find(id)
	if err != nil && !errors.Is(err, store.ErrUnknown) {
		q.log.Error("queue: message cannot be read", zap.String("uuid", string(id)), zap.Error(err))
	}
	return p, err == nil
}

func (q *Store) find(id mail.ID) (mail.Pending, error) {
	promised, at, err := q.load(id, false)
	if err != nil {
		return mail.Pending{}, err
	}
	env := promised.envelope
	p := mail.Pending{
		ID: id, From: env.From, Received: env.Received, Size: at.size,
		Recipients: make([]mail.PendingRecipient, 0, at.left),
	}
	for i, r := range env.Recipients {
		if s := at.state(i); !s.settled {
			p.Recipients = append(p.Recipients, mail.PendingRecipient{
				Index: i, Address: r.Address, Attempts: int(s.attempts), Next: s.at(), Last: s.text(),
				Held: s.hold == held,
			})
		}
	}
	return p, nil
}

// Walk calls fn with every message, those in the journal first and in the order
// of their arrival, until it returns false. Messages that come or go meanwhile
// may be seen or not. Those that cannot be read are left out: one line of the log
// counts them, and WalkUnreadable has them.
func (q *Store) Walk(fn func(mail.Pending) bool) {
	q.mu.Lock()
	arrived, spooled := q.index.snapshot()
	q.mu.Unlock()
	q.visit(ordered(arrived, spooled), fn)
}

// Adopt calls fn with every message that was in the queue when it was opened
// and still is, until fn returns false. No message is passed twice, however often
// Adopt is called. It returns how many are left: because fn did not want
// them, or because they cannot be read now: see Unreadable.
func (q *Store) Adopt(fn func(mail.Pending) bool) (left int) {
	q.mu.Lock()
	keys := q.found
	q.found = nil
	q.mu.Unlock()
	again := q.visit(keys, fn)
	if len(again) > 0 {
		q.mu.Lock()
		q.found = again
		q.mu.Unlock()
	}
	return len(again)
}

// State files are read by a few at a time: a disk is faster that way, and who
// accepts mail meanwhile is not crowded out.
const (
	readers = 16
	chunk   = 32 * readers
)

// visit calls fn with messages until it returns false. It returns the keys, in
// the memory of the argument, of those that fn did not get and that cannot be
// read now.
func (q *Store) visit(keys []key, fn func(mail.Pending) bool) (again []key) {
	defer q.logUnreadable()
	again = keys[:0]
	var found [chunk]mail.Pending
	var errs [chunk]error
	for len(keys) > 0 {
		part := keys[:min(len(keys), chunk)]
		var next atomic.Int64
		var wg sync.WaitGroup
		for range min(readers, len(part)) {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < len(part); i = int(next.Add(1)) - 1 {
					found[i], errs[i] = q.find(q.id(part[i]))
				}
			})
		}
		wg.Wait()
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

// id returns the ID of a key, "" if it is unknown.
func (q *Store) id(k key) mail.ID {
	if !k.odd() {
		return k.id()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.index.id(k)
}

// Path returns the name of a file with the message's content, which it makes if
// need be. The file goes away with the message. It may wait for the work in the
// background.
func (q *Store) Path(id mail.ID) (string, error) {
	if q.look {
		return "", store.ErrReadOnly
	}
	q.maintaining.Lock()
	defer q.maintaining.Unlock()
	at, err := q.where(id)
	if err != nil {
		return "", err
	}
	if !at.spooled() && !at.is(large) {
		if err := q.spill(context.Background(), []mail.ID{id}); err != nil {
			return "", fmt.Errorf("queue: spill %s: %w", id, err)
		}
		if _, err := q.where(id); err != nil {
			return "", err
		}
	}
	return q.spool.Path(id), nil
}
