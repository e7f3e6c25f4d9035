// Package disk holds every accepted message until each of its recipients is
// settled: delivered, or failed with its report (DSN) in the queue. A message is
// always in the journal or in the spool; nobody else touches those.
//
// # Promises
//
//   - I1: Put returns nil only after the journal batch that holds the whole
//     message and envelope is on stable storage, with its segment's directory
//     entry. A content above Options.LargeBody is a file of its own, synced and
//     in place before the record that refers to it.
//   - I2: A state change is in the journal before anything that depends on it is
//     deleted. A spilled message's files and their directory are synced before
//     the journal forgets it; a settled message's files are removed after the
//     record that it is settled was synced.
//   - I3: Settle, Defer and SetNotes do not wait for a sync. Losing what they
//     wrote can only repeat an attempt or lose notes, never a message.
//   - I4: A write or sync error of the journal is sticky: the segment is
//     abandoned, Put fails with 451 or 452, the next record goes to a new file,
//     and the same descriptor is never synced again and believed. While no
//     segment can be written, or space is short, Healthy says so.
//   - I5: A DSN is durable before the failed message is dropped: who settles a
//     failure has Put the DSN before.
//   - I6: Nothing is deleted because it cannot be read. A damaged file or record
//     goes to corrupt/ with a reason and a log line; every other message lives
//     on, and no single one keeps the queue from opening.
//   - I7: One folder, one daemon: Open holds a lock until Close.
//
// # Files
//
//	lock            held by the daemon, with its process id
//	journal/        what was accepted and what changed lately: package journal
//	msg/XX/ID.eml   contents, and
//	msg/XX/ID.json  envelopes with states, of what waits longer: package spool
//	msg/XX/ID.new   a large content before its message is accepted
//	corrupt/        what could not be read
//
// Messages leave the journal in the order of its segments: the oldest segment
// is retired when nothing in it is needed, when it is old, or when the journal is
// too long. What it still holds is spilled, and its file removed. So a younger
// segment, which may say that a message is done, outlives every older one, which
// may hold that message. A message that is delivered at once never becomes a
// file.
//
// # Space
//
// Spillers work in batches and rest between them while mail is accepted, as one
// disk serves both. When no mail comes the queue takes no more than its live
// messages and two segments. While it pours in the journal may grow, to 32 segments
// beyond the live messages in it, or to 64 in all; from there Put waits for the
// spillers, or does their work, so that mail comes in as fast as it can be moved.
// Only a segment that cannot be read or moved lets it grow beyond: then the space
// that must stay free is the bound. Half of that is for DSNs and for records of what
// became of mail: spillers leave it alone, and so do contents that arrive.
//
// # Memory and start
//
// Of a message in the spool whose files say all, memory holds only that it
// exists. Open lists the spool's names and replays the journal; it reads no state
// file, so that a start takes seconds with a million messages. A state file is
// read when its message is needed: Settle, Defer, SetNotes, Load and Remove read it and
// keep the states in memory until the next spill; Find, Walk and Adopt look
// and forget. What the journal said at the start about a message that only has
// files is noted and wins over its state file. While the journal has a message's
// own record, its files, if there are any, count for nothing.
//
// The envelope of a new message stays in memory until the first Load, if there
// is room: see recent. What SetNotes changed stays until a file has it, up to 64
// MiB in all.
//
// So damage of a state file is found when it is read, not by Open; Adopt,
// with which the work begins, reads all. Until then Stat does not know the
// recipients and bytes of what was not read. Damage of a content is found by its
// checksum when it is read to its end: the reader fails instead of passing the
// last bytes on, so that nobody delivers it, and the message goes to corrupt/.
//
// A large content has another name until its record is durable. One that Open
// finds without a record was never accepted, and is removed, if nothing in the
// journal was damaged.
//
// # Errors
//
// Put, Healthy and Body.Write fail with a *reply.Reply of class 4. An ID that is
// not in the queue, or no more, gives ErrUnknown. What would change a queue that
// was opened by OpenReadOnly fails with ErrReadOnly. All other errors are
// temporary.
package disk

import (
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/store"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
	"tarishi/internal/vfs"
)

