package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// sections gives the rig destinations, with the rig's own main section.
func (r *rig) sections(all map[string]*destination.Rules) {
	r.o.DelayWarning, r.o.Destinations = -1, all
}

// restart stops the Outbound and starts another one on the same queue.
func (r *rig) restart() {
	r.stop()
	<-r.ended
	r.start()
}

func refused(context.Context, attemptSeen) ([]*reply.Reply, error) {
	return nil, &smtpclient.Failure{Stage: smtpclient.StageConnect, Fresh: true, Err: errors.New("refused")}
}

// toOthers is refused for mail to a.test.
func toOthers(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
	if s.env.Recipients[0].Address.Domain == "a.test" {
		return refused(ctx, s)
	}
	return byName(ctx, s)
}

func TestSuspendedDestinationBurnsNoAttempts(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.wire.set(refused)
		r.o.Random = func() float64 { return 0.5 }
		r.start()
		r.send("one@a.test")
		r.wantOps("defer [0] attempts 1 in 1m4s: 451 4.4.1 Next hop cannot be reached: : connect: refused")
		two := r.send("two@a.test")
		if got := r.wire.take(); len(got) != 1 {
			t.Fatalf("%d attempts at a destination that cannot be reached", len(got))
		}
		r.wantOps()
		why := r.out.Explain(two.ID)
		if len(why) != 1 || why[0].Attempts != 0 || !strings.HasPrefix(why[0].Reason, "a.test could not be reached, next probe") {
			t.Fatalf("%+v", why)
		}
		if d := r.out.Destinations(5); len(d) != 1 || d[0].Domain != "a.test" || d[0].SuspendedUntil.IsZero() || d[0].LastError == "" {
			t.Fatalf("%+v", d)
		}
		if s := r.out.Suspensions(); len(s) != 1 || s["a.test"].Ready != 1 || time.Until(s["a.test"].Until) != 32*time.Second {
			t.Fatalf("%+v", s)
		}
		r.pass(31 * time.Second)
		r.wantSent()
		r.pass(time.Second) // half of the first interval
		r.wantOps("defer [0] attempts 1 in 1m4s: 451 4.4.1 Next hop cannot be reached: : connect: refused")
		r.wire.take()
		r.wire.set(byName)
		r.pass(64 * time.Second)
		if got := r.wire.take(); len(got) == 0 {
			t.Fatal("nobody probes")
		}
		r.pass(64 * time.Second)
		r.wantIdle()
	})
}

// TestSuspensionIsLogged: once when it begins and once when it ends.
func TestSuspensionIsLogged(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.wire.set(refused)
		r.start()
		r.send("one@a.test")
		r.pass(3 * time.Minute) // and probes
		r.wire.set(byName)
		r.pass(time.Hour)
		var got []string
		for _, e := range r.logs.All() {
			if f := e.ContextMap(); strings.HasPrefix(e.Message, "destination ") {
				got = append(got, fmt.Sprint(e.Level, " ", e.Message, " ", f["site"]))
			}
		}
		if want := "[warn destination suspended a.test info destination resumed a.test]"; fmt.Sprint(got) != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// TestWhyNamesTheHost: a delivery that runs tells with which host.
func TestWhyNamesTheHost(t *testing.T) {
	inBubble(t, func(r *rig) {
		proceed := make(chan struct{})
		r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
			<-proceed
			return byName(ctx, s)
		})
		r.start()
		env := r.send("one@a.test")
		why := r.out.Explain(env.ID)
		if len(why) != 1 || why[0].Reason != "running" || why[0].Host != "a.test" {
			t.Errorf("%+v", why)
		}
		close(proceed)
		r.pass(time.Second)
		r.wantIdle()
		if n := len(r.out.running); n != 0 {
			t.Errorf("%d attempts are remembered", n)
		}
	})
}

func TestExpiryUnderSuspension(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.TempFailIntervals, r.o.MaxLifetime = []time.Duration{time.Hour, time.Hour, time.Hour}, 20*time.Minute
		r.wire.set(toOthers)
		r.start()
		r.send("one@a.test")
		r.send("two@a.test")
		r.logs.TakeAll()
		r.pass(20*time.Minute + time.Second)
		r.wantLinesInAnyOrder(
			"deferred [two@a.test] 451 4.4.1 Next hop cannot be reached: : connect: refused", // the probe
			"delivered [sender@from.test] 250 2.0.0 OK", "delivered [sender@from.test] 250 2.0.0 OK",
			"dsn about M1.1 to sender@from.test", "dsn about M2.1 to sender@from.test",
			"failed [one@a.test] 451 4.4.7 Not delivered in time: 451 4.4.1 Next hop cannot be reached",
			"failed [two@a.test] 451 4.4.7 Not delivered in time: 451 4.4.1 Next hop cannot be reached",
		)
		r.wantIdle()
	})
}

