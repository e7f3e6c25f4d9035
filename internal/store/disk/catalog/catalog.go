// Package catalog knows every message of package disk: what became of its recipients,
// where in the journal or the spool it stands, and how it is read from there. It
// records changes, writes the files of a message that leaves the journal, and sets
// damage aside.
//
// What must happen to the journal's segments, and when, is for package spill; how the
// catalog is filled at the start is for package replay. A message may move from the
// journal to files, and out of the store, while it is looked for: readers
// look again, a few times.
//
// Locks are taken in the order files, mu; those of journal and spool come last.
package catalog

import (
	"errors"
	"fmt"
	"hash/maphash"
	"sync"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/index"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// errDamaged says that a message can never be read.
var errDamaged = errors.New("message is damaged")

// Options is what a Catalog works with. All are needed.
type Options struct {
	Spool *spool.Spool
	Index *index.Index
	Log   *zap.Logger
	// ReadOnly: nothing may change, and damage stays where it is.
	ReadOnly bool
}

// Catalog is the messages of one store. Its methods may be called from any goroutine.
type Catalog struct {
	options Options
	log     *zap.Logger
	spool   *spool.Spool
	journal *journal.Journal
	seed    maphash.Seed

	files [64]sync.Mutex // guard the files of the messages that hash to them

	mu     sync.Mutex
	index  *index.Index
	shares map[uint32]Share // the needed part of each segment
	trash  []mail.ID        // finished messages that have files
}

// New returns the catalog of an index that nobody else uses. Begin completes it.
func New(o Options) *Catalog {
	return &Catalog{options: o, log: o.Log, spool: o.Spool, index: o.Index, seed: maphash.MakeSeed(), shares: map[uint32]Share{}}
}

// SetJournal names the journal. Nothing can be read or changed before.
func (c *Catalog) SetJournal(j *journal.Journal) { c.journal = j }

// Share is what the journal must keep of a segment.
type Share struct {
	Messages int
	Bytes    int64
}

// SegmentShare returns what the journal must keep of a segment.
func (c *Catalog) SegmentShare(segment uint32) Share {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shares[segment]
}

// Shares returns how many bytes the journal must keep of all segments together.
func (c *Catalog) Shares() (bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.shares {
		bytes += s.Bytes
	}
	return bytes
}

// KeepRecord notes that the journal must keep the message at a place; unneed undoes it.
// Caller holds mu, or nobody else knows the catalog yet.
func (c *Catalog) KeepRecord(loc journal.Location) {
	s := c.shares[loc.Segment]
	c.shares[loc.Segment] = Share{Messages: s.Messages + 1, Bytes: s.Bytes + int64(loc.Length)}
}

func (c *Catalog) releaseRecord(loc journal.Location) {
	if loc.Segment == 0 {
		return
	}

	// A segment without shares is forgotten, so that the map stays as small as the journal.
	s := c.shares[loc.Segment]
	if s.Messages--; s.Messages <= 0 {
		delete(c.shares, loc.Segment)
		return
	}
	s.Bytes -= int64(loc.Length)
	c.shares[loc.Segment] = s
}

// Discard takes a message out; replay looks after its files, if it has any. Nobody
// else knows the catalog yet.
func (c *Catalog) Discard(k index.Key, e *index.Entry) {
	c.index.Remove(k)
	c.releaseRecord(e.Loc)
}

// Finish takes a message out that is done with. Caller holds mu, or nobody else knows
// the catalog yet.
func (c *Catalog) Finish(k index.Key, e *index.Entry, id mail.ID) {
	c.Discard(k, e)

	// Files go later, once the record that the message is done is durable.
	if e.Spooled() || e.Is(index.Large|index.Files) {
		c.AddTrash(id)
	}
}

// Stat counts the messages.
func (c *Catalog) Stat() store.Stat {
	c.mu.Lock()
	defer c.mu.Unlock()
	return store.Stat{Messages: c.index.Len(), Recipients: c.index.Recipients(), Bytes: c.index.Bytes()}
}

// Usage says what the index takes in memory.
func (c *Catalog) Usage() index.Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index.Usage()
}

// LockFiles locks the files of a message until unlock is called.
func (c *Catalog) LockFiles(id mail.ID) (unlock func()) {
	mu := c.filesOf(id)
	mu.Lock()
	return mu.Unlock
}

// filesOf returns the lock of a message's files.
func (c *Catalog) filesOf(id mail.ID) *sync.Mutex {
	return &c.files[maphash.String(c.seed, string(id))%uint64(len(c.files))]
}

// Lookup returns a copy of a message's entry.
func (c *Catalog) Lookup(id mail.ID) (index.Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, e := c.index.Find(id)
	if e == nil || e.Is(index.Arriving) {
		return index.Entry{}, fmt.Errorf("%w: %s", store.ErrUnknown, id)
	}
	return e.Copy(), nil
}

// Contains reports whether a message is here.
func (c *Catalog) Contains(id mail.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, e := c.index.Find(id)
	return e != nil && !e.Is(index.Arriving)
}

// Arrival is a message on its way in: nobody sees it before Accept.
type Arrival struct {
	catalog *Catalog
	id      mail.ID
	key     index.Key
	entry   *index.Entry
}

// Arrive begins a message with a new ID. large: its content is a file.
func (c *Catalog) Arrive(env *mail.Envelope, size int64, large bool) (Arrival, error) {
	e := index.NewEntry(len(env.Recipients), size)
	e.Flags = index.Arriving
	if large {
		e.Flags |= index.Large
	}
	c.mu.Lock()
	defer c.mu.Unlock()

	// Two messages under one ID would mix their records at the next start.
	if _, old := c.index.Find(env.ID); old != nil {
		return Arrival{}, fmt.Errorf("queue: message %s is there already", env.ID)
	}
	return Arrival{catalog: c, id: env.ID, key: c.index.Add(env.ID, e), entry: e}, nil
}

// Accept makes the message one of the store's. Its record is durable at loc and takes
// n bytes beside the content, which may be kept for the first Load.
func (a Arrival) Accept(env *mail.Envelope, loc journal.Location, sum spool.Sum, n int, content mail.Memory) {
	a.catalog.mu.Lock()
	defer a.catalog.mu.Unlock()
	a.entry.Loc = loc
	a.entry.Flags &^= index.Arriving
	a.catalog.KeepRecord(loc)
	a.catalog.index.Recent.AddPromise(a.key, env, sum, n, content)
}

// Withdraw is for a message that could not be stored. Its record may have reached the
// disk anyway: it is taken back, so that the next start does not find a message
// that the client sends again.
func (a Arrival) Withdraw() {
	a.catalog.mu.Lock()
	defer a.catalog.mu.Unlock()
	a.catalog.index.Remove(a.key)
	_ = a.catalog.journal.Enqueue(record.KindDone, record.EncodeChange(record.KindDone, record.Change{ID: a.id}))
	if a.entry.Is(index.Large) {
		a.catalog.AddTrash(a.id)
	}
}