// Options is what a Store works with. Only Dir is needed.
type Options struct {
	Dir         string
	SegmentSize int64 // of the journal in bytes; 0: 64 MiB
	LargeBody   int64 // contents above this many bytes get a file at once; 0: 1 MiB
	// MinFree says how many of a file system's total bytes must stay free; nil:
	// 1 %, at most 256 MiB.
	MinFree func(total int64) int64
	NoSync  bool // no durability at all: for benchmarks
	// Synced is as in journal.Options.
	Synced func(records int, took time.Duration, err error)
	Log    *zap.Logger
	FS     vfs.FS           // nil: the real one
	Now    func() time.Time // nil: time.Now
}

// Store is an open queue. Its methods may be called from any goroutine.
//
// Locks are taken in the order maintaining, files, mu; those of journal and spool
// come last.
type Store struct {
	chunks   chunks // of bodies
	o        Options
	fs       vfs.FS
	log      *zap.Logger
	journal  *journal.Journal
	spool    *spool.Spool
	lock     vfs.Lock
	accepted atomic.Int64 // messages, since Open
	health   health
	seed     maphash.Seed
	look     bool // OpenReadOnly: nothing may change
	few      int  // fewFiles
	limits   limits

	files [64]sync.Mutex // guard the files of the messages that hash to them

	crowded  atomic.Bool   // the journal is so long that Put has to wait,
	credit   atomic.Int64  // but for so many bytes, which were moved out of it since
	youngest atomic.Uint32 // segment that begun was told of
	orphan   atomic.Uint32 // the last segment that somebody removed
	hurry    chan struct{} // wakes Run, and a spiller that rests

	maintaining sync.Mutex // who spills, removes files or retires; before files
	// The rest up to mu is guarded by maintaining.
	retireAfter time.Time
	complained  time.Time  // when the log said last that the journal cannot be written; zero: it can
	retiring    bool       // somebody retires segments, and may have yielded
	retired     *sync.Cond // something was moved out of the journal, or nobody tries any more
	running     bool       // Run does
	rounds      int        // of maintain
	busy        float64    // between 0 and 1: how fast mail is accepted
	measured    time.Time  // when it was last found out, and
	before      int64      // how many messages were accepted then

	mu     sync.Mutex
	index  index
	shares map[uint32]share // what is needed of each segment
	trash  []mail.ID        // finished messages that have files
	found  []key            // what Adopt has not passed on yet
}

// share is what the journal must keep of a segment.
type share struct {
	messages int
	bytes    int64
}

// Open takes the lock, reads what is in dir and returns the queue. A folder that
// is in use or cannot be written gives an error that names it; damage inside it
// is moved aside and logged.
func Open(o Options) (*Store, error) {
	q := newQueue(o)
	err := q.take()
	if err == nil {
		if err = q.recover(); err == nil {
			return q, nil
		}
		q.lock.Close()
	}
	var locked *vfs.LockedError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("spool %s is in use by another tarishi%s", o.Dir, locked.Holder())
	}
	return nil, unusable(o.Dir, err)
}

// OpenReadOnly opens a stopped daemon's spool to look at. It takes no lock,
// creates and changes nothing and moves no damage aside. Put, Settle, Defer,
// SetNotes, Remove, Sync and Path fail with ErrReadOnly, Run does nothing. A folder that
// does not exist is an error; one without a message is not.
func OpenReadOnly(o Options) (*Store, error) {
	q := newQueue(o)
	if _, err := q.fs.List(o.Dir); err != nil {
		return nil, unusable(o.Dir, err)
	}
	q.look = true
	q.fs = vfs.ReadOnly(q.fs)
	err := q.take()
	if err == nil {
		err = q.recover()
	}
	if err != nil {
		return nil, unusable(o.Dir, err)
	}
	return q, nil
}

func unusable(dir string, err error) error {
	return fmt.Errorf("cannot use the spool folder %s: %w", dir, err)
}

