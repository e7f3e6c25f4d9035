package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/reply"
	"tarishi/internal/vfs"
)

// spaceFloor is how many bytes must stay free unless Options.MinFree says
// otherwise; on small file systems 1 %.
const spaceFloor = 256 << 20

func defaultFloor(total int64) int64 { return min(spaceFloor, total/100) }

// health remembers how much space there is.
type health struct {
	mu      sync.Mutex
	checked time.Time
	space   vfs.Space
	err     error
	remade  string // the last error of remake
}

// remake makes the journal's folder again if somebody has removed it, so that mail can
// be accepted again. The queue's own folder it leaves alone: where that is not the
// one that is locked, such as the place of a file system that was unmounted,
// another queue may begin. Caller holds q.health.mu.
func (q *Store) remake() {
	if q.look {
		return
	}
	if _, err := q.fs.Size(q.journalDir()); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	err := q.lock.Renew()
	if err == nil {
		err = q.fs.Mkdir(q.journalDir())
	}
	said := q.health.remade
	if q.health.remade = ""; err == nil {
		q.log.Warn("queue: the journal's folder was removed and is made again", zap.String("name", q.journalDir()))
		return
	}
	if q.health.remade = err.Error(); said != q.health.remade {
		q.log.Error("queue: the journal's folder was removed and cannot be made again", zap.String("name", q.journalDir()), zap.Error(err))
	}
}

// Healthy returns nil, or a *reply.Reply (452 4.3.1) that says why no message can
// be accepted: the journal cannot be written, or space is short.
func (q *Store) Healthy() error { return q.Room(0) }

// Room is Healthy for a message of size bytes. It looks at the file system once
// a second at most, and whether the journal is still where it was: nobody is told
// for long that mail is stored which no start would find.
func (q *Store) Room(size int64) error {
	h := &q.health
	now := q.o.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checked.IsZero() || now.Sub(h.checked) >= time.Second || now.Before(h.checked) {
		h.checked = now
		h.space, h.err = q.fs.Free(q.o.Dir)
		if number, missing := q.journal.Missing(); missing && !q.look {
			q.log.Error("queue: the journal's segment was removed or moved, no start would find what it holds",
				zap.String("name", q.journal.Name(number)))
			_ = q.journal.Roll() // Err tells
			q.orphan.Store(number)
			q.urge()
		}
		q.remake()
	}
	err := q.journal.Err()
	if err != nil {
		return reply.New(452, "4.3.1", "Mail queue cannot be written, please try again later").Because(err)
	}
	if err = h.err; err == nil {
		err = cmp.Or(q.lackBytes(h.space, size, 1), q.lackInodes(h.space, 0, 1))
	}
	if err != nil {
		return reply.New(452, "4.3.1", "Insufficient system storage, please try again later").Because(err)
	}
	return nil
}

// tight returns an error when the first half is used of what is free when no mail is
// accepted any more. The other is for reports and for records of what became of
// mail, without which the queue would never get shorter. It wraps ENOSPC.
func (q *Store) tight() error {
	s, err := q.fs.Free(q.o.Dir)
	if err != nil {
		return nil // who writes will see
	}
	if err := cmp.Or(q.lackBytes(s, 0, 2), q.lackInodes(s, 0, 2)); err != nil {
		return fmt.Errorf("%w: %w", syscall.ENOSPC, err)
	}
	return nil
}

// lackBytes compares what there is with what is wanted and what must stay free, or
// one of so many parts of that.
func (q *Store) lackBytes(s vfs.Space, want, part int64) error {
	floor := defaultFloor
	if q.o.MinFree != nil {
		floor = q.o.MinFree
	}
	return q.lack("bytes", s.Bytes, want, floor(s.TotalBytes)/part)
}

// lackInodes is lackBytes for inodes, of which one of a hundred must stay free.
func (q *Store) lackInodes(s vfs.Space, want, part int64) error {
	if s.TotalFiles == 0 { // no limit
		return nil
	}
	return q.lack("inodes", s.Files, want, s.TotalFiles/100/part)
}

func (q *Store) lack(what string, free, want, keep int64) error {
	switch {
	case free-want >= keep:
		return nil
	case want == 0:
		return fmt.Errorf("%d %s are free below %s, and %d must stay free", free, what, q.o.Dir, keep)
	}
	return fmt.Errorf("%d %s are free below %s, %d are wanted, and %d must stay free", free, what, q.o.Dir, want, keep)
}
