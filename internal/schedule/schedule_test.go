package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unsafe"

	"tarishi/internal/mail"
	"tarishi/internal/schedule/unit"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func ids(units []*Unit) []string {
	var all []string
	for _, u := range units {
		all = append(all, string(u.ID()))
	}
	return all
}

func add(s *Schedule, id, domain string, attempts int, after time.Duration) *Unit {
	return s.Add(start, Delivery{ID: mail.ID(id), Domain: domain, Recipients: []int{0}, Attempts: attempts, Next: start.Add(after), Received: start})
}

func expect(t *testing.T, s *Schedule, after time.Duration, limit int, want ...string) []*Unit {
	t.Helper()
	units := s.Due(start.Add(after), limit)
	if got := ids(units); !slices.Equal(got, want) {
		t.Fatalf("due after %v: %q, want %q", after, got, want)
	}
	return units
}

func TestDueInTimeOrder(t *testing.T) {
	s := New(Options{})
	add(s, "c", "x", 1, 3*time.Second)
	add(s, "a", "x", 1, time.Second)
	add(s, "b", "x", 1, 2*time.Second)
	expect(t, s, 999*time.Millisecond, 10)
	if next, ok := s.Next(start); !ok || !next.Equal(start.Add(time.Second)) {
		t.Fatalf("next %v %v", next, ok)
	}
	expect(t, s, time.Second, 10, "a")
	expect(t, s, time.Minute, 10, "b", "c")
	if _, ok := s.Next(start); ok {
		t.Fatal("next while everything runs")
	}
}

func TestZeroTimeIsAtOnce(t *testing.T) {
	s := New(Options{})
	s.Add(start, Delivery{ID: "a", Domain: "x", Recipients: []int{0}})
	if next, ok := s.Next(start); !ok || !next.Equal(start) {
		t.Fatalf("next %v %v", next, ok)
	}
	expect(t, s, 0, 1, "a")
}

func TestRoundRobin(t *testing.T) {
	s := New(Options{})
	for i := range 4 {
		add(s, fmt.Sprint("a", i), "a", 0, 0)
	}
	add(s, "b0", "b", 0, 0)
	add(s, "b1", "b", 0, 0)
	add(s, "c0", "c", 0, 0)
	expect(t, s, 0, 5, "a0", "b0", "c0", "a1", "b1")
	expect(t, s, 0, 5, "a2", "a3")
}

func TestFreshBeforeRetries(t *testing.T) {
	s := New(Options{})
	for i := range 3 {
		add(s, fmt.Sprint("r", i), "a", 1, 0)
	}
	add(s, "f0", "a", 0, 0)
	add(s, "f1", "b", 0, 0)
	expect(t, s, 0, 3, "f0", "f1", "r0")
}

func TestRetriesAreNotStarved(t *testing.T) {
	s := New(Options{})
	add(s, "retry", "a", 3, 0)
	for i := range 100 {
		add(s, fmt.Sprint("f", i), "a", 0, 0)
	}
	got := ids(s.Due(start, 100))
	if i := slices.Index(got, "retry"); i != 9 {
		t.Fatalf("the retry had place %d", i)
	}
}

func TestCaps(t *testing.T) {
	s := New(Options{Concurrency: 3, PerDestination: 2})
	for i := range 4 {
		add(s, fmt.Sprint("a", i), "a", 0, 0)
		add(s, fmt.Sprint("b", i), "b", 0, 0)
	}
	first := expect(t, s, 0, 10, "a0", "b0", "a1")
	expect(t, s, 0, 10)
	if _, ok := s.Next(start); ok {
		t.Fatal("Next at full concurrency")
	}
	s.Done(first[1])
	second := expect(t, s, 0, 10, "b1")
	s.Done(second[0])
	s.Done(first[0])
	third := expect(t, s, 0, 10, "b2", "a2")
	s.Done(third[0])
	expect(t, s, 0, 10, "b3")
	if _, ok := s.Next(start); ok {
		t.Fatal("Next at full concurrency")
	}
	s.Done(first[2])
	s.Done(third[1])
	expect(t, s, 0, 10, "a3")
	if got := s.Stat(); got != (Stat{Running: 2}) {
		t.Fatalf("stat %+v", got)
	}
}

func TestDestinationAtItsCapWaits(t *testing.T) {
	s := New(Options{PerDestination: 1})
	add(s, "a0", "a", 0, 0)
	add(s, "a1", "a", 0, 0)
	u := expect(t, s, 0, 10, "a0")[0]
	if _, ok := s.Next(start); ok {
		t.Fatal("Next with only a destination at its cap")
	}
	s.Done(u)
	if _, ok := s.Next(start); !ok {
		t.Fatal("no Next after its cap is free")
	}
	expect(t, s, 0, 10, "a1")
}

