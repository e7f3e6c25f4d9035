// Package disk is the store of one machine: it holds every accepted message until each
// of its recipients is settled. A message is always in the journal or in the spool;
// nobody else touches those. The promises are those of package store, and kept like
// this:
//
//   - I1: Put returns nil only after the journal batch that holds the whole message
//     and envelope is on stable storage, with its segment's directory entry. A content
//     above Options.LargeBody is a separate file, synced and in place before the
//     record that refers to it.
//   - I2: A state change is in the journal before anything that depends on it is
//     deleted. A spilled message's files and their directory are synced before the
//     journal forgets it; a settled message's files are removed after the record that
//     it is settled was synced.
//   - I3: Settle, Defer and SetNotes do not wait for a sync: Run does one each second.
//   - I4: A write or sync error of the journal is sticky: the segment is abandoned,
//     Put fails with 451 or 452, the next record goes to a new file, and the same
//     descriptor is never synced again and believed. While no segment can be written,
//     or space is short, Healthy says so.
//   - I5: Records keep their order, so a settlement is never durable before the DSN
//     that was Put before it.
//   - I6: A damaged file or record goes to corrupt/ with a reason and a log line; every
//     other message lives on, and no single one keeps the queue from opening.
//   - I7: Open holds a lock on the folder until Close.
//
// # A message
//
//	        Put                                  Settle of the last, Remove
//	(none) ─────▶ in the journal ────────────────────────────────▶ (gone)
//	                  │        ▲ Settle, Defer, Hold, SetNotes        ▲
//	                  │ spill  └ change it in memory, and are         │
//	                  ▼          records of the journal               │
//	              in files ───────────────────────────────▶ in the trash: files
//	               │    ▲ │                                 that go when the record
//	               ▼    │ │ damage                          is durable
//	   changed since ───┘ ▼
//	          spill    in corrupt/
//
// Package index has the states of its entry in memory.
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
// Messages leave the journal in the order of its segments, see package spill. A message
// that is delivered at once never becomes a file.
//
// The space that must stay free is the last bound, see package space. Half of it is for
// DSNs and for records of what became of mail: spillers leave it alone, and so do
// contents that arrive.
//
// # Memory and start
//
// Of a message with files that say all, memory holds only that it exists. Open
// lists the spool's names and replays the journal, see package replay; it reads no
// state file, so that a start takes seconds with a million messages. A state file is
// read when its message is needed: Settle, Defer, SetNotes, Load and Remove read it and
// keep the states in memory until the next spill; Find, Walk and Adopt look and forget.
// What the journal said at the start about a message that only has files is noted and
// wins over its state file. While the journal has a message's own record, its files, if
// there are any, count for nothing.
//
// The envelope of a new message stays in memory until the first Load, if there is room.
// What SetNotes changed stays until a file has it, up to 64 MiB in all.
//
// So damage of a state file is found when it is read, not by Open; Adopt, with which
// the work begins, reads all. Until then Stat does not know the recipients and bytes of
// what was not read. Damage of a content is found by its checksum when it is read to
// its end: the reader fails instead of passing the last bytes on, so that nobody
// delivers it, and the message goes to corrupt/.
//
// A large content has another name until its record is durable. One that Open finds
// without a record was never accepted, and is removed, if nothing in the journal was
// damaged.
//
// # Parts
//
// Package catalog knows the messages, index is its memory, record the format of the
// journal's records; spill keeps the journal short, space bounds it; replay
// fills the catalog at the start, and quarantine brings messages back from corrupt/.
package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/store"
	"tarishi/internal/store/disk/catalog"
	"tarishi/internal/store/disk/index"
	"tarishi/internal/store/disk/replay"
	"tarishi/internal/store/disk/space"
	"tarishi/internal/store/disk/spill"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
	"tarishi/internal/vfs"
)

// Options is what a Store works with. Only Dir is needed.
type Options struct {
	Dir         string
	SegmentSize int64 // of the journal in bytes; 0: 64 MiB
	LargeBody   int64 // contents above this many bytes get a file at once; 0: 1 MiB. Use changes it
	// MinFree says how many of a file system's total bytes must stay free; nil:
	// 1 %, at most 256 MiB. Use changes it.
	MinFree func(total int64) int64
	NoSync  bool // no durability at all: for benchmarks
	// Synced is as in journal.Options.
	Synced func(records int, took time.Duration, err error)
	Log    *zap.Logger
	FS     vfs.FS           // nil: the real one
	Now    func() time.Time // nil: time.Now
}

// Store is an open queue. Its methods may be called from any goroutine.
type Store struct {
	o        Options
	fs       vfs.FS
	log      *zap.Logger
	readOnly bool // OpenReadOnly: nothing may change
	lock     vfs.Lock
	limits   atomic.Pointer[limits]
	spool    *spool.Spool
	journal  *journal.Journal
	catalog  *catalog.Catalog
	spiller  *spill.Spiller
	floor    space.Floor
	chunks   chunks // of bodies
	health   health

	adopting sync.Mutex
	found    []index.Key // what Adopt has not passed on yet
}

