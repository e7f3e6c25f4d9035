package budget

import (
	"testing"
	"time"
)

// watched is a share whose client sends so many bytes a second.
func watched(b *Budget, rate int64, for_ time.Duration) (s *Share, yielded *bool) {
	c := &steady{rate: rate, for_: for_}
	return &Share{budget: b, owner: c}, &c.yielded
}

type steady struct {
	rate    int64
	for_    time.Duration
	yielded bool
}

func (c *steady) Yield() { c.yielded = true }

func (c *steady) Lately() (int64, time.Duration) { return c.rate * int64(c.for_/time.Second), c.for_ }

func TestBudget(t *testing.T) {
	b := New(4 * shareStep)
	small, _ := watched(b, 1, time.Hour)
	if !small.HoldMessage(Free, false) || b.used != 0 {
		t.Error("what each session may hold is counted")
	}
	slow, slowYielded := watched(b, 10, time.Minute)
	slower, slowerYielded := watched(b, 5, time.Minute)
	fresh, freshYielded := watched(b, 0, time.Second)
	for _, s := range []*Share{slow, slower, fresh} {
		if !s.HoldMessage(Free+1, false) || s.taken != shareStep {
			t.Fatalf("%+v", s)
		}
	}
	fast, _ := watched(b, 100, time.Minute)
	if !fast.HoldMessage(Free+shareStep, false) || b.used != b.limit.Load() || !b.isShort() {
		t.Fatalf("%d used", b.used)
	}
	if fast.HoldMessage(Free+shareStep+1, false) {
		t.Error("there was more than there is")
	}
	if !fast.Push() || !*slowerYielded || *slowYielded {
		t.Error("not the slowest gave way")
	}
	if slower.HoldMessage(Free+2*shareStep, false) || slower.Push() {
		t.Error("one that gave way gets more")
	}
	if !slower.Drop() || slower.Drop() || b.used != b.limit.Load() {
		t.Errorf("%d used", b.used)
	}
	slowest, _ := watched(b, 1, time.Minute)
	if slowest.HoldMessage(Free+1, false) || slowest.Push() {
		t.Error("a faster one gave way")
	}
	if !slowest.HoldMessage(0, false) {
		t.Error("nothing needs something")
	}
	for _, s := range []*Share{small, slow, fresh, fast, slowest} {
		s.Drop()
	}
	if b.used != 0 || len(b.shares) != 0 || *freshYielded {
		t.Errorf("%d used, %d shares", b.used, len(b.shares))
	}
	// Bodies leave a quarter to what cannot go to a file.
	body, _ := watched(b, 1, time.Minute)
	if !body.HoldMessage(Free+3*shareStep, true) || body.HoldMessage(Free+3*shareStep+1, true) {
		t.Errorf("%d used by bodies", b.used)
	}
	if header, _ := watched(b, 1, time.Minute); !header.HoldMessage(Free+1, false) {
		t.Error("bodies have taken all")
	}
	// A new limit counts at once.
	if b.SetLimit(16 * shareStep); !body.HoldMessage(Free+11*shareStep, true) {
		t.Error("a higher limit does not count")
	}
	if b.SetLimit(2 * shareStep); body.HoldMessage(Free+13*shareStep, true) || !body.HoldMessage(Free+shareStep, true) {
		t.Error("a lower limit does not count")
	}
	unlimited, _ := watched(&Budget{}, 1, 1)
	if !unlimited.HoldMessage(1<<40, false) || unlimited.budget.isShort() {
		t.Error("a limit of 0")
	}
}
