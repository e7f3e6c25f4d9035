package backend

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
	take := func(after time.Duration) ([]Probe, time.Duration) { return b.Due(now.Add(after)) }
	if due, next := take(4 * time.Second); len(due) != 0 || next != 6*time.Second {
		t.Errorf("early: %v, %v", due, next)
	}
	due, _ := take(10 * time.Second)
	if again, next := take(11 * time.Second); len(due) != 1 || len(again) != 0 || next != 0 {
		t.Errorf("%d, then %d, %v", len(due), len(again), next)
	}
	for _, one := range due {
		b.PutOff(one.Spot, now.Add(20*time.Second))
	}
	if due, next := take(29 * time.Second); len(due) != 0 || next != time.Second {
		t.Errorf("put off: %v, %v", due, next)
	}
	if due, _ := take(30 * time.Second); len(due) != 1 {
		t.Error("never again")
	}
}

// settings are routes by name, with so many connections each.
func settings(most int, routes map[string][]mail.NextHop) *route.Settings {
	f := &route.Settings{Main: route.Route{Name: "main"}, Routes: map[string]*route.Route{}}
	for name, hosts := range routes {
		f.Routes[name] = &route.Route{Name: name, Hosts: hosts, MaxConnections: most, DeadRetry: 10 * time.Second}
	}
	return f
}

// TestUseKeepsWhatIsThere: what is known of a host lives on if its route still has it.
func TestUseKeepsWhatIsThere(t *testing.T) {
	one, two, three := mail.NextHop{Host: "10.0.0.1"}, mail.NextHop{Host: "10.0.0.2"}, mail.NextHop{Host: "10.0.0.3"}
	b, now := New(), time.Now()
	old := settings(5, map[string][]mail.NextHop{"stays": {one, two}, "changes": {one, two}, "goes": {one, two}})
	for _, r := range old.Routes {
		b.Lost(r, one, now)
	}
	next := settings(5, map[string][]mail.NextHop{"stays": {three, one}, "changes": {two, three}})
	next.Routes["stays"].DeadRetry = time.Minute
	b.Use(next)
	due, _ := b.Due(now.Add(time.Minute))
	if len(due) != 1 || due[0].Spot != (Spot{"stays", one}) || due[0].By != next.Routes["stays"] {
		t.Errorf("%+v", due)
	}
	if order := b.Order(next.Routes["stays"]); order[0] != three {
		t.Error("a host that is dead is tried first", order)
	}

	// Connections that began before still use the old routes, and leave nothing behind.
	if b.Lost(old.Routes["goes"], one, now) || b.Lost(old.Routes["changes"], one, now) || !b.Lost(old.Routes["changes"], two, now) {
		t.Error("a host was noted that is in no route, or not one that is")
	}
	b.PutOff(Spot{"goes", one}, now)
	b.PutOff(Spot{"stays", one}, now)
	if b.Use(next); len(b.dead) != 2 || len(b.Wake) != 1 {
		t.Errorf("%d are dead", len(b.dead))
	}
}

// TestLimitChanges: as many messages as the limit says are on their way to a busy route,
// whichever configuration they began with. Those that are more when it is lowered arrive.
func TestLimitChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New()
		routes := map[string][]mail.NextHop{"r": {{Host: "10.0.0.1"}}}
		old := settings(3, routes)
		b.Use(old)
		var inside, done atomic.Int32
		leave := make(chan struct{})
		for range 20 {
			go func() {
				s, ok := b.Enter(t.Context(), old.Routes["r"])
				if !ok {
					t.Error("not let in")
				}
				inside.Add(1)
				<-leave
				inside.Add(-1)
				s.Leave()
				done.Add(1)
			}()
		}
		want := func(n int32) {
			t.Helper()
			if synctest.Wait(); inside.Load() != n {
				t.Errorf("%d on their way, %d expected", inside.Load(), n)
			}
		}
		want(3)
		b.Use(settings(7, routes))
		want(7)
		b.Use(settings(2, routes))
		for range 5 {
			leave <- struct{}{}
		}
		want(2)
		leave <- struct{}{}
		want(2)

		// One that gives up makes no room and takes none.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, ok := b.Enter(ctx, old.Routes["r"]); ok {
			t.Error("more than the limit")
		}
		b.Use(settings(2, nil)) // the route goes
		for done.Load() < 20 {
			leave <- struct{}{}
			synctest.Wait()
		}
		if len(b.gates) != 0 {
			t.Error("the gate of a route that is gone is left")
		}
	})
}

// TestManyUses: what belongs to configurations that are gone is gone.
func TestManyUses(t *testing.T) {
	b := New()
	for i := range 1000 {
		name := fmt.Sprint("route", i)
		f := settings(1, map[string][]mail.NextHop{name: {{Host: "10.0.0.1"}, {Host: "10.0.0.2"}}})
		b.Use(f)
		r := f.Routes[name]
		r.InTurn = true
		s, _ := b.Enter(t.Context(), r)
		b.Order(r)
		b.Lost(r, r.Hosts[0], time.Now())
		s.Leave()
	}
	if len(b.turns) != 1 || len(b.gates) > 1 || len(b.dead) != 1 || len(b.known) != 2 {
		t.Errorf("%d turns, %d gates, %d dead hosts, %d routes", len(b.turns), len(b.gates), len(b.dead), len(b.known))
	}
}
