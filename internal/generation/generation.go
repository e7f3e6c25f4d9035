// Package generation replaces a value while others use it: settings and hook chains
// that are reloaded. A user takes the current value when its work begins and holds it
// until the work ends, so that it sees one value throughout; what belongs to an old
// value is let go when its last user has ended.
package generation

import "sync/atomic"

// Value is a value that is replaced as a whole. Its methods may be called from any
// goroutine; none of them waits.
type Value[T any] struct {
	current atomic.Pointer[Held[T]]
}

// Held is one generation of a value.
type Held[T any] struct {
	Value T // never changed

	// users counts the holders, and one for being the current generation. From zero it
	// never rises again.
	users   atomic.Int64
	drained chan struct{} // closed when users is zero
}

// New returns a Value whose first generation is v.
func New[T any](v T) *Value[T] {
	g := &Value[T]{}
	g.current.Store(newHeld(v))
	return g
}

func newHeld[T any](v T) *Held[T] {
	h := &Held[T]{Value: v, drained: make(chan struct{})}
	h.users.Store(1)
	return h
}

// Take returns the current generation and holds it. The caller must Release it once.
func (g *Value[T]) Take() *Held[T] {
	for {
		h := g.current.Load()
		n := h.users.Load()
		// Zero users: it was replaced between the two loads, and there is a newer one.
		for n > 0 {
			if h.users.CompareAndSwap(n, n+1) {
				return h
			}
			n = h.users.Load()
		}
	}
}

// Now returns the current value without holding it: for a look that may be out of date
// at once.
func (g *Value[T]) Now() T { return g.current.Load().Value }

// Swap makes v the current generation. The channel is closed when nobody holds the one
// before.
func (g *Value[T]) Swap(v T) (drained <-chan struct{}) {
	old := g.current.Swap(newHeld(v))
	old.Release()
	return old.drained
}

// Retain holds a generation once more, for work that outlives the holder's own. The
// caller holds it already.
func (h *Held[T]) Retain() { h.users.Add(1) }

// Release lets the generation go.
func (h *Held[T]) Release() {
	switch n := h.users.Add(-1); {
	case n == 0:
		close(h.drained)
	case n < 0:
		panic("generation: released more often than taken")
	}
}
