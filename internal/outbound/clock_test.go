package outbound

import (
	"sync/atomic"
	"testing"
	"time"
)

// TestClockJumps has the wall clock go on while the machine was asleep, which no
// timer notices: what became due meanwhile goes out soon.
func TestClockJumps(t *testing.T) {
	inBubble(t, func(r *rig) {
		var asleep atomic.Int64
		r.o.Now = func() time.Time { return time.Now().Add(time.Duration(asleep.Load())) }
		r.o.TempFailIntervals = []time.Duration{12 * time.Hour, 12 * time.Hour}
		r.start()
		r.send("later@a.test")
		r.wantSent("0s sender@from.test>later 192.0.2.1:25")
		asleep.Store(int64(13 * time.Hour))
		r.pass(time.Minute)
		r.wantSent("1m0s sender@from.test>later 192.0.2.1:25")
	})
}
