package order

import (
	"math/rand/v2"
	"slices"
	"testing"
)

type element struct {
	at    int64
	place int32
}

func (e *element) At() int64     { return e.at }
func (e *element) Place() *int32 { return &e.place }

// TestHeap puts in, takes out of the middle and pops at random: each Pop is the
// earliest of what is there.
func TestHeap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h Heap[*element]
	there := map[*element]bool{}
	any := func() *element { return h[r.IntN(len(h))] }
	for range 20_000 {
		switch n := r.IntN(10); {
		case n < 5 || len(h) == 0:
			e := &element{at: int64(r.IntN(100))}
			h.Push(e)
			there[e] = true
		case n < 7:
			e := any()
			h.Remove(e)
			delete(there, e)
		case n < 8:
			for range 3 {
				any().at = int64(r.IntN(100))
			}
			h.Restore()
		default:
			e := h.Pop()
			for other := range there {
				if other.at < e.at {
					t.Fatalf("%d came before %d", e.at, other.at)
				}
			}
			if !there[e] {
				t.Fatal("came twice")
			}
			delete(there, e)
		}
		if len(h) != len(there) {
			t.Fatalf("%d elements, not %d", len(h), len(there))
		}
	}
}

// TestList compares a List with a plain slice.
func TestList(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var l List[*element]
	var want []*element
	for step := range 20_000 {
		limit := 5 + step/4000*50
		switch n := r.IntN(10); {
		case len(want) == 0 || n < 5 && len(want) < limit:
			e := &element{}
			l.Push(e)
			want = append(want, e)
		case n == 5:
			e := l.Pop()
			l.PushFront(e)
			var first *element
			l.Walk(func(e *element) bool { first = e; return false })
			if first != e { // there was no room in front
				want = append(want[1:], e)
			}
		case n < 8:
			if e := l.Pop(); e != want[0] {
				t.Fatal("not the first")
			}
			want = want[1:]
		default:
			i := r.IntN(len(want))
			l.Remove(want[i])
			want = slices.Delete(want, i, i+1)
		}
		var got []*element
		l.Walk(func(e *element) bool { got = append(got, e); return true })
		if l.Len() != len(want) || !slices.Equal(got, want) {
			t.Fatalf("step %d: %d elements, want %d", step, l.Len(), len(want))
		}
	}
	if cap(l.elements) > 16*max(smallList, l.Len()) {
		t.Errorf("room for %d elements is kept, %d are there", cap(l.elements), l.Len())
	}
}
