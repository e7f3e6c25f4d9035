package smtpd

import (
	"testing"
	"time"
)

// watched is a share whose client sends so many bytes a second.
func watched(b *Budget, rate int64, for_ time.Duration) (s *share, yielded *bool) {
	c := &steady{rate: rate, for_: for_}
	return &share{budget: b, owner: c}, &c.yielded
}

type steady struct {
	rate    int64
	for_    time.Duration
	yielded bool
}

func (c *steady) yield() { c.yielded = true }

func (c *steady) lately() (int64, time.Duration) { return c.rate * int64(c.for_/time.Second), c.for_ }

func TestBudget(t *testing.T) {
	b := NewBudget(4 * shareStep)
	small, _ := watched(b, 1, time.Hour)
	if !small.holdMessage(freeShare, false) || b.used != 0 {
		t.Error("what each session may hold is counted")
	}
	slow, slowYielded := watched(b, 10, time.Minute)
	slower, slowerYielded := watched(b, 5, time.Minute)
	fresh, freshYielded := watched(b, 0, time.Second)
	for _, s := range []*share{slow, slower, fresh} {
		if !s.holdMessage(freeShare+1, false) || s.taken != shareStep {
			t.Fatalf("%+v", s)
		}
	}
	fast, _ := watched(b, 100, time.Minute)
	if !fast.holdMessage(freeShare+shareStep, false) || b.used != b.limit.Load() || !b.isShort() {
		t.Fatalf("%d used", b.used)
	}
	if fast.holdMessage(freeShare+shareStep+1, false) {
		t.Error("there was more than there is")
	}
	if !fast.push() || !*slowerYielded || *slowYielded {
		t.Error("not the slowest gave way")
	}
	if slower.holdMessage(freeShare+2*shareStep, false) || slower.push() {
		t.Error("one that gave way gets more")
	}
	if !slower.drop() || slower.drop() || b.used != b.limit.Load() {
		t.Errorf("%d used", b.used)
	}
	slowest, _ := watched(b, 1, time.Minute)
	if slowest.holdMessage(freeShare+1, false) || slowest.push() {
		t.Error("a faster one gave way")
	}
	if !slowest.holdMessage(0, false) {
		t.Error("nothing needs something")
	}
	for _, s := range []*share{small, slow, fresh, fast, slowest} {
		s.drop()
	}
	if b.used != 0 || len(b.shares) != 0 || *freshYielded {
		t.Errorf("%d used, %d shares", b.used, len(b.shares))
	}
	// Bodies leave a quarter to what cannot go to a file.
	body, _ := watched(b, 1, time.Minute)
	if !body.holdMessage(freeShare+3*shareStep, true) || body.holdMessage(freeShare+3*shareStep+1, true) {
		t.Errorf("%d used by bodies", b.used)
	}
	if header, _ := watched(b, 1, time.Minute); !header.holdMessage(freeShare+1, false) {
		t.Error("bodies have taken all")
	}
	// A new limit counts at once.
	if b.SetLimit(16 * shareStep); !body.holdMessage(freeShare+11*shareStep, true) {
		t.Error("a higher limit does not count")
	}
	if b.SetLimit(2 * shareStep); body.holdMessage(freeShare+13*shareStep, true) || !body.holdMessage(freeShare+shareStep, true) {
		t.Error("a lower limit does not count")
	}
	unlimited, _ := watched(&Budget{}, 1, 1)
	if !unlimited.holdMessage(1<<40, false) || unlimited.budget.isShort() {
		t.Error("a limit of 0")
	}
}
