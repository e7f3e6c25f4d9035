package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/store"
	"tarishi/internal/test/smtptest"
)

// TestPutBackIsAskedOnce: a delivery that finds the site of its domain full is
// attempted later, and its hooks are not asked again for that.
func TestPutBackIsAskedOnce(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.dns.AddAddr("mx.test", "192.0.2.9")
		for _, d := range []string{"one.test", "two.test"} {
			r.dns.AddMX(d, 10, "mx.test")
		}
		r.sections(map[string]*destination.Rules{"default": {Concurrency: destination.Range{Low: 1, High: 1}}})
		asked := map[string]int{}
		forced := map[string]bool{}
		for _, p := range []hook.Point{hook.OnSendEmail, hook.OnGetMX} {
			r.regs = append(r.regs, hook.Registration{Point: p, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
				r.queue.mu.Lock()
				defer r.queue.mu.Unlock()
				asked[e.Delivery.Domain()]++
				e.Delivery.SetForceTLS()
				e.Delivery.SetReversePath(mail.Address{Local: "other", Domain: "a.test"})
				return hook.Proceed()
			}})
		}
		r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
			time.Sleep(time.Minute)
			r.queue.mu.Lock()
			defer r.queue.mu.Unlock()
			forced[s.env.Recipients[0].Address.Domain] = s.target.TLS >= smtpclient.TLSEncrypt && s.env.From.String() == "other@a.test"
			return byName(ctx, s)
		})
		r.start()
		r.send("x@one.test")
		r.send("x@two.test")
		r.pass(30 * time.Second)
		if len(r.wire.take()) != 1 || asked["two.test"] != 2 {
			t.Fatal("the second one was to wait", asked)
		}
		r.pass(2 * time.Minute)
		r.wantIdle()
		if asked["one.test"] != 2 || asked["two.test"] != 2 || !forced["two.test"] {
			t.Error(asked, forced)
		}
		if len(r.out.kept) > 0 {
			t.Error("something is kept")
		}
	})
}

// TestNotesAreKept: what plugins leave with a delivery is there at its next
// attempt, and is not seen by the message's other deliveries.
func TestNotesAreKept(t *testing.T) {
	inBubble(t, func(r *rig) {
		seen := map[string][]string{}
		r.regs = append(r.regs, hook.Registration{Point: hook.OnSendEmail, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
			r.queue.mu.Lock()
			defer r.queue.mu.Unlock()
			d := e.Delivery
			seen[d.Domain()] = append(seen[d.Domain()], d.Notes().String("own")+"/"+d.MessageNotes().String("message"))
			if d.Domain() == "a.test" {
				d.Notes().Set("own", d.Notes().String("own")+"o")
				d.MessageNotes().Set("message", d.MessageNotes().String("message")+"m")
			}
			return hook.Proceed()
		}})
		r.start()
		env := r.envelope("later@a.test", "later@b.test")
		env.Notes = mail.Notes{"message": "q"}
		r.sendEnvelope(env)
		r.pass(64 * time.Second)
		r.pass(128 * time.Second)
		if got := strings.Join(seen["a.test"], " "); got != "/q o/qm oo/qmm" {
			t.Error(got)
		}
		if got := strings.Join(seen["b.test"], " "); got != "/q /q /q" {
			t.Error(got)
		}
		if len(r.out.kept) > 0 {
			t.Error("kept after the end")
		}
	})
}

// TestHoldIsTheQueues: what the queue cannot record is not held, and marks go
// with what they are about.
func TestHoldIsTheQueues(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		env := r.send("later@a.test", "later2@a.test")
		r.queue.set("hold", errDisk)
		if err := r.out.Hold(env.ID, nil); err == nil {
			t.Fatal("held without a record")
		}
		r.queue.set("hold", nil)
		if why := r.out.Explain(env.ID); len(why) != 1 || !strings.HasPrefix(why[0].Reason, "due ") {
			t.Fatalf("%+v", why)
		}
		if err := r.out.Hold(env.ID, nil); err != nil {
			t.Fatal(err)
		}
		if why := r.out.Explain(env.ID); len(why) != 1 || why[0].Reason != "held" {
			t.Fatalf("%+v", why)
		}
		r.pass(10 * time.Minute)
		r.queue.set("release", errDisk)
		if err := r.out.Release(env.ID, nil); err == nil || len(r.wire.take()) != 1 {
			t.Fatal("released without a record")
		}
		r.queue.set("release", nil)
		if err := r.out.Release(env.ID, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := r.wire.take(); len(got) != 1 || got[0].to != "later,later2" {
			t.Fatalf("%+v", got)
		}
		if err := r.out.Hold("unknown", nil); err == nil {
			t.Error("an unknown message is held")
		}
	})
}

