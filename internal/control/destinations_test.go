package control

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"tarishi/internal/queue"
)

func TestDestinations(t *testing.T) {
	both(t, func(t *testing.T) (Queue, Outbound) { return newMemory(t), &flushes{} }, func(t *testing.T, c Commands) {
		got, err := c.Destinations(t.Context(), 5)
		want := []DestinationState{
			{
				Domain: "x.test", Site: "mx.test", Waiting: 1, Ready: 2, Running: 3, Oldest: born, Limit: 4, Rate: "600/m",
				SuspendedUntil: born, LastError: "421 no",
			},
			{Domain: "y.test", Site: "y.test"},
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
		}
		if got, err := c.Destinations(t.Context(), 1); err != nil || len(got) != 1 {
			t.Errorf("%v %v", got, err)
		}
		s, err := c.Stat(t.Context(), 0)
		if err != nil || s.DSNs == nil || *s.DSNs != (DSNs{1, 2, 3}) {
			t.Errorf("%+v %v", s, err)
		}
	})
	c := serve(t, t.TempDir(), newMemory(t), &flushes{}).dial()
	if _, err := c.Destinations(t.Context(), maxTop+1); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestWhyHoldRelease(t *testing.T) {
	var o *flushes
	both(t, func(t *testing.T) (Queue, Outbound) {
		o = &flushes{}
		return newMemory(t, envelope(t, "A.1", "s@x.test", "r@x.test")), o
	}, func(t *testing.T, c Commands) {
		got, err := c.Why(t.Context(), "A.1")
		want := []Delivery{
			{Domain: "x.test", Recipients: []int{0, 2}, Attempts: 3, Next: born, Reason: "why A.1"},
			{Domain: "y.test", Recipients: []int{1}, Reason: "ready"},
			{Domain: "z.test", Recipients: []int{4, 6}, Reason: "held"},
			{Domain: "z.test", Recipients: []int{5}, Reason: "ready"},
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
		}
		if err := errors.Join(c.Hold(t.Context(), "A.1"), c.Release(t.Context(), "A.1")); err != nil {
			t.Error(err)
		}
		if got := strings.Join(o.steered, ", "); got != "hold A.1 [], release A.1 []" {
			t.Error(got)
		}
		_, err = c.Why(t.Context(), "B.1")
		for _, err := range []error{err, c.Hold(t.Context(), "B.1"), c.Release(t.Context(), "B.1")} {
			if !errors.Is(err, ErrUnknown) {
				t.Errorf("an unknown message: %v", err)
			}
		}
		if err := c.Hold(t.Context(), "../x"); !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
		o.sick = fmt.Errorf("%w: A.1", queue.ErrUnknown)
		if err := c.Hold(t.Context(), "A.1"); !errors.Is(err, ErrUnknown) {
			t.Error(err)
		}
		o.sick = errDamage
		if err := c.Release(t.Context(), "A.1"); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Error(err)
		}
	})
	l := NewLocal(newMemory(t, envelope(t, "A.1", "s@x.test", "r@x.test")), nil, nil)
	_, why := l.Why(t.Context(), "A.1")
	_, all := l.Destinations(t.Context(), 1)
	for _, err := range []error{why, all, l.Hold(t.Context(), "A.1"), l.Release(t.Context(), "A.1")} {
		if !errors.Is(err, ErrStopped) {
			t.Errorf("without a daemon: %v", err)
		}
	}
}
