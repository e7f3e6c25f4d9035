// Package roster knows the conversations that are open, and ends them in order.
package roster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// notice is how long a Shutdown without grace still lets conversations say 421, and
	// unwind how long it waits for those that it cut off.
	notice = 500 * time.Millisecond
	unwind = 5 * time.Second
)

// Conversation is one that is open. Its methods may be called from any goroutine.
type Conversation interface {
	// Wake has it end as soon as it waits for a command.
	Wake()
	// CutOff ends it now.
	CutOff()
}

// Roster is the set of open conversations. Its methods may be called from any goroutine.
type Roster struct {
	closing chan struct{} // closed by Shutdown
	served  sync.WaitGroup

	mu     sync.Mutex
	open   map[Conversation]struct{}
	closed bool
}

// New returns a Roster without conversations.
func New() *Roster { return &Roster{closing: make(chan struct{}), open: map[Conversation]struct{}{}} }

// Add adds a conversation that begins. It returns false after a Shutdown: then it must
// not begin.
func (r *Roster) Add(c Conversation) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.open[c] = struct{}{}
	r.served.Add(1)
	return true
}

// Remove takes off one that has ended. idle, unless there is another one, runs before a
// Shutdown returns.
func (r *Roster) Remove(c Conversation, idle func()) {
	r.mu.Lock()
	delete(r.open, c)
	last := len(r.open) == 0
	r.mu.Unlock()
	// An idle server holds nothing that only conversations need.
	if last {
		idle()
	}
	r.served.Done()
}

// Len returns how many are open.
func (r *Roster) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

// Closing is closed when a Shutdown begins.
func (r *Roster) Closing() <-chan struct{} { return r.closing }

// Shutdown ends all conversations and lets no more begin. One that waits for a command ends
// at once, one that is busy when it is done. When ctx ends the rest is cut off, and the
// error says how many sessions that were.
func (r *Roster) Shutdown(ctx context.Context) error {
	began := time.Now()
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.closing)
	}
	for c := range r.open {
		c.Wake()
	}
	r.mu.Unlock()

	// Those that are busy end by themselves, until ctx says that it is too late.
	done := make(chan struct{})
	go func() { // ends with the last one
		r.served.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}

	// Without grace the replies are on their way still.
	select {
	case <-done:
		return nil
	case <-time.After(notice - time.Since(began)):
	}

	// The rest is cut off. Hooks see the end of their context.
	n := r.cutOff()
	err := fmt.Errorf("%d sessions were cut off: %w", n, context.Cause(ctx))
	select {
	case <-done:
		return err
	case <-time.After(unwind):
		return errors.Join(err, errors.New("a hook of one of them is still running"))
	}
}

// cutOff ends all that are open, and returns how many those were.
func (r *Roster) cutOff() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		c.CutOff()
	}
	return len(r.open)
}
