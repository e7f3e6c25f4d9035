package hook

import (
	"context"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/result"
)

// script builds handlers that note their plugin's name when they run.
type script struct{ ran []string }

func (s *script) on(p Point, plugin string, v Verdict) Registration {
	return Registration{Point: p, Plugin: plugin, Function: "hook", Handler: func(context.Context, *Event) Verdict {
		s.ran = append(s.ran, plugin)
		return v
	}}
}

func timed(r Registration, d time.Duration) Registration { r.Timeout = d; return r }

func at(r Registration, priority int) Registration { r.Priority = priority; return r }

func transaction() *Transaction {
	t := &Transaction{Results: new(result.Store)}
	t.ID, t.Notes = "A.1", mail.Notes{}
	return t
}

func TestChainRun(t *testing.T) {
	answer := func(c Code) Verdict { return Answer(c, c.String()) }
	for _, tc := range []struct {
		name  string
		point Point
		a, b  Verdict // of the first two handlers; a third says Cont "last"
		deny  Verdict // zero: no deny handler
		want  Verdict
		ran   string
	}{
		{"all go on", OnMail, Proceed(), Verdict{}, Verdict{}, Verdict{Code: Cont, Text: "last"}, "a b c"},
		{"text of an earlier Cont is dropped", OnMail, Answer(Cont, "x"), Proceed(), Verdict{}, Verdict{Code: Cont, Text: "last"}, "a b c"},
		{"OK ends", OnRcpt, answer(OK), Proceed(), Verdict{}, Verdict{Code: OK, Text: "OK", Plugin: "a"}, "a"},
		{"STOP ends", OnRcpt, Proceed(), answer(Stop), Verdict{}, Verdict{Code: Stop, Text: "STOP", Plugin: "b"}, "a b"},
		{"DISCONNECT ends", OnConnect, answer(Drop), Proceed(), Verdict{}, Verdict{Code: Drop, Text: "DISCONNECT", Plugin: "a"}, "a"},
		{"DELAY ends", OnSendEmail, answer(Delay), Proceed(), Verdict{}, Verdict{Code: Delay, Text: "DELAY", Plugin: "a"}, "a"},
		{"unknown code ends", OnMail, Answer(Code(42), "x"), Proceed(), Verdict{}, Verdict{Code: 42, Text: "x", Plugin: "a"}, "a"},
		{"connect_init runs all", OnConnectInit, answer(OK), answer(Deny), Verdict{}, Proceed(), "a b c"},
		{"disconnect runs all", OnDisconnect, answer(DenyDisconnect), answer(OK), Verdict{}, Proceed(), "a b c"},
		{"DENY without deny handler", OnMail, answer(Deny), Proceed(), Verdict{}, Verdict{Code: Deny, Text: "DENY", Plugin: "a"}, "a"},
		{"deny keeps with CONT", OnMail, answer(Deny), Proceed(), answer(Cont), Verdict{Code: Deny, Text: "DENY", Plugin: "a"}, "a deny"},
		{"deny keeps with DENY", OnMail, answer(DenySoft), Proceed(), answer(Deny), Verdict{Code: DenySoft, Text: "DENYSOFT", Plugin: "a"}, "a deny"},
		{"deny drops with OK, the rest runs", OnMail, answer(DenyDisconnect), Proceed(), answer(OK), Verdict{Code: Cont, Text: "last"}, "a deny b c"},
		{"each refusal asks deny", OnMail, answer(DenySoftDisconnect), answer(Deny), answer(OK), Verdict{Code: Cont, Text: "last"}, "a deny b deny c"},
		{"OK does not ask deny", OnMail, answer(OK), Proceed(), answer(OK), Verdict{Code: OK, Text: "OK", Plugin: "a"}, "a"},
		{"init does not ask deny", OnInit, answer(Deny), Proceed(), answer(OK), Verdict{Code: Deny, Text: "DENY", Plugin: "a"}, "a"},
		{"outbound asks deny", OnGetMX, answer(Deny), Proceed(), answer(OK), Verdict{Code: Cont, Text: "last"}, "a deny b c"},
	} {
		for _, timeout := range []time.Duration{0, time.Minute} {
			t.Run(tc.name+"/"+timeout.String(), func(t *testing.T) {
				var s script
				regs := []Registration{
					timed(s.on(tc.point, "a", tc.a), timeout), timed(s.on(tc.point, "b", tc.b), timeout),
					timed(s.on(tc.point, "c", Answer(Cont, "last")), timeout),
				}
				if tc.deny.Code != 0 {
					regs = append(regs, timed(s.on(OnDeny, "deny", tc.deny), timeout))
				}
				got := NewChain(regs, zap.NewNop()).Run(t.Context(), tc.point, &Event{Tx: transaction().View()})
				if !reflect.DeepEqual(got, tc.want) {
					t.Errorf("verdict %+v, want %+v", got, tc.want)
				}
				if ran := strings.Join(s.ran, " "); ran != tc.ran {
					t.Errorf("ran %q, want %q", ran, tc.ran)
				}
			})
		}
	}
}

