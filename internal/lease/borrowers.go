package lease

import (
	"context"
	"sync"
)

// Borrowers counts those that have not returned yet, revoked or not. Unlike a
// sync.WaitGroup it can be waited for with a limit while others are added. The zero value
// is ready. Its methods may be called from any goroutine.
type Borrowers struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n falls to 0; nil when nobody waits
}

// Add counts one more.
func (b *Borrowers) Add() {
	b.mu.Lock()
	b.n++
	b.mu.Unlock()
}

// Done counts one that has returned.
func (b *Borrowers) Done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n--; b.n == 0 && b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
}

// Wait returns when there is none, or when ctx ends.
func (b *Borrowers) Wait(ctx context.Context) {
	b.mu.Lock()
	if b.n == 0 {
		b.mu.Unlock()
		return
	}
	// All that wait share one channel, which the last borrower closes.
	if b.idle == nil {
		b.idle = make(chan struct{})
	}
	idle := b.idle
	b.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