var _ store.Store = (*Store)(nil)

// Open takes the lock, reads the folder and returns the store. A folder that is in
// use or cannot be written gives an error that names it; damage inside it is moved
// aside and logged.
func Open(o Options) (*Store, error) {
	q := newStore(o)
	err := q.takeFolder()
	if err == nil {
		if err = q.replay(); err == nil {
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

// OpenReadOnly opens a stopped daemon's spool to look at. It takes no lock, creates and
// changes nothing and moves no damage aside. Put, Settle, Defer, SetNotes, Remove, Sync
// and Path fail with store.ErrReadOnly, Run does nothing. A folder that does not exist
// is an error; one without a message is not.
func OpenReadOnly(o Options) (*Store, error) {
	q := newStore(o)
	if _, err := q.fs.List(o.Dir); err != nil {
		return nil, unusable(o.Dir, err)
	}
	q.readOnly = true
	q.fs = vfs.ReadOnly(q.fs)
	err := q.takeFolder()
	if err == nil {
		err = q.replay()
	}
	if err != nil {
		return nil, unusable(o.Dir, err)
	}
	return q, nil
}

func unusable(dir string, err error) error {
	return fmt.Errorf("cannot use the spool folder %s: %w", dir, err)
}

func newStore(o Options) *Store {
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
	q := &Store{o: o, fs: o.FS, log: o.Log}
	q.limits.Store(&limits{o.LargeBody, o.MinFree})
	return q
}

// limits are the settings that may change while the store is open.
type limits struct {
	largeBody int64
	minFree   func(total int64) int64 // nil: that of package space
}

// Use makes settings count from now on. Contents that are being written may go by those
// before.
func (q *Store) Use(s Settings) {
	q.limits.Store(&limits{max(1, s.SpoolAfter), s.MinFree.Floor})
}

// mustStayFree is space.Floor's MinFree.
func (q *Store) mustStayFree(total int64) int64 {
	if by := q.limits.Load().minFree; by != nil {
		return by(total)
	}
	return space.MustStayFree(total)
}

func (q *Store) journalDir() string { return filepath.Join(q.o.Dir, "journal") }

// takeFolder locks the folder, makes its subfolders and finds out whether it can be written.
func (q *Store) takeFolder() error {
	if err := q.fs.Mkdir(q.o.Dir); err != nil {
		return err
	}
	lock, err := q.fs.Lock(filepath.Join(q.o.Dir, "lock"))
	if err != nil {
		return err
	}
	q.lock = lock
	if err = q.fs.Mkdir(q.journalDir()); err == nil && !q.readOnly {
		err = q.probeFolder()
	}
	if err == nil {
		q.spool, err = spool.Open(q.fs, q.o.Dir)
	}
	if err == nil {
		// The process that made these folders may have died before their names were
		// durable.
		err = q.fs.SyncDir(q.o.Dir)
		_ = q.fs.SyncDir(filepath.Dir(q.o.Dir)) // it is not ours, and perhaps not to be read
	}
	if err != nil {
		lock.Close()
	}
	return err
}

// probeFolder tries to make a file. A full disk is no reason not to start: mail can still go
// out.
func (q *Store) probeFolder() error {
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

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// replay opens the journal and puts the parts together.
func (q *Store) replay() (err error) {
	q.catalog, q.journal, err = replay.Open(replay.Options{
		Spool: q.spool, Log: q.log, ReadOnly: q.readOnly,
		Journal: journal.Options{FS: q.fs, Dir: q.journalDir(), SegmentSize: q.o.SegmentSize, Log: q.log, Now: q.o.Now, Synced: q.o.Synced},
	})
	if err != nil {
		return err
	}
	q.found = q.catalog.AllKeys()
	q.floor = space.Floor{FS: q.fs, Dir: q.o.Dir, MinFree: q.mustStayFree}
	q.spiller = spill.New(spill.Options{
		Catalog: q.catalog, Journal: q.journal, Spool: q.spool, Floor: q.floor, Limits: spill.DefaultLimits, Few: spill.FewFiles,
		Check: func() { _ = q.Healthy() }, // notices a journal that was removed; Put reports it
		Now:   q.o.Now, Log: q.log,
	})
	return nil
}

// Run implements store.Store: see spill.Spiller. Without it disk space is not given
// back.
func (q *Store) Run(ctx context.Context) error {
	if q.readOnly {
		<-ctx.Done()
		return nil
	}
	return q.spiller.Run(ctx)
}

// Close implements store.Store.
func (q *Store) Close() error {
	if q.readOnly {
		return q.journal.Close()
	}
	return q.spiller.Exclusive(func() error {
		files := q.catalog.EmptyTrash()
		if errors.Is(files, journal.ErrClosed) {
			return nil
		}
		err := q.journal.Close()
		if err == nil { // else the files stay for the same reason
			err = files
		}
		return errors.Join(err, q.lock.Close())
	})
}
