package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/outbound/report"
	"tarishi/internal/reply"
	"tarishi/internal/sending"
	"tarishi/internal/smtpclient"
	"tarishi/internal/store"
)

func TestDelivered(t *testing.T) {
	inBubble(t, func(r *rig) {
		events := r.on(hook.OnDelivered, hook.Proceed())
		r.start()
		r.send("x@a.test", "y@a.test")
		r.wantSent("0s sender@from.test>x,y 192.0.2.1:25")
		r.wantOps("settle [0 1]")
		if lines := r.logs.FilterMessage("delivered").All(); len(lines) != 1 || lines[0].ContextMap()["attempts"] != int64(1) {
			t.Fatal(lines)
		}
		r.wantLines("delivered [x@a.test y@a.test] 250 2.0.0 OK")
		if len(*events) != 1 {
			t.Fatal(*events)
		}
		s := (*events)[0].Success
		if s.Host != "a.test" || s.IP != "192.0.2.1" || s.Port != 25 || s.Mode != "SMTP" || s.Response != "OK" || len(s.OKRecipients) != 2 || s.Secured {
			t.Fatalf("%+v", s)
		}
		r.wantIdle()
	})
}

func TestRetriesAtExactlyTheIntervals(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		env := r.send("later@a.test")
		r.wantSent("0s sender@from.test>later 192.0.2.1:25")
		r.wantOps("defer [0] attempts 1 in 1m4s: 450 4.2.0 greylisted")
		r.wantLines("deferred [later@a.test] 450 4.2.0 greylisted")
		r.pass(64*time.Second - 1)
		r.wantSent()
		r.pass(1)
		r.wantSent("1m4s sender@from.test>later 192.0.2.1:25")
		r.wantOps("defer [0] attempts 2 in 2m8s: 450 4.2.0 greylisted")
		r.pass(128*time.Second - 1)
		r.wantSent()
		r.logs.TakeAll()
		r.pass(1)
		// One more than there are intervals: expired. The DSN is in the queue
		// before the recipient is settled, and is delivered like any message.
		seen := r.wantSent("3m12s sender@from.test>later 192.0.2.1:25", "3m12s >sender 192.0.2.4:25")
		r.wantOps("put <>", "settle [0]", "settle [0]")
		if lines := r.logs.FilterMessage("failed").All(); len(lines) != 1 || lines[0].ContextMap()["attempts"] != int64(3) {
			t.Fatal(lines)
		}
		r.wantLines(
			"dsn about "+string(env.ID)+" to sender@from.test",
			"failed [later@a.test] Too many failures (450 4.2.0 greylisted)",
			"delivered [sender@from.test] 250 2.0.0 OK",
		)
		if text := read(t, seen[1].body); !strings.Contains(text, "later@a.test") || !strings.Contains(text, "Action: failed") || !strings.Contains(text, "Status: 5.4.7") {
			t.Fatal(text)
		}
		r.wantIdle()
	})
}

func read(t *testing.T, c mail.Content) string {
	t.Helper()
	f, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRefused(t *testing.T) {
	inBubble(t, func(r *rig) {
		events := r.on(hook.OnBounce, hook.Proceed())
		r.start()
		env := r.send("no@a.test")
		seen := r.wantSent("0s sender@from.test>no 192.0.2.1:25", "0s >sender 192.0.2.4:25")
		r.wantOps("put <>", "settle [0]", "settle [0]")
		r.wantLines(
			"dsn about "+string(env.ID)+" to sender@from.test",
			"failed [no@a.test] 550 5.1.1 unknown",
			"delivered [sender@from.test] 250 2.0.0 OK",
		)
		for _, want := range []string{"Status: 5.1.1", "550 5.1.1 unknown", "a.test", "Subject: hello"} {
			if text := read(t, seen[1].body); !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		e := (*events)[0]
		if e.Text != "550 5.1.1 unknown" || len(e.Failed) != 1 || e.Failed[0].Reply != no || len(e.Delivery.MX()) != 1 || e.Delivery.Domain() != "a.test" {
			t.Fatalf("%+v", e)
		}
		r.wantIdle()
	})
}

// TestEachRecipientItsOutcome has all three outcomes in one attempt; those
// deferred stay together.
func TestEachRecipientItsOutcome(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		r.send("x@a.test", "later1@a.test", "no@a.test", "later2@a.test", "y@b.test")
		r.wantSent(
			"0s sender@from.test>x,later1,no,later2 192.0.2.1:25", "0s sender@from.test>y 192.0.2.2:25",
			"0s >sender 192.0.2.4:25",
		)
		r.queue.takeOps()
		r.wire.set(func(context.Context, attemptSeen) ([]*reply.Reply, error) { return []*reply.Reply{ok, ok}, nil })
		r.pass(64 * time.Second)
		r.wantSent("1m4s sender@from.test>later1,later2 192.0.2.1:25")
		r.wantOps("settle [1 3]")
		r.wantIdle()
	})
}

