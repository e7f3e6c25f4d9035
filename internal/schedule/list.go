package schedule

// list is units in order, first come first served. Each knows its place, so
// that one in the middle can be taken out: that leaves a gap.
type list struct {
	units []*Unit
	head  int
	base  int32 // the index of units[0]; it wraps
	n     int
}

func (l *list) push(u *Unit) {
	u.index = l.base + int32(len(l.units))
	l.units = append(l.units, u)
	l.n++
}

// unshift puts u in front if there is room for it there.
func (l *list) unshift(u *Unit) {
	if l.head == 0 {
		l.push(u)
		return
	}
	l.head--
	l.units[l.head] = u
	u.index = l.base + int32(l.head)
	l.n++
}

// pop takes the first unit; the list must not be empty.
func (l *list) pop() *Unit {
	for l.units[l.head] == nil {
		l.head++
	}
	u := l.units[l.head]
	l.units[l.head] = nil
	l.head++
	l.n--
	l.trim()
	return u
}

func (l *list) remove(u *Unit) {
	l.units[u.index-l.base] = nil
	l.n--
	l.trim()
}

// trim gives the space of what was popped back.
func (l *list) trim() {
	switch {
	case l.n == 0:
		if cap(l.units) > 64 {
			l.units = nil
		}
		clear(l.units)
		l.units, l.head, l.base = l.units[:0], 0, 0
	case l.head > 64 && l.head > len(l.units)/2:
		kept := copy(l.units, l.units[l.head:])
		clear(l.units[kept:])
		l.units = l.units[:kept]
		l.base += int32(l.head)
		l.head = 0
		if cap(l.units) > 4*kept {
			l.units = append([]*Unit(nil), l.units...)
		}
	}
}

// walk calls fn for each unit until it returns false.
func (l *list) walk(fn func(*Unit) bool) bool {
	for _, u := range l.units[l.head:] {
		if u != nil && !fn(u) {
			return false
		}
	}
	return true
}
