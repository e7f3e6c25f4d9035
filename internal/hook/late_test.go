package hook

import (
	"context"
	"net/netip"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// scribble writes to whatever an Event leads to until release is closed.
func scribble(e *Event, release chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-release:
			return
		default:
		}
		e.Host, e.Text = "late", "late"
		if c := e.Conn; c != nil {
			c.Notes.Set("late", i)
			c.Results.For("late").Values["n"] = i
			c.ID, c.Relaying = "late", true
		}
		if t := e.Tx; t != nil {
			t.Notes.Set("late", i)
			t.Results.For("late").Values["n"] = i
			t.ID = "late"
			t.Recipients = append(t.Recipients[:0], mail.Recipient{})
			if t.Header != nil {
				t.Header.Remove("Subject")
			}
		}
		if d := e.Delivery; d != nil {
			d.Notes.Set("late", i)
			d.Envelope.Notes.Set("late", i)
			d.Recipients[0], d.Domain = mail.Recipient{}, "late"
			e.Failed[0] = RecipientResult{}
			e.Success.OKRecipients[0], e.Success.Host = mail.Recipient{}, "late"
		}
		time.Sleep(time.Second) // of the bubble: others run in between
	}
}

func inbound() *Event {
	h, _, _ := mail.ParseHeader([]byte("Subject: x\r\n\r\n"))
	tx := transaction()
	tx.Header, tx.Content, tx.Recipients = h, mail.Memory{[]byte("Subject: x\r\n\r\n")}, []mail.Recipient{{}}
	return &Event{Tx: tx, Conn: &Connection{
		ID: "A", Me: "mx.test", Notes: mail.Notes{}, Results: NewResults(), AuthUser: "u", Hello: Hello{"EHLO", "h"},
		Remote: Remote{Addr: netip.MustParseAddrPort("192.0.2.1:25")},
	}}
}

func outbound() *Event {
	rcpt, _ := mail.ParseAddress("to@example.com")
	all := []mail.Recipient{{Address: rcpt}}
	return &Event{
		Delivery: &Delivery{
			Envelope: mail.Envelope{ID: "A.1", Recipients: all, Notes: mail.Notes{}}, Domain: "example.com", Notes: mail.Notes{}, ForceTLS: new(atomic.Bool),
		},
		Failed: []RecipientResult{{Recipient: all[0], Reply: reply.New(450, "", "x")}}, Success: &DeliveredParams{Host: "mx", OKRecipients: []mail.Recipient{all[0]}},
	}
}

// TestLateHandlerHasItsOwn: what a handler does after its timeout nobody sees, and
// nothing looks at what it may be changing. The race detector watches.
func TestLateHandlerHasItsOwn(t *testing.T) {
	for _, p := range Points() {
		t.Run(string(p), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				event, outside := inbound, false
				switch p {
				case OnSendEmail, OnGetMX, OnDeferred, OnBounce, OnDelivered:
					event, outside = outbound, true
				}
				e, release := event(), make(chan struct{})
				follows := 0
				next := func(_ context.Context, e *Event) Verdict {
					follows++
					if outside {
						e.Delivery.Notes.Set("next", 1)
						e.Delivery.Envelope.Notes.Set("next", 1)
						if e.Delivery.Recipients[0].Address.Local != "to" || e.Delivery.Domain != "example.com" || e.Failed[0].Reply == nil || e.Success.OKRecipients[0].Address.Local != "to" {
							t.Errorf("saw %+v", e.Delivery)
						}
						return Proceed()
					}
					e.Conn.Notes.Set("next", 1)
					e.Tx.Notes.Set("next", 1)
					return Proceed()
				}
				c := NewChain([]Registration{{Point: p, Plugin: "late", Timeout: time.Minute, Handler: func(ctx context.Context, e *Event) Verdict {
					if e.Delivery != nil {
						e.Delivery.ForceTLS.Store(true)
					}
					<-ctx.Done()
					scribble(e, release)
					return Answer(OK, "late")
				}}, {Point: p, Plugin: "next", Timeout: time.Minute, Handler: next}, {Point: p, Plugin: "inline", Handler: next}}, zap.NewNop())
				v := c.Run(t.Context(), p, e)
				for range 10 {
					time.Sleep(time.Second)
				}
				if want := map[bool]int{true: 2}[p.outlasts()]; follows != want {
					t.Errorf("%d handlers ran behind it, want %d", follows, want)
				}
				checkFresh(t, p, v, event())
				close(release)
				c.Wait(t.Context())
			})
		})
	}
}

func checkFresh(t *testing.T, p Point, v Verdict, was *Event) {
	t.Helper()
	f := v.Fresh
	if f == nil {
		t.Fatalf("verdict %+v", v)
	}
	if was.Delivery != nil {
		if f.Delivery.ID != "A.1" || f.Delivery.Notes["late"] != nil || !f.Delivery.ForceTLS.Load() || f.Success.Host != "mx" {
			t.Errorf("%+v", f.Delivery)
		}
		if decides := p == OnSendEmail || p == OnGetMX; decides != (v.Code == DenySoft) || v.Reply != nil {
			t.Errorf("verdict %+v", v)
		}
		return
	}
	c := *f.Conn
	if c.Notes["late"] != nil || c.Results.Has("late") || f.Tx.Notes["late"] != nil || f.Tx.ID != "A.1" || f.Tx.Header != nil || f.Tx.Recipients != nil {
		t.Errorf("%+v %+v", c, f.Tx)
	}
	c.Notes, c.Results = was.Conn.Notes, was.Conn.Results
	if !reflect.DeepEqual(&c, was.Conn) {
		t.Errorf("%+v, want %+v", c, was.Conn)
	}
	switch {
	case p.failsOpen():
		if v.Code != Cont {
			t.Errorf("verdict %+v", v)
		}
	case v.Code != DenySoftDisconnect || v.Reply.Code != 421:
		t.Errorf("verdict %+v", v)
	}
}

// TestLateDenyHandler: a deny handler that is late can drop no refusal, and ends the
// connection as any other does.
func TestLateDenyHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var s script
		c := NewChain([]Registration{s.on(OnMail, "no", Answer(Deny, "no")), s.on(OnMail, "next", Proceed()), {
			Point: OnDeny, Plugin: "late", Timeout: time.Minute, Handler: func(ctx context.Context, e *Event) Verdict {
				<-ctx.Done()
				scribble(e, release)
				return Answer(OK, "")
			},
		}}, zap.NewNop())
		v := c.Run(t.Context(), OnMail, inbound())
		if v.Code != DenySoftDisconnect || v.Fresh == nil || v.Fresh.Point != OnMail || v.Fresh.Denied != nil || len(s.ran) != 1 {
			t.Errorf("verdict %+v, ran %q", v, s.ran)
		}
		checkFresh(t, OnMail, v, inbound())
		close(release)
		c.Wait(t.Context())
	})
}
