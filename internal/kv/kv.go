// Package kv is a small key-value store on disk, for what plugins remember
// across restarts: a bucket for each plugin, keys that may expire, one file.
//
// Reads see every write that returned before them. A write reaches the disk
// later, together with others in one synced transaction: Run flushes every
// Interval, so that a crash of the process or of the system costs what was
// written in the last ten seconds, never the file. The store opens its file at
// the first use of a bucket; where plugins remember nothing there is none.
//
// A file that is damaged, whether found so at the opening or later, is moved
// aside with an ERROR line, and an empty one takes its place: what plugins
// remember helps them, and must never keep the daemon from its mail.
package kv

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Interval is how often Run writes to the disk. With the time of a slow sync it
// stays below the ten seconds that a crash may cost.
const Interval = 5 * time.Second

const (
	// MaxKey is the longest key, MaxValue the longest value, in bytes.
	MaxKey   = 1 << 10
	MaxValue = 1 << 20

	// forever is the lifetime from which on an entry does not expire: its end must
	// fit into the stamp on the disk.
	forever = 100 * 365 * 24 * time.Hour

	// entryCost is about what an entry takes on the disk and in memory beside
	// its key and its value, in bytes.
	entryCost = 64

	// Writes that wait for the disk: beyond flushEarly bytes Run does not wait
	// for its next tick, beyond maxPending writes fail.
	flushEarly = 1 << 20
	maxPending = 16 << 20
)

// The errors of a Bucket, beside those of the disk.
var (
	ErrFull   = errors.New("kv: the store is full")
	ErrLarge  = errors.New("kv: the key or the value is too long")
	ErrClosed = errors.New("kv: the store is closed")
)

// Options are what a Store works with.
type Options struct {
	Path     string // of the file; its folder must exist
	MaxBytes int64  // bound of all keys and values together; 0: none
	Log      *zap.Logger
	Now      func() time.Time // nil: time.Now
}

// Store is one file of buckets. Its methods may be called from any goroutine.
type Store struct {
	options Options
	wake    chan struct{} // a flush is due before the next tick

	flushing sync.Mutex // one flush at a time; taken before mu

	mu       sync.Mutex
	file     *file // nil: not opened yet, or lost
	retry    time.Time
	openErr  error // why the file could not be opened; until retry
	closed   bool
	failing  bool                        // the last flush failed, and the log says so
	pending  map[string]map[string]entry // by bucket and key, to be written
	writing  map[string]map[string]entry // what a flush is writing
	unsaved  int64                       // bytes in pending
	stored   int64                       // bytes that count against MaxBytes
	sweepPos position
}

// entry is what stands under a key.
type entry struct {
	value   []byte
	expires time.Time // zero: never
	deleted bool
}

// size is what an entry counts against Options.MaxBytes.
func (e entry) size(key string) int64 { return entryCost + int64(len(key)+len(e.value)) }

// isGone reports whether there is nothing to be seen any more.
func (e entry) isGone(now time.Time) bool {
	return e.deleted || !e.expires.IsZero() && !now.Before(e.expires)
}

// New returns a Store. It opens nothing.
func New(o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{options: o, wake: make(chan struct{}, 1), pending: map[string]map[string]entry{}}
}

// Bucket is the part of a Store that one plugin uses.
type Bucket struct {
	store *Store
	name  string
}

// Bucket returns the bucket of that name, which must not be empty. It opens
// nothing.
func (s *Store) Bucket(name string) *Bucket { return &Bucket{store: s, name: name} }

// Get returns a copy of the value of a key; ok is false if there is none, or it
// has expired.
func (b *Bucket) Get(key string) (value []byte, ok bool, err error) {
	s := b.store
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.lookup(b.name, key)
	if err != nil || found.isGone(s.options.Now()) {
		return nil, false, err
	}
	return append([]byte{}, found.value...), true, nil
}

// Put sets the value of a key, for as long as lifetime says; 0 is for ever.
func (b *Bucket) Put(key string, value []byte, lifetime time.Duration) error {
	return b.Update(key, func([]byte, bool) ([]byte, time.Duration, bool) { return value, lifetime, true })
}

// Delete removes a key, if it is there.
func (b *Bucket) Delete(key string) error {
	return b.Update(key, func([]byte, bool) ([]byte, time.Duration, bool) { return nil, 0, false })
}

