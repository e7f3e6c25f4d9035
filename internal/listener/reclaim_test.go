package listener

import (
	"testing"
	"testing/synctest"
	"time"
)

// Memory is given back some time after many connections have ended, once for all of
// them, and not again and again while connections come and go.
func TestReclaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		times := 0
		r := &reclaimer{free: func() { times++ }}
		wave := func(up, down int) {
			for n := range up {
				r.noteOpen(n + 1)
			}
			for n := up; n > down; n-- {
				r.noteOpen(n - 1)
			}
		}
		pass := func(d time.Duration, want int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if times != want {
				t.Errorf("memory was given back %d times, want %d", times, want)
			}
		}
		wave(manyConnections-1, 0)
		pass(time.Hour, 0)
		wave(3*manyConnections, 2*manyConnections) // most of them stay
		pass(time.Hour, 0)
		wave(3*manyConnections, manyConnections)
		pass(reclaimDelay-time.Second, 0)
		pass(time.Second, 1)
		wave(2*manyConnections, 0)
		pass(reclaimDelay, 1)
		pass(reclaimPause, 2)
		wave(2*manyConnections, 0)
		r.end()
		pass(time.Hour, 2)
	})
}
