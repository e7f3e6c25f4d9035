package outbound

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// TestNumFailures: hook deferred counts the deferral that it is about, bounce the
// one too many; what was refused or delivered at once has none.
func TestNumFailures(t *testing.T) {
	inBubble(t, func(r *rig) {
		deferred, bounce, delivered := r.on(hook.OnDeferred, hook.Proceed()), r.on(hook.OnBounce, hook.Proceed()), r.on(hook.OnDelivered, hook.Proceed())
		sent := r.on(hook.OnSendEmail, hook.Proceed())
		r.start()
		r.send("later@a.test")
		r.pass(64*time.Second + 128*time.Second)
		counts := func(events *[]hook.Event, domain string) (n []int) {
			for _, e := range *events {
				if e.Delivery.Domain() == domain {
					n = append(n, e.Delivery.Attempts())
				}
			}
			return n
		}
		if got := counts(deferred, "a.test"); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("deferred %v", got)
		}
		if got := counts(bounce, "a.test"); !slices.Equal(got, []int{3}) {
			t.Errorf("bounce %v", got)
		}
		if got := counts(sent, "a.test"); !slices.Equal(got, []int{0, 1, 2}) {
			t.Errorf("send_email %v", got)
		}
		r.send("no@b.test", "x@b.test")
		if got := append(counts(bounce, "b.test"), counts(delivered, "b.test")...); !slices.Equal(got, []int{0, 0}) {
			t.Errorf("refused and delivered at once %v", got)
		}
	})
}

// TestBounceTellsThemApart has one recipient refused and one deferred for the last
// time in the same attempt.
func TestBounceTellsThemApart(t *testing.T) {
	inBubble(t, func(r *rig) {
		bounce := r.on(hook.OnBounce, hook.Proceed())
		r.o.TempFailIntervals = []time.Duration{}
		r.start()
		r.send("later@a.test", "no@a.test", "x@a.test")
		e := (*bounce)[0]
		if len(e.Failed) != 2 || len(e.Deferred) != 1 || len(e.Bounced) != 1 || e.Deferred[0].Recipient.Address.Local != "later" ||
			e.Deferred[0].Reply != later || e.Bounced[0].Recipient.Address.Local != "no" || e.Bounced[0].Reply != no {
			t.Fatalf("%+v", e)
		}
	})
}

// TestPriorityOfHops: what get_mx gives is tried by its priority, and otherwise in
// the order in which it was given.
func TestPriorityOfHops(t *testing.T) {
	for name, tt := range map[string]struct {
		hops []mail.NextHop
		text string
		want []string
	}{
		"priorities": {hops: []mail.NextHop{{Host: "192.0.2.3", Priority: 30}, {Host: "192.0.2.1", Priority: 10}, {Host: "192.0.2.2", Priority: 20}}, want: []string{"1", "2", "3"}},
		"none":       {hops: []mail.NextHop{{Host: "192.0.2.3"}, {Host: "192.0.2.1"}, {Host: "192.0.2.2"}}, want: []string{"3", "1", "2"}},
		"equal ones": {hops: []mail.NextHop{{Host: "192.0.2.3", Priority: 5}, {Host: "192.0.2.2"}, {Host: "192.0.2.1", Priority: 5}}, want: []string{"2", "3", "1"}},
		"text":       {text: "192.0.2.3, 192.0.2.1", want: []string{"3", "1"}},
	} {
		inBubble(t, func(r *rig) {
			r.regs = append(r.regs, hook.Registration{Point: hook.OnGetMX, Plugin: "test", Handler: func(context.Context, *hook.Event) hook.Verdict {
				return hook.Verdict{Code: hook.OK, MX: tt.hops, Text: tt.text}
			}})
			r.wire.set(func(context.Context, attemptSeen) ([]*reply.Reply, error) {
				return nil, &smtpclient.Failure{Stage: smtpclient.StageConnect, Fresh: true, Err: errors.New("refused")}
			})
			r.start()
			r.send("x@a.test")
			var got []string
			for _, s := range r.wire.take() {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(s.addr, "192.0.2."), ":25"))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%s: %v, want %v", name, got, tt.want)
			}
		})
	}
}

// TestBadHeloOfHop: a plugin's bind_helo that cannot be said costs one line, not
// the delivery.
func TestBadHeloOfHop(t *testing.T) {
	for helo, want := range map[string]string{"not a name": "", "ok.test": "ok.test", "[192.0.2.7]": "[192.0.2.7]", "bücher.test": "xn--bcher-kva.test"} {
		inBubble(t, func(r *rig) {
			r.routed("x", mail.NextHop{Host: "192.0.2.99", Helo: helo})
			r.start()
			r.send("x@a.test")
			seen := r.wantSent("0s sender@from.test>x 192.0.2.99:25")
			lines := r.logs.FilterMessage("get_mx: bind_helo is passed over: it is no host name or address literal").Len()
			if got := seen[0].target.Helo; got != want && want != "" || want == "" && got != "me.test" || lines != map[bool]int{true: 1}[want == ""] {
				t.Errorf("%q: %q, %d lines", helo, got, lines)
			}
			r.wantIdle()
		})
	}
}

// TestImportedToNowhere: a message from Haraka's queue whose domain does not exist
// is deferred once, also if it has been deferred as often as may be and across a
// restart; another message fails at once.
func TestImportedToNowhere(t *testing.T) {
	for _, attempts := range []int{0, len(interval)} {
		inBubble(t, func(r *rig) {
			r.start()
			r.send("x@nowhere.test")
			if ops := r.queue.takeOps(); len(ops) != 3 || ops[0] != "put <>" {
				t.Fatal(ops)
			}
			env := r.envelope("x@nowhere.test")
			env.Notes = mail.Notes{mail.ImportedNotes: map[string]any{"file": "1_2_0_3_a"}}
			p := r.put(env)
			p.Recipients[0].Attempts = attempts
			r.queue.takeOps()
			r.out.Enqueue(p)
			r.pass(0)
			ops := r.queue.takeOps()
			want := fmt.Sprintf("defer [0] attempts %d in 1h0m0s: 451 4.1.2 Nowhere to deliver mail to for domain: nowhere.test", attempts+1)
			if len(ops) != 1 || !strings.HasPrefix(ops[0], want) {
				t.Fatal(ops)
			}
			r.stop()
			<-r.ended
			r.start()
			r.pass(time.Hour)
			if ops := r.queue.takeOps(); len(ops) != 3 || ops[0] != "put <>" || ops[1] != "settle [0]" {
				t.Fatal(ops)
			}
			r.wantIdle()
		})
	}
}
