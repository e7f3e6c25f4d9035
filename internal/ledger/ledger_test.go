package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/ledger"
	"tarishi/internal/ledger/ledgertest"
)

// memory is a store.
type memory struct {
	mu     sync.Mutex
	values map[string]string
	broken error
	writes int
}

func (m *memory) do(f func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if m.broken == nil {
		f()
	}
	return m.broken
}

func (m *memory) Put(key string, value []byte, _ time.Duration) error {
	return m.do(func() { m.values[key] = string(value) })
}
func (m *memory) Delete(key string) error { return m.do(func() { delete(m.values, key) }) }
func (m *memory) Range(_ string, visit func(string, []byte) bool) error {
	m.mu.Lock()
	all := maps.Clone(m.values)
	m.mu.Unlock()
	for key, value := range all {
		if !visit(key, []byte(value)) {
			break
		}
	}
	return m.broken
}

// breaks has the store fail from here on; nil: it works.
func (m *memory) breaks(why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = why
}

func (m *memory) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.values)
}

// clock is a time that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// local returns a Local with room enough, unless max says otherwise.
func local(store *memory, at *clock, max int64) *ledger.Local {
	if max == 0 {
		max = 1 << 20
	}
	return ledger.NewLocal(ledger.LocalOptions{MaxBytes: max, Store: store, Log: zap.NewNop(), Now: at.Now})
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)} }

func TestLocal(t *testing.T) {
	ledgertest.Run(t, time.Second, func(*testing.T) ledgertest.Subject {
		at := newClock()
		return ledgertest.Subject{Ledger: local(&memory{values: map[string]string{}}, at, 0), Pass: at.pass}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func add(t *testing.T, l ledger.Ledger, name string, life time.Duration) int64 {
	t.Helper()
	n, err := l.Add(t.Context(), ledger.Key{Name: name}, 1, ledger.Life{For: life})
	must(t, err)
	return n
}

// TestBound: names without end cost no more than the bound, and those that are asked for
// stay.
func TestBound(t *testing.T) {
	at := newClock()
	store := &memory{values: map[string]string{}}
	l := local(store, at, 100_000)
	for i := range 20_000 {
		if n := add(t, l, "busy", 1000*time.Hour); n != int64(i+1) {
			t.Fatalf("the busy one is %d, want %d", n, i+1)
		}
		add(t, l, fmt.Sprint(strings.Repeat("x", i%200), i), 1000*time.Hour)
		_, err := l.Mark(t.Context(), fmt.Sprint("m", i%7), time.Minute)
		must(t, err)
		at.pass(time.Second)
		if i%500 == 0 {
			l.Close() // which flushes
		}
	}
	if n := l.Len(); n < 100 || n > 100_000/256 {
		t.Errorf("%d names", n)
	}
	l.Close()
	if len(store.values) > l.Len() {
		t.Errorf("%d names are stored, %d are known", len(store.values), l.Len())
	}
}

// TestRestart: what was flushed is there after a restart, but for what ends soon or has
// ended.
func TestRestart(t *testing.T) {
	at := newClock()
	store := &memory{values: map[string]string{"other": "no record", "old": `{"expires":1,"numbers":{"":5}}`}}
	l := local(store, at, 0)
	must(t, l.Load())
	k := ledger.Key{Name: "karma|192.0.2.1", Field: "good"}
	for range 3 {
		add(t, l, "n", time.Hour)
		add(t, l, "soon", 5*time.Second)
		_, err := l.Add(t.Context(), k, 1, ledger.Life{For: time.Hour})
		must(t, err)
		_, err = l.Mark(t.Context(), "m", time.Minute)
		must(t, err)
		_, err = l.Hold(t.Context(), ledger.Key{Name: "h"}, time.Hour)
		must(t, err)
	}
	l.Close()
	writes := store.writes
	if l.Close(); store.writes != writes {
		t.Error("what is stored is stored again")
	}

	next := local(store, at, 0)
	must(t, next.Load())
	at.pass(30 * time.Second)
	if n := add(t, next, "n", time.Hour); n != 4 {
		t.Errorf("counted %d", n)
	}
	if n, err := next.Value(t.Context(), k); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := next.Mark(t.Context(), "m", time.Minute); n != 4 || err != nil {
		t.Errorf("%d events, %v", n, err)
	}
	if h, err := next.Hold(t.Context(), ledger.Key{Name: "h"}, time.Hour); h.Count != 1 || err != nil {
		t.Errorf("%d are held, %v", h.Count, err)
	}
	if n := next.Len(); n != 3 {
		t.Errorf("%d names", n)
	}

	// The life goes on where it was.
	at.pass(30 * time.Minute)
	next.Close()
	at.pass(29*time.Minute + 30*time.Second)
	last := local(store, at, 0)
	must(t, last.Load())
	if n := add(t, last, "n", time.Hour); n != 1 {
		t.Errorf("counted %d", n)
	}
}

// TestRun: changes reach the store by themselves, what has expired leaves memory and store,
// and a store that is broken is reported once.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		store := &memory{values: map[string]string{}}
		l := ledger.NewLocal(ledger.LocalOptions{MaxBytes: 1 << 20, Store: store, Log: zap.New(core)})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { l.Run(ctx) })
		add(t, l, "n", time.Minute)
		time.Sleep(5 * time.Second)
		if n := store.size(); n != 1 {
			t.Errorf("%d names are stored", n)
		}
		time.Sleep(time.Minute)
		if store.size() != 0 || l.Len() != 0 {
			t.Errorf("%d names are stored, %d are known", store.size(), l.Len())
		}

		store.breaks(errors.New("disk full"))
		for range 3 {
			add(t, l, "n", time.Minute)
			time.Sleep(5 * time.Second)
		}
		store.breaks(nil)
		add(t, l, "n", time.Minute)
		time.Sleep(5 * time.Second)
		if logs.Len() != 2 || logs.FilterLevelExact(zapcore.WarnLevel).Len() != 1 {
			t.Errorf("logged %v", logs.All())
		}
		cancel()
		running.Wait()
	})
}

