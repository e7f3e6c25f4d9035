// Package handover keeps track of messages that come from another process: which of them
// came already, and what was asked for before they came. It has pure data structures.
package handover

import (
	"maps"
	"time"

	"tarishi/internal/mail"
)

// Register remembers for a while which messages came, once any were abandoned. A message
// with a partition that was lost just after its Put was confirmed, and then claimed again, is
// both adopted and enqueued. The zero Register remembers nothing yet, and is not safe
// for concurrent use.
type Register struct {
	watching   bool
	young, old map[mail.ID]bool
	turned     time.Time // when the young were the old
}

// remembered is how long after its Put a message may be enqueued.
const remembered = time.Minute

// Watching reports whether any were abandoned.
func (h *Register) Watching() bool { return h.watching }

// First notes that a message comes, and reports whether it does for the first time.
func (h *Register) First(id mail.ID, now time.Time) bool {
	if !h.watching {
		return true
	}
	if now.Sub(h.turned) >= remembered {
		h.old, h.young, h.turned = h.young, map[mail.ID]bool{}, now
	}
	if h.young[id] || h.old[id] {
		return false
	}
	h.young[id] = true
	return true
}

// Forget lets messages come again that were abandoned.
func (h *Register) Forget(lost func(mail.ID) bool, now time.Time) {
	if !h.watching {
		h.watching, h.young, h.turned = true, map[mail.ID]bool{}, now
	}
	gone := func(id mail.ID, _ bool) bool { return lost(id) }
	maps.DeleteFunc(h.young, gone)
	maps.DeleteFunc(h.old, gone)
}
