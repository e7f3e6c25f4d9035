package queue

import (
	"fmt"
	"sync"
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
}

// Healthy returns nil, or a *reply.Reply (452 4.3.1) that says why no message can
// be accepted: the journal cannot be written, or space is short.
func (q *Queue) Healthy() error { return q.Room(0) }

// Room is Healthy for a message of size bytes. It looks at the file system once
// a second at most, and whether the journal is still where it was: nobody is told
// for long that mail is stored which no start would find.
func (q *Queue) Room(size int64) error {
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
	}
	if err := q.journal.Err(); err != nil {
		return reply.New(452, "4.3.1", "Mail queue cannot be written, please try again later").Because(err)
	}
	if err := q.short(h.space, h.err, size); err != nil {
		return reply.New(452, "4.3.1", "Insufficient system storage, please try again later").Because(err)
	}
	return nil
}

// short says what there would be too little of with size bytes more; one of a
// hundred inodes must stay free as well.
func (q *Queue) short(s vfs.Space, err error, size int64) error {
	floor := defaultFloor
	if q.o.MinFree != nil {
		floor = q.o.MinFree
	}
	switch {
	case err != nil:
		return err
	case s.Bytes-size < floor(s.TotalBytes):
		return fmt.Errorf("%d bytes are free below %s, for a message of %d", s.Bytes, q.o.Dir, size)
	case s.TotalFiles > 0 && s.Files < s.TotalFiles/100:
		return fmt.Errorf("%d files can still be made below %s", s.Files, q.o.Dir)
	}
	return nil
}