func TestDefer(t *testing.T) {
	s := New(Options{})
	s.Add(start, Delivery{ID: "m", Domain: "a", Recipients: []int{2, 5, 7}})
	u := expect(t, s, 0, 1, "m")[0]
	if got := u.Recipients(); !slices.Equal(got, []int{2, 5, 7}) {
		t.Fatal(got)
	}
	s.Defer(u, start, []int{5}, 1, start.Add(time.Minute))
	expect(t, s, time.Minute-1, 1)
	u = expect(t, s, time.Minute, 1, "m")[0]
	if got := u.Recipients(); !slices.Equal(got, []int{5}) || u.Attempts() != 1 || u.Domain() != "a" {
		t.Fatal(got, u.Attempts(), u.Domain())
	}
	s.Done(u)
	if s.Len() != 0 || len(s.domains) != 0 {
		t.Fatal("something is left")
	}
}

func TestDropInEveryState(t *testing.T) {
	s := New(Options{})
	w := add(s, "w", "a", 0, time.Hour)
	r1 := add(s, "r1", "b", 0, 0)
	r2 := add(s, "r2", "b", 0, 0)
	r3 := add(s, "r3", "b", 0, 0)
	run := expect(t, s, 0, 1, "r1")[0]
	if run != r1 || !r1.Running() || r2.Running() {
		t.Fatal("running")
	}
	for _, u := range []*Unit{w, r3, r1, r2, r2} {
		s.Drop(u)
	}
	if s.Len() != 0 || len(s.domains) != 0 || s.Stat() != (Stat{}) {
		t.Fatalf("left: %d %+v", s.Len(), s.Stat())
	}
	expect(t, s, 2*time.Hour, 10)
	add(s, "again", "b", 0, 0)
	expect(t, s, 0, 10, "again")
}

func TestFlush(t *testing.T) {
	s := New(Options{})
	for i := range 5 {
		add(s, fmt.Sprint("a", i), "a", 1, time.Duration(i+1)*time.Hour)
		add(s, fmt.Sprint("b", i), "b", 1, time.Duration(i+1)*time.Hour)
	}
	if n := s.Flush("nowhere", start); n != 0 {
		t.Fatal(n)
	}
	if n := s.Flush("a", start); n != 5 {
		t.Fatal(n)
	}
	if got := s.Due(start, 10); len(got) != 5 || slices.ContainsFunc(got, func(u *Unit) bool { return u.Domain() != "a" }) {
		t.Fatal(ids(got))
	}
	expect(t, s, time.Hour, 10, "b0")
	if n := s.Flush("", start); n != 4 {
		t.Fatal(n)
	}
	if got := s.Due(start, 10); len(got) != 4 {
		t.Fatal(ids(got))
	}
}

func TestWalk(t *testing.T) {
	s := New(Options{})
	add(s, "w", "a", 1, time.Hour)
	add(s, "r", "b", 0, 0)
	add(s, "f", "b", 1, 0)
	var got []string
	s.Walk(func(u *Unit) bool { got = append(got, string(u.ID())); return true })
	slices.Sort(got)
	if !slices.Equal(got, []string{"f", "r", "w"}) {
		t.Fatal(got)
	}
	n := 0
	s.Walk(func(*Unit) bool { n++; return false })
	if n != 1 {
		t.Fatal(n)
	}

	const long, other = "F0E1D2C3-0000-4000-8000-000000000000.1", "F0E1D2C3-0000-4000-8000-000000000000.2"
	add(s, long, "a", 1, time.Hour)
	add(s, long, "b", 0, 0)
	add(s, other, "b", 0, 0)
	for _, tt := range []struct {
		of   []mail.ID
		want string
	}{{[]mail.ID{long}, "[a b]"}, {[]mail.ID{"r", other}, "[b b]"}, {[]mail.ID{""}, "[]"}, {nil, "[]"}} {
		domains := []string{}
		s.WalkOf(func(u *Unit) bool {
			if !slices.Contains(tt.of, u.ID()) {
				t.Errorf("%s is not wanted", u.ID())
			}
			domains = append(domains, u.Domain())
			return true
		}, tt.of...)
		slices.Sort(domains)
		if got := fmt.Sprint(domains); got != tt.want {
			t.Errorf("%v: %s", tt.of, got)
		}
	}
}

// TestUnitIsSmall: a million of them wait at a time.
func TestUnitIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Unit{}); n > 64 {
		t.Fatalf("%d bytes", n)
	}
}

// TestProperties does random operations beside a simple model and checks that
// nothing is lost or handed out twice, that nothing is early, that units of one
// destination and class come in the order in which they became due, and that
// the caps hold and are used.
func TestProperties(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { property(t, rand.New(rand.NewPCG(seed, 7))) })
	}
}