func TestDenyHandlerSeesTheRefusal(t *testing.T) {
	var seen Event
	refusal := Verdict{Code: Deny, Reply: reply.New(550, "5.7.1", "no")}
	c := NewChain([]Registration{
		{Point: OnRcpt, Plugin: "strict", Handler: func(context.Context, *Event) Verdict { return refusal }},
		{Point: OnDeny, Plugin: "judge", Handler: func(_ context.Context, e *Event) Verdict {
			seen = *e
			return Answer(OK, "let it pass")
		}},
	}, zap.NewNop())
	e := &Event{Tx: transaction().View(), Host: "h"}
	if v := c.Run(t.Context(), OnRcpt, e); v.Code != Cont || v.Text != "let it pass" {
		t.Errorf("verdict %+v, want Cont with the text of the deny handler", v)
	}
	refusal.Plugin = "strict"
	if seen.Point != OnDeny || seen.Host != "h" || seen.Denied == nil || seen.Denied.Point != OnRcpt ||
		!reflect.DeepEqual(seen.Denied.Verdict, refusal) {
		t.Errorf("the deny handler saw %+v, denied %+v", seen, seen.Denied)
	}
	if e.Point != OnRcpt || e.Denied != nil {
		t.Errorf("the event is changed: %+v", e)
	}
}

func TestChainOrder(t *testing.T) {
	var s script
	regs := []Registration{
		at(s.on(OnMail, "second", Proceed()), 0), at(s.on(OnMail, "last", Proceed()), 1000),
		at(s.on(OnMail, "first", Proceed()), -1000), at(s.on(OnMail, "also last", Proceed()), 100),
		at(s.on(OnMail, "third", Proceed()), 0), s.on(OnRcpt, "other", Proceed()),
		at(s.on(OnMail, "also first", Proceed()), -100),
	}
	c := NewChain(regs, zap.NewNop())
	c.Run(t.Context(), OnMail, &Event{})
	want := []string{"first", "also first", "second", "third", "last", "also last"}
	if !slices.Equal(s.ran, want) {
		t.Errorf("ran %q, want %q", s.ran, want)
	}
	order := c.Order(OnMail)
	if len(order) != 6 || order[0].Plugin != "first" || order[0].Priority != MinPriority || order[5].Priority != MaxPriority {
		t.Errorf("order %+v", order)
	}
	order[0].Plugin = "changed"
	if c.Order(OnMail)[0].Plugin != "first" {
		t.Error("Order hands out the chain's own list")
	}
	if !c.Has(OnRcpt) || c.Has(OnQuit) || c.Order(OnQuit) != nil {
		t.Error("Has or Order is wrong")
	}
	if regs[1].Priority != 1000 {
		t.Error("NewChain changes its argument")
	}
}

func TestChainWithoutHandlers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v := NewChain(nil, zap.NewNop()).Run(ctx, OnQueue, nil); v.Code != Cont {
		t.Errorf("verdict %+v", v)
	}
}

// TestSenderOfTransaction: handlers at every point of a transaction see its sender.
func TestSenderOfTransaction(t *testing.T) {
	want := mail.Address{Local: "a", Domain: "client.test"}
	for _, p := range []Point{
		OnMail, OnRcpt, OnRcptOK, OnData, OnMaxDataExceeded, OnDataPost, OnQueue, OnQueueOutbound, OnQueueOK,
		OnResetTransaction, OnDeny, OnPreSendTransEmail,
	} {
		for _, timeout := range []time.Duration{0, time.Hour} {
			var got mail.Address
			c := NewChain([]Registration{{Point: p, Plugin: "x", Timeout: timeout, Handler: func(_ context.Context, e *Event) Verdict {
				got = e.Sender
				return Proceed()
			}}}, zap.NewNop())
			tx := transaction()
			tx.From = want
			if c.Run(t.Context(), p, &Event{Tx: tx.View()}); got != want {
				t.Errorf("%s: sender %q, want %q", p, got, want)
			}
		}
	}
}

