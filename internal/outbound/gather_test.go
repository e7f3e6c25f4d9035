package outbound

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/mail"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/reply"
)

// gathers makes reports wait, for others of the message and beyond a rate.
func (r *rig) gathers(wait time.Duration, rate destination.Rate) {
	r.o.TempFailIntervals = interval
	r.o.MaxLifetime = 5 * 24 * time.Hour
	r.o.DelayWarning = -1
	r.o.DSNWait = wait
	r.o.DSNRate = rate
}

// reports returns the reports that the next hop of from.test took: when, and what
// was in them.
func (r *rig) reports() (texts []string, after []time.Duration) {
	r.t.Helper()
	for _, s := range r.wire.take() {
		if s.from == "" {
			texts, after = append(texts, read(r.t, s.body)), append(after, s.after)
		}
	}
	return texts, after
}

// wantPutFirst expects that a report was put before anything was settled, delivered
// recipients apart.
func (r *rig) wantPutFirst(delivered ...string) {
	r.t.Helper()
	for _, op := range r.queue.takeOps() {
		if slices.Contains(delivered, op) {
			continue
		}
		if strings.HasPrefix(op, "put <>") {
			return
		}
		if strings.HasPrefix(op, "settle") {
			r.t.Fatal("settled before the report was in the queue")
		}
	}
	r.t.Fatal("no report")
}

// manyDomains returns addresses at so many domains, which exist.
func (r *rig) manyDomains(local string, n int) (to []string) {
	for i := range n {
		domain := fmt.Sprintf("d%d.test", i)
		r.dns.AddAddr(domain, fmt.Sprintf("198.51.100.%d", i%250+1))
		to = append(to, fmt.Sprintf("%s%d@%s", local, i, domain))
	}
	return to
}

// TestOneReportForOneMessage: recipients of one message that are refused at about
// the same time are in one report, which goes when nothing of the message is under
// way.
func TestOneReportForOneMessage(t *testing.T) {
	inBubble(t, func(r *rig) {
		const n = 300
		r.gathers(10*time.Second, destination.Rate{})
		r.start()
		r.send(append(r.manyDomains("no", n), "x@a.test", "later@b.test")...)
		r.wantPutFirst("settle [300]")
		texts, after := r.reports()
		if len(texts) != 1 || after[0] != 0 {
			t.Fatalf("%d reports, %v", len(texts), after)
		}
		for i := range n {
			if !strings.Contains(texts[0], fmt.Sprintf("Final-Recipient: rfc822;no%d@d%d.test\r\n", i, i)) {
				t.Fatalf("no%d is not in the report", i)
			}
		}
		if got := r.logs.FilterMessage("failed").Len(); got != n {
			t.Errorf("%d log lines about %d failures", got, n)
		}
		r.pass(64*time.Second + 128*time.Second) // later@b.test
		if texts, _ := r.reports(); len(texts) != 1 {
			t.Fatalf("%d reports", len(texts))
		}
		r.wantIdle()
	})
}

// TestReportDoesNotWaitForLong: a slow destination delays the report for a bounded
// time, or for as long as it takes if that is less.
func TestReportDoesNotWaitForLong(t *testing.T) {
	for _, tt := range []struct {
		slow time.Duration
		want []time.Duration
	}{
		{3 * time.Second, []time.Duration{3 * time.Second}},
		{9 * time.Second, []time.Duration{9 * time.Second}},
		{time.Minute, []time.Duration{10 * time.Second, time.Minute}},
	} {
		inBubble(t, func(r *rig) {
			r.gathers(10*time.Second, destination.Rate{})
			r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
				if s.to == "no-slow" {
					time.Sleep(tt.slow)
				}
				return byName(ctx, s)
			})
			r.start()
			r.send("no1@a.test", "no2@b.test", "no-slow@c.test")
			r.pass(2 * time.Minute)
			texts, after := r.reports()
			if !slices.Equal(after, tt.want) {
				t.Fatal(after)
			}
			for i, want := range []string{"no1@a.test", "no2@b.test", "no-slow@c.test"} {
				if text := texts[min(i/2, len(texts)-1)]; !strings.Contains(text, want) {
					t.Errorf("no %s in\n%s", want, text)
				}
			}
			r.wantIdle()
		})
	}
}

// TestReportWaitsWhileMoreFail: one report for a message whose recipients fail one
// after the other, unless that takes too long.
func TestReportWaitsWhileMoreFail(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.gathers(10*time.Second, destination.Rate{})
		r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
			var n int
			fmt.Sscanf(s.to, "no%d", &n)
			time.Sleep(time.Duration(n) * 8 * time.Second)
			return byName(ctx, s)
		})
		r.start()
		r.send(r.manyDomains("no", 12)...)
		r.pass(5 * time.Minute)
		if _, after := r.reports(); !slices.Equal(after, []time.Duration{time.Minute, 88 * time.Second}) {
			t.Fatal(after)
		}
		r.wantIdle()
	})
}

