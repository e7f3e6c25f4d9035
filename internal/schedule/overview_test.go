package schedule

import (
	"fmt"
	"testing"
	"time"

	"tarishi/internal/mail"
)

// TestOverview: the oldest and the largest are told of by turns, and all others
// are in the sum, each once.
func TestOverview(t *testing.T) {
	s := New(Options{})
	for i := range 20 { // d00 is the oldest and has one unit, d19 the youngest and has twenty
		for n := range i + 1 {
			s.Add(start, Delivery{
				ID: mail.ID(fmt.Sprint(i, ".", n)), Domain: fmt.Sprintf("d%02d", i), Recipients: []int{0}, Attempts: 1,
				Next: start.Add(time.Hour), Received: start.Add(time.Duration(i-100) * time.Minute),
			})
		}
	}
	s.Add(start, Delivery{ID: "ready", Domain: "d05", Recipients: []int{0}, Received: start})
	top, rest := s.Overview(start, 5)
	var got []string
	for _, d := range top {
		got = append(got, fmt.Sprint(d.Domain, " ", d.Waiting, " ", start.Sub(d.Oldest)))
	}
	if text := fmt.Sprint(got); text != "[d00 1 1h40m0s d19 20 1h21m0s d01 2 1h39m0s d18 19 1h22m0s d02 3 1h38m0s]" {
		t.Error(text)
	}
	if want := (Rest{Destinations: 15, Waiting: 210 - 45, Ready: 1, Oldest: start.Add(-97 * time.Minute)}); rest.Destinations != want.Destinations ||
		rest.Waiting != want.Waiting || rest.Ready != want.Ready || !rest.Oldest.Equal(want.Oldest) {
		t.Errorf("\n got %+v\nwant %+v", rest, want)
	}
	if top, rest := s.Overview(start, 0); len(top) != 0 || rest.Destinations != 20 {
		t.Errorf("%v %+v", top, rest)
	}
	if top, rest := s.Overview(start, 100); len(top) != 20 || rest != (Rest{}) {
		t.Errorf("%v %+v", top, rest)
	}
}

// BenchmarkOverview looks at a million units in ten thousand domains; dated is
// with the walk that finds the oldest, as one look in many has it.
func BenchmarkOverview(b *testing.B) {
	s := New(Options{})
	for i := range million {
		s.Add(start, Delivery{
			ID: mail.ID(fmt.Sprint("F0E1D2C3-0000-4000-8000-000000000000.", i)), Domain: fmt.Sprintf("host%d.example.org", i%10_000), Recipients: []int{0}, Attempts: 1,
			Next: start.Add(time.Duration(1+i*7919%million) * 10 * time.Millisecond), Received: start,
		})
	}
	now := start
	for name, step := range map[string]time.Duration{"exact": 0, "dated": time.Minute} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				now = now.Add(step)
				for _, d := range s.domains {
					d.Stale = step > 0
				}
				s.Overview(now, 50)
			}
		})
	}
}