func TestSkippedPlugins(t *testing.T) {
	for _, list := range []any{[]string{"x", "b"}, []any{"b"}} {
		var s script
		tx := transaction()
		tx.Notes["skip_plugins"] = list
		c := NewChain([]Registration{s.on(OnDataPost, "a", Proceed()), s.on(OnDataPost, "b", Answer(Deny, "")), s.on(OnDataPost, "c", Proceed())}, zap.NewNop())
		if v := c.Run(t.Context(), OnDataPost, &Event{Tx: tx.View()}); v.Code != Cont || strings.Join(s.ran, "") != "ac" {
			t.Errorf("%T: verdict %+v, ran %q", list, v, s.ran)
		}
	}
}

func TestHandlerFails(t *testing.T) {
	panics := func(context.Context, *Event) Verdict { panic("boom") }
	exits := func(context.Context, *Event) Verdict { runtime.Goexit(); return Proceed() }
	hangs := func(ctx context.Context, _ *Event) Verdict { <-ctx.Done(); select {} }
	for _, p := range Points() {
		for _, tc := range []struct {
			name    string
			handler Handler
			timeout time.Duration
			text    string
		}{
			{"panic", panics, 0, textFailed},
			{"panic in goroutine", panics, time.Hour, textFailed},
			{"goexit", exits, time.Hour, textFailed},
			{"timeout", hangs, time.Hour, textTimeout},
		} {
			t.Run(string(p)+"/"+tc.name, func(t *testing.T) {
				if tc.name == "timeout" {
					synctestHang(t, p)
					return
				}
				checkFailure(t, p, tc.text, Registration{Point: p, Plugin: "bad", Timeout: tc.timeout, Handler: tc.handler})
			})
		}
	}
}

// synctestHang lets a handler outlive its hour and answer too late.
func synctestHang(t *testing.T, p Point) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		began := time.Now()
		c := checkFailure(t, p, textTimeout, Registration{Point: p, Plugin: "bad", Timeout: time.Hour, Handler: func(context.Context, *Event) Verdict {
			<-release
			return Answer(OK, "too late")
		}})
		if spent := time.Since(began); spent != time.Hour {
			t.Errorf("gave up after %v", spent)
		}
		limited, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c.Wait(limited)
		if limited.Err() == nil {
			t.Error("Wait returned while the handler ran")
		}
		close(release)
		c.Wait(t.Context())
	})
}

func checkFailure(t *testing.T, p Point, text string, bad Registration) *Chain {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	var s script
	c := NewChain([]Registration{bad, s.on(p, "next", Answer(Cont, "went on"))}, zap.New(core))
	v := c.Run(t.Context(), p, &Event{Tx: transaction().View()})
	goesOn := p.Observes() || p == OnBounce || p == OnDeferred
	switch {
	case goesOn && (v.Code != Cont || len(s.ran) != 1):
		t.Errorf("verdict %+v, ran %q; want the chain to go on", v, s.ran)
	case !goesOn && (v.Code != DenySoft || v.Text != text || v.Plugin != "bad" || len(s.ran) != 0):
		t.Errorf("verdict %+v, ran %q; want DENYSOFT %q", v, s.ran, text)
	}
	if logs.FilterLevelExact(zapcore.ErrorLevel).FilterField(zap.String("plugin", "bad")).Len() != 1 {
		t.Errorf("not logged: %v", logs.All())
	}
	return c
}

func TestLatePanicIsCaught(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.ErrorLevel)
		c := NewChain([]Registration{{Point: OnMail, Plugin: "bad", Timeout: time.Second, Handler: func(context.Context, *Event) Verdict {
			time.Sleep(time.Minute)
			panic("late")
		}}}, zap.New(core))
		if v := c.Run(t.Context(), OnMail, &Event{}); v.Code != DenySoft {
			t.Errorf("verdict %+v", v)
		}
		c.Wait(t.Context())
		if logs.FilterMessage("plugin panicked").Len() != 1 {
			t.Errorf("logs %v", logs.All())
		}
		if timeouts, panics := c.Failures(); timeouts != 1 || panics != 1 {
			t.Errorf("%d timeouts and %d panics counted", timeouts, panics)
		}
	})
}

func TestHandlerContext(t *testing.T) {
	c := NewChain([]Registration{{Point: OnMail, Plugin: "a", Timeout: time.Hour, Handler: func(ctx context.Context, _ *Event) Verdict {
		if d, ok := ctx.Deadline(); !ok || time.Until(d) > time.Hour {
			return Answer(Deny, "no deadline")
		}
		return Proceed()
	}}, {Point: OnMail, Plugin: "b", Handler: func(ctx context.Context, _ *Event) Verdict {
		if _, ok := ctx.Deadline(); ok {
			return Answer(Deny, "a deadline although the timeout is 0")
		}
		return Proceed()
	}}}, zap.NewNop())
	if v := c.Run(t.Context(), OnMail, &Event{}); v.Code != Cont {
		t.Errorf("verdict %+v", v)
	}
}

