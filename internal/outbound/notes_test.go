package outbound

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// TestNotesOutliveARestart: a plugin counts deferrals in notes while the daemon,
// with the real queue, starts anew after each one.
func TestNotesOutliveARestart(t *testing.T) {
	server := smtptest.New(t, smtptest.On(smtptest.Rcpt, func(smtptest.Event) smtptest.Action {
		return smtptest.Reply("450 4.2.0 later")
	}))
	var mu sync.Mutex
	seen := map[string][]string{}
	count := func(_ context.Context, e *hook.Event) hook.Verdict {
		mu.Lock()
		defer mu.Unlock()
		d := e.Delivery
		n, _ := d.Notes().Get("count").(float64) // as JSON has it
		seen[d.Domain()] = append(seen[d.Domain()], fmt.Sprintf("%v %q", n, d.MessageNotes().String("message")))
		if d.MessageNotes().Get(mail.DeliveryNotes) != nil {
			t.Error("a plugin sees what is remembered of other deliveries")
		}
		d.Notes().Set("count", n+1)
		if d.Domain() == "a.test" {
			d.MessageNotes().Set("message", d.MessageNotes().String("message")+"m")
		}
		return hook.Proceed()
	}
	dir := t.TempDir()
	for run := range 4 {
		w := startWhole(t, dir, server.Port(), hook.Registration{Point: hook.OnDeferred, Plugin: "counter", Handler: count})
		waiting := func(recorded int) {
			t.Helper()
			for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
				mu.Lock()
				n := len(seen["a.test"]) + len(seen["b.test"])
				mu.Unlock()
				if s := w.Stat(); n == recorded && s.Waiting == 2 && s.Running+s.Ready == 0 {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("%d deferrals, %+v", n, w.Stat())
				}
			}
		}
		if run == 0 {
			w.send(t, "x@a.test", "y@a.test", "x@b.test")
		} else {
			waiting(2 * run)
			w.Flush("")
		}
		waiting(2 * (run + 1))
		if run == 1 { // from here on in files
			w.queue.Walk(func(p mail.Pending) bool {
				if _, err := w.queue.Path(p.ID); err != nil {
					t.Error(err)
				}
				return true
			})
		}
		w.stop()
	}
	if got := strings.Join(seen["a.test"], ", "); got != `0 "", 1 "m", 2 "mm", 3 "mmm"` {
		t.Error(got)
	}
	if got := strings.Join(seen["b.test"], ", "); got != `0 "", 1 "", 2 "", 3 ""` {
		t.Error(got)
	}
}

// TestRememberedOnlyWhenChanged, and what ForceTLS asks holds after a restart.
func TestRememberedOnlyWhenChanged(t *testing.T) {
	inBubble(t, func(r *rig) {
		var attempts int
		var forced []bool
		r.regs = append(r.regs, hook.Registration{Point: hook.OnSendEmail, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
			r.queue.mu.Lock()
			defer r.queue.mu.Unlock()
			if attempts++; attempts == 2 {
				e.Delivery.SetForceTLS()
				e.Delivery.Notes().Set("x", "y")
			}
			return hook.Proceed()
		}})
		r.o.TempFailIntervals = slices.Repeat(interval, 5)
		r.start()
		r.send("later@a.test", "later2@a.test")
		for n, want := range []int{0, 1, 1, 1, 1} {
			if r.queue.noted != want {
				t.Fatalf("%d attempts, notes recorded %d times, want %d", n+1, r.queue.noted, want)
			}
			if n >= 2 {
				r.restart()
			}
			r.pass(129 * time.Second)
		}
		for _, s := range r.wire.take() {
			forced = append(forced, s.target.TLS >= smtpclient.TLSEncrypt)
		}
		if len(forced) < 5 || forced[0] || slices.Contains(forced[1:], false) {
			t.Error(forced)
		}
	})
}