// TestHoldWhileRunning: the attempt that runs is the last one.
func TestHoldWhileRunning(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
			time.Sleep(time.Minute)
			return byName(ctx, s)
		})
		r.start()
		env := r.send("x@a.test", "later@a.test")
		if err := r.out.Hold(env.ID, nil); err != nil {
			t.Fatal(err)
		}
		r.pass(10 * time.Minute)
		if n := len(r.wire.take()); n != 1 {
			t.Fatalf("%d attempts", n)
		}
		if h := r.out.held[env.ID]; len(h) != 1 || h[1] == nil {
			t.Fatalf("%v", h)
		}
		gone := r.send("x@b.test")
		if err := r.out.Hold(gone.ID, nil); err != nil {
			t.Fatal(err)
		}
		r.pass(10 * time.Minute)
		if r.out.held[gone.ID] != nil {
			t.Error("a mark outlives its message")
		}
	})
}

// TestRequireTLSHoldsNoDSNBack (RFC 8689 section 5).
func TestRequireTLSHoldsNoDSNBack(t *testing.T) {
	noTLS := reply.New(451, "4.7.30", "REQUIRETLS is not offered")
	inBubble(t, func(r *rig) {
		r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
			if s.env.RequireTLS && s.env.From.IsNull() {
				return []*reply.Reply{noTLS}, nil
			}
			return byName(ctx, s)
		})
		r.start()
		env := r.envelope("no@a.test")
		env.RequireTLS, env.Return = true, "FULL"
		r.sendEnvelope(env)
		got := r.wire.take()
		if len(got) != 3 || !got[0].env.RequireTLS || got[1].to != "sender" || got[2].to != "sender" {
			t.Fatalf("%+v", got)
		}
		in, err := got[2].body.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil || strings.Contains(string(b), "body\r\n") || !strings.Contains(string(b), "Subject: hello") {
			t.Errorf("the DSN returns more than the header section: %v %s", err, b)
		}
		r.wantIdle()

		r.wire.set(func(context.Context, attemptSeen) ([]*reply.Reply, error) { return []*reply.Reply{noTLS}, nil })
		env = r.envelope("one@a.test")
		env.RequireTLS = true
		r.sendEnvelope(env)
		if got := r.wire.take(); len(got) != 1 {
			t.Fatalf("a message that is no DSN is tried %d times", len(got))
		}
	})
}

// TestRemoteMTA: who refused is named in the DSN.
func TestRemoteMTA(t *testing.T) {
	for name, tc := range map[string]struct {
		hop  mail.NextHop
		want string
	}{
		"a host":   {mail.NextHop{Host: "mx.test"}, "Remote-MTA: dns; mx.test"},
		"a socket": {mail.NextHop{Path: "/run/lmtp", Protocol: mail.LMTP}, "Remote-MTA: dns; me.test"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.dns.AddAddr("mx.test", "192.0.2.9")
				r.on(hook.OnGetMX, hook.Verdict{Code: hook.OK, MX: []mail.NextHop{tc.hop}})
				failed := r.on(hook.OnBounce, hook.Proceed())
				r.start()
				env := r.send("no@a.test")
				if len(*failed) != 1 || !strings.HasSuffix(tc.want, " "+(*failed)[0].Failed[0].Host) {
					t.Errorf("%+v", *failed)
				}
				r.wantReport(tc.want)
				if err := r.out.Report(env, mail.Memory{[]byte("a: b\r\n\r\n")}, []hook.RecipientResult{{Recipient: env.Recipients[0], Reply: no, Host: "backend.test"}}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				r.wantReport("Remote-MTA: dns; backend.test")
			})
		})
	}
}