func TestDisabledStillExpires(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.MaxLifetime = time.Hour
		r.o.Disabled = true
		r.start()
		env := r.send("one@a.test")
		if why := r.out.Explain(env.ID); len(why) != 1 || why[0].Reason != "delivery is disabled (ready)" {
			t.Fatalf("%+v", why)
		}
		r.pass(time.Hour + 2*time.Second)
		if len(r.wire.take()) > 0 || r.queue.holds(env) {
			t.Fatal("not given up without an attempt")
		}
	})
}

func TestDelayWarning(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.TempFailIntervals = []time.Duration{time.Hour, 2 * time.Hour, 3 * time.Hour, 4 * time.Hour, 5 * time.Hour}
		r.o.Jitter = 20
		r.sections(map[string]*destination.Rules{"b.test": {DelayWarning: -1}})
		r.o.DelayWarning = 150 * time.Minute
		r.start()
		env := r.envelope("later@a.test", "laternever@a.test", "later@b.test")
		env.Recipients[1].Notify = mail.NotifyNever
		r.sendEnvelope(env)
		null := r.envelope("later@c.test")
		null.From = mail.Address{}
		r.sendEnvelope(null)
		r.pass(149 * time.Minute)
		warnings := func() (n int) {
			for _, s := range r.wire.take() {
				if s.from != "" {
					continue
				}
				if to := s.to; to != "sender" {
					continue
				}
				body, _ := s.body.Open()
				text, _ := io.ReadAll(body)
				if strings.Count(string(text), "Action: delayed") != 1 || !strings.Contains(string(text), "later@a.test") || strings.Contains(string(text), "b.test") {
					t.Errorf("%s", text)
				}
				n++
			}
			return n
		}
		if n := warnings(); n != 0 {
			t.Fatal(n, "early")
		}
		r.pass(2 * time.Hour)
		if n := warnings(); n != 1 {
			t.Fatal(n, "warnings")
		}
		r.pass(3 * time.Hour)
		if n := warnings(); n != 0 {
			t.Fatal(n, "more after the next deferral")
		}
		r.restart()
		r.pass(6 * time.Hour)
		if n := warnings(); n != 0 {
			t.Fatal(n, "more after a restart")
		}
		r.wire.set(byName)
	})
}

// TestOneDelayWarningForOneMessage: the first delivery of a message that is late
// warns of all of them.
func TestOneDelayWarningForOneMessage(t *testing.T) {
	inBubble(t, func(r *rig) {
		const n = 50
		r.o.TempFailIntervals = slices.Repeat([]time.Duration{time.Hour}, 20)
		r.o.Jitter = 20
		r.sections(map[string]*destination.Rules{"b.test": {DelayWarning: -1}})
		r.o.DelayWarning = 4 * time.Hour
		r.start()
		to := append(r.manyDomains("later", n), "later-quiet@a.test", "later@b.test", "x@c.test")
		env := r.envelope(to...)
		env.Recipients[n].Notify = mail.NotifyFailure
		r.sendEnvelope(env)
		r.pass(4*time.Hour - time.Second)
		if texts, _ := r.reports(); len(texts) != 0 {
			t.Fatal("early")
		}
		r.pass(4 * time.Hour)
		texts, _ := r.reports()
		if len(texts) != 1 {
			t.Fatalf("%d warnings", len(texts))
		}
		for i, one := range to {
			if named := strings.Contains(texts[0], "rfc822;"+one+"\r\n"); named != (i < n) {
				t.Errorf("%s is in the warning: %v", one, named)
			}
		}
		if got := strings.Count(texts[0], "450 4.2.0 greylisted"); got < n {
			t.Errorf("%d replies", got)
		}
	})
	// Also when none of them can be tried, and all are late at the same moment.
	inBubble(t, func(r *rig) {
		r.sections(nil)
		r.o.DelayWarning = time.Hour
		r.o.Disabled = true
		r.start()
		r.send(r.manyDomains("x", 50)...)
		r.queue.set("put", errDisk)
		r.pass(time.Hour)
		if n := r.logs.FilterMessage("dsn").Len(); n != 0 {
			t.Fatal(n)
		}
		r.queue.set("put", nil)
		r.pass(time.Hour)
		if n := r.logs.FilterMessage("dsn").Len(); n != 1 {
			t.Fatalf("%d warnings", n)
		}
	})
}