// TestTooManyReports: beyond the rate a sender's failures are in one report at the
// end of the period, which names them all; other senders do not feel it.
func TestTooManyReports(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.gathers(10*time.Second, destination.Rate{Count: 5, Per: time.Hour})
		r.start()
		r.pass(7 * time.Minute)
		began := 7 * time.Minute
		var ids []string
		for i := range 20 {
			if i == 10 {
				r.pass(time.Minute)
			}
			ids = append(ids, string(r.send(fmt.Sprintf("no%d@a.test", i), fmt.Sprintf("no-too%d@b.test", i)).ID))
		}
		other := r.envelope("no@a.test")
		other.From = mail.Address{Local: "other", Domain: "from.test"}
		r.sendEnvelope(other)
		if texts, _ := r.reports(); len(texts) != 6 {
			t.Fatalf("%d reports", len(texts))
		}
		if n := r.queue.left(); n != 15 {
			t.Fatalf("%d messages wait", n)
		}
		if w := r.out.Explain(mail.ID(ids[19])); len(w) != 2 || len(w[0].Recipients) != 1 || w[0].Domain != "a.test" || w[0].Attempts != 1 || !strings.Contains(w[0].Reason, "its report waits") {
			t.Fatalf("%+v", w)
		}
		r.queue.takeOps()
		r.pass(59*time.Minute - 1)
		r.wantOps()
		r.pass(1)
		r.wantPutFirst()
		texts, after := r.reports()
		if len(texts) != 1 || after[0] != began+time.Hour {
			t.Fatalf("%d reports, %v", len(texts), after)
		}
		for i := 5; i < 20; i++ {
			for _, want := range []string{fmt.Sprintf("Final-Recipient: rfc822;no%d@a.test\r\n", i), fmt.Sprintf("Final-Recipient: rfc822;no-too%d@b.test\r\n", i), "X-Tarishi-Queue-Id: " + ids[i] + "\r\n"} {
				if !strings.Contains(texts[0], want) {
					t.Errorf("no %q in\n%s", want, texts[0])
				}
			}
			if n := r.logs.FilterMessage("dsn").FilterFieldKey("about").Len(); n != 21 {
				t.Fatalf("%d lines", n)
			}
		}
		r.wantIdle()
		r.send("no@a.test") // another period
		if texts, _ := r.reports(); len(texts) != 1 {
			t.Fatalf("%d reports", len(texts))
		}
	})
}

// TestRestartWhileReportsWait: what failed before a restart is reported when it
// would have been, without another attempt.
func TestRestartWhileReportsWait(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.gathers(10*time.Second, destination.Rate{Count: 2, Per: time.Hour})
		r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
			if s.to == "slow" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return byName(ctx, s)
		})
		r.start()
		r.send("no1@a.test")
		r.send("no2@a.test")
		for i := range 10 {
			r.send(fmt.Sprintf("no-collected%d@a.test", i))
		}
		other := r.envelope("no3@a.test", "no4@b.test", "slow@c.test")
		other.From = mail.Address{Local: "other", Domain: "from.test"}
		r.sendEnvelope(other)
		if texts, _ := r.reports(); len(texts) != 2 {
			t.Fatalf("%d reports", len(texts))
		}
		for range 2 {
			r.stop()
			<-r.ended
			r.queue.takeOps()
			r.start()
		}
		r.pass(10 * time.Second) // until the first report is due
		r.wire.mu.Lock()
		for _, s := range r.wire.seen {
			if strings.HasPrefix(s.to, "no") {
				t.Error("another attempt at", s.to)
			}
		}
		r.wire.mu.Unlock()
		texts, after := r.reports()
		if len(texts) != 1 || after[0] != 10*time.Second || !strings.Contains(texts[0], "no3@a.test") || !strings.Contains(texts[0], "no4@b.test") {
			t.Fatal(len(texts), after)
		}
		r.pass(time.Hour - 10*time.Second)
		texts, after = r.reports()
		if len(texts) != 1 || after[0] != time.Hour {
			t.Fatal(len(texts), after)
		}
		for i := range 10 {
			if !strings.Contains(texts[0], fmt.Sprintf("rfc822;no-collected%d@a.test", i)) {
				t.Errorf("no-collected%d is not in the report", i)
			}
		}
	})
}

// TestReportsThatCannotBeQueued wait, with what they are about, and are not
// answered with other attempts.
func TestReportsThatCannotBeQueued(t *testing.T) {
	for _, flush := range []bool{false, true} {
		reportsThatCannotBeQueued(t, flush)
	}
}