// wantReport expects text in the last DSN that was sent.
func (r *rig) wantReport(text string) {
	r.t.Helper()
	seen := r.wire.take()
	last := seen[len(seen)-1]
	in, err := last.body.Open()
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := io.ReadAll(in)
	if err != nil || last.from != "" || !strings.Contains(string(b), text) {
		r.t.Errorf("no %q in the DSN from %q: %v %s", text, last.from, err, b)
	}
}

// lateRelease is a queue in which a recipient is released after Adopt has read that
// it is held.
type lateRelease struct {
	*memoryQueue
	release func(mail.ID)
}

func (q *lateRelease) Adopt(fn func(mail.Pending) bool) int {
	return q.memoryQueue.Adopt(func(p mail.Pending) bool {
		q.release(p.ID)
		return fn(p)
	})
}

func TestReleaseWhileLoading(t *testing.T) {
	inBubble(t, func(r *rig) {
		env := r.envelope("one@a.test", "two@a.test")
		r.put(env)
		if err := r.queue.Hold(env.ID, nil); err != nil {
			t.Fatal(err)
		}
		r.o.Queue = &lateRelease{r.queue, func(id mail.ID) {
			if err := r.out.Release(id, []int{0}); err != nil {
				t.Error(err)
			}
		}}
		r.start()
		if got := r.wire.take(); len(got) != 1 || got[0].to != "one" {
			t.Fatalf("%+v", got)
		}
		if why := r.out.Explain(env.ID); len(why) != 1 || why[0].Reason != "held" || why[0].Recipients[0] != 1 {
			t.Errorf("%+v", why)
		}
	})
}

// TestDSNIsShown: plugins can sign a DSN, and do nothing else to it.
func TestDSNIsShown(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.regs = append(r.regs, hook.Registration{Point: hook.OnPreSendTransEmail, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
			if !e.Tx.From().IsNull() || e.Tx.Header().Get("Auto-Submitted") == "" {
				t.Errorf("%+v", e.Tx)
			}
			e.Tx.Header().AddLeading("X-Signed", "yes")
			e.Tx.SetFrom(sender)
			e.Tx.SetRecipients([]mail.Recipient{{Address: mail.Address{Local: "other", Domain: "from.test"}}})
			return hook.Answer(hook.Deny, "no")
		}})
		r.start()
		r.send("no@a.test")
		got := r.wire.take()
		if len(got) != 2 || got[1].from != "" || got[1].to != "sender" {
			t.Fatalf("%+v", got)
		}
		in, err := got[1].body.Open()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(in); err != nil || !strings.HasPrefix(string(b), "X-Signed: yes\r\n") || strings.Count(string(b), "Auto-Submitted:") != 1 {
			t.Errorf("%v %s", err, b)
		}
	})
}

// TestRemovedWhileRunning: what is taken out of the queue during its attempt
// leaves nothing behind, however the attempt ends.
func TestRemovedWhileRunning(t *testing.T) {
	for _, local := range []string{"later", "no", "yes"} {
		t.Run(local, func(t *testing.T) {
			begun, proceed := make(chan struct{}), make(chan struct{})
			server := smtptest.New(t, smtptest.On(smtptest.Rcpt, func(e smtptest.Event) smtptest.Action {
				if strings.HasPrefix(e.Address, "sender") {
					return smtptest.Reply("250 2.0.0 ok")
				}
				close(begun)
				<-proceed
				return smtptest.Reply(map[string]string{"later": "450 4.2.0 later", "no": "550 5.1.1 no", "yes": "250 2.0.0 ok"}[local])
			}))
			w := startWhole(t, t.TempDir(), server.Port())
			defer w.stop()
			w.send(t, local+"@a.test")
			<-begun
			var id mail.ID
			w.queue.Walk(func(p mail.Pending) bool { id = p.ID; return false })
			if err := w.queue.Remove(id); err != nil {
				t.Fatal(err)
			}
			w.Forget(id)
			if err := w.Hold(id, nil); !errors.Is(err, store.ErrUnknown) {
				t.Error(err)
			}
			close(proceed)
			for end := time.Now().Add(time.Minute); w.Stat().Waiting+w.Stat().Ready+w.Stat().Running > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%+v", w.Stat())
				}
			}
			if s := w.queue.Stat(); s.Messages != 0 || len(w.held) > 0 || len(w.kept) > 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestFlushEndsSuspension: a flush has a destination probed at once, and if it
// is back all its mail goes.
func TestFlushEndsSuspension(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.wire.set(refused)
		r.start()
		for range 5 {
			r.send("x@a.test")
		}
		if n := len(r.wire.take()); n != 1 {
			t.Fatalf("%d attempts", n)
		}
		r.pass(time.Second)
		r.wire.set(byName)
		if n := r.out.Flush("A.test"); n != 1 { // the others are ready
			t.Errorf("%d became due", n)
		}
		synctest.Wait()
		if n := len(r.wire.take()); n != 5 {
			t.Errorf("%d of 5 are sent", n)
		}
		r.wantIdle()
	})
}