// TestNotesThatCannotBeKept last until the daemon stops, and are tried again.
func TestNotesThatCannotBeKept(t *testing.T) {
	inBubble(t, func(r *rig) {
		var seen []string
		r.regs = append(r.regs, hook.Registration{Point: hook.OnSendEmail, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
			r.queue.mu.Lock()
			defer r.queue.mu.Unlock()
			n := e.Delivery.Notes().All()
			seen = append(seen, n.String("x"))
			n.Set("x", n.String("x")+"x")
			n["value"] = func() {} // no JSON
			if len(seen) == 1 || len(seen) >= 4 {
				delete(n, "value")
			}
			return hook.Proceed()
		}})
		r.o.TempFailIntervals = slices.Repeat(interval, 5)
		r.start()
		r.send("later@a.test")
		r.queue.set("notes", errDisk)
		r.pass(65 * time.Second)
		r.pass(129 * time.Second)
		r.pass(65 * time.Second) // of four attempts only the first is recorded
		if n := r.logs.FilterMessageSnippet("would not outlive a restart").Len(); r.queue.noted != 1 || n != 3 || len(seen) != 4 {
			t.Fatal(r.queue.noted, n, seen)
		}
		r.queue.set("notes", nil)
		r.pass(129 * time.Second)
		r.restart()
		r.pass(65 * time.Second)
		if got := strings.Join(seen, " "); got != " x xx xxx xxxx xxxxx" {
			t.Error(got)
		}
	})
}

// TestDeliveriesPutTogether: a start makes one delivery of two. It has the notes
// that were written last, TLS if one of them wanted that, and is one for the next
// start too.
func TestDeliveriesPutTogether(t *testing.T) {
	inBubble(t, func(r *rig) {
		events := r.on(hook.OnSendEmail, hook.Proceed())
		env := r.envelope("later@a.test", "later2@a.test", "later@b.test")
		env.Notes = mail.Notes{"queue": "x", mail.DeliveryNotes: map[string]any{
			"0-1": map[string]any{"recipients": []any{0.0, 2.0}, "version": 1.0, "force_tls": true},
			"1-2": map[string]any{"recipients": []any{1.0}, "version": 2.0, "notes": map[string]any{"x": "y"}},
			"2-3": map[string]any{"recipients": []any{2.0}, "version": 3.0, "message": map[string]any{}},
		}}
		r.put(env)
		r.start()
		if len(*events) != 2 {
			t.Fatal(len(*events))
		}
		for _, e := range *events {
			d := e.Delivery
			got := fmt.Sprint(d.Notes().All(), d.MessageNotes().All(), d.ForceTLS())
			if want := map[string]string{"a.test": "map[x:y] map[queue:x] true", "b.test": "map[] map[] false"}[d.Domain()]; got != want {
				t.Errorf("%s: %s, want %s", d.Domain(), got, want)
			}
		}
		left, _, err := r.queue.Load(env.ID)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(left.Notes[mail.DeliveryNotes])
		want := `{"0-1":{"recipients":[0,2],"version":1,"force_tls":true},"0-4":{"recipients":[0,1],"version":4,"notes":{"x":"y"},"force_tls":true},"2-3":{"message":{},"recipients":[2],"version":3}}`
		if err != nil || normal(t, b) != normal(t, []byte(want)) {
			t.Errorf("%v %s", err, b)
		}
	})
}

