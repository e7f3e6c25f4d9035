package order

// smallList is the capacity that an empty List keeps, and the number of gaps in
// front from which on they are worth closing.
const smallList = 64

// List is elements in order, first come first served. One that is taken out of
// the middle leaves a gap. The zero value is empty.
type List[E Placed] struct {
	elements []E
	head     int   // no element is before
	base     int32 // the place of elements[0]; it wraps
	n        int
}

// Len returns the number of elements.
func (l *List[E]) Len() int { return l.n }

// Push puts e at the end.
func (l *List[E]) Push(e E) {
	*e.Place() = l.base + int32(len(l.elements))
	l.elements = append(l.elements, e)
	l.n++
}

// PushFront puts e in front if something left from there, else at the end.
func (l *List[E]) PushFront(e E) {
	if l.head == 0 {
		l.Push(e)
		return
	}
	l.head--
	l.elements[l.head] = e
	*e.Place() = l.base + int32(l.head)
	l.n++
}

// Pop takes the first element out; there must be one.
func (l *List[E]) Pop() E {
	var none E
	for l.elements[l.head] == none {
		l.head++
	}
	e := l.elements[l.head]
	l.elements[l.head] = none
	l.head++
	l.n--
	l.trim()
	return e
}

// Remove takes out an element that is in the list.
func (l *List[E]) Remove(e E) {
	var none E
	l.elements[*e.Place()-l.base] = none
	l.n--
	l.trim()
}

// trim gives back the space of elements that left.
func (l *List[E]) trim() {
	switch {
	case l.n == 0:
		if cap(l.elements) > smallList {
			l.elements = nil
		}
		clear(l.elements)
		l.elements, l.head, l.base = l.elements[:0], 0, 0
	case l.head > smallList && l.head > len(l.elements)/2:

		// Half of it is empty at least, so that each element is moved once on average.
		kept := copy(l.elements, l.elements[l.head:])
		clear(l.elements[kept:])
		l.elements = l.elements[:kept]
		l.base += int32(l.head)
		l.head = 0
		if cap(l.elements) > 4*kept {
			l.elements = append([]E(nil), l.elements...)
		}
	}
}

// Walk calls fn for each element in order until it returns false, and then
// returns false too.
func (l *List[E]) Walk(fn func(E) bool) bool {
	var none E
	for _, e := range l.elements[l.head:] {
		if e != none && !fn(e) {
			return false
		}
	}
	return true
}
