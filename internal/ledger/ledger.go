// Package ledger counts by key, each count for a limited time: what plugins remember of
// clients, senders, recipients and destinations while they limit them.
//
// A Ledger has three kinds of numbers, which need names of their own:
//
//	Add, Value   a number that begins with its first addition and ends with its life
//	Mark, Marks  the events within the window of time that ends now
//	Hold         how many of something there are at the moment, such as connections
//
// There are two of them, with the same promises, which package ledgertest states as tests.
// A Local counts in the memory of this process and keeps what must outlast a restart in the
// plugin store. Package redis counts in a Redis server, together with other processes. A
// Shared counts in Redis while it answers, and in a Local while it does not.
//
// A window is cut into slots: an event is dated back to the beginning of its slot, so that
// it may be forgotten earlier than the window says by a sixtieth of it. A client that never
// stops costs no more memory by that than one that has just begun.
package ledger

import (
	"context"
	"time"
)

// Key names a number. With a Field it is one of several numbers below a Name, which end
// together.
type Key struct{ Name, Field string }

// Life says how long a number stands.
type Life struct {
	For   time.Duration // more than 0
	Renew bool          // each addition begins it anew; otherwise it begins with the first
}

// Ledger counts. Its methods may be called from any goroutine. An error means that nothing
// can be said about the count; a Local returns none.
type Ledger interface {
	// Add adds n to a number and returns the sum.
	Add(ctx context.Context, k Key, n int64, l Life) (int64, error)
	// Value returns a number; 0: there is none.
	Value(ctx context.Context, k Key) (int64, error)
	// Mark notes an event and returns how many there were within the window, this one
	// included. All windows of a name should have the same length.
	Mark(ctx context.Context, name string, window time.Duration) (int64, error)
	// Marks returns how many events there were within the window.
	Marks(ctx context.Context, name string, window time.Duration) (int64, error)
	// Hold counts one more until it is released. If the process dies first it counts
	// for that life still, at most.
	Hold(ctx context.Context, k Key, life time.Duration) (*Hold, error)
}

// Hold is one of those that a number counts.
type Hold struct {
	Count   int64 // with this one
	release func()
}

// NewHold returns a Hold, for an implementation of Ledger.
func NewHold(count int64, release func()) *Hold { return &Hold{count, release} }

// Release ends it. It is called once.
func (h *Hold) Release() { h.release() }

// slots is how many parts a window has.
const slots = 60

// Slot returns the slot of a window that a time is in, as the time of its beginning:
// milliseconds since 1970.
func Slot(at time.Time, window time.Duration) int64 {
	step := max(window.Milliseconds()/slots, 1)
	now := at.UnixMilli()
	return now - now%step
}