func TestClientGone(t *testing.T) {
	for _, p := range Points() {
		for _, timeout := range []time.Duration{0, time.Hour} {
			var s script
			ctx, cancel := context.WithCancel(t.Context())
			var alive bool
			first := Registration{Point: p, Plugin: "first", Timeout: timeout, Handler: func(ctx context.Context, _ *Event) Verdict {
				s.ran = append(s.ran, "first")
				cancel() // the client goes while this handler runs
				alive = ctx.Err() == nil
				return Proceed()
			}}
			v := NewChain([]Registration{first, timed(s.on(p, "second", Proceed()), timeout)}, zap.NewNop()).Run(ctx, p, &Event{})
			switch {
			case p == OnResetTransaction || p == OnDisconnect:
				if len(s.ran) != 2 || !alive || v.Code != Cont {
					t.Errorf("%s: ran %q, context alive %v, verdict %+v", p, s.ran, alive, v)
				}
			case p.Observes() || p == OnBounce || p == OnDeferred:
				if len(s.ran) != 1 || v.Code != Cont {
					t.Errorf("%s: ran %q, verdict %+v", p, s.ran, v)
				}
			default:
				if len(s.ran) != 1 || v.Code != DenySoft {
					t.Errorf("%s: ran %q, verdict %+v, want DENYSOFT", p, s.ran, v)
				}
			}
		}
	}
}

// A handler that works on after its client has gone is waited for, so that
// nothing runs beside it.
func TestClientGoneDuringHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var returned atomic.Bool
		c := NewChain([]Registration{{Point: OnQueue, Plugin: "slow", Timeout: time.Hour, Handler: func(ctx context.Context, _ *Event) Verdict {
			<-ctx.Done()
			time.Sleep(time.Minute)
			returned.Store(true)
			return Answer(OK, "taken")
		}}}, zap.NewNop())
		time.AfterFunc(time.Second, cancel)
		if v := c.Run(ctx, OnQueue, &Event{}); v.Code != OK || !returned.Load() {
			t.Errorf("verdict %+v, handler returned %v", v, returned.Load())
		}
	})
}

func TestVerdictsAreLogged(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	var s script
	c := NewChain([]Registration{
		s.on(OnRcpt, "in", Verdict{Code: DenySoft, Reply: reply.New(450, "4.2.1", "busy")}), s.on(OnMail, "ok", Answer(OK, "fine")),
		s.on(OnHelo, "quiet", Proceed()),
	}, zap.New(core))
	a, _ := mail.ParseAddress("to@example.com")
	c.Run(t.Context(), OnRcpt, &Event{Tx: transaction().View(), Recipient: mail.Recipient{Address: a}})
	c.Run(t.Context(), OnMail, &Event{Tx: transaction().View()})
	c.Run(t.Context(), OnHelo, &Event{Tx: transaction().View()})
	if logs.Len() != 2 {
		t.Fatalf("%d lines", logs.Len())
	}
	got, level := logs.All()[0].ContextMap(), logs.All()[0].Level
	want := map[string]any{"uuid": "A.1", "hook": "rcpt", "plugin": "in", "function": "hook", "params": "<to@example.com>", "retval": "DENYSOFT", "msg": "450 4.2.1 busy"}
	if level != zapcore.InfoLevel || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v, want %v", level, got, want)
	}
	if logs.All()[1].Level != zapcore.DebugLevel {
		t.Error("an OK is not at debug")
	}
}

func TestParamsAreShort(t *testing.T) {
	e := &Event{Point: OnQueueOK, Text: strings.Repeat("é", 200)}
	if p := e.params(); len(p) > 100 || !strings.HasPrefix(p, "éé") {
		t.Errorf("%d octets %q", len(p), p)
	}
}

func BenchmarkChain(b *testing.B) {
	for _, bc := range []struct {
		name     string
		handlers int
		timeout  time.Duration
	}{{"empty", 0, 0}, {"3 inline", 3, 0}, {"3 timed", 3, time.Minute}} {
		b.Run(bc.name, func(b *testing.B) {
			var regs []Registration
			for range bc.handlers {
				regs = append(regs, Registration{Point: OnRcpt, Plugin: "p", Timeout: bc.timeout, Handler: func(context.Context, *Event) Verdict { return Proceed() }})
			}
			c := NewChain(regs, zap.NewNop())
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			e := &Event{Tx: transaction().View()}
			b.ReportAllocs()
			for b.Loop() {
				c.Run(ctx, OnRcpt, e)
			}
		})
	}
}
