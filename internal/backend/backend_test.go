package backend

import (
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/route"
)

// However often Run wakes up, a host that is being probed is left to that probe.
func TestOneProbeAtATime(t *testing.T) {
	b := New()
	r := &route.Route{Name: "r", Hosts: []mail.NextHop{{Host: "10.0.0.1"}, {Host: "10.0.0.2"}}, DeadRetry: 10 * time.Second}
	now := time.Now()
	if !b.Lost(r, r.Hosts[0], now) || b.Lost(r, r.Hosts[0], now.Add(time.Second)) {
		t.Error("what is new is told wrongly")
	}
	take := func(after time.Duration) (map[Spot]*Loss, time.Duration) { return b.Due(now.Add(after)) }
	if due, next := take(4 * time.Second); len(due) != 0 || next != 6*time.Second {
		t.Errorf("early: %v, %v", due, next)
	}
	due, _ := take(10 * time.Second)
	if again, next := take(11 * time.Second); len(due) != 1 || len(again) != 0 || next != 0 {
		t.Errorf("%d, then %d, %v", len(due), len(again), next)
	}
	for _, l := range due {
		b.PutOff(l, now.Add(20*time.Second))
	}
	if due, next := take(29 * time.Second); len(due) != 0 || next != time.Second {
		t.Errorf("put off: %v, %v", due, next)
	}
	if due, _ := take(30 * time.Second); len(due) != 1 {
		t.Error("never again")
	}
}