func reportsThatCannotBeQueued(t *testing.T, flush bool) {
	inBubble(t, func(r *rig) {
		r.gathers(10*time.Second, destination.Rate{Count: 1, Per: time.Minute})
		r.start()
		r.send("no1@a.test", "no2@b.test")
		r.send("no3@a.test")
		r.send("no4@a.test", "no5@b.test")
		r.wire.take()
		r.queue.set("put", errDisk)
		r.pass(30 * time.Minute)
		if n := r.queue.left(); n != 2 {
			t.Fatalf("%d messages", n)
		}
		if seen := r.wire.take(); len(seen) != 0 {
			t.Fatal(seen)
		}
		r.queue.takeOps()
		r.out.Flush("")
		r.pass(0)
		r.wantOps("put fails")
		r.queue.set("put", nil)
		if flush {
			r.out.Flush("other.test")
			r.pass(0)
		} else {
			r.pass(attempt.LocalWait)
		}
		r.wantPutFirst()
		if texts, _ := r.reports(); len(texts) != 1 || !strings.Contains(texts[0], "no3@") || !strings.Contains(texts[0], "no4@") || !strings.Contains(texts[0], "no5@") {
			t.Fatal(texts)
		}
		r.wantIdle()
	})
}

// TestUnmarkedFailuresDoNotWait: without a durable mark a failure is reported at
// once, as it was.
func TestUnmarkedFailuresDoNotWait(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.gathers(10*time.Second, destination.Rate{Count: 1, Per: time.Minute})
		r.start()
		r.queue.set("defer", errors.New("no"))
		r.send("no1@a.test", "no2@b.test")
		r.send("no3@a.test")
		if texts, _ := r.reports(); len(texts) != 3 {
			t.Fatalf("%d reports", len(texts))
		}
		r.wantIdle()
	})
}

// TestSettlementsThatCannotBeRecorded are repeated by themselves, as everywhere.
func TestSettlementsThatCannotBeRecorded(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.gathers(10*time.Second, destination.Rate{})
		r.start()
		r.queue.set("settle", errDisk)
		r.send("no1@a.test", "no2@b.test")
		if texts, _ := r.reports(); len(texts) != 1 {
			t.Fatalf("%d reports", len(texts))
		}
		r.queue.set("settle", nil)
		r.pass(attempt.LocalWait)
		if texts, _ := r.reports(); len(texts) != 0 {
			t.Fatalf("%d reports", len(texts))
		}
		r.wantIdle()
	})
}

// TestForgetWhatWaits: a message that was removed is not reported.
func TestForgetWhatWaits(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.gathers(10*time.Second, destination.Rate{Count: 1, Per: time.Minute})
		r.start()
		r.send("no1@a.test")
		gone, kept := r.send("no2@a.test"), r.send("no3@a.test")
		r.wire.take()
		if err := r.queue.Remove(gone.ID); err != nil {
			t.Fatal(err)
		}
		r.out.Forget(gone.ID)
		r.pass(time.Minute)
		texts, _ := r.reports()
		if len(texts) != 1 || strings.Contains(texts[0], "no2@") || !strings.Contains(texts[0], "no3@") || !strings.Contains(texts[0], "X-Tarishi-Queue-Id: "+string(kept.ID)) {
			t.Fatal(texts)
		}
		r.wantIdle()
	})
}

// TestCollectedStaysCollected: what was collected for a sender is one report also
// where it fell due while no process ran, and a flush while the queue is loaded
// does not take it apart.
func TestCollectedStaysCollected(t *testing.T) {
	for _, tt := range []struct {
		name   string
		away   time.Duration
		flush  bool
		within time.Duration // the report is there
	}{
		{"away for long", 3 * time.Hour, false, time.Minute},
		{"flushed while loading", 0, true, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.gathers(10*time.Second, destination.Rate{Count: 1, Per: time.Hour})
				r.start()
				r.send("no@a.test")
				for i := range 50 {
					r.send(fmt.Sprintf("no-collected%d@a.test", i))
				}
				if texts, _ := r.reports(); len(texts) != 1 {
					t.Fatalf("%d reports", len(texts))
				}
				r.stop()
				<-r.ended
				time.Sleep(tt.away)
				slow := make(chan struct{})
				r.queue.mu.Lock()
				r.queue.loading = func() { // the rounds of Run take turns with it
					if tt.flush {
						r.out.Flush("")
					}
					<-slow
				}
				r.queue.mu.Unlock()
				go func() {
					for range 50 {
						time.Sleep(time.Millisecond)
						slow <- struct{}{}
					}
				}()
				r.start()
				r.pass(tt.within)
				texts, _ := r.reports()
				if len(texts) != 1 {
					t.Fatalf("%d reports", len(texts))
				}
				for i := range 50 {
					if !strings.Contains(texts[0], fmt.Sprintf("rfc822;no-collected%d@a.test", i)) {
						t.Errorf("no-collected%d is not in the report", i)
					}
				}
			})
		})
	}
}