// TestTooManyAndNothingElse: what was too much for a transaction waits with those
// that were in it, goes again when these have failed, and is refused when it is all
// that there was.
func TestTooManyAndNothingElse(t *testing.T) {
	tooMany := reply.New(552, "", "too many recipients")
	for _, tt := range []struct {
		first *reply.Reply // of a and b
		sent  []string
		ops   []string
	}{
		{
			reply.New(451, "4.3.0", "not now"),
			[]string{"0s sender@from.test>a,b,c,d 192.0.2.1:25"},
			[]string{"defer [0 1] attempts 1 in 1m4s: 451 4.3.0 not now", "defer [2 3] attempts 1 in 1m4s: 552 too many recipients"},
		},
		{reply.New(550, "5.1.1", "unknown"), []string{"0s sender@from.test>a,b,c,d 192.0.2.1:25", "0s sender@from.test>c,d 192.0.2.1:25"}, nil},
		{tooMany, []string{"0s sender@from.test>a,b,c,d 192.0.2.1:25"}, nil},
	} {
		inBubble(t, func(r *rig) {
			r.wire.set(func(_ context.Context, s attemptSeen) ([]*reply.Reply, error) {
				if s.env.From.IsNull() {
					return []*reply.Reply{ok}, nil
				}
				if len(s.env.Recipients) == 2 {
					return []*reply.Reply{ok, ok}, nil
				}
				return []*reply.Reply{tt.first, tt.first, tooMany, tooMany}, nil
			})
			r.start()
			r.send("a@a.test", "b@a.test", "c@a.test", "d@a.test")
			var sent []string
			for _, s := range r.wire.take() {
				if !s.env.From.IsNull() {
					sent = append(sent, fmt.Sprintf("%v %s>%s %s", s.after, s.from, s.to, s.addr))
				}
			}
			if !slices.Equal(sent, tt.sent) {
				t.Errorf("%s: sent %q", tt.first, sent)
			}
			if tt.ops != nil {
				r.wantOps(tt.ops...)
			}
		})
	}
}

// TestTooManyRecipients has servers that take only so many recipients at a time:
// the others go in further transactions, and that is no failure of theirs.
func TestTooManyRecipients(t *testing.T) {
	for name, refusal := range map[string]*reply.Reply{
		"said so": reply.New(452, "4.5.3", "too many recipients"), "no enhanced code": reply.New(452, "", "too many"), "as of old": reply.New(552, "5.5.3", "too many"),
		"as of very old": reply.New(552, "", "too many recipients"), "in another code": reply.New(554, "5.5.3", "too many"), "in words": reply.New(550, "5.7.1", "Too many recipients"),
	} {
		inBubble(t, func(r *rig) {
			most := 2
			r.wire.set(func(_ context.Context, s attemptSeen) ([]*reply.Reply, error) {
				var all []*reply.Reply
				for i := range s.env.Recipients {
					if i < most {
						all = append(all, ok)
					} else {
						all = append(all, refusal)
					}
				}
				return all, nil
			})
			r.start()
			r.send("a@a.test", "b@a.test", "c@a.test", "d@a.test", "e@a.test")
			t.Log(name)
			r.wantSent("0s sender@from.test>a,b,c,d,e 192.0.2.1:25", "0s sender@from.test>c,d,e 192.0.2.1:25", "0s sender@from.test>e 192.0.2.1:25")
			r.wantOps("settle [0 1]", "settle [2 3]", "settle [4]")
			r.wantIdle()
			if most = 0; refusal.Code == 452 {
				r.send("a@a.test", "b@a.test")
				r.pass(time.Minute)
				r.wantSent("0s sender@from.test>a,b 192.0.2.1:25")
			}
		})
	}
	inBubble(t, func(r *rig) { // no room for one of them
		r.wire.set(func(_ context.Context, s attemptSeen) ([]*reply.Reply, error) {
			all := []*reply.Reply{ok}
			for range s.env.Recipients[1:] {
				all = append(all, reply.New(452, "4.2.2", "mailbox full"))
			}
			return all, nil
		})
		r.start()
		r.send("a@a.test", "b@a.test")
		r.wantSent("0s sender@from.test>a,b 192.0.2.1:25")
		r.wantOps("settle [0]", "defer [1] attempts 1 in 1m4s: 452 4.2.2 mailbox full")
	})
}

