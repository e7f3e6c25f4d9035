package dispatch

import (
	"testing"
	"time"

	"tarishi/internal/schedule/throttle"
	"tarishi/internal/schedule/unit"
)

// TestProbeKeepsItsPlace: the probe of a suspended slow site begins beside an attempt
// that was there before, and so above the site's limit. It has had its turn when it was
// handed out: judged again, it would go back and forth with the probe of another slow
// site without an end, and without time passing.
func TestProbeKeepsItsPlace(t *testing.T) {
	now := int64(1e18)
	s := New(Options{Concurrency: 12, Outside: 48})
	limits := &throttle.Limits{Start: 2, High: 2}
	for _, name := range []string{"a.test", "b.test"} {
		d := NewDomain(name, "", limits)
		add := func() { s.PutReady(NewUnit(d, unit.Delivery{ID: "x", Domain: name, Recipients: []int{0}}), now, false) }
		add()
		add()
		first := s.Begin(now, 2)
		s.Report(first[0], Outcome{}, now)
		s.Release(first[0], now)
		d.site.MarkSlow()
		if d.site.Suspended() == 0 || d.site.running != 1 {
			t.Fatalf("suspended until %d, %d running", d.site.Suspended(), d.site.running)
		}
		add()
	}

	now += int64(time.Hour)
	s.WakeSites(now)
	probes := s.Begin(now, 2)
	if len(probes) != 2 {
		t.Fatalf("%d probes", len(probes))
	}
	d := NewDomain("c.test", "", limits) // slow too, and in line
	s.PutReady(NewUnit(d, unit.Delivery{ID: "x", Domain: d.Name, Recipients: []int{0}}), now, false)
	d.site.MarkSlow()
	s.queueSlow(d.site, now)
	for _, u := range probes {
		if located, _ := s.Locate(u, "", limits, now); !located {
			t.Errorf("the probe of %s was put back", u.Domain())
		}
	}
}