func TestDelayWarningWhileNothingIsTried(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.TempFailIntervals = []time.Duration{8 * time.Hour}
		r.sections(nil)
		r.o.DelayWarning = 10 * time.Minute
		r.wire.set(toOthers)
		r.start()
		r.send("one@a.test")
		r.send("two@a.test")
		r.logs.TakeAll()
		r.pass(10*time.Minute + time.Second)
		r.wantLinesInAnyOrder("delivered [sender@from.test] 250 2.0.0 OK", "dsn about M2.1 to sender@from.test")
		if s := r.out.Stat(); s.Ready+s.Waiting != 2 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestSections(t *testing.T) {
	inBubble(t, func(r *rig) {
		one, two := netip.MustParseAddr("192.0.2.101"), netip.MustParseAddr("192.0.2.102")
		r.sections(map[string]*destination.Rules{
			"a.test": {
				TempFailIntervals: []time.Duration{7 * time.Second}, MaxMessages: 3, TLS: mail.TLSEncrypt, Concurrency: destination.Range{Low: 4, High: 4},
				Sources: []destination.Source{{Bind: one, Helo: "one.test", Weight: 3}, {Bind: two, Helo: "two.test", Weight: 1}},
			},
			"b.test": {Hosts: []mail.NextHop{{Host: "192.0.2.77", Port: 2525, AuthUser: "u", AuthPass: "p", AuthRequired: true}}},
		})
		r.o.Random = func() float64 { return 0.8 }
		r.start()
		r.send("later@a.test")
		r.wantOps("defer [0] attempts 1 in 7s: 450 4.2.0 greylisted")
		seen := r.wire.take()
		if got := seen[0].target; got.Bind != two || got.Helo != "two.test" || got.MaxMessages != 3 || got.MaxConnections != 4 || got.TLS != smtpclient.TLSEncrypt {
			t.Errorf("%+v", got)
		}
		noted := r.envelope("x@a.test")
		noted.Notes = mail.Notes{"outbound_ip": one.String()}
		r.sendEnvelope(noted)
		if got := r.wire.take()[0].target; got.Bind != one || got.Helo != "one.test" {
			t.Errorf("%v %v", got.Bind, got.Helo)
		}
		r.send("x@b.test")
		if got := r.wire.take()[0]; got.addr != "192.0.2.77:2525" || got.target.AuthUser != "u" || !got.target.AuthRequired {
			t.Errorf("%+v", got.target)
		}
	})
}

// TestSharedSite: domains with the same MX share its limits, by section and
// without.
func TestSharedSite(t *testing.T) {
	for name, sections := range map[string]map[string]*destination.Rules{
		"mx":    {"mx:*.shared.test": {Concurrency: destination.Range{Low: 2, High: 2}}},
		"apart": {"mx:*.shared.test": {Concurrency: destination.Range{Low: 2, High: 2}}, "x1.test": {Concurrency: destination.Range{Low: 5, High: 5}}},
	} {
		inBubble(t, func(r *rig) {
			r.sections(sections)
			r.dns.AddAddr("mx.shared.test", "192.0.2.9")
			for i := range 4 {
				r.dns.AddMX(fmt.Sprintf("x%d.test", i), 10, "mx.shared.test")
			}
			running, most := 0, 0
			r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
				r.wire.mu.Lock()
				running++
				most = max(most, running)
				r.wire.mu.Unlock()
				time.Sleep(time.Second)
				r.wire.mu.Lock()
				running--
				r.wire.mu.Unlock()
				return byName(ctx, s)
			})
			r.start()
			for i := range 20 {
				env := r.envelope(fmt.Sprintf("u%d@x%d.test", i, i%4))
				r.out.Enqueue(r.put(env))
			}
			r.pass(time.Minute)
			want := map[string]int{"mx": 2, "apart": 7}[name]
			if r.wire.mu.Lock(); most != want && (name == "mx" || most < 3) {
				t.Errorf("%s: %d at a time, want %d", name, most, want)
			}
			r.wire.mu.Unlock()
			r.wantIdle()
		})
	}
}

func TestHold(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		env := r.send("later@a.test", "laternot@a.test")
		r.out.Hold(env.ID, []int{1})
		r.out.Hold(env.ID, []int{1})
		r.wire.take()
		r.pass(64 * time.Second)
		if got := r.wire.take(); len(got) != 1 || got[0].to != "later" {
			t.Fatalf("%+v", got)
		}
		held := 0
		for _, w := range r.out.Explain(env.ID) {
			if w.Reason == "held" && w.Recipients[0] == 1 && w.Attempts == 1 {
				held++
			}
		}
		if held != 1 {
			t.Fatalf("%+v", r.out.Explain(env.ID))
		}
		r.wire.set(func(context.Context, attemptSeen) ([]*reply.Reply, error) { return []*reply.Reply{ok}, nil })
		r.pass(10 * 24 * time.Hour)
		r.wire.take()
		r.queue.takeOps()
		r.out.Release(env.ID, []int{0, 1})
		synctest.Wait()
		if got := r.wire.take(); len(got) != 1 || got[0].to != "laternot" {
			t.Fatalf("%+v", got)
		}
		r.wantOps("settle [1]")
		r.wantIdle()
		if len(r.out.held) > 0 {
			t.Error("not forgotten")
		}
	})
}