// TestLifetimeOfTheMX: what a section for mail exchangers says about the lifetime
// holds although nothing was attempted since the start.
func TestLifetimeOfTheMX(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.dns.AddAddr("mx.test", "192.0.2.9")
		r.dns.AddMX("one.test", 10, "mx.test")
		r.o.MaxLifetime = time.Hour
		r.sections(map[string]*destination.Rules{"mx:mx.test": {MaxLifetime: 4 * time.Hour}})
		r.o.Disabled = true
		kept, gone := r.envelope("x@one.test"), r.envelope("x@a.test")
		for _, env := range []*mail.Envelope{kept, gone} {
			env.From, env.Received = mail.Address{}, time.Now().Add(-2*time.Hour)
			r.put(env)
		}
		r.start()
		r.pass(time.Hour)
		if r.queue.holds(gone) || !r.queue.holds(kept) {
			t.Fatal("given up by the wrong lifetime")
		}
		r.disable(false)
		r.pass(10 * time.Minute)
		if got := r.wire.take(); len(got) != 1 || got[0].to != "x" {
			t.Errorf("%+v", got)
		}
		r.wantIdle()
	})
}

// TestWarningOfTheMX: the same about delay_warning.
func TestWarningOfTheMX(t *testing.T) {
	inBubble(t, func(r *rig) {
		for i, d := range []string{"never.test", "later.test"} {
			r.dns.AddAddr("mx."+d, fmt.Sprintf("192.0.2.%d", 50+i))
			r.dns.AddMX(d, 10, "mx."+d)
		}
		r.sections(map[string]*destination.Rules{"mx:mx.never.test": {DelayWarning: -1}, "mx:mx.later.test": {DelayWarning: 3 * time.Hour}})
		r.o.DelayWarning = time.Hour
		r.o.Disabled = true
		r.start()
		never, later, usual := r.send("x@never.test"), r.send("x@later.test"), r.send("x@a.test")
		about := func() (ids []any) {
			for _, e := range r.logs.TakeAll() {
				if e.Message == "dsn" {
					ids = append(ids, e.ContextMap()["about"])
				}
			}
			return ids
		}
		r.pass(2 * time.Hour)
		if got := about(); len(got) != 1 || got[0] != string(usual.ID) {
			t.Errorf("told of %v, not of %s", got, usual.ID)
		}
		r.pass(2 * time.Hour)
		if got := about(); len(got) != 1 || got[0] != string(later.ID) {
			t.Errorf("told of %v, not of %s, and never of %s", got, later.ID, never.ID)
		}
	})
}

// TestDebtsWaitForNobody: what is done with is recorded when the queue can do
// that again, whatever else its destination waits for.
func TestDebtsWaitForNobody(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.queue.set("settle", errDisk)
		r.start()
		one, two := r.send("x@a.test"), r.send("x@b.test")
		r.disable(true)
		if why := r.out.Explain(one.ID); len(why) != 1 || !strings.HasPrefix(why[0].Reason, "done with") {
			t.Errorf("%+v", why)
		}
		r.pass(attempt.LocalWait + time.Second) // still not
		if !r.queue.holds(one) {
			t.Fatal("recorded by a queue that cannot")
		}
		r.queue.set("settle", nil)
		r.pass(attempt.LocalWait)
		if r.queue.holds(one) || len(r.wire.take()) != 2 {
			t.Error("not recorded, or delivered again")
		}
		r.queue.set("settle", errDisk)
		r.disable(false)
		three := r.send("x@c.test")
		r.queue.set("settle", nil)
		r.stop()
		<-r.ended
		if r.queue.holds(two) || r.queue.holds(three) {
			t.Error("not recorded at the end")
		}
	})
}
