package held

import (
	"sync"

	"tarishi/internal/mail"
)

// Locks makes queue and Register agree about the held recipients of a message.
// Messages share the locks by their IDs, so that many can be held at a time and
// share the queue's syncs.
type Locks [64]sync.Mutex

// Lock locks a message.
func (h *Locks) Lock(id mail.ID) (unlock func()) {
	// FNV-1a: any spread will do.
	sum := uint32(2166136261)
	for i := range len(id) {
		sum = (sum ^ uint32(id[i])) * 16777619
	}
	l := &h[sum%uint32(len(h))]
	l.Lock()
	return l.Unlock
}