func newQueue(o Options) *Store {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.NoSync {
		o.FS = vfs.NoSync(o.FS)
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.LargeBody == 0 {
		o.LargeBody = 1 << 20
	}
	q := &Store{
		o: o, fs: o.FS, log: o.Log, seed: maphash.MakeSeed(), few: fewFiles, limits: defaultLimits,
		index: newIndex(), shares: map[uint32]share{}, hurry: make(chan struct{}, 1),
	}
	q.retired = sync.NewCond(&q.maintaining)
	return q
}

func (q *Store) journalDir() string { return filepath.Join(q.o.Dir, "journal") }

// take locks the folder, makes what it lacks and finds out whether it can be
// written.
func (q *Store) take() error {
	if err := q.fs.Mkdir(q.o.Dir); err != nil {
		return err
	}
	lock, err := q.fs.Lock(filepath.Join(q.o.Dir, "lock"))
	if err != nil {
		return err
	}
	q.lock = lock
	if err = q.fs.Mkdir(q.journalDir()); err == nil && !q.look {
		err = q.probe()
	}
	if err == nil {
		q.spool, err = spool.Open(q.fs, q.o.Dir)
	}
	if err == nil {
		// Whoever made these folders may have died before their names were durable.
		err = q.fs.SyncDir(q.o.Dir)
		_ = q.fs.SyncDir(filepath.Dir(q.o.Dir)) // it is not ours, and perhaps not to be read
	}
	if err != nil {
		lock.Close()
	}
	return err
}

// probe tries to make a file. A full disk is no reason not to start: mail can
// still go out.
func (q *Store) probe() error {
	for i := 0; ; i++ {
		name := filepath.Join(q.journalDir(), fmt.Sprintf("probe.%d.tmp", i))
		_ = q.fs.Remove(name) // what an earlier start left; anything else keeps its name
		f, err := q.fs.Create(name)
		switch {
		case err == nil:
			return errors.Join(f.Close(), q.fs.Remove(name))
		case isFull(err):
			return nil
		case !errors.Is(err, os.ErrExist) || i >= 100:
			return err
		}
	}
}

// Watch implements store.Store. Nobody else adds messages or takes them away, so
// the Deliverer is never called.
func (q *Store) Watch(store.Deliverer) {}

// Permit implements store.Store: who holds the lock owns every message.
func (q *Store) Permit(mail.ID) error { return nil }

// Close makes durable what was settled and deferred, and gives the lock up.
// Readers that are open stay valid.
func (q *Store) Close() error {
	q.maintaining.Lock()
	defer q.maintaining.Unlock()
	if q.look {
		return q.journal.Close()
	}
	files := q.emptyTrash()
	if errors.Is(files, journal.ErrClosed) {
		return nil
	}
	err := q.journal.Close()
	if err == nil { // else the files stay for the same reason
		err = files
	}
	return errors.Join(err, q.lock.Close())
}

// Stat returns how much is in the queue.
func (q *Store) Stat() store.Stat {
	q.mu.Lock()
	defer q.mu.Unlock()
	return store.Stat{Messages: len(q.index.entries), Recipients: q.index.recipients, Bytes: q.index.bytes}
}

// filesOf returns the lock of a message's files.
func (q *Store) filesOf(id mail.ID) *sync.Mutex {
	return &q.files[maphash.String(q.seed, string(id))%uint64(len(q.files))]
}

// need notes that the journal must keep the message at loc; forget undoes it.
// Caller holds q.mu.
func (q *Store) need(loc journal.Location) {
	s := q.shares[loc.Segment]
	q.shares[loc.Segment] = share{s.messages + 1, s.bytes + int64(loc.Length)}
}

func (q *Store) forget(loc journal.Location) {
	if loc.Segment == 0 {
		return
	}
	s := q.shares[loc.Segment]
	if s.messages--; s.messages <= 0 {
		delete(q.shares, loc.Segment)
		return
	}
	s.bytes -= int64(loc.Length)
	q.shares[loc.Segment] = s
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// refuse turns an error into the reply to a client whose message cannot be
// stored.
func refuse(err error) *reply.Reply {
	var r *reply.Reply
	switch {
	case errors.As(err, &r):
		return r
	case isFull(err):
		return reply.New(452, "4.3.1", "Insufficient system storage, please try again later").Because(err)
	}
	return reply.New(451, "4.3.0", "Message cannot be queued, please try again later").Because(err)
}
