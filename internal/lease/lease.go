// Package lease lends state to code that may not give it back in time: a handler that
// outlives its timeout, or a goroutine that it has left behind.
//
// The borrower reads and changes the state through a Gate. Its owner revokes the gate
// and from then on has the state alone, whatever the borrower does: reads yield zero
// values, changes have no effect, and a content that was opened cannot be read on.
package lease

import (
	"errors"
	"sync"
)

// ErrRevoked is the error of a borrower after its time.
var ErrRevoked = errors.New("lease: the time is over")

// Gate stands between a borrower and the state that was lent to it. No code of the
// borrower runs while a gate is held, so that a revocation waits for moments only. A nil
// Gate is always open: it is for borrowers that the owner waits for.
type Gate struct {
	mu   sync.Mutex
	shut bool
}

// Revoke shuts the gate. What the borrower is doing with the state just then ends
// first.
func (g *Gate) Revoke() {
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
}

// Revoked reports whether the time is over.
func (g *Gate) Revoked() bool {
	if !g.acquire() {
		return true
	}
	g.release()
	return false
}

// acquire holds the gate for a moment, if it is open. release is due then.
func (g *Gate) acquire() (open bool) {
	if g == nil {
		return true
	}
	// An open gate stays locked until release: the owner's Revoke waits for that.
	g.mu.Lock()
	if g.shut {
		g.mu.Unlock()
		return false
	}
	return true
}

func (g *Gate) release() {
	if g != nil {
		g.mu.Unlock()
	}
}

// Look reads something of a state: the zero value if there is no state, or if the time
// is over. read must be short and must not lead the borrower to the state.
func Look[State, Value any](g *Gate, state *State, read func(*State) Value) (value Value) {
	if state == nil || !g.acquire() {
		return value
	}
	defer g.release()
	return read(state)
}

// Touch changes a state, unless there is none or the time is over. change must be
// short.
func Touch[State any](g *Gate, state *State, change func(*State)) {
	if state == nil || !g.acquire() {
		return
	}
	defer g.release()
	change(state)
}
