// Package ledgertest is the contract of package ledger as tests, which every Ledger has to
// pass.
package ledgertest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"tarishi/internal/ledger"
)

// Subject is a Ledger with a clock that a test moves.
type Subject struct {
	ledger.Ledger
	// Pass lets time pass for windows and lives.
	Pass func(time.Duration)
}

// Run runs the tests. open returns an empty Ledger for each; what it needs ends with t.
// least is the shortest time with which lives can be told apart.
func Run(t *testing.T, least time.Duration, open func(t *testing.T) Subject) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Subject, time.Duration){
		"Add": testAdd, "Fields": testFields, "Fixed": testFixed, "Renewed": testRenewed, "Marks": testMarks, "Window": testWindow,
		"Hold": testHold, "Names": testNames, "Together": testTogether,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t), least) })
	}
}

func add(t *testing.T, s Subject, k ledger.Key, n int64, l ledger.Life, want int64) {
	t.Helper()
	if got, err := s.Add(t.Context(), k, n, l); err != nil || got != want {
		t.Errorf("%v: the sum is %d, %v, want %d", k, got, err, want)
	}
}

func value(t *testing.T, s Subject, k ledger.Key, want int64) {
	t.Helper()
	if got, err := s.Value(t.Context(), k); err != nil || got != want {
		t.Errorf("%v is %d, %v, want %d", k, got, err, want)
	}
}

func mark(t *testing.T, s Subject, name string, window time.Duration, want int64) {
	t.Helper()
	if got, err := s.Mark(t.Context(), name, window); err != nil || got != want {
		t.Errorf("%s: %d events, %v, want %d", name, got, err, want)
	}
}

func marks(t *testing.T, s Subject, name string, window time.Duration, want int64) {
	t.Helper()
	if got, err := s.Marks(t.Context(), name, window); err != nil || got != want {
		t.Errorf("%s has %d events, %v, want %d", name, got, err, want)
	}
}

func testAdd(t *testing.T, s Subject, _ time.Duration) {
	k := ledger.Key{Name: "n"}
	value(t, s, k, 0)
	add(t, s, k, 1, ledger.Life{For: time.Hour}, 1)
	add(t, s, k, 4, ledger.Life{For: time.Hour}, 5)
	add(t, s, k, -7, ledger.Life{For: time.Hour}, -2)
	value(t, s, k, -2)
	value(t, s, ledger.Key{Name: "m"}, 0)
}

func testFields(t *testing.T, s Subject, _ time.Duration) {
	good, bad := ledger.Key{Name: "karma|192.0.2.1", Field: "good"}, ledger.Key{Name: "karma|192.0.2.1", Field: "bad"}
	add(t, s, good, 2, ledger.Life{For: time.Hour}, 2)
	add(t, s, bad, 1, ledger.Life{For: time.Hour}, 1)
	add(t, s, good, 1, ledger.Life{For: time.Hour}, 3)
	value(t, s, good, 3)
	value(t, s, bad, 1)
	value(t, s, ledger.Key{Name: "karma|192.0.2.1", Field: "none"}, 0)
}

// A number ends when its time is over, however often it was added to.
func testFixed(t *testing.T, s Subject, least time.Duration) {
	k, life := ledger.Key{Name: "n"}, ledger.Life{For: 4 * least}
	add(t, s, k, 1, life, 1)
	s.Pass(3 * least)
	add(t, s, k, 1, life, 2)
	s.Pass(2 * least)
	value(t, s, k, 0)
	add(t, s, k, 1, life, 1)
}

func testRenewed(t *testing.T, s Subject, least time.Duration) {
	k, life := ledger.Key{Name: "n"}, ledger.Life{For: 4 * least, Renew: true}
	add(t, s, k, 1, life, 1)
	s.Pass(3 * least)
	add(t, s, k, 1, life, 2)
	s.Pass(2 * least)
	value(t, s, k, 2)
	s.Pass(3 * least)
	value(t, s, k, 0)
}

func testMarks(t *testing.T, s Subject, _ time.Duration) {
	marks(t, s, "m", time.Hour, 0)
	for i := range int64(5) {
		mark(t, s, "m", time.Hour, i+1)
	}
	marks(t, s, "m", time.Hour, 5)
	marks(t, s, "other", time.Hour, 0)
}

// Events leave the window one by one.
func testWindow(t *testing.T, s Subject, least time.Duration) {
	window := 60 * least
	mark(t, s, "m", window, 1)
	s.Pass(40 * least)
	mark(t, s, "m", window, 2)
	mark(t, s, "m", window, 3)
	s.Pass(30 * least)
	marks(t, s, "m", window, 2)
	mark(t, s, "m", window, 3)
	s.Pass(40 * least)
	marks(t, s, "m", window, 1)
	s.Pass(100 * least)
	marks(t, s, "m", window, 0)
	mark(t, s, "m", window, 1)
}

func hold(t *testing.T, s Subject, k ledger.Key, want int64) *ledger.Hold {
	t.Helper()
	h, err := s.Hold(t.Context(), k, time.Hour)
	if err != nil || h.Count != want {
		t.Fatalf("%v: %+v, %v, want %d", k, h, err, want)
	}
	return h
}

func testHold(t *testing.T, s Subject, _ time.Duration) {
	for _, k := range []ledger.Key{{Name: "concurrency|192.0.2.1"}, {Name: "outbound-rate:example.com", Field: "TOTAL"}} {
		first, second := hold(t, s, k, 1), hold(t, s, k, 2)
		first.Release()
		third := hold(t, s, k, 2)
		second.Release()
		third.Release()
		hold(t, s, k, 1).Release()
		hold(t, s, ledger.Key{Name: "other"}, 1).Release()
	}
}

// Names are bytes, whatever they are.
func testNames(t *testing.T, s Subject, _ time.Duration) {
	life := ledger.Life{For: time.Hour}
	for i, name := range []string{"", "a b", "a\r\nb", "ü@ü.example", "\x00\xff", "*", "{a}:b"} {
		add(t, s, ledger.Key{Name: "x:" + name}, int64(i+1), life, int64(i+1))
		add(t, s, ledger.Key{Name: "y:" + name, Field: "f" + name}, int64(i+1), life, int64(i+1))
	}
	for i, name := range []string{"", "a b", "a\r\nb", "ü@ü.example", "\x00\xff", "*", "{a}:b"} {
		value(t, s, ledger.Key{Name: "x:" + name}, int64(i+1))
		value(t, s, ledger.Key{Name: "y:" + name, Field: "f" + name}, int64(i+1))
	}
}

// Nothing is lost between concurrent callers.
func testTogether(t *testing.T, s Subject, _ time.Duration) {
	const workers, rounds = 8, 50
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for range rounds {
				_, added := s.Add(t.Context(), ledger.Key{Name: "n"}, 1, ledger.Life{For: time.Hour})
				_, marked := s.Mark(t.Context(), fmt.Sprint("m", w%2), time.Hour)
				h, held := s.Hold(t.Context(), ledger.Key{Name: "h"}, time.Hour)
				if added != nil || marked != nil || held != nil {
					t.Error(added, marked, held)
					return
				}
				h.Release()
			}
		})
	}
	all.Wait()
	value(t, s, ledger.Key{Name: "n"}, workers*rounds)
	marks(t, s, "m0", time.Hour, workers*rounds/2)
	hold(t, s, ledger.Key{Name: "h"}, 1).Release()
}
