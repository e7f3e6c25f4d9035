package schedule

// heap is the waiting units with the earliest first: a binary heap in which
// each unit knows its place.
type heap []*Unit

func (h *heap) push(u *Unit) {
	*h = append(*h, u)
	h.up(len(*h)-1, u)
}

func (h *heap) pop() *Unit {
	u := (*h)[0]
	h.remove(0)
	return u
}

func (h *heap) remove(i int) {
	end := len(*h) - 1
	last := (*h)[end]
	(*h)[end] = nil
	*h = (*h)[:end]
	if i < end {
		h.down(i, last)
		h.up(int(last.index), last)
	}
}

// order makes a heap of units in any order.
func (h *heap) order() {
	for i, u := range *h {
		u.index = int32(i)
	}
	for i := len(*h)/2 - 1; i >= 0; i-- {
		h.down(i, (*h)[i])
	}
}

// up puts u at i or above.
func (h *heap) up(i int, u *Unit) {
	s := *h
	for i > 0 {
		parent := (i - 1) / 2
		if s[parent].next <= u.next {
			break
		}
		s[i] = s[parent]
		s[i].index = int32(i)
		i = parent
	}
	s[i] = u
	u.index = int32(i)
}

// down puts u at i or below.
func (h *heap) down(i int, u *Unit) {
	s := *h
	for {
		child := 2*i + 1
		if child >= len(s) {
			break
		}
		if right := child + 1; right < len(s) && s[right].next < s[child].next {
			child = right
		}
		if u.next <= s[child].next {
			break
		}
		s[i] = s[child]
		s[i].index = int32(i)
		i = child
	}
	s[i] = u
	u.index = int32(i)
}
