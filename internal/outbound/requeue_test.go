package outbound

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"tarishi/internal/reply"
)

// What a relay deferred before the message was queued has had its first attempt:
// it waits the first interval, also in the records, and one attempt less remains.
// What has no reply is due at once.
func TestEnqueueDeferred(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		env := r.envelope("later1@a.test", "later2@a.test", "full@b.test", "more@c.test")
		p := r.put(env)
		r.queue.takeOps()
		full := reply.New(452, "4.2.2", "mailbox\r\nfull").Because(errors.New("after 3s"))
		r.out.EnqueueDeferred(p, []*reply.Reply{later, later, full, nil})
		r.pass(64*time.Second - 1)
		r.wantSent("0s sender@from.test>more 192.0.2.3:25")
		ops := r.queue.takeOps()
		slices.Sort(ops)
		if want := []string{
			"defer [0 1] attempts 1 in 1m4s: 450 4.2.0 greylisted",
			"defer [2] attempts 1 in 1m4s: 452 4.2.2 mailbox  full: after 3s",
			"settle [3]",
		}; !slices.Equal(ops, want) {
			t.Errorf("%q", ops)
		}
		r.pass(1)
		seen := r.wire.take()
		slices.SortFunc(seen, func(a, b attemptSeen) int { return len(a.to) - len(b.to) })
		if got := fmt.Sprintf("%d %s %s", len(seen), seen[0].to, seen[1].to); got != "2 full later1,later2" {
			t.Error(got)
		}
		r.wantOpsInAnyOrder("defer [0 1] attempts 2 in 2m8s: 450 4.2.0 greylisted", "settle [2]")
		r.pass(128 * time.Second) // the last attempt
		r.wantOps("put <>", "settle [0 1]", "settle [0]")
		r.wantIdle()
	})
}

// Where nothing is tried twice there is one attempt all the same.
func TestEnqueueDeferredWithoutRetries(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.TempFailIntervals = nil
		r.start()
		p := r.put(r.envelope("a@a.test"))
		r.out.EnqueueDeferred(p, []*reply.Reply{later})
		r.pass(0)
		r.wantSent("0s sender@from.test>a 192.0.2.1:25")
		r.wantIdle()
	})
}

// A deferral that cannot be recorded is kept in memory.
func TestEnqueueDeferredNotRecorded(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		r.queue.set("defer", errDisk)
		p := r.put(r.envelope("a@a.test"))
		r.out.EnqueueDeferred(p, []*reply.Reply{later})
		r.pass(64*time.Second - 1)
		r.wantSent()
		r.pass(1)
		r.wantSent("1m4s sender@from.test>a 192.0.2.1:25")
	})
}
