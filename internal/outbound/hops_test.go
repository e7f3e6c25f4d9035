package outbound

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/outbound/policy"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// routed registers a get_mx that sends mail for local parts with a prefix to
// hops. It returns how often it was asked about such mail.
func (r *rig) routed(prefix string, hops ...mail.NextHop) *int {
	asked := new(int)
	r.regs = append(r.regs, hook.Registration{Point: hook.OnGetMX, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
		if !strings.HasPrefix(e.Delivery.Recipients()[0].Address.Local, prefix) {
			return hook.Proceed()
		}
		r.queue.mu.Lock()
		defer r.queue.mu.Unlock()
		*asked++
		return hook.Verdict{Code: hook.OK, MX: hops}
	}})
	return asked
}

// TestSlowHop has a plugin route the mail of many domains to one slow host: it
// takes no more places than its connections need, and other mail finds one.
func TestSlowHop(t *testing.T) {
	for _, tt := range []struct{ connections, most int }{{0, policy.StartConcurrency}, {1, 1}} {
		inBubble(t, func(r *rig) {
			r.o.ConcurrencyMax, r.o.PoolConcurrencyMax = 20, 5
			hop := mail.NextHop{Host: "192.0.2.99"}
			if tt.connections > 0 {
				hop.Limits = mail.Limits{Connections: tt.connections}
			}
			asked := r.routed("slow", hop)
			r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
				if strings.HasPrefix(s.to, "slow") {
					time.Sleep(time.Minute)
				}
				return byName(ctx, s)
			})
			r.start()
			const n = 40
			for i := range n {
				r.send(fmt.Sprintf("slow@x%d.test", i))
			}
			if got := len(r.wire.take()); got != tt.most {
				t.Errorf("%d attempts at a time, want %d", got, tt.most)
			}
			r.send("x@a.test")
			r.wantSent("0s sender@from.test>x 192.0.2.1:25")
			r.pass(n * time.Minute)
			r.queue.fence()
			there := tt.most
			for _, s := range r.wire.take() {
				if strings.HasPrefix(s.addr, "192.0.2.99") {
					there++
				}
			}
			if there != n {
				t.Errorf("%d of %d messages went to the host", there, n)
			}
			if *asked != n {
				t.Errorf("asked %d times about %d messages", *asked, n)
			}
			r.wantIdle()
		})
	}
}

// TestDeadHop has a plugin route some mail of a domain to a host that is down:
// that mail burns no attempts, and the rest of the domain's does not notice.
func TestDeadHop(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.PoolConcurrencyMax = 2
		r.routed("tenant", mail.NextHop{Host: "192.0.2.99"})
		r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
			if strings.HasPrefix(s.addr, "192.0.2.99") {
				return refused(ctx, s)
			}
			return byName(ctx, s)
		})
		r.start()
		for i := range 20 {
			r.send(fmt.Sprintf("tenant%d@a.test", i))
		}
		if got := len(r.wire.take()); got > 2 {
			t.Errorf("%d attempts at a host that is down", got)
		}
		r.send("x@a.test")
		r.wantSent("0s sender@from.test>x 192.0.2.1:25")
		r.wire.set(byName)
		r.pass(2 * time.Minute)
		if got := len(r.wire.take()); got != 20 {
			t.Errorf("%d of 20 messages went when the host was back", got)
		}
		r.wantIdle()
	})
}

// TestRateOfARoutedDomain holds that the section of a domain limits all mail for
// it, whatever way it goes.
func TestRateOfARoutedDomain(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.TempFailIntervals = slices.Repeat([]time.Duration{time.Minute}, 20)
		r.sections(map[string]*destination.Rules{"a.test": {Rate: destination.Rate{Count: 1, Per: time.Minute}}})
		r.routed("later", mail.NextHop{Host: "192.0.2.99"})
		r.start()
		r.send("later@a.test")
		for i := range 5 {
			r.send(fmt.Sprintf("x%d@a.test", i))
		}
		r.pass(10*time.Minute + time.Second)
		seen := r.wire.take()
		for i, s := range seen {
			if s.after != time.Duration(i)*time.Minute {
				t.Errorf("%s after %v", s.to, s.after)
			}
		}
		if len(seen) != 11 {
			t.Errorf("%d attempts", len(seen))
		}
	})
}

// TestFaultOfThisHostSuspendsNothing has a destination be given an outbound
// address that is not there, and then one that is: nothing was learned of it.
func TestFaultOfThisHostSuspendsNothing(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.wire.set(func(context.Context, attemptSeen) ([]*reply.Reply, error) {
			return nil, &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: os.NewSyscallError("socket", syscall.EMFILE)}
		})
		r.start()
		r.send("x@a.test")
		if d := r.out.Destinations(1); len(d) != 1 || !d[0].SuspendedUntil.IsZero() || d[0].Waiting != 1 || !strings.Contains(d[0].LastError, "No socket") {
			t.Errorf("%+v", d)
		}
		r.wire.set(byName)
		r.wire.take()
		r.send("y@a.test")
		r.wantSent("0s sender@from.test>y 192.0.2.1:25")
	})
}