func TestOrderOfRecords(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.dns.AddMX("from.test", 0, "unknown.test") // the DSN goes nowhere
		r.start()
		r.send("x@a.test", "later1@a.test", "no@a.test", "later2@a.test")
		ops := slices.DeleteFunc(r.queue.takeOps(), func(op string) bool {
			return strings.Contains(op, "4.4.4") // that of the DSN comes anywhere behind its put
		})
		want := []string{"settle [0]", "put <>", "settle [2]", "defer [1 3] attempts 1 in 1m4s: 450 4.2.0 greylisted"}
		if !slices.Equal(ops, want) {
			t.Fatalf("%q", ops)
		}
	})
}

func TestLifetime(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.TempFailIntervals = []time.Duration{time.Hour, 24 * time.Hour, 48 * time.Hour}
		r.o.MaxLifetime = 10 * time.Hour
		r.start()
		r.send("later@a.test")
		r.pass(time.Hour)
		r.wantOps("defer [0] attempts 1 in 1h0m0s: 450 4.2.0 greylisted", "defer [0] attempts 2 in 9h0m0s: 450 4.2.0 greylisted")
		r.wire.take()
		r.logs.TakeAll()
		r.pass(9 * time.Hour) // the last attempt is at the end of the lifetime
		r.wantSent("10h0m0s sender@from.test>later 192.0.2.1:25", "10h0m0s >sender 192.0.2.4:25")
		r.wantOps("put <>", "settle [0]", "settle [0]")
		r.wantIdle()
		if n := r.logs.FilterMessage("failed").FilterField(zap.String("response", "Not delivered within 10h0m0s (450 4.2.0 greylisted)")).Len(); n != 1 {
			t.Fatal(r.logs.All())
		}
	})
}

func TestFlush(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.TempFailIntervals = slices.Repeat(interval, 5)
		r.start()
		r.send("later@a.test")
		r.send("later@b.test")
		r.wire.take()
		r.pass(10 * time.Second)
		if n := r.out.Flush("A.test."); n != 1 {
			t.Fatal(n)
		}
		synctest.Wait()
		r.wantSent("10s sender@from.test>later 192.0.2.1:25")
		if n := r.out.Flush("other.test"); n != 0 {
			t.Fatal(n)
		}
		if n := r.out.Flush(""); n != 2 {
			t.Fatal(n)
		}
		synctest.Wait()
		r.wantSent("10s sender@from.test>later 192.0.2.1:25", "10s sender@from.test>later 192.0.2.2:25")
	})
}

func TestDisabled(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.Disabled = true
		r.start()
		r.send("x@a.test")
		r.pass(time.Hour)
		r.send("y@a.test")
		r.wantSent()
		r.wantOps()
		r.disable(false)
		r.wantSent("1h0m0s sender@from.test>x 192.0.2.1:25", "1h0m0s sender@from.test>y 192.0.2.1:25")
		r.wantIdle()
	})
}

