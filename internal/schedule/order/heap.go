// Package order holds the two orders in which a schedule keeps things: by time
// (Heap) and by arrival (List). Each element knows its place in them, so that one
// in the middle can be taken out without a search.
package order

// Placed is an element that keeps its own place: an index that belongs to the
// Heap or List which has the element, and means nothing elsewhere.
type Placed interface {
	comparable
	Place() *int32
}

// Timed is a Placed with the time that orders it: nanoseconds since 1970.
type Timed interface {
	Placed
	At() int64
}

// Heap has the element with the earliest time in front: a binary heap. Its zero
// value is empty, and it may be ranged over.
type Heap[E Timed] []E

// Push puts an element in.
func (h *Heap[E]) Push(e E) {
	*h = append(*h, e)
	h.siftUp(len(*h)-1, e)
}

// Pop takes the first element out; there must be one.
func (h *Heap[E]) Pop() E {
	first := (*h)[0]
	h.Remove(first)
	return first
}

// Remove takes out an element that is in the heap.
func (h *Heap[E]) Remove(e E) {
	var none E
	i, end := int(*e.Place()), len(*h)-1
	last := (*h)[end]
	(*h)[end] = none
	*h = (*h)[:end]
	if i < end {
		h.siftDown(i, last)
		h.siftUp(int(*last.Place()), last)
	}
}

// Restore makes a heap again after times of its elements have changed.
func (h *Heap[E]) Restore() {
	for i, e := range *h {
		*e.Place() = int32(i)
	}
	for i := len(*h)/2 - 1; i >= 0; i-- {
		h.siftDown(i, (*h)[i])
	}
}

// siftUp puts e at i or above.
func (h *Heap[E]) siftUp(i int, e E) {
	all, at := *h, e.At()
	for i > 0 {
		parent := (i - 1) / 2
		if all[parent].At() <= at {
			break
		}
		all[i] = all[parent]
		*all[i].Place() = int32(i)
		i = parent
	}
	all[i] = e
	*e.Place() = int32(i)
}

// siftDown puts e at i or below.
func (h *Heap[E]) siftDown(i int, e E) {
	all, at := *h, e.At()

	// The smaller child comes up as long as one is smaller.
	for {
		child := 2*i + 1
		if child >= len(all) {
			break
		}
		if right := child + 1; right < len(all) && all[right].At() < all[child].At() {
			child = right
		}
		if at <= all[child].At() {
			break
		}
		all[i] = all[child]
		*all[i].Place() = int32(i)
		i = child
	}
	all[i] = e
	*e.Place() = int32(i)
}
