package queue

import (
	"fmt"
	"sync"
	"time"

	"tarishi/internal/reply"
)

// spaceFloor is how many bytes must be free at least; on small file systems 1 %.
const spaceFloor = 256 << 20

// health remembers how much space is left.
type health struct {
	mu      sync.Mutex
	checked time.Time
	err     error
}

// Healthy returns nil, or a *reply.Reply (452 4.3.1) that says why no message can
// be accepted: the journal cannot be written, or space is short. It looks at the
// file system once a second at most.
func (q *Queue) Healthy() error {
	if err := q.journal.Err(); err != nil {
		return reply.New(452, "4.3.1", "Mail queue cannot be written, please try again later").Because(err)
	}
	h := &q.health
	now := q.o.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checked.IsZero() || now.Sub(h.checked) >= time.Second || now.Before(h.checked) {
		h.checked, h.err = now, q.space()
	}
	return h.err
}

func (q *Queue) space() error {
	free, total, err := q.fs.Free(q.o.Dir)
	if err == nil && free < min(spaceFloor, total/100) {
		err = fmt.Errorf("%d bytes are free below %s", free, q.o.Dir)
	}
	if err != nil {
		return reply.New(452, "4.3.1", "Insufficient system storage, please try again later").Because(err)
	}
	return nil
}
