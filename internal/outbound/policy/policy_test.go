package policy

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/mail"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func TestBackoff(t *testing.T) {
	b := Backoff{Intervals: []time.Duration{64 * time.Second, 128 * time.Second}, MaxLifetime: time.Hour}
	for _, tt := range []struct {
		attempts int
		wait     time.Duration
		ok       bool
	}{{0, 0, false}, {1, 64 * time.Second, true}, {2, 128 * time.Second, true}, {3, 0, false}} {
		if wait, ok := b.Interval(tt.attempts); wait != tt.wait || ok != tt.ok {
			t.Errorf("attempt %d: %v %v", tt.attempts, wait, ok)
		}
	}
	for _, tt := range []struct {
		age     time.Duration
		expired bool
		next    time.Duration
	}{
		{0, false, 64 * time.Second},
		{time.Hour - time.Second, false, time.Hour},
		{time.Hour, true, time.Hour},
	} {
		now := start.Add(tt.age)
		if got := b.Expired(start, now); got != tt.expired {
			t.Errorf("%v: expired %v", tt.age, got)
		}
		if got := b.Until(start, now, 64*time.Second).Sub(start); got != tt.next {
			t.Errorf("%v: next %v", tt.age, got)
		}
	}
	if (Backoff{}).Expired(start, start.AddDate(100, 0, 0)) {
		t.Error("expired without a lifetime")
	}
}

func TestHugeWait(t *testing.T) {
	b := Backoff{Intervals: []time.Duration{math.MaxInt64 - 5}, MaxLifetime: math.MaxInt64, Jitter: 1}
	for _, random := range []float64{0, 0.5, 0.75, 0.999999} {
		wait := b.Spread(b.Intervals[0], random)
		if wait < 0 || random >= 0.5 && wait < 1<<61 {
			t.Errorf("%v: %v", random, wait)
		}
		if next := b.Until(start, start, wait); next.Before(start) {
			t.Errorf("%v: due %v", random, next)
		}
	}
}

func TestWaitIsJitteredAndAlwaysTheSame(t *testing.T) {
	p := New(Options{
		Config: &destination.Settings{TempFailIntervals: []time.Duration{64 * time.Second}, MaxLifetime: time.Hour}, Jitter: 0.2,
	}).For("a.test", nil)
	low, high := time.Hour, time.Duration(0)
	for i := range 1000 {
		id := mail.ID(fmt.Sprint(i))
		w, good := p.Wait(id, "a.test", 1)
		if again, _ := p.Wait(id, "a.test", 1); !good || again != w {
			t.Fatal("differs")
		}
		low, high = min(low, w), max(high, w)
	}
	if low < 51*time.Second || low > 52*time.Second || high > 77*time.Second || high < 76*time.Second {
		t.Error(low, high)
	}
}

func TestSourceByWeight(t *testing.T) {
	table := New(Options{Config: &destination.Settings{}})
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	p := table.newPolicy(destination.Rules{Sources: []destination.Source{{Bind: v4, Weight: 3}, {Bind: v6, Weight: 1}}})
	n := map[netip.Addr]int{}
	for i := range 100 {
		n[p.ChooseSource(&mail.Envelope{}, float64(i)/100).Bind]++
	}
	if n[v4] != 75 || n[v6] != 25 {
		t.Error(n)
	}
	if other, found := p.OtherSource(p.Sources[0], 0); !found || other.Bind != v6 {
		t.Error(other, found)
	}
	noted := &mail.Envelope{Notes: mail.Notes{"outbound_ip": v4.String()}}
	for name, sources := range map[string][]destination.Source{
		"its own":    {{Bind: v6, Helo: "six.test", Weight: 1}, {Bind: v4, Helo: "four.test", Weight: 1}},
		"one of all": {{Helo: "four.test", Weight: 1}},
	} {
		if s := table.newPolicy(destination.Rules{Sources: sources}).ChooseSource(noted, 0); s.Helo != "four.test" {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
