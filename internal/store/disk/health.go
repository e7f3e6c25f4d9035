package disk

import (
	"errors"
	"io/fs"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/reply"
	"tarishi/internal/vfs"
)

// health remembers how much space there is.
type health struct {
	mu      sync.Mutex
	checked time.Time
	space   vfs.Space
	err     error
	remade  string // the last error of remakeJournalFolder
}

// remakeJournalFolder makes the journal's folder again if somebody has removed it, so
// that mail can be accepted again. The queue's own folder it leaves alone: where that
// is not the one that is locked, such as the place of a file system that was unmounted,
// another queue may begin. Caller holds q.health.mu.
func (q *Store) remakeJournalFolder() {
	if q.readOnly {
		return
	}
	if _, err := q.fs.Size(q.journalDir()); !errors.Is(err, fs.ErrNotExist) {
		return
	}

	// The lock must still be that of the folder: else another one is mounted there, or
	// none.
	err := q.lock.Renew()
	if err == nil {
		err = q.fs.Mkdir(q.journalDir())
	}

	// The log hears of it once.
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
// a second at most, and whether the journal is still where it was: mail must not be
// acknowledged for long that no start would find.
func (q *Store) Room(size int64) error {
	h := &q.health
	now := q.options.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checked.IsZero() || now.Sub(h.checked) >= time.Second || now.Before(h.checked) {
		// The file system is asked once a second, and whether the journal still has its
		// name.
		h.checked = now
		h.space, h.err = q.floor.Free()
		if number, missing := q.journal.Missing(); missing && !q.readOnly {
			q.log.Error("queue: a segment of the journal was removed or moved, the next start would not find its messages",
				zap.String("name", q.journal.Name(number)))
			_ = q.journal.Roll() // Err tells
			q.spiller.Orphan(number)
		}
		q.remakeJournalFolder()
	}

	// A journal that fails comes first: nothing helps against that but another segment.
	err := q.journal.Err()
	if err != nil {
		return reply.New(452, "4.3.1", "Mail queue cannot be written, please try again later").Because(err)
	}
	if err = h.err; err == nil {
		err = q.floor.Accepts(h.space, size)
	}
	if err != nil {
		return reply.New(452, "4.3.1", "Insufficient system storage, please try again later").Because(err)
	}
	return nil
}
