package throttle

import (
	"testing"
	"time"
)

var (
	good    = Outcome{Reached: true}
	tooMuch = Outcome{Reached: true, Throttled: true}
	nobody  = Outcome{Err: "connection refused"}
)

// TestSuspension follows a site through its states: the probes of a dead site come
// further and further apart, and one that reaches it ends the suspension.
func TestSuspension(t *testing.T) {
	now := int64(1e18)
	s := New(&Limits{High: 8, Probes: []time.Duration{2 * time.Minute, 10 * time.Minute, 3 * time.Hour}})
	for n := 1; s.Suspended() == 0; n++ {
		if n > 8 {
			t.Fatal("not suspended")
		}
		if s.Places() < 2 {
			t.Fatalf("%d places before the suspension", s.Places())
		}
		s.Report(nobody, 5, false, now, nil)
	}
	since := s.SuspendedSince()
	for i, want := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 15 * time.Minute} {
		if got := time.Duration(s.Suspended() - now); got != want {
			t.Errorf("probe %d after %v, want %v", i, got, want)
		}
		if s.Report(nobody, 1, false, now, nil) || s.SuspendedSince() != since {
			t.Error("an attempt that is no probe changes something")
		}
		now = s.Suspended()
		s.Report(nobody, 1, true, now, nil)
	}
	if s.Report(good, 1, true, now, nil); s.Suspended() != 0 || s.Places() > 8 || s.LastError() != "connection refused" {
		t.Errorf("%+v", s)
	}
	if s.Report(Outcome{Local: true, Err: "no route"}, 1, false, now, nil) || s.Suspended() != 0 || s.LastError() != "no route" {
		t.Error("a failure on this host says something about the site")
	}
}

// TestWindow: the limit stays within its bounds, falls once for all attempts that ran,
// and grows with success at the limit only.
func TestWindow(t *testing.T) {
	s := New(&Limits{Low: 2, High: 10, Start: 8})
	for range 8 {
		s.Report(tooMuch, 8, false, 0, nil)
	}
	if s.Window() != 4 {
		t.Errorf("%d after one round of refusals", s.Window())
	}
	for range 50 {
		s.Report(good, 1, false, 0, nil)
	}
	if s.Window() != 4 {
		t.Errorf("%d without need", s.Window())
	}
	for range 200 {
		s.Report(good, s.Window(), false, 0, nil)
	}
	if s.Window() != 10 {
		t.Errorf("%d, the cap is 10", s.Window())
	}
	if s.SetLimits(&Limits{High: 3}, 0); s.Window() != 3 {
		t.Errorf("%d with a cap of 3", s.Window())
	}
}

// TestRate: not more attempts begin than the rate allows, but for those of a second.
func TestRate(t *testing.T) {
	s := New(&Limits{Rate: Rate{Count: 60, Per: time.Minute}})
	now, n := int64(1e18), 0
	for end := now + int64(10*time.Minute); now < end; now += int64(100 * time.Millisecond) {
		if _, limited := s.NextByRate(now); !limited {
			s.Begin(now)
			n++
		}
	}
	if n < 590 || n > 601 {
		t.Errorf("%d attempts in ten minutes", n)
	}
}

// TestRateChanges: what has begun counts as so many attempts at the new rate.
func TestRateChanges(t *testing.T) {
	now := int64(1e18)
	for _, tt := range []struct {
		was, is Rate
		wait    time.Duration
	}{
		{Rate{1, time.Hour}, Rate{60, time.Hour}, time.Minute},
		{Rate{60, time.Hour}, Rate{1, time.Hour}, time.Hour},
		{Rate{1, time.Hour}, Rate{}, 0},
		{Rate{}, Rate{1, time.Hour}, 0},
		{Rate{2, time.Hour}, Rate{1, 30 * time.Minute}, 30 * time.Minute},
	} {
		s := New(&Limits{Rate: tt.was})
		s.Begin(now)
		s.SetLimits(&Limits{Rate: tt.is}, now)
		at, limited := s.NextByRate(now)
		if max(0, at-now) != int64(tt.wait) || limited != (tt.wait > 0) {
			t.Errorf("%+v to %+v: %v, %v", tt.was, tt.is, time.Duration(at-now), limited)
		}
	}
}

// TestPatience: a stranger is given little time, a known site as much as it needs.
func TestPatience(t *testing.T) {
	s := New(&Limits{})
	if s.Patience(0) != StrangerPatience {
		t.Error(s.Patience(0))
	}
	s.Report(good, 1, false, 0, nil)
	s.Learn(time.Second)
	if p := s.Patience(0); p < 7*time.Second || p > SlowAfter || s.Slow() {
		t.Error(p)
	}
	s.Report(nobody, 1, false, 0, nil)
	if s.Learn(SlowAfter); !s.Slow() || s.Patience(0) != SlowAfter {
		t.Error("it is slow")
	}
}
