package mailq

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/control/view"
	"tarishi/internal/store"
	"tarishi/internal/vfs"
)

func TestDestinations(t *testing.T) {
	both(t, func(t *testing.T) (Queue, Outbound) { return newMemory(t), &flushes{} }, func(t *testing.T, c *caller) {
		got, err := c.Destinations(t.Context(), 5)
		want := []view.DestinationState{
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
		if err != nil || s.DSNs == nil || *s.DSNs != (view.DSNs{Queued: 1, Failed: 2, Double: 3}) {
			t.Errorf("%+v %v", s, err)
		}
	})
	c := serve(t, t.TempDir(), newMemory(t), &flushes{}).dial()
	if _, err := c.Destinations(t.Context(), maxTop+1); !errors.Is(err, control.ErrInvalid) {
		t.Error(err)
	}
}

// An ID is never taken for a domain.
func TestFlushMessage(t *testing.T) {
	const id = "F47AC10B-58CC-4372-A567-0E02B2C3D479.1"
	both(t, func(t *testing.T) (Queue, Outbound) {
		return newMemory(t, envelope(t, id, "s@x.test", "r@x.test")), &flushes{}
	}, func(t *testing.T, c *caller) {
		if n, err := c.FlushMessage(t.Context(), id); n != 2 || err != nil {
			t.Error(n, err)
		}
		if _, err := c.Flush(t.Context(), id); !errors.Is(err, control.ErrInvalid) {
			t.Error(err)
		}
		if _, err := c.FlushMessage(t.Context(), "B.1"); !errors.Is(err, control.ErrUnknown) {
			t.Error(err)
		}
	})
}

// What is due and waits for a suspended destination says so.
func TestSuspended(t *testing.T) {
	both(t, func(t *testing.T) (Queue, Outbound) {
		return newMemory(t, envelope(t, "A.1", "s@x.test", "r@x.test", "r@y.test")), &flushes{}
	}, func(t *testing.T, c *caller) {
		m, err := c.Show(t.Context(), "A.1")
		if err != nil || !m.Recipients[0].Probe.IsZero() || !m.Recipients[1].Probe.Equal(born.Add(time.Hour)) {
			t.Errorf("%+v, %v", m, err)
		}
		err = c.List(t.Context(), conditions{}, func(m *view.Message) error {
			if !m.Recipients[0].Probe.IsZero() || !m.Recipients[1].Probe.Equal(born.Add(time.Hour)) {
				t.Errorf("%+v", m)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// A daemon that holds the queue and does not answer yet is waited for.
func TestDialWhileItStarts(t *testing.T) {
	dir := t.TempDir()
	lock, err := vfs.OS{}.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	found := make(chan error, 1)
	go func() {
		c, err := control.Dial(t.Context(), dir)
		if err == nil {
			_, err = (&caller{c}).Stat(t.Context(), 0)
			c.Close()
		}
		found <- err
	}()
	time.Sleep(50 * time.Millisecond) // it has probably asked by now, in vain
	serve(t, dir, newMemory(t), &flushes{})
	if err := <-found; err != nil {
		t.Error(err)
	}
}

func TestWhyHoldRelease(t *testing.T) {
	var o *flushes
	both(t, func(t *testing.T) (Queue, Outbound) {
		o = &flushes{}
		return newMemory(t, envelope(t, "A.1", "s@x.test", "r@x.test")), o
	}, func(t *testing.T, c *caller) {
		got, err := c.Why(t.Context(), "A.1")
		want := []view.Delivery{
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
			if !errors.Is(err, control.ErrUnknown) {
				t.Errorf("an unknown message: %v", err)
			}
		}
		if err := c.Hold(t.Context(), "../x"); !errors.Is(err, control.ErrInvalid) {
			t.Error(err)
		}
		o.sick = fmt.Errorf("%w: A.1", store.ErrUnknown)
		if err := c.Hold(t.Context(), "A.1"); !errors.Is(err, control.ErrUnknown) {
			t.Error(err)
		}
		o.sick = errDamage
		if err := c.Release(t.Context(), "A.1"); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Error(err)
		}
	})
	l := local(New(newMemory(t, envelope(t, "A.1", "s@x.test", "r@x.test")), nil, nil))
	_, why := l.Why(t.Context(), "A.1")
	_, all := l.Destinations(t.Context(), 1)
	for _, err := range []error{why, all, l.Hold(t.Context(), "A.1"), l.Release(t.Context(), "A.1")} {
		if !errors.Is(err, control.ErrStopped) {
			t.Errorf("without a daemon: %v", err)
		}
	}
}