func TestSendEmailHook(t *testing.T) {
	t.Run("DELAY", func(t *testing.T) {
		inBubble(t, func(r *rig) {
			r.o.MaxLifetime = 25 * time.Minute
			events := r.on(hook.OnSendEmail, hook.Verdict{Code: hook.Delay, Delay: 10 * time.Minute})
			r.start()
			r.send("x@a.test")
			r.pass(10 * time.Minute)
			r.wantSent()
			r.wantOps(
				"defer [0] attempts 0 in 10m0s: 451 4.3.0 Delayed by plugin test",
				"defer [0] attempts 0 in 10m0s: 451 4.3.0 Delayed by plugin test",
			)
			if len(*events) != 2 || (*events)[1].Delivery.Attempts() != 0 || (*events)[1].Delivery.Recipients()[0].Address.Local != "x" {
				t.Fatal(*events)
			}
			r.pass(15 * time.Minute) // no plugin can hold a message for longer than it lives
			if ops := r.queue.takeOps(); len(ops) < 3 || ops[1] != "put <>" || ops[2] != "settle [0]" {
				t.Fatal(ops)
			}
		})
	})
	t.Run("panic", func(t *testing.T) {
		inBubble(t, func(r *rig) {
			r.regs = append(r.regs, hook.Registration{Point: hook.OnSendEmail, Plugin: "test", Handler: func(context.Context, *hook.Event) hook.Verdict {
				panic("oops")
			}})
			r.start()
			r.send("x@a.test")
			r.wantSent()
			r.wantOps("defer [0] attempts 1 in 1m4s: 451 4.3.0 plugin error")
		})
	})
	for _, code := range []hook.Code{hook.Cont, hook.OK, hook.Deny, hook.Stop} {
		inBubble(t, func(r *rig) {
			r.on(hook.OnSendEmail, hook.Verdict{Code: code})
			r.start()
			r.send("x@a.test")
			r.wantSent("0s sender@from.test>x 192.0.2.1:25")
		})
	}
}

func TestGetMXHook(t *testing.T) {
	for _, tt := range []struct {
		verdict hook.Verdict
		sent    []string
		ops     []string
	}{
		{
			hook.Verdict{Code: hook.OK, MX: []mail.NextHop{{Host: "192.0.2.99", Port: 2525}}},
			[]string{"0s sender@from.test>x 192.0.2.99:2525"},
			[]string{"settle [0]"},
		},
		{hook.Verdict{Code: hook.Cont}, []string{"0s sender@from.test>x 192.0.2.1:25"}, []string{"settle [0]"}},
		{hook.Verdict{Code: hook.OK}, []string{"0s sender@from.test>x 192.0.2.1:25"}, []string{"settle [0]"}},
		{
			hook.Verdict{Code: hook.OK, MX: []mail.NextHop{{Host: "192.0.2.99", Port: 65536 + 25}}},
			nil,
			[]string{"defer [0] attempts 1 in 1m4s: 451 4.3.5 No MX for a.test: 192.0.2.99 has no port 65561"},
		},
		{
			hook.Verdict{Code: hook.OK, MX: []mail.NextHop{{Host: "192.0.2.99"}, {Priority: 10}}},
			nil,
			[]string{"defer [0] attempts 1 in 1m4s: 451 4.3.5 No MX for a.test: a next hop has neither host nor path"},
		},
		{
			hook.Verdict{Code: hook.DenySoft},
			nil,
			[]string{"defer [0] attempts 1 in 1m4s: 451 4.1.2 Temporary MX lookup error for a.test"},
		},
		{
			hook.Verdict{Code: hook.DenySoft, Text: "not today"},
			nil,
			[]string{"defer [0] attempts 1 in 1m4s: 451 4.1.2 not today"},
		},
		{
			hook.Verdict{Code: hook.DenySoft, Reply: reply.New(452, "4.3.2", "busy")},
			nil,
			[]string{"defer [0] attempts 1 in 1m4s: 452 4.3.2 busy"},
		},
	} {
		t.Run(tt.verdict.Code.String(), func(t *testing.T) {
			inBubble(t, func(r *rig) {
				events := r.on(hook.OnGetMX, tt.verdict)
				r.start()
				r.send("x@a.test")
				r.wantSent(tt.sent...)
				r.wantOps(tt.ops...)
				if e := (*events)[0]; e.Host != "a.test" || e.Delivery.Domain() != "a.test" {
					t.Fatalf("%+v", e)
				}
			})
		})
	}
	t.Run("DENY", func(t *testing.T) {
		inBubble(t, func(r *rig) {
			r.regs = append(r.regs, hook.Registration{Point: hook.OnGetMX, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
				if e.Host == "a.test" {
					return hook.Verdict{Code: hook.Deny}
				}
				return hook.Proceed()
			}})
			r.start()
			r.send("x@a.test")
			seen := r.wantSent("0s >sender 192.0.2.4:25")
			r.wantOps("put <>", "settle [0]", "settle [0]")
			if text := read(t, seen[0].body); !strings.Contains(text, "5.1.2") || !strings.Contains(text, "No MX for a.test") {
				t.Fatal(text)
			}
		})
	})
}

