package ledger

import (
	"cmp"
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Store is where a Local keeps what outlasts a restart. plugin.Store is one.
type Store interface {
	Put(key string, value []byte, lifetime time.Duration) error
	Delete(key string) error
	Range(prefix string, visit func(key string, value []byte) bool) error
}

// LocalOptions are what a Local works with.
type LocalOptions struct {
	MaxBytes int64 // of memory, about
	Store    Store
	Log      *zap.Logger
	Now      func() time.Time // nil: time.Now
}

// Local is a Ledger in the memory of this process. Beyond MaxBytes it forgets what was not
// asked for for the longest time: a client that invents names cannot make it grow, and what
// is counted of clients that are active stays. Holds do not count against MaxBytes: there is
// a connection or a delivery for each.
//
// Run writes what has changed to the store every few seconds, and Close once more.
type Local struct {
	o       LocalOptions
	failing bool // the store cannot be written, and the log says so; belongs to Run and Close

	mu      sync.Mutex
	entries map[string]*list.Element // of *entry, by name
	recent  list.List                // the one that was asked for last in front
	bytes   int64
	held    map[Key]int64
	changed map[string]bool // names whose entries the store has not, or not as they are
}

// entry is what stands under one name.
type entry struct {
	name    string
	expires int64 // milliseconds since 1970
	numbers []number
	marks   []mark // in the order of their slots
	stored  bool
}

// number is one of an entry, mark the events of a slot.
type (
	number struct {
		field string
		value int64
	}
	mark struct{ slot, events int64 }
)

// What entries, numbers and marks take in memory beside their texts, about, in bytes.
const (
	entryCost  = 256
	numberCost = 32
	markCost   = 16
)

// size is about what the entry takes in memory.
func (e *entry) size() int64 {
	n := int64(entryCost + len(e.name) + markCost*len(e.marks))
	for _, one := range e.numbers {
		n += int64(numberCost + len(one.field))
	}
	return n
}

// NewLocal returns a Local. It starts nothing.
func NewLocal(o LocalOptions) *Local {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Local{o: o, entries: map[string]*list.Element{}, held: map[Key]int64{}, changed: map[string]bool{}}
}

// Len returns how many names there are.
func (l *Local) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

// Add implements Ledger.
func (l *Local) Add(_ context.Context, k Key, n int64, life Life) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.find(k.Name)
	if e == nil || life.Renew {
		e = l.renew(k.Name, life.For)
	}
	i := slices.IndexFunc(e.numbers, func(one number) bool { return one.field == k.Field })
	if i < 0 {
		i = len(e.numbers)
		e.numbers = append(e.numbers, number{field: k.Field})
		l.bytes += numberCost + int64(len(k.Field))
	}
	e.numbers[i].value += n
	sum := e.numbers[i].value
	l.changed[k.Name] = true
	l.evict()
	return sum, nil
}

// Value implements Ledger.
func (l *Local) Value(_ context.Context, k Key) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.find(k.Name); e != nil {
		for _, one := range e.numbers {
			if one.field == k.Field {
				return one.value, nil
			}
		}
	}
	return 0, nil
}

// Mark implements Ledger.
func (l *Local) Mark(_ context.Context, name string, window time.Duration) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.renew(name, 2*window)
	now := l.o.Now()

	// Slots that have left the window make room.
	before := len(e.marks)
	since := now.Add(-window).UnixMilli()
	e.marks = slices.DeleteFunc(e.marks, func(m mark) bool { return m.slot < since })
	slot := Slot(now, window)
	i, found := slices.BinarySearchFunc(e.marks, slot, func(m mark, slot int64) int { return cmp.Compare(m.slot, slot) })
	if !found {
		e.marks = slices.Insert(e.marks, i, mark{slot: slot})
	}
	e.marks[i].events++
	l.bytes += int64(markCost * (len(e.marks) - before))
	sum := e.events(since)
	l.changed[name] = true
	l.evict()
	return sum, nil
}

// Marks implements Ledger.
func (l *Local) Marks(_ context.Context, name string, window time.Duration) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.find(name); e != nil {
		return e.events(l.o.Now().Add(-window).UnixMilli()), nil
	}
	return 0, nil
}

// events counts those since some time, in milliseconds since 1970.
func (e *entry) events(since int64) (sum int64) {
	for _, m := range e.marks {
		if m.slot >= since {
			sum += m.events
		}
	}
	return sum
}

// Hold implements Ledger.
func (l *Local) Hold(_ context.Context, k Key, _ time.Duration) (*Hold, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[k]++
	return NewHold(l.held[k], func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.held[k]--; l.held[k] <= 0 {
			delete(l.held, k)
		}
	}), nil
}

// find returns the live entry of a name, nil if there is none. The caller holds mu.
func (l *Local) find(name string) *entry {
	at := l.entries[name]
	if at == nil {
		return nil
	}
	e := at.Value.(*entry)
	if l.o.Now().UnixMilli() >= e.expires {
		l.forget(at)
		return nil
	}
	l.recent.MoveToFront(at)
	return e
}

// renew returns the entry of a name, made if there is none, with its whole life before it.
// The caller holds mu.
func (l *Local) renew(name string, life time.Duration) *entry {
	e := l.find(name)
	if e == nil {
		e = &entry{name: name}
		l.insert(e)
	}
	e.expires = l.o.Now().Add(life).UnixMilli()
	return e
}

// insert puts an entry in front. The caller holds mu.
func (l *Local) insert(e *entry) {
	l.entries[e.name] = l.recent.PushFront(e)
	l.bytes += e.size()
}

// forget drops an entry, in the store too. The caller holds mu.
func (l *Local) forget(at *list.Element) {
	e := l.recent.Remove(at).(*entry)
	delete(l.entries, e.name)
	l.bytes -= e.size()
	if e.stored {
		l.changed[e.name] = true
	} else {
		delete(l.changed, e.name)
	}
}

// evict makes room. The caller holds mu.
func (l *Local) evict() {
	for l.bytes > l.o.MaxBytes && l.recent.Len() > 1 {
		l.forget(l.recent.Back())
	}
}