func TestHeldAtStartAndForget(t *testing.T) {
	inBubble(t, func(r *rig) {
		env := r.envelope("one@a.test", "two@a.test")
		r.put(env)
		if err := r.queue.Hold(env.ID, []int{0}); err != nil {
			t.Fatal(err)
		}
		r.start()
		if got := r.wire.take(); len(got) != 1 || got[0].to != "two" {
			t.Fatalf("%+v", got)
		}
		r.out.Forget(env.ID)
		r.out.Release(env.ID, []int{0})
		gone := r.send("later@b.test")
		r.out.Forget(gone.ID, "other")
		if s := r.out.Stat(); s.Waiting+s.Ready+s.Running != 0 || len(r.out.Explain(gone.ID)) != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestGetMXAsText(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.50":                     "192.0.2.50:25",
		"192.0.2.50:2525":                "192.0.2.50:2525",
		"::1":                            "[::1]:25",
		"[::1]:26":                       "[::1]:26",
		"lmtp://192.0.2.50":              "192.0.2.50:24",
		"smtp://u:p@192.0.2.51:587, x.y": "192.0.2.51:587",
		"ftp://x":                        "",
		"a b:c":                          "",
	} {
		inBubble(t, func(r *rig) {
			r.on(hook.OnGetMX, hook.Verdict{Code: hook.OK, Text: text})
			r.start()
			r.send("x@a.test")
			seen := r.wire.take()
			switch {
			case want == "":
				if ops := r.queue.takeOps(); len(ops) != 1 || !strings.HasPrefix(ops[0], "defer [0] attempts 1 in 1m4s: 451 4.3.5 No MX for a.test: not a next hop") {
					t.Error(ops)
				}
			case len(seen) != 1 || seen[0].addr != want:
				t.Errorf("%q: %+v", text, seen)
			}
		})
	}
}

func TestWhatHooksMayDo(t *testing.T) {
	inBubble(t, func(r *rig) {
		var paths []string
		var counts []any
		r.regs = append(r.regs, hook.Registration{Point: hook.OnSendEmail, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
			path, err := e.Delivery.Path()
			if err != nil || !strings.HasSuffix(path, e.Delivery.Filename()) {
				t.Error(path, err)
			}
			paths = append(paths, path)
			counts = append(counts, e.Delivery.Notes().Get("n"))
			e.Delivery.Notes().Set("n", len(paths))
			e.Delivery.SetForceTLS()
			return hook.Proceed()
		}})
		r.start()
		r.send("later@a.test")
		if got := r.wire.take()[0].target.TLS; got != smtpclient.TLSEncrypt {
			t.Error("force_tls gives", got)
		}
		r.pass(64 * time.Second)
		r.queue.fence()
		if len(paths) != 2 || counts[0] != nil || counts[1] != 1 {
			t.Error(paths, counts)
		}
	})
}

// TestReversePath: an attempt may say another sender than the message has, and its report
// goes to the message's.
func TestReversePath(t *testing.T) {
	inBubble(t, func(r *rig) {
		var seen []string
		r.regs = append(r.regs, hook.Registration{Point: hook.OnSendEmail, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
			seen = append(seen, e.Delivery.From().String())
			if !e.Delivery.From().IsNull() {
				e.Delivery.SetReversePath(mail.Address{Local: "other", Domain: "a.test"})
			}
			return hook.Proceed()
		}})
		r.start()
		sent := r.send("later@b.test", "no@b.test")
		r.pass(time.Second)
		attempts := r.wire.take()
		if len(attempts) != 2 || attempts[0].env.From.String() != "other@a.test" {
			t.Fatalf("%+v", attempts)
		}
		if report := attempts[1].env; !report.From.IsNull() || report.Recipients[0].Address != sent.From {
			t.Errorf("%+v", report)
		}
		r.pass(64 * time.Second)
		if again := r.wire.take(); len(again) != 1 || again[0].env.From.String() != "other@a.test" || seen[len(seen)-1] != sent.From.String() {
			t.Errorf("%+v, %v", again, seen)
		}
	})
}

func TestCounts(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		r.send("no@a.test")
		null := r.envelope("no@b.test")
		null.From = mail.Address{}
		r.sendEnvelope(null)
		late := r.envelope("no@c.test")
		p := r.put(late)
		r.queue.set("put", errDisk)
		r.out.Enqueue(p)
		synctest.Wait()
		if got := r.out.Counts(); got != (Counts{DSN: 1, DSNFailed: 1, Double: 1}) {
			t.Errorf("%+v", got)
		}
	})
}
