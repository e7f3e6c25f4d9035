package outbound

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/reply"
	"tarishi/internal/sending"
	"tarishi/internal/smtpclient"
)

// twoHosts gives two.test two mail exchangers. The first takes all but the
// recipients it is to defer; the second does nothing until the attempt ends, before
// or after the end of the message.
func (r *rig) twoHosts(afterDot bool) {
	r.o.TempFailIntervals = interval
	r.o.MaxLifetime = 5 * 24 * time.Hour
	r.o.DelayWarning = -1
	r.o.NextMXOnDeferral = true
	r.dns.AddMX("two.test", 10, "mx1.two.test")
	r.dns.AddMX("two.test", 20, "mx2.two.test")
	r.dns.AddAddr("mx1.two.test", "192.0.2.11")
	r.dns.AddAddr("mx2.two.test", "192.0.2.12")
	r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
		if !strings.HasPrefix(s.addr, "192.0.2.12") {
			if !sending.MayEnd(ctx) {
				r.t.Error("not before the stop")
			}
			defer sending.Answered(ctx)
			return byName(ctx, s)
		}
		f := &smtpclient.Failure{Stage: smtpclient.StageRecipient, Addr: s.addr}
		if afterDot {
			if !sending.MayEnd(ctx) {
				r.t.Error("not before the stop")
			}
			f.Stage, f.Uncertain = smtpclient.StageDot, true
		}
		<-ctx.Done()
		f.Err = ctx.Err()
		return nil, f
	})
}

// TestStopAtSecondHost: what the first host took is settled and never sent again,
// what it deferred is tried again. A second host that has not got the message to
// its end is not waited for, and one that may have taken it is counted.
func TestStopAtSecondHost(t *testing.T) {
	for _, afterDot := range []bool{false, true} {
		inBubble(t, func(r *rig) {
			r.o.ReplyGrace = 7 * time.Second
			r.twoHosts(afterDot)
			r.start()
			r.send("x@two.test", "later@two.test")
			r.wantSent("0s sender@from.test>x,later 192.0.2.11:25", "0s sender@from.test>later 192.0.2.12:25")
			before := time.Now()
			r.stop()
			<-r.ended
			want := time.Duration(0)
			if afterDot {
				want = r.o.ReplyGrace
			}
			if got := time.Since(before); got != want {
				t.Errorf("after the dot: %v, ended after %v", afterDot, got)
			}
			ops := r.queue.takeOps()
			if len(ops) != 2 || ops[0] != "settle [0]" || !strings.HasPrefix(ops[1], "defer [1] attempts 1 in 1m4s: 45") {
				t.Errorf("%q", ops)
			}
			doubtful := r.logs.FilterMessageSnippet("may have taken").FilterField(zap.Int("deliveries", 1)).Len()
			if afterDot != (doubtful == 1) {
				t.Errorf("after the dot: %v, %d notes of doubt", afterDot, doubtful)
			}

			r.wire.set(byName)
			r.start()
			r.pass(65 * time.Second)
			for _, s := range r.wire.take() {
				if s.to != "later" {
					t.Errorf("%s is sent to again", s.to)
				}
			}
		})
	}
}