// far is a Remote that a test takes away.
type far struct {
	*ledger.Local
	mu     sync.Mutex
	broken error
	slow   time.Duration
	calls  int
	pings  int
}

func (f *far) Addr() string { return "192.0.2.1:6379" }

func (f *far) fails(ctx context.Context) error {
	f.mu.Lock()
	f.calls++
	slow, broken := f.slow, f.broken
	f.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return ctx.Err()
	}
	return broken
}

func (f *far) pinged() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pings
}

func (f *far) Ping(ctx context.Context) error {
	f.mu.Lock()
	f.pings++
	f.mu.Unlock()
	return f.fails(ctx)
}

func (f *far) Add(ctx context.Context, k ledger.Key, n int64, l ledger.Life) (int64, error) {
	if err := f.fails(ctx); err != nil {
		return 0, err
	}
	return f.Local.Add(ctx, k, n, l)
}

func (f *far) Hold(ctx context.Context, k ledger.Key, life time.Duration) (*ledger.Hold, error) {
	if err := f.fails(ctx); err != nil {
		return nil, err
	}
	return f.Local.Hold(ctx, k, life)
}

func (f *far) set(broken error, slow time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken, f.slow = broken, slow
}

func TestSharedContract(t *testing.T) {
	ledgertest.Run(t, time.Second, func(t *testing.T) ledgertest.Subject {
		at := newClock()
		remote := &far{Local: local(&memory{}, at, 0)}
		return ledgertest.Subject{Ledger: ledger.NewShared(remote, local(&memory{}, at, 0), zap.NewNop()), Pass: at.pass}
	})
}

// TestShared: while the Remote is away the Local counts, nobody waits but the first, and the
// log says so once.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		remote := &far{Local: local(&memory{}, newClock(), 0)}
		s := ledger.NewShared(remote, local(&memory{}, newClock(), 0), zap.New(core))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })

		k := ledger.Key{Name: "h"}
		add(t, s, "n", time.Hour)
		add(t, s, "n", time.Hour)
		shared, _ := s.Hold(ctx, k, time.Hour)
		remote.set(errors.New("timeout"), 500*time.Millisecond)
		began := time.Now()
		for i := range int64(20) {
			if n := add(t, s, "n", time.Hour); n != i+1 {
				t.Errorf("the Local counts %d, want %d", n, i+1)
			}
		}
		if waited := time.Since(began); waited != 500*time.Millisecond {
			t.Errorf("waited %s", waited)
		}
		alone, _ := s.Hold(ctx, k, time.Hour)
		if alone.Count != 1 {
			t.Errorf("%d are held here", alone.Count)
		}

		// Pings come less and less often, up to a minute.
		time.Sleep(10 * time.Minute)
		if n := remote.pinged(); n < 12 || n > 20 {
			t.Errorf("%d pings", n)
		}
		remote.set(nil, 0)
		time.Sleep(2 * time.Minute)
		if n := add(t, s, "n", time.Hour); n != 3 {
			t.Errorf("the Remote counts %d", n)
		}

		// Each is released where it was counted.
		alone.Release()
		if h, _ := s.Hold(ctx, k, time.Hour); h.Count != 2 {
			t.Errorf("%d are held there", h.Count)
		}
		shared.Release()
		if h, _ := s.Hold(ctx, k, time.Hour); h.Count != 2 {
			t.Errorf("%d are held there", h.Count)
		}
		if logs.Len() != 2 {
			t.Errorf("logged %v", logs.All())
		}
		cancel()
		running.Wait()
	})
}

// TestSharedCaller: a caller that has gone says nothing about the Remote.
func TestSharedCaller(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	remote := &far{Local: local(&memory{}, newClock(), 0), slow: time.Hour}
	s := ledger.NewShared(remote, local(&memory{}, newClock(), 0), zap.New(core))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Add(gone, ledger.Key{Name: "n"}, 1, ledger.Life{For: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	remote.set(nil, 0)
	add(t, s, "n", time.Hour)
	if logs.Len() != 0 || remote.calls != 2 {
		t.Errorf("%d calls, logged %v", remote.calls, logs.All())
	}
}
