package guesses

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// clock is a time that a test sets.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Unix(1e9, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// try offers one wrong password that was not offered before.
func (g *Counter) try(t *testing.T, ip string, pass string) bool {
	t.Helper()
	a := netip.MustParseAddr(ip)
	if g.MustWait(a) {
		return false
	}
	place, ok := g.TakePlace(t.Context(), a)
	if ok {
		place.GiveBack("user", pass, true)
	}
	return ok
}

func TestGuesses(t *testing.T) {
	c := newClock()
	g := New(3, c.now)
	n := 0
	wrong := func(ip string) bool { n++; return g.try(t, ip, fmt.Sprint(n)) }
	for range 3 {
		if !wrong("192.0.2.1") {
			t.Fatal("no free guess")
		}
	}
	// Each wait is twice as long as the one before.
	for _, wait := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute} {
		if c.advance(wait - time.Second); wrong("192.0.2.1") {
			t.Errorf("a guess within %v", wait)
		}
		if c.advance(time.Second); !wrong("192.0.2.1") || wrong("192.0.2.1") {
			t.Errorf("not one guess after %v", wait)
		}
	}
	if !wrong("192.0.2.2") {
		t.Error("another client waits too")
	}
	// In the long run a client has no more than the time that forgets.
	tries := 0
	for range 24 * 60 {
		if c.advance(time.Minute); wrong("192.0.2.1") {
			tries++
		}
	}
	if tries < 24 || tries > 24*6 {
		t.Errorf("%d guesses in a day", tries)
	}
	c.advance(48 * time.Hour)
	for range 3 {
		if !wrong("192.0.2.1") {
			t.Error("nothing is forgotten")
		}
	}
}

// An IPv6 client has a whole /64, and an IPv4 client one address however it is
// written.
func TestGuessesNetwork(t *testing.T) {
	for _, tc := range []struct {
		first, second string
		same          bool
	}{
		{"2001:db8::1", "2001:db8::ffff:1:2:3", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"fe80::1", "fe80::2", false},
	} {
		g := New(1, newClock().now)
		g.try(t, tc.first, "a")
		if g.try(t, tc.second, "b") == tc.same {
			t.Errorf("%s and %s are one: %v", tc.first, tc.second, !tc.same)
		}
	}
}

// A right password takes nothing back and costs nothing; a program with an old one
// does not make others wait, but a flood of the same one does.
func TestGuessesSame(t *testing.T) {
	c := newClock()
	g := New(3, c.now)
	for range 100 {
		if !g.try(t, "192.0.2.1", "old") {
			t.Fatal("the same password counts each time")
		}
		c.advance(sameGuess)
	}
	ip := netip.MustParseAddr("192.0.2.1")
	place, ok := g.TakePlace(t.Context(), ip)
	if !ok {
		t.Fatal("waits")
	}
	place.GiveBack("other", "right", false)
	flood := 0
	for g.try(t, "192.0.2.9", "same") {
		flood++
	}
	if flood != 3 {
		t.Errorf("%d of a flood", flood)
	}
}

// Places in parallel are as many as guesses are free. A client that finds none is
// held: those that have one may all be right.
func TestGuessesParallel(t *testing.T) {
	for _, wrong := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			g := New(10, newClock().now)
			ip := netip.MustParseAddr("192.0.2.1")
			var places, refused atomic.Int32
			taken := make(chan Place, 25)
			for range 25 {
				go func() {
					if place, ok := g.TakePlace(t.Context(), ip); ok {
						places.Add(1)
						taken <- place
					} else {
						refused.Add(1)
					}
				}()
			}
			synctest.Wait()
			if places.Load() != 10 || refused.Load() != 0 {
				t.Errorf("%d places, %d refused", places.Load(), refused.Load())
			}
			for i := range 10 {
				(<-taken).GiveBack("u", fmt.Sprint(i), wrong)
				synctest.Wait()
			}
			if want := map[bool][2]int32{true: {10, 15}, false: {20, 0}}[wrong]; want != [2]int32{places.Load(), refused.Load()} {
				t.Errorf("wrong %v: %d places, %d refused, want %v", wrong, places.Load(), refused.Load(), want)
			}
			if g.MustWait(ip) != wrong {
				t.Errorf("waits: %v", !wrong)
			}
			for i := int32(0); !wrong && i < 15; i++ { // those in the second ten, and the last five
				(<-taken).GiveBack("u", "right", false)
				synctest.Wait()
			}
			if len(g.clients) > 0 != wrong {
				t.Errorf("wrong %v: %d clients are remembered", wrong, len(g.clients))
			}
		})
	}
}

// A client that is held for a place goes when its connection ends.
func TestGuessesGone(t *testing.T) {
	g := New(1, newClock().now)
	ip := netip.MustParseAddr("192.0.2.1")
	g.TakePlace(t.Context(), ip)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := g.TakePlace(ctx, ip); ok {
		t.Error("a second place")
	}
}

// Several programs with an old password each, behind one address, lock nobody out.
func TestGuessesOldPasswords(t *testing.T) {
	c := newClock()
	g := New(10, c.now)
	for round := range 50 {
		for n := range 9 {
			if !g.try(t, "192.0.2.1", fmt.Sprint("old", n)) {
				t.Fatalf("locked out in round %d", round)
			}
			c.advance(sameGuess)
		}
	}
}

func TestGuessesMemory(t *testing.T) {
	c := newClock()
	g := New(1, c.now)
	busy := netip.MustParseAddr("192.0.2.1")
	place, _ := g.TakePlace(t.Context(), busy)
	for i := range 3 * maxGuessers {
		g.try(t, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String(), "x")
	}
	if n := len(g.clients); n > maxGuessers {
		t.Errorf("%d clients", n)
	}
	place.GiveBack("u", "right", false) // it was not forgotten
	if g.clients[busy] != nil {
		t.Error("a client without a wrong password is remembered")
	}
	if off := New(0, c.now); !off.try(t, "192.0.2.1", "x") || len(off.clients) > 0 {
		t.Error("0 is a limit")
	}
}

// A new number counts at once: for those that wait, for those that are held for a place,
// and for passwords that are being verified just then.
func TestSetFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(1, newClock().now)
		if !g.try(t, "192.0.2.1", "a") || g.try(t, "192.0.2.1", "b") {
			t.Fatal("one is free")
		}
		if g.SetFree(3); !g.try(t, "192.0.2.1", "b") {
			t.Error("a client waits that need not any more")
		}
		if g.SetFree(2); !g.try(t, "192.0.2.1", "c") || g.try(t, "192.0.2.1", "d") {
			t.Error("after fewer are free, the next wrong one is the last")
		}

		// A place that was taken under one number is given back under another.
		ip := netip.MustParseAddr("192.0.2.2")
		g.SetFree(1)
		first, _ := g.TakePlace(t.Context(), ip)
		held := make(chan Place, 1)
		go func() {
			place, _ := g.TakePlace(t.Context(), ip)
			held <- place
		}()
		synctest.Wait()
		g.SetFree(0)
		uncounted := <-held
		first.GiveBack("u", "x", true)
		g.SetFree(1)
		uncounted.GiveBack("u", "y", true)
		if g.MustWait(ip) {
			t.Error("a wait although there was no limit")
		}
	})
}
