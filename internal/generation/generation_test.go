package generation_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"tarishi/internal/generation"
)

func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestSwap: a holder keeps its value, and the old generation ends with its last holder.
func TestSwap(t *testing.T) {
	g := generation.New("old")
	first := g.Take()
	first.Retain()
	drained := g.Swap("new")
	second := g.Take()
	if first.Value != "old" || second.Value != "new" || g.Now() != "new" {
		t.Errorf("%q, %q, %q", first.Value, second.Value, g.Now())
	}

	// Twice held, twice released.
	first.Release()
	if ended(drained) {
		t.Error("drained while it is held")
	}
	first.Release()
	if !ended(drained) {
		t.Error("not drained without a holder")
	}
	second.Release()
	if !ended(g.Swap("newest")) {
		t.Error("nobody held it")
	}
}

// TestReleasedTwice: a holder that counts wrong is a fault of the program.
func TestReleasedTwice(t *testing.T) {
	g := generation.New(0)
	h := g.Take()
	g.Swap(1)
	h.Release()
	defer func() {
		if recover() == nil {
			t.Error("a release too many passed")
		}
	}()
	h.Release()
}

// TestTakeWhileSwapped: nobody holds a value that was let go.
func TestTakeWhileSwapped(t *testing.T) {
	type value struct{ gone atomic.Bool }
	g := generation.New(&value{})
	var takers, closers sync.WaitGroup
	for range 4 {
		takers.Go(func() {
			for range 2000 {
				h := g.Take()
				if h.Value.gone.Load() {
					t.Error("held, and let go")
				}
				h.Release()
			}
		})
	}
	for range 500 {
		old := g.Now()
		drained := g.Swap(&value{})
		closers.Go(func() { <-drained; old.gone.Store(true) })
	}
	takers.Wait()
	closers.Wait()
}