func property(t *testing.T, r *rand.Rand) {
	o := Options{Concurrency: 1 + r.IntN(14), PerDestination: r.IntN(5)}
	s := New(o)
	now := start
	type model struct {
		next     time.Time
		attempts int
		rcpts    []int
		domain   string
	}
	idle := map[*Unit]*model{}
	run := map[*Unit]*model{}
	recipients := func() []int {
		var all []int
		for range 1 + r.IntN(3) {
			all = append(all, r.IntN(1000))
		}
		return all
	}
	when := func() time.Time { return now.Add(time.Duration(r.IntN(200)-20) * time.Second) }
	perDomain := func(d string) (n int) {
		for _, m := range run {
			if m.domain == d {
				n++
			}
		}
		return n
	}
	count := func(null bool) (n int) { // what was tried before, or is from the null sender
		for u := range run {
			if u.Null() == null && (null || u.Attempts() > 0) {
				n++
			}
		}
		return n
	}
	places := o.Concurrency
	if o.PerDestination > 0 {
		places = min(places, o.PerDestination)
	}
	any := func(of map[*Unit]*model) *Unit {
		for u := range of {
			return u
		}
		return nil
	}
	for step := range 2000 {
		switch op := r.IntN(20); {
		case op < 6:
			m := &model{when(), r.IntN(3), recipients(), fmt.Sprint("d", r.IntN(6))}
			idle[s.Add(now, Delivery{ID: mail.ID(fmt.Sprint(step)), Domain: m.domain, Recipients: m.rcpts, Attempts: m.attempts, Next: m.next, Received: now, Null: r.IntN(4) == 0})] = m
		case op < 11:
			limit := r.IntN(6)
			due := s.Due(now, limit)
			if len(due) > limit {
				t.Fatalf("step %d: %d handed out, at most %d wanted", step, len(due), limit)
			}
			for _, u := range due {
				m := idle[u]
				if m == nil {
					t.Fatalf("step %d: %s handed out twice or from nowhere", step, u.ID())
				}
				if m.next.After(now) {
					t.Fatalf("step %d: %s is early", step, u.ID())
				}
				if !slices.Equal(u.Recipients(), m.rcpts) || u.Attempts() != m.attempts || u.Domain() != m.domain {
					t.Fatalf("step %d: unit changed", step)
				}
				delete(idle, u)
				run[u] = m
				if perDomain(m.domain) > places || len(run) > o.Concurrency || o.Concurrency >= 4 &&
					(count(false) > o.Concurrency-o.Concurrency/4 || count(true) > o.Concurrency/4) {
					t.Fatalf("step %d: over a cap", step)
				}
			}
			if len(due) == limit {
				break
			}
			for u := range idle { // what could run has an obstacle
				if s.Why(u, now) == "ready" {
					t.Fatalf("step %d: %s could run", step, u.ID())
				}
			}
			if next, ok := s.Next(now); ok && !next.After(now) {
				t.Fatalf("step %d: Next is now, Due had nothing more", step)
			}
		case op < 13:
			if u := any(run); u != nil {
				s.Done(u)
				delete(run, u)
			}
		case op < 16:
			if u := any(run); u != nil {
				m := run[u]
				m.next, m.attempts, m.rcpts = when(), m.attempts+r.IntN(2), recipients()
				s.Defer(u, now, m.rcpts, m.attempts, m.next)
				delete(run, u)
				idle[u] = m
			}
		case op < 17:
			if u := any(idle); u != nil {
				s.Drop(u)
				delete(idle, u)
			}
		case op == 17 && r.IntN(10) == 0:
			domain := fmt.Sprint("d", r.IntN(6))
			if r.IntN(3) == 0 {
				domain = ""
			}
			want := 0
			for u, m := range idle {
				if u.State() == unit.Waiting && (domain == "" || m.domain == domain) {
					want++
					m.next = now
				}
			}
			if got := s.Flush(domain, now); got != want {
				t.Fatalf("step %d: flushed %d of %d", step, got, want)
			}
		default:
			now = now.Add(time.Duration(r.IntN(20)) * time.Second)
		}
		if s.Len() != len(idle)+len(run) {
			t.Fatalf("step %d: Len %d, want %d", step, s.Len(), len(idle)+len(run))
		}
	}
	for len(idle)+len(run) > 0 { // everything comes out in the end
		for u := range run {
			s.Done(u)
			delete(run, u)
		}
		next, ok := s.Next(now)
		if !ok {
			if len(idle) > 0 {
				t.Fatalf("%d units are stuck", len(idle))
			}
			break
		}
		if next.After(now) {
			now = next
		}
		for _, u := range s.Due(now, 100) {
			run[u] = idle[u]
			delete(idle, u)
		}
	}
	if len(s.domains) != 0 || s.Stat() != (Stat{}) {
		t.Fatalf("left behind: %d destinations, %+v", len(s.domains), s.Stat())
	}
}

// TestFirstComeFirstServed holds the order within one destination and class.
func TestFirstComeFirstServed(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s := New(Options{})
	for i := range 500 {
		add(s, fmt.Sprint(i), fmt.Sprint("d", i%5), 1, time.Duration(1+r.IntN(1e6))*time.Millisecond)
	}
	last := map[string]time.Time{}
	for n := 0; n < 500; {
		next, ok := s.Next(start)
		if !ok {
			t.Fatal("stuck")
		}
		for _, u := range s.Due(next, 10) {
			if u.Next().Before(last[u.Domain()]) {
				t.Fatal("out of order")
			}
			last[u.Domain()] = u.Next()
			n++
		}
	}
}