func TestDeferredHook(t *testing.T) {
	for _, tt := range []struct {
		verdict hook.Verdict
		want    string
	}{
		{hook.Verdict{Code: hook.Cont}, "defer [0] attempts 1 in 1m4s: 450 4.2.0 greylisted"},
		{hook.Verdict{Code: hook.Stop}, "defer [0] attempts 1 in 1m4s: 450 4.2.0 greylisted"},
		{hook.Verdict{Code: hook.DenySoft}, "defer [0] attempts 1 in 1m4s: 450 4.2.0 greylisted"},
		{hook.Verdict{Code: hook.DenySoft, Delay: 5 * time.Minute}, "defer [0] attempts 1 in 5m0s: 450 4.2.0 greylisted"},
		{hook.Verdict{Code: hook.Deny}, "settle [0]"},
		{hook.Verdict{Code: hook.OK}, "settle [0]"},
	} {
		t.Run(tt.verdict.Code.String(), func(t *testing.T) {
			inBubble(t, func(r *rig) {
				events := r.on(hook.OnDeferred, tt.verdict)
				r.start()
				r.send("later@a.test", "x@a.test")
				if ops := r.queue.takeOps(); len(ops) != 2 || ops[1] != tt.want {
					t.Fatal(ops)
				}
				e := (*events)[0]
				if e.Delay != 64*time.Second || e.Text != "450 4.2.0 greylisted" || len(e.Failed) != 1 || len(e.Delivery.Recipients()) != 1 {
					t.Fatalf("%+v", e)
				}
				if dropped := r.logs.FilterMessage("no dsn").Len(); dropped != map[bool]int{true: 1}[tt.want == "settle [0]"] {
					t.Fatal(r.logs.All())
				}
			})
		})
	}
}

func TestNoDSN(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*mail.Envelope)
		hook   hook.Code
		reason string
	}{
		{"null sender", func(e *mail.Envelope) { e.From = mail.Address{} }, hook.Cont, "the sender is null"},
		{"NOTIFY=NEVER", func(e *mail.Envelope) { e.Recipients[0].Notify = mail.NotifyNever }, hook.Cont, "the sender does not want it (NOTIFY)"},
		{"NOTIFY=SUCCESS", func(e *mail.Envelope) { e.Recipients[0].Notify = mail.NotifySuccess }, hook.Cont, "the sender does not want it (NOTIFY)"},
		{"plugin", func(*mail.Envelope) {}, hook.OK, "suppressed by plugin test, hook bounce: OK"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.on(hook.OnBounce, hook.Verdict{Code: tt.hook})
				r.start()
				env := r.envelope("no@a.test")
				tt.change(env)
				r.sendEnvelope(env)
				r.wantOps("settle [0]")
				r.wantLines("failed [no@a.test] 550 5.1.1 unknown", "no dsn "+tt.reason)
				r.wantIdle()
			})
		})
	}
}

func TestDSNOnlyAboutThoseWhoWantIt(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		env := r.envelope("no1@a.test", "no2@a.test")
		env.Recipients[0].Notify = mail.NotifyNever
		r.sendEnvelope(env)
		seen := r.wire.take()
		r.wantOps("put <>", "settle [0 1]", "settle [0]")
		if text := read(t, seen[1].body); strings.Contains(text, "no1@") || !strings.Contains(text, "no2@") {
			t.Fatal(text)
		}
	})
}

// TestDSNThatCannotBePut holds I5: the failed recipient stays until its DSN is
// durable.
func TestDSNThatCannotBePut(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		env := r.envelope("no@a.test", "x@a.test")
		p := r.put(env)
		r.queue.set("put", errDisk)
		r.queue.takeOps()
		r.out.Enqueue(p)
		synctest.Wait()
		r.wantOps("settle [1]", "put fails", "defer [0] attempts 0 in 5m0s: 550 5.1.1 unknown")
		r.wantLines(
			"delivered [x@a.test] 250 2.0.0 OK",
			"DSN cannot be queued, the failed recipients stay in the queue",
			"deferred [no@a.test] 550 5.1.1 unknown",
		)
		r.wire.take()
		r.pass(5 * time.Minute)
		r.wantOps("put fails", "defer [0] attempts 0 in 5m0s: 550 5.1.1 unknown")
		r.queue.set("put", nil)
		r.pass(5 * time.Minute)
		r.wantOps("put <>", "settle [0]", "settle [0]")
		r.wantIdle()
	})
}