// Update replaces the value of a key by what change makes of it, and lets no other
// write come between. ok says whether there is an old value, which change must not
// keep; it returns the new one with its lifetime, or keep=false to delete the key.
// It runs while the whole store waits, so it must not block or use the store.
func (b *Bucket) Update(key string, change func(old []byte, ok bool) (value []byte, lifetime time.Duration, keep bool)) error {
	s := b.store
	s.mu.Lock()
	defer s.mu.Unlock()
	before, err := s.lookup(b.name, key)
	if err != nil {
		return err
	}

	// An entry that has expired is still there until it is swept; nobody sees it.
	now := s.options.Now()
	present := !before.isGone(now)
	old := before.value
	if !present {
		old = nil
	}
	value, lifetime, keep := change(old, present)
	next := entry{deleted: !keep}
	if keep {
		// The caller goes on with its slice: the store needs a copy.
		next.value = append([]byte{}, value...)
		if lifetime > 0 && lifetime < forever {
			next.expires = now.Add(lifetime)
		}
	}
	return s.replaceEntry(b.name, key, before, next)
}

// Range calls visit with the keys that begin with prefix and their values, in no
// order, until it returns false. It sees the bucket as it is when Range is called;
// visit may use the store.
func (b *Bucket) Range(prefix string, visit func(key string, value []byte) bool) error {
	s := b.store
	s.mu.Lock()
	all, err := s.collect(b.name, prefix)
	s.mu.Unlock()
	if err != nil {
		return err
	}

	// The copy is complete by now, so visit may take the lock that collect has given up.
	for key, found := range all {
		if !visit(key, found.value) {
			break
		}
	}
	return nil
}

// collect returns the live entries below a prefix. Values that wait for the disk
// hide older ones in the file. The caller holds mu.
func (s *Store) collect(bucket, prefix string) (map[string]entry, error) {
	f, err := s.openedFile()
	if err != nil {
		return nil, err
	}
	all, err := f.collect(bucket, prefix)
	if err != nil {
		return nil, s.abandonDamaged(err)
	}

	// The batch that is being written is older than what waits.
	for _, newer := range []map[string]entry{s.writing[bucket], s.pending[bucket]} {
		for key, changed := range newer {
			if strings.HasPrefix(key, prefix) {
				all[key] = changed
			}
		}
	}

	// The caller gets copies: it goes on without the lock.
	now := s.options.Now()
	maps.DeleteFunc(all, func(_ string, found entry) bool { return found.isGone(now) })
	for key, found := range all {
		found.value = append([]byte{}, found.value...)
		all[key] = found
	}
	return all, nil
}

// lookup returns the newest entry of a key, a deleted one if there is none. The
// caller holds mu.
func (s *Store) lookup(bucket, key string) (entry, error) {
	f, err := s.openedFile()
	if err != nil {
		return entry{}, err
	}

	// The newest place wins: writes that wait, then the batch on its way, then the file.
	if found, ok := s.pending[bucket][key]; ok {
		return found, nil
	}
	if found, ok := s.writing[bucket][key]; ok {
		return found, nil
	}
	found, err := f.lookup(bucket, key)
	if err != nil {
		return entry{}, s.abandonDamaged(err)
	}
	return found, nil
}

// replaceEntry takes a new entry in place of another one. The caller holds mu.
func (s *Store) replaceEntry(bucket, key string, before, next entry) error {
	if before.deleted && next.deleted {
		return nil
	}
	if key == "" || len(key) > MaxKey || len(next.value) > MaxValue {
		return ErrLarge
	}
	grown := int64(0)
	if !before.deleted {
		grown -= before.size(key)
	}
	if !next.deleted {
		grown += next.size(key)
	}

	// A store that is full still takes what makes it no larger. What has expired
	// in it is only waiting for the sweep, which is due now.
	if s.options.MaxBytes > 0 && grown > 0 && s.stored+grown > s.options.MaxBytes {
		s.requestFlush()
		return ErrFull
	}

	// A disk that fails must not let memory grow.
	waits := next.size(key)
	if s.unsaved+waits > maxPending {
		s.requestFlush()
		return ErrFull
	}

	// A key that is written again before a flush waits once.
	if s.pending[bucket] == nil {
		s.pending[bucket] = map[string]entry{}
	}
	if earlier, again := s.pending[bucket][key]; again {
		waits -= earlier.size(key)
	}
	s.pending[bucket][key] = next
	s.stored += grown
	if s.unsaved += waits; s.unsaved > flushEarly {
		s.requestFlush()
	}
	return nil
}

// requestFlush asks Run for a flush now.
func (s *Store) requestFlush() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
