package ledger

import (
	"context"
	"encoding/json"
	"time"

	"go.uber.org/zap"
)

const (
	// flushEvery is how often changes go to the store, which writes them to the disk within
	// five seconds more.
	flushEvery = 4 * time.Second

	// leastLife is what must be left of the life of an entry that is stored.
	leastLife = 10 * time.Second

	// sweepStep is how many entries a flush looks at for expired ones.
	sweepStep = 4096
)

// record is an entry as it stands in the store, in JSON.
type record struct {
	Expires int64            `json:"expires"` // milliseconds since 1970
	Numbers map[string]int64 `json:"numbers,omitempty"`
	Marks   [][2]int64       `json:"marks,omitempty"` // slots and their events
}

// Load reads what the store has. It is called once, before anything is counted.
func (l *Local) Load() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now().UnixMilli()
	return l.o.Store.Range("", func(name string, value []byte) bool {
		var r record
		if json.Unmarshal(value, &r) != nil || r.Expires <= now {
			return true // an older version's, or the store has not swept it yet
		}
		e := &entry{name: name, expires: r.Expires, stored: true}
		for field, n := range r.Numbers {
			e.numbers = append(e.numbers, number{field, n})
		}
		for _, m := range r.Marks {
			e.marks = append(e.marks, mark{m[0], m[1]})
		}
		l.insert(e)
		l.evict()
		return true
	})
}

// Run writes changes to the store until ctx ends.
func (l *Local) Run(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.sweep()
			l.flush()
		case <-ctx.Done():
			return
		}
	}
}

// Close writes what has changed since. A Run must have ended.
func (l *Local) Close() { l.flush() }

// sweep forgets entries that have expired and that nobody has asked for since.
func (l *Local) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, left := l.o.Now().UnixMilli(), sweepStep
	// A map is visited from a random place on, so that each entry has its turn.
	for _, at := range l.entries {
		if left--; left < 0 {
			return
		}
		if at.Value.(*entry).expires <= now {
			l.forget(at)
		}
	}
}

// flush writes changed entries to the store.
func (l *Local) flush() {
	l.mu.Lock()
	names := l.changed
	l.changed = make(map[string]bool)
	l.mu.Unlock()

	// Entries are copied one at a time, so that no caller waits for all of them.
	var failed error
	for name := range names {
		value, life, known := l.encode(name)
		var err error
		switch {
		case value != nil:
			err = l.o.Store.Put(name, value, life)
		case !known:
			err = l.o.Store.Delete(name)
		}
		if err != nil {
			failed = err
		}
	}

	// Changes that could not be written still count; they are lost at the next start.
	switch {
	case failed != nil && !l.failing:
		l.o.Log.Warn("counts cannot be stored, a restart forgets them", zap.Error(failed))
	case failed == nil && l.failing && len(names) > 0:
		l.o.Log.Info("counts are stored again")
	case failed == nil:
		return
	}
	l.failing = failed != nil
}

// encode returns an entry as it is stored, and how long it lives. value is nil if it is not
// to be stored; known: there is such an entry.
func (l *Local) encode(name string) (value []byte, life time.Duration, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.entries[name]
	if at == nil {
		return nil, 0, false
	}
	e := at.Value.(*entry)
	life = time.Duration(e.expires-l.o.Now().UnixMilli()) * time.Millisecond
	if life < leastLife {
		return nil, 0, true
	}

	// Most entries have one number, or marks.
	r := record{Expires: e.expires}
	if len(e.numbers) > 0 {
		r.Numbers = make(map[string]int64, len(e.numbers))
	}
	for _, one := range e.numbers {
		r.Numbers[one.field] = one.value
	}
	for _, m := range e.marks {
		r.Marks = append(r.Marks, [2]int64{m.slot, m.events})
	}
	e.stored = true
	value, _ = json.Marshal(r) // numbers and texts always can be
	return value, life, true
}