func TestSettlementIsRepeatedWithoutAnotherDelivery(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.TempFailIntervals = []time.Duration{time.Hour}
		r.start()
		env := r.envelope("x@a.test", "later@a.test", "no@a.test")
		p := r.put(env)
		r.queue.set("settle", errDisk)
		r.queue.takeOps()
		r.out.Enqueue(p)
		synctest.Wait()
		r.wantSent("0s sender@from.test>x,later,no 192.0.2.1:25", "0s >sender 192.0.2.4:25")
		r.wantOpsInAnyOrder(
			"defer [1] attempts 1 in 1h0m0s: 450 4.2.0 greylisted", "put <>",
			"settle [0] fails", "settle [0] fails", "settle [2] fails",
		)
		r.pass(attempt.LocalWait)
		r.wantOpsInAnyOrder("settle [0] fails", "settle [0] fails", "settle [2] fails")
		r.queue.set("settle", nil)
		r.pass(attempt.LocalWait)
		r.wantOpsInAnyOrder("settle [0]", "settle [0]", "settle [2]")
		r.wantSent()
		r.wire.set(func(context.Context, attemptSeen) ([]*reply.Reply, error) { return []*reply.Reply{ok}, nil })
		r.pass(time.Hour)
		r.wantSent("1h0m0s sender@from.test>later 192.0.2.1:25")
		r.wantIdle()
	})
}

func TestDeferralThatCannotBeRecorded(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.queue.set("defer", errDisk)
		r.start()
		r.send("later@a.test")
		r.wire.take()
		r.pass(64 * time.Second)
		r.wantSent("1m4s sender@from.test>later 192.0.2.1:25")
	})
}

func TestUnreadableMessage(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		r.queue.set("load", errors.New("damaged"))
		r.send("x@a.test")
		r.wantOps("load fails")
		r.pass(attempt.Unreadable - 1)
		r.wantOps()
		r.pass(1)
		r.wantOps("load fails")
		if r.queue.left() != 1 {
			t.Fatal("deleted")
		}
		r.queue.set("load", nil)
		r.pass(attempt.Unreadable)
		r.wantOps("settle [0]")
		r.wantIdle()
	})
}

// TestUnknownMessage: what is not in the queue any more is no trouble.
func TestUnknownMessage(t *testing.T) {
	for _, tt := range []struct{ op, to string }{{"load", "x@a.test"}, {"settle", "x@a.test"}, {"defer", "later@a.test"}} {
		t.Run(tt.op, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.start()
				r.queue.set(tt.op, fmt.Errorf("message: %w", store.ErrUnknown))
				r.send(tt.to)
				if s := r.out.Stat(); s.Waiting+s.Ready+s.Running > 0 {
					t.Fatalf("%+v", s)
				}
			})
		})
	}
}

func TestReport(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		content := mail.Memory{[]byte("Subject: relayed\r\n\r\n")}
		env := r.envelope("no@a.test", "quiet@a.test")
		env.Recipients[1].Notify = mail.NotifyNever
		failed := []hook.RecipientResult{{Recipient: env.Recipients[0], Reply: no}, {Recipient: env.Recipients[1], Reply: no}}
		if err := r.out.Report(env, content, failed); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		seen := r.wantSent("0s >sender 192.0.2.4:25")
		if text := read(t, seen[0].body); !strings.Contains(text, "no@a.test") || strings.Contains(text, "quiet@") {
			t.Fatal(text)
		}
		r.logs.TakeAll()
		if err := r.out.Report(env, content, failed[1:]); err != nil {
			t.Fatal(err)
		}
		env.From = mail.Address{}
		if err := r.out.Report(env, content, failed); err != nil {
			t.Fatal(err)
		}
		r.wantLines("no dsn "+report.NotWanted, "no dsn "+report.NullSender)
		env.From = sender
		r.queue.set("put", errDisk)
		if err := r.out.Report(env, content, failed); !errors.Is(err, errDisk) {
			t.Fatal(err)
		}
		r.wantSent()
	})
}

