package roster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// talk is a conversation that ends by itself when it is woken, or only when it is cut off.
type talk struct {
	busy bool
	deaf bool // does not even end then
	end  chan struct{}
}

func (c *talk) Wake() {
	if !c.busy {
		close(c.end)
	}
}

func (c *talk) CutOff() {
	if !c.deaf {
		close(c.end)
	}
}

// open adds a conversation that leaves when it has ended.
func open(t *testing.T, r *Roster, c *talk, idle func()) {
	c.end = make(chan struct{})
	if !r.Add(c) {
		t.Fatal("closed")
	}
	go func() {
		<-c.end
		r.Remove(c, idle)
	}()
}

// TestShutdown: conversations that wait end at once, the others have until the end of the
// context, and those that do not end even then are counted and left.
func TestShutdown(t *testing.T) {
	for _, tc := range []struct {
		busy, deaf bool
		grace      time.Duration
		want       string
		took       time.Duration
	}{
		{false, false, time.Minute, "", 0},
		{true, false, time.Minute, "1 sessions were cut off: ", time.Minute},
		{true, false, 0, "1 sessions were cut off: ", notice},
		{true, true, time.Minute, "1 sessions were cut off: context deadline exceeded\na hook of one of them is still running", time.Minute + unwind},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, idle := New(), 0
			c := &talk{busy: tc.busy, deaf: tc.deaf}
			open(t, r, c, func() { idle++ })
			open(t, r, &talk{}, func() { idle++ })
			ctx, cancel := context.WithTimeout(t.Context(), tc.grace)
			defer cancel()
			began := time.Now()
			err := r.Shutdown(ctx)
			if took := time.Since(began); took != tc.took {
				t.Errorf("%+v: took %v", tc, took)
			}
			if got := errText(err); !strings.HasPrefix(got, tc.want) || (got == "") != (tc.want == "") {
				t.Errorf("%+v: %v", tc, err)
			}
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%+v: %v does not say why", tc, err)
			}
			if r.Add(&talk{}) {
				t.Error("one began behind the end")
			}
			if tc.deaf {
				close(c.end)
				synctest.Wait()
			}
			if r.Len() != 0 || idle != 1 {
				t.Errorf("%d are open, %d times idle", r.Len(), idle)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