// normal is JSON with its keys in order.
func normal(t *testing.T, b []byte) string {
	t.Helper()
	var v any
	err := json.Unmarshal(b, &v)
	if err == nil {
		b, err = json.Marshal(v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestForeignDeliveryNotes: what does not look like ours hurts nobody.
func TestForeignDeliveryNotes(t *testing.T) {
	for _, foreign := range []any{"x", []any{1.0}, map[string]any{"0-1": "x"}, map[string]any{"0-1": map[string]any{"recipients": []any{-1.0, 7.0}, "version": 1.0}}} {
		inBubble(t, func(r *rig) {
			r.start()
			env := r.envelope("x@a.test")
			env.Notes = mail.Notes{mail.DeliveryNotes: foreign}
			r.sendEnvelope(env)
			synctest.Wait()
			if n := len(r.wire.take()); n != 1 {
				t.Errorf("%v: %d attempts", foreign, n)
			}
			r.wantIdle()
		})
	}
}

// TestLateHandler: what a handler does to notes after its timeout has no effect, here or
// in a later attempt (the race detector watches); the delivery goes on with those it
// had, and what the others note is kept.
func TestLateHandler(t *testing.T) {
	for _, p := range []hook.Point{hook.OnSendEmail, hook.OnGetMX, hook.OnDeferred, hook.OnBounce, hook.OnDelivered} {
		t.Run(string(p), func(t *testing.T) {
			inBubble(t, func(r *rig) {
				release, calls, runs := make(chan struct{}), 0, []string{}
				late := func(ctx context.Context, e *hook.Event) hook.Verdict {
					d := e.Delivery
					if calls++; calls != 2 {
						d.Notes().Set("first", calls)
						d.MessageNotes().Set("first", map[string]any{"list": []any{1, 2}})
						return hook.Proceed()
					}
					first, given, all := d.MessageNotes().Get("first.list").([]any), d.MessageNotes().Get("given").([]any), d.Recipients()
					<-ctx.Done()
					time.Sleep(time.Millisecond) // the chain gives up first
					for n := 0; ; n++ {
						d.Notes().Set("late", n)
						d.MessageNotes().Set("first.late", n)
						first[0], given[0], all[0] = n, n, mail.Recipient{}
						if d.ID() != "" || d.Domain() != "" || d.Recipients() != nil {
							t.Error("a late handler sees the delivery")
						}
						select {
						case <-release:
							return hook.Answer(hook.OK, "")
						case <-time.After(time.Second):
						}
					}
				}
				next := func(_ context.Context, e *hook.Event) hook.Verdict {
					d := e.Delivery
					if d.From().IsNull() { // the DSN of a bounce
						return hook.Proceed()
					}
					runs = append(runs, fmt.Sprint(d.Notes().All(), d.MessageNotes().All()))
					d.Notes().Set("next", len(runs))
					return hook.Proceed()
				}
				r.regs = append(r.regs,
					hook.Registration{Point: p, Plugin: "late", Timeout: time.Second, Handler: late},
					hook.Registration{Point: hook.OnDeferred, Plugin: "warm", Priority: -1, Handler: func(ctx context.Context, e *hook.Event) hook.Verdict {
						if p == hook.OnBounce || p == hook.OnDelivered {
							return late(ctx, e) // a first attempt, that is in time
						}
						return hook.Proceed()
					}},
					hook.Registration{Point: hook.OnSendEmail, Plugin: "next", Priority: 1, Handler: next})
				r.o.TempFailIntervals = slices.Repeat(interval, 3)
				r.start()
				first := true
				r.wire.set(func(_ context.Context, s attemptSeen) ([]*reply.Reply, error) {
					switch {
					case s.from == "": // a DSN
						return []*reply.Reply{ok}, nil
					case first || p == hook.OnDeferred && calls < 3:
						first = false
						return []*reply.Reply{later}, nil
					case p == hook.OnBounce:
						return []*reply.Reply{no}, nil
					}
					return []*reply.Reply{ok}, nil
				})
				env := r.envelope("x@a.test")
				env.Notes = mail.Notes{"given": []any{1.0}}
				r.sendEnvelope(env)
				r.pass(time.Hour)
				close(release)
				synctest.Wait()
				if calls < 2 || len(runs) < 2 {
					t.Fatalf("%d calls, %q", calls, runs)
				}
				for n, seen := range runs[1:] {
					if strings.Contains(seen, "late") || !strings.Contains(seen, "first:") || !strings.Contains(seen, "next:"+strconv.Itoa(n+1)) ||
						!strings.Contains(seen, "list:[1 2]") || !strings.Contains(seen, "given:[1]") {
						t.Errorf("attempt %d began with %s", n+2, seen)
					}
				}
				r.wantIdle()
			})
		})
	}
}