// TestDSNOfSuccess holds RFC 3461 section 5.2.2.
func TestDSNOfSuccess(t *testing.T) {
	for _, tt := range []struct {
		name   string
		notify mail.Notify
		hop    mail.NextHop
		dsn    bool
		from   mail.Address
		action string
	}{
		{"next hop without DSN", mail.NotifySuccess | mail.NotifyFailure, mail.NextHop{Host: "192.0.2.9"}, false, sender, "Action: relayed"},
		{"LMTP without DSN", mail.NotifySuccess, mail.NextHop{Host: "192.0.2.9", Protocol: mail.LMTP}, false, sender, "Action: delivered"},
		{"next hop with DSN", mail.NotifySuccess, mail.NextHop{Host: "192.0.2.9"}, true, sender, ""},
		{"not wanted", mail.NotifyFailure, mail.NextHop{Host: "192.0.2.9"}, false, sender, ""},
		{"null sender", mail.NotifySuccess, mail.NextHop{Host: "192.0.2.9"}, false, mail.Address{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.on(hook.OnGetMX, hook.Verdict{Code: hook.OK, MX: []mail.NextHop{tt.hop}})
				r.wire.dsn = tt.dsn
				r.start()
				env := r.envelope("x@a.test")
				env.Recipients[0].Notify, env.From = tt.notify, tt.from
				r.sendEnvelope(env)
				seen := r.wire.take()
				if tt.action == "" {
					if len(seen) != 1 {
						t.Fatal("a DSN")
					}
					return
				}
				if len(seen) != 2 || !strings.Contains(read(t, seen[1].body), tt.action) {
					t.Fatal(seen)
				}
				r.wantIdle()
			})
		})
	}
	inBubble(t, func(r *rig) { // it is no reason to deliver twice
		r.start()
		env := r.envelope("x@a.test")
		env.Recipients[0].Notify = mail.NotifySuccess
		p := r.put(env)
		r.queue.set("put", errDisk)
		r.out.Enqueue(p)
		synctest.Wait()
		r.wantLines("delivered [x@a.test] 250 2.0.0 OK", "DSN of success cannot be queued")
		r.wantIdle()
	})
}

func TestPanicIsContained(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.wire.set(func(_ context.Context, s attemptSeen) ([]*reply.Reply, error) {
			if s.to == "x" {
				panic("oops")
			}
			return []*reply.Reply{ok}, nil
		})
		r.start()
		r.send("x@a.test")
		r.send("y@a.test")
		r.wantOps("settle [0]")
		r.wire.take()
		r.pass(64 * time.Second)
		r.wantSent("1m4s sender@from.test>x 192.0.2.1:25")
		r.pass(128 * time.Second)
		r.wire.take()
		r.pass(attempt.LocalWait) // beyond the intervals, and still there
		r.wantSent("8m12s sender@from.test>x 192.0.2.1:25")
		r.wire.set(byName)
		r.pass(attempt.LocalWait)
		r.wantIdle()
	})
}

func TestLoadAtStart(t *testing.T) {
	inBubble(t, func(r *rig) {
		env := r.envelope("x@a.test", "y@A.TEST", "z@b.test", "done@a.test")
		r.put(env)
		next := time.Now().Add(time.Hour)
		r.queue.Defer(env.ID, []int{2}, 1, next, "later")
		r.queue.Settle(env.ID, []int{3})
		r.start()
		r.wantSent("0s sender@from.test>x,y 192.0.2.1:25")
		r.pass(time.Hour)
		r.wantSent("1h0m0s sender@from.test>z 192.0.2.2:25")
		r.wantIdle()
	})
}

func TestUnreadableAtStart(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.queue.unreadable = 2
		r.put(r.envelope("x@a.test"))
		r.start()
		r.pass(loadAgain)
		r.wantSent()
		r.pass(loadAgain)
		r.wantSent("2m0s sender@from.test>x 192.0.2.1:25")
	})
}

// TestFlushWhileLoading holds that a flush reaches what is loaded later.
func TestFlushWhileLoading(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.queue.unreadable = 1
		for _, to := range []string{"x@a.test", "y@b.test"} {
			env := r.envelope(to)
			r.put(env)
			r.queue.Defer(env.ID, []int{0}, 1, time.Now().Add(time.Hour), "later")
		}
		r.start()
		r.out.Flush("B.test")
		r.pass(0)
		r.wantSent("0s sender@from.test>y 192.0.2.2:25")
		r.pass(time.Hour)
		r.wantSent("1h0m0s sender@from.test>x 192.0.2.1:25")
	})
}

func TestAlwaysSplit(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.AlwaysSplit = true
		r.start()
		r.send("x@a.test", "y@a.test")
		r.wantSent("0s sender@from.test>x 192.0.2.1:25", "0s sender@from.test>y 192.0.2.1:25")
	})
}

