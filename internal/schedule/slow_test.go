package schedule

import (
	"fmt"
	"testing"
	"time"
)

// slowWorld is a Schedule with 100 places and a clock.
func slowWorld() (*Schedule, func(time.Duration) time.Time) {
	now := start
	return New(Options{Concurrency: 100, PerDestination: 10, Outside: 400, Deadline: 10 * time.Minute}),
		func(d time.Duration) time.Time { now = now.Add(d); return now }
}

// fill puts n units for different domains in.
func fill(s *Schedule, now time.Time, prefix string, n int) {
	for i := range n {
		s.Add(now, Delivery{ID: "x", Domain: fmt.Sprint(prefix, i), Recipients: []int{0}, Next: now, Received: now})
	}
}

// inPlaces and outside count the running units with and without a place.
func inPlaces(s *Schedule) int {
	with, _ := s.dispatch.Places()
	return with
}

func outside(s *Schedule) int {
	_, without := s.dispatch.Places()
	return without
}

// TestPlacesAreGivenOver: attempts without an outcome leave their places when others
// wait, and not before.
func TestPlacesAreGivenOver(t *testing.T) {
	s, at := slowWorld()
	fill(s, at(0), "a", 90)
	if n := len(s.Due(at(0), 1000)); n != 90 {
		t.Fatal(n)
	}
	if r := s.Recall(at(5 * time.Second)); len(r) > 0 || outside(s) > 0 {
		t.Fatalf("nobody waits: %v, %d outside", r, outside(s))
	}
	fill(s, at(0), "b", 20)
	if next, ok := s.Next(at(0)); !ok || next.After(at(0)) {
		t.Fatal(next, ok)
	}
	if r := s.Recall(at(0)); len(r) > 0 || outside(s) != 90 {
		t.Fatalf("%v, %d outside", r, outside(s))
	}
	if n := len(s.Due(at(0), 1000)); n != 20 || inPlaces(s) != 20 {
		t.Fatal(n, inPlaces(s))
	}
	if n := s.Stat().Running; n != 110 {
		t.Fatal(n)
	}
}

// TestStuckSiteGetsNoMore until one of its attempts has ended.
func TestStuckSiteGetsNoMore(t *testing.T) {
	s, at := slowWorld()
	fill(s, at(0), "a", 90)
	fill(s, at(0), "a", 90)
	first := s.Due(at(0), 1000)
	s.Recall(at(time.Second))
	if due := s.Due(at(0), 1000); len(first) != 90 || len(due) != 0 {
		t.Fatalf("%d more at sites that keep attempts waiting", len(due))
	}
	s.Report(first[0], Outcome{Reached: true}, at(0))
	s.Done(first[0])
	if due := s.Due(at(0), 1000); len(due) != 1 || due[0].Domain() != first[0].Domain() {
		t.Fatal(due)
	}
}

// TestSlowShare: what takes longer than ten seconds is a quarter at most when
// others wait, the rest is recalled, and the next attempts there wait for a turn.
func TestSlowShare(t *testing.T) {
	s, at := slowWorld()
	fill(s, at(0), "a", 300)
	running := map[*Unit]bool{}
	step := func() (recalled int) {
		now := at(100 * time.Millisecond)
		for _, r := range s.Recall(now) {
			if r.Overdue {
				s.Report(r.Unit, nobody, now)
			}
			s.Defer(r.Unit, now, []int{0}, 1, now)
			delete(running, r.Unit)
			recalled++
		}
		for _, u := range s.Due(now, 1000) {
			running[u] = true
		}
		return recalled
	}
	for range 50 {
		if step() > 0 {
			t.Fatal("recalled within five seconds")
		}
	}
	if len(running) != 300 || inPlaces(s) > 90 {
		t.Fatal(len(running), inPlaces(s))
	}
	for range 100 {
		step()
	}
	if len(running) != 25 {
		t.Fatalf("%d run", len(running))
	}
	// All get a turn, of two minutes.
	had := map[string]bool{}
	for range 20 * 60 * 20 {
		step()
		for u := range running {
			had[u.Domain()] = true
		}
		if len(running) > 50 { // those that are new when others have just been recalled
			t.Fatal(len(running))
		}
	}
	if len(had) != 300 {
		t.Errorf("%d of 300 had a turn", len(had))
	}
}

// TestSteadySites: destinations that always need half a minute, and take mail, are
// not held to a quarter, and leave one.
func TestSteadySites(t *testing.T) {
	s, at := slowWorld()
	for range 20 {
		fill(s, at(0), "a", 20)
	}
	most := 0
	began := map[*Unit]time.Time{}
	for s.Len() > 0 {
		now := at(500 * time.Millisecond)
		if now.Sub(start) > time.Hour {
			t.Fatalf("%+v", s.Stat())
		}
		if r := s.Recall(now); len(r) > 0 {
			t.Fatalf("%v are recalled", r)
		}
		for _, u := range s.Due(now, 1000) {
			began[u] = now
		}
		if now.Sub(start) > time.Minute {
			most = max(most, len(began))
		}
		for u, from := range began {
			if now.Sub(from) >= 30*time.Second {
				s.Report(u, reached, now)
				s.Done(u)
				delete(began, u)
			}
		}
	}
	if most < 60 || most > 75 {
		t.Errorf("%d at a time", most)
	}
}

// TestDeadline: a unit that runs is returned once when its time is over.
func TestDeadline(t *testing.T) {
	s := New(Options{Concurrency: 10, Deadline: time.Minute})
	now := start
	s.Add(now, Delivery{ID: "x", Domain: "d", Recipients: []int{0, 1, 2}, Next: now, Received: now})
	u := s.Due(now, 1)[0]
	next, ok := s.Next(now)
	for ok && next.Before(start.Add(62*time.Second)) {
		if !next.After(now) {
			t.Fatal(next)
		}
		if now = next; len(s.Recall(now)) > 0 {
			t.Fatal("recalled after", now.Sub(start))
		}
		next, ok = s.Next(now)
	}
	if r := s.Recall(next); len(r) != 1 || r[0].Unit != u || !r[0].Overdue || !next.Equal(start.Add(62*time.Second)) {
		t.Fatal(r, next)
	}
	if r := s.Recall(next.Add(time.Hour)); len(r) > 0 {
		t.Fatal("returned twice")
	}
	s.Report(u, nobody, next)
	s.Defer(u, next, []int{0}, 1, next.Add(time.Hour))
}

// TestHasten makes a unit due that waits, and no other.
func TestHasten(t *testing.T) {
	s := New(Options{Concurrency: 10})
	u := s.Add(start, Delivery{ID: "x", Domain: "d", Recipients: []int{0}, Next: start.Add(time.Hour), Received: start})
	s.Add(start, Delivery{ID: "y", Domain: "d", Recipients: []int{0}, Next: start.Add(time.Hour), Received: start})
	s.Hasten(u, start)
	if due := s.Due(start, 9); len(due) != 1 || due[0] != u {
		t.Fatal(due)
	}
	s.Hasten(u, start)
	s.Done(u)
	s.Hasten(u, start)
	if s.Stat() != (Stat{Waiting: 1}) {
		t.Errorf("%+v", s.Stat())
	}
}
