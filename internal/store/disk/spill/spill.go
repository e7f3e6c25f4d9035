// Package spill keeps the journal of a store short: it moves what waits longer from
// the oldest segments to files, and removes the segments.
//
// A segment is retired when nothing in it is needed, when it is old, or when the
// journal is too long. Messages that it still holds are spilled before. So a younger segment,
// which may say that a message is done, outlives every older one, which may hold that
// message.
//
// Spillers work in batches and rest between them while mail is accepted, as one disk
// serves both. When no mail comes the journal takes no more than its live messages and
// two segments. While it pours in the journal may grow, see Limits; beyond them Admit
// waits for the spillers, or does their work, so that mail comes in as fast as it can
// be moved.
package spill

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/catalog"
	"tarishi/internal/store/disk/space"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// When else than by its length the oldest segment is retired though it holds live
// mail, and how.
const (
	OldSegment   = 10 * time.Minute // it is older than this
	youngSegment = time.Minute      // it is older than this and 3/4 of it are dead
	retirePause  = 30 * time.Second // after a failure
	tick         = time.Second
	spillers     = 8   // files written at a time: where each is synced, syncs share a commit of the file system
	spillBatch   = 512 // messages

	// FewFiles is up to how many messages files are synced one by one.
	FewFiles = 8
)

// Options is what a Spiller works with. All are needed.
type Options struct {
	Catalog *catalog.Catalog
	Journal *journal.Journal
	Spool   *spool.Spool
	Floor   space.Floor
	Limits  Limits
	Few     int // messages up to which files are synced one by one: FewFiles
	// Check is called in each round of the work in the background, before anything
	// else.
	Check func()
	Now   func() time.Time
	Log   *zap.Logger
}

// Spiller moves messages out of the journal. Its methods may be called from any
// goroutine.
type Spiller struct {
	options Options
	log     *zap.Logger
	catalog *catalog.Catalog
	journal *journal.Journal
	spool   *spool.Spool

	crowded  atomic.Bool   // the journal is so long that Admit has to wait,
	credit   atomic.Int64  // but for so many bytes, which were moved out of it since
	youngest atomic.Uint32 // segment that Accepted was called with
	orphan   atomic.Uint32 // the last segment without a file, as somebody removed it
	accepted atomic.Int64  // messages
	hurry    chan struct{} // wakes Run, and a spiller that rests

	working sync.Mutex // spills, removes files or retires; before all locks of the catalog
	// It guards the rest.
	retireAfter time.Time
	complained  time.Time  // when the log said last that the journal cannot be written; zero: it can
	retiring    bool       // somebody retires segments, and may have yielded
	retired     *sync.Cond // something was moved out of the journal, or nobody tries any more
	running     bool       // Run does
	rounds      int        // of Work
	pace        pace
}

// New returns a Spiller.
func New(o Options) *Spiller {
	s := &Spiller{options: o, log: o.Log, catalog: o.Catalog, journal: o.Journal, spool: o.Spool, hurry: make(chan struct{}, 1)}
	s.retired = sync.NewCond(&s.working)
	return s
}

// Tune changes the options, and forgets how fast mail was accepted. Nothing else may be
// going on but what holds no lock.
func (s *Spiller) Tune(change func(o *Options)) {
	s.working.Lock()
	defer s.working.Unlock()
	change(&s.options)
	s.pace = pace{measured: s.options.Now(), before: s.accepted.Load()}
}

// Run works in the background until ctx ends: it syncs what was recorded without
// waiting, removes the files of finished messages, retires segments, and tries a
// journal that failed again.
func (s *Spiller) Run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	s.setRunning(true)
	defer s.setRunning(false)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-s.hurry:
		}
		s.WorkOnce(ctx)
	}
}

func (s *Spiller) setRunning(on bool) {
	s.working.Lock()
	defer s.working.Unlock()
	s.running = on
	s.retired.Broadcast()
}

// WorkOnce is one round of Run.
func (s *Spiller) WorkOnce(ctx context.Context) {
	s.options.Check()
	s.working.Lock()
	defer s.working.Unlock()
	defer func() {
		s.rounds++
		s.retired.Broadcast()
	}()
	if !s.syncAndTidy() {
		s.spareSegments()
		return
	}
	s.pace.measure(s.options.Now(), s.accepted.Load())
	if !s.retiring { // else another call does, which has yielded
		s.retireDue(ctx, func() bool { return true })
	}
}

// Exclusive calls fn while nothing is spilled, removed or retired.
func (s *Spiller) Exclusive(fn func() error) error {
	s.working.Lock()
	defer s.working.Unlock()
	return fn()
}

// SpillNow writes the files of messages now.
func (s *Spiller) SpillNow(ctx context.Context, ids ...mail.ID) error {
	s.working.Lock()
	defer s.working.Unlock()
	return s.spillMessages(ctx, ids)
}

// Orphan notes that the file of a segment was removed or moved by others: it is retired
// soon, and with it all older ones.
func (s *Spiller) Orphan(segment uint32) {
	s.orphan.Store(segment)
	s.wakeSpiller()
}

// wakeSpiller wakes whatever spills, or should.
func (s *Spiller) wakeSpiller() {
	select {
	case s.hurry <- struct{}{}:
	default:
	}
}

// syncAndTidy syncs what was recorded without waiting, and removes the files of finished
// messages; false: the journal cannot be written.
func (s *Spiller) syncAndTidy() bool {
	// A journal that cannot be written is tried each second, and complained of once a
	// minute.
	if s.journal.Unsynced() || s.journal.Err() != nil {
		if err := s.journal.Sync(); err != nil {
			if now := s.options.Now(); s.complained.IsZero() || now.Sub(s.complained) >= time.Minute {
				s.complained = now
				s.log.Error("queue: journal cannot be written, trying again every second", zap.Error(err))
			}
			return false
		}
	}
	if !s.complained.IsZero() {
		s.complained = time.Time{}
		s.log.Info("queue: journal can be written again")
	}

	// Only after the sync are records durable for which files may go.
	if err := s.catalog.EmptyTrash(); err != nil {
		s.log.Error("queue: files of finished messages stay", zap.Error(err))
	}
	return true
}

// retireDue retires segments for which it is time, as long as more says so. Caller
// holds s.working.
func (s *Spiller) retireDue(ctx context.Context, more func() bool) {
	s.retiring = true
	defer func() {
		s.retiring = false
		s.retired.Broadcast()
	}()
	for ctx.Err() == nil && !s.options.Now().Before(s.retireAfter) && more() {
		oldest, ok := s.retirable()
		if !ok {
			return
		}
		// A message that is just arriving is waited for: the next round comes soon.
		err := s.Retire(ctx, oldest.Number)
		if errors.Is(err, catalog.ErrArriving) || ctx.Err() != nil {
			return
		}
		// A segment that cannot go now is left alone for a while: others wait behind it.
		if err != nil {
			s.retireAfter = s.options.Now().Add(retirePause)
			s.log.Error("queue: segment stays", zap.Uint32("segment", oldest.Number), zap.Error(err))
		}
		s.retired.Broadcast()
	}
}