func TestConcurrency(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.ConcurrencyMax, r.o.PoolConcurrencyMax = 3, 2
		release := make(chan struct{})
		r.wire.set(func(context.Context, attemptSeen) ([]*reply.Reply, error) {
			<-release
			return []*reply.Reply{ok}, nil
		})
		r.start()
		for i := range 5 {
			r.send(fmt.Sprintf("x%d@a.test", i))
			r.send(fmt.Sprintf("x%d@b.test", i))
		}
		for i := 10; i > 0; i-- {
			if got := r.out.Stat(); got.Running != min(3, i) && got.Running != min(2, i) || got.Running > 3 || got.Ready != i-got.Running {
				t.Fatalf("%d left: %+v", i, got)
			}
			release <- struct{}{}
			synctest.Wait()
		}
		r.wantIdle()
	})
}

// TestShutdown: what has not sent its message to the end is given up at once, and
// the rest has a while to hear whether it was taken. What is cut off does not
// count as an attempt.
func TestShutdown(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.ReplyGrace = 7 * time.Second
		r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
			wait, f := 5*time.Second, &smtpclient.Failure{Stage: smtpclient.StageMail}
			if s.to == "mute" || s.to == "x" {
				if !sending.MayEnd(ctx) {
					t.Error("not before the stop")
				}
				f.Stage, f.Uncertain = smtpclient.StageDot, true
			}
			if s.to != "x" {
				wait = time.Hour
			}
			select {
			case <-time.After(wait):
				return []*reply.Reply{ok}, nil
			case <-ctx.Done():
				if f.Err = ctx.Err(); sending.MayEnd(ctx) {
					t.Error("a message may be ended during the stop")
				}
				return nil, f
			}
		})
		r.start()
		r.send("x@a.test")
		r.send("slow@b.test")
		r.send("mute@c.test")
		r.stop()
		synctest.Wait()
		if got := r.out.Stat(); got.Running != 2 {
			t.Fatalf("%+v", got)
		}
		r.send("late@a.test")
		r.wantSent("0s sender@from.test>mute 192.0.2.3:25", "0s sender@from.test>slow 192.0.2.2:25", "0s sender@from.test>x 192.0.2.1:25")
		before := time.Now()
		<-r.ended
		if got := time.Since(before); got != 7*time.Second {
			t.Fatalf("ended after %v", got)
		}
		r.wantOps("settle [0]")
		r.wantSent()
		if r.queue.left() != 3 {
			t.Fatal(r.queue.left())
		}
		doubtful := r.logs.FilterLevelExact(zap.WarnLevel)
		if doubtful.Len() != 2 || doubtful.FilterField(zap.String("domain", "c.test")).Len() != 1 || doubtful.FilterField(zap.Int("deliveries", 1)).Len() != 1 {
			t.Error(doubtful.All())
		}
	})
}

func TestHooksSeeTheirOwnRecipients(t *testing.T) {
	inBubble(t, func(r *rig) {
		bounce, deferred, delivered := r.on(hook.OnBounce, hook.Proceed()), r.on(hook.OnDeferred, hook.Proceed()), r.on(hook.OnDelivered, hook.Proceed())
		r.regs = append(r.regs, hook.Registration{Point: hook.OnGetMX, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
			if e.Delivery.Domain() != "a.test" {
				return hook.Proceed()
			}
			e.Delivery.Notes().Set("seen", true)
			e.Delivery.MessageNotes().Set("outbound_helo", "plugin.test")
			return hook.Proceed()
		}})
		r.start()
		env := r.envelope("x@a.test", "later@a.test", "no@a.test")
		env.Notes = mail.Notes{"a": "b"}
		r.sendEnvelope(env)
		for _, events := range []*[]hook.Event{bounce, deferred, delivered} {
			d := (*events)[0].Delivery
			if len(d.Recipients()) != 1 || !d.Notes().Bool("seen") || d.MessageNotes().String("a") != "b" {
				t.Fatalf("%+v", d)
			}
		}
		if len(env.Notes) != 1 {
			t.Fatal("the queue's notes were changed")
		}
		if helo := r.wire.take()[0].env.Notes.String("outbound_helo"); helo != "plugin.test" {
			t.Fatal(helo)
		}
	})
}
