package intake

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/reply"
	"tarishi/internal/result"
)

type chain map[hook.Point]func(*hook.Event) hook.Verdict

func (c chain) Run(_ context.Context, p hook.Point, e *hook.Event) hook.Verdict {
	if f := c[p]; f != nil {
		return f(e)
	}
	return hook.Proceed()
}

type store struct {
	err     error
	events  []string
	content string
}

func (s *store) Put(_ *mail.Envelope, c mail.Content) error {
	r, _ := c.Open()
	b, _ := io.ReadAll(r)
	s.content = string(b)
	s.events = append(s.events, "put")
	return s.err
}
func (s *store) Room(int64) error       { return nil }
func (s *store) Enqueue(p mail.Pending) { s.events = append(s.events, "enqueue "+string(p.ID)) }

func transaction(relaying bool, message string) *hook.Transaction {
	h, size, _ := mail.ParseHeader([]byte(message))
	return &hook.Transaction{
		Envelope: mail.Envelope{ID: "ABC.1", Notes: mail.Notes{}, Recipients: []mail.Recipient{{Address: mail.Address{Local: "a", Domain: "b.c"}}}},
		Relaying: relaying, Header: h, HeaderSize: int64(size), Content: mail.Memory{[]byte(message)}, Results: new(result.Store),
	}
}

func accept(relaying bool, ch chain, s *store, message string) (*reply.Reply, bool) {
	in := New(Options{
		Me: "mx.test", ReceivedHeader: "Tarishi outbound", Queue: s, Dispatcher: s, Chain: ch, Mail: maillog.Nop(), Log: zap.NewNop(),
		Now: func() time.Time { return time.Date(2026, 11, 22, 2, 6, 51, 0, time.UTC) },
	})
	r, v := in.Accept(context.Background(), &hook.Connection{}, transaction(relaying, message))
	return r, v.Code.Denies() && v.Code.Disconnects()
}

// A message whose recipients all stand for nobody is accepted and goes nowhere; one that has
// lost its recipients in another way is not.
func TestDropped(t *testing.T) {
	for _, relaying := range []bool{false, true} {
		s := &store{}
		tx := transaction(relaying, "A: b\r\n\r\n")
		tx.Recipients, tx.Dropped = nil, 2
		in := New(Options{Queue: s, Dispatcher: s, Mail: maillog.Nop(), Log: zap.NewNop(), Now: time.Now, Chain: chain{
			hook.OnQueue:         func(*hook.Event) hook.Verdict { return hook.Answer(hook.Deny, "no recipients") },
			hook.OnQueueOutbound: func(*hook.Event) hook.Verdict { return hook.Answer(hook.Deny, "no recipients") },
		}})
		if r, _ := in.Accept(t.Context(), &hook.Connection{}, tx); r.String() != "250 2.0.0 Message Queued (ABC.1)" || len(s.events) > 0 {
			t.Errorf("%s, %v", r, s.events)
		}
		tx.Dropped = 0
		if r, _ := in.Accept(t.Context(), &hook.Connection{}, tx); r.Positive() {
			t.Errorf("nothing was dropped: %s", r)
		}
	}
}

func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		relaying   bool
		v          hook.Verdict
		want       string
		disconnect bool
	}{
		{false, hook.Answer(hook.OK, ""), "250 2.0.0 Message Queued (ABC.1)", false},
		{false, hook.Answer(hook.OK, "taken"), "250 2.0.0 taken (ABC.1)", false},
		{true, hook.Answer(hook.OK, "taken"), "250 2.0.0 taken (ABC.1)", false},
		{false, hook.Answer(hook.Deny, ""), "550 5.7.1 Message denied (ABC.1)", false},
		{true, hook.Answer(hook.DenySoft, "later"), "450 4.7.1 later (ABC.1)", false},
		{false, hook.Answer(hook.DenyDisconnect, ""), "550 5.7.1 Message denied (ABC.1)", true},
		{false, hook.Answer(hook.DenySoftDisconnect, ""), "450 4.7.1 Message denied temporarily (ABC.1)", true},
		{false, hook.Verdict{Code: hook.Deny, Reply: reply.New(554, "5.6.0", "bad")}, "554 5.6.0 bad (ABC.1)", false},
		{false, hook.Verdict{Code: hook.Deny, Reply: reply.New(250, "2.0.0", "odd")}, "550 5.7.1 Message denied (ABC.1)", false},
		{false, hook.Proceed(), "451 4.3.5 No queue plugin took the message, please try again later (ABC.1)", false},
		{false, hook.Answer(hook.Stop, "x"), "451 4.3.5 x (ABC.1)", false},
	} {
		point := hook.OnQueue
		if tc.relaying {
			point = hook.OnQueueOutbound
		}
		s := &store{}
		r, disconnect := accept(tc.relaying, chain{point: func(*hook.Event) hook.Verdict { return tc.v }}, s, "A: b\r\n\r\n")
		if r.String() != tc.want || disconnect != tc.disconnect || len(s.events) > 0 {
			t.Errorf("%v %s: got %s, disconnect %v, %v", tc.relaying, tc.v.Code, r, disconnect, s.events)
		}
	}
}

func TestOutbound(t *testing.T) {
	s := &store{}
	ch := chain{hook.OnPreSendTransEmail: func(e *hook.Event) hook.Verdict {
		e.Tx.Header().Add("X-Seen", "yes")
		return hook.Answer(hook.Deny, "ignored here")
	}}
	r, _ := accept(true, ch, s, "Subject: x\r\n\r\nbody\r\n")
	if r.String() != "250 2.0.0 Message Queued (ABC.1)" || strings.Join(s.events, ",") != "put,enqueue ABC.1" {
		t.Errorf("%s %v", r, s.events)
	}
	want := "Received: (Tarishi outbound); Sun, 22 Nov 2026 02:06:51 +0000\r\nSubject: x\r\nMessage-Id: <ABC.1@mx.test>\r\n" +
		"Date: Sun, 22 Nov 2026 02:06:51 +0000\r\nX-Seen: yes\r\n\r\nbody\r\n"
	if s.content != want {
		t.Errorf("got  %q\nwant %q", s.content, want)
	}
}

// TestLateHandler: a message that a handler of a deciding point was late with is not
// taken, and what a late handler does to one changes nothing.
func TestLateHandler(t *testing.T) {
	for _, p := range []hook.Point{hook.OnQueueOutbound, hook.OnPreSendTransEmail} {
		synctest.Test(t, func(t *testing.T) {
			s, release := &store{}, make(chan struct{})
			late := hook.NewChain([]hook.Registration{{Point: p, Plugin: "late", Timeout: time.Second, Handler: func(ctx context.Context, e *hook.Event) hook.Verdict {
				<-ctx.Done()
				for n := 0; ; n++ {
					select {
					case <-release:
						return hook.Answer(hook.OK, "")
					case <-time.After(time.Millisecond):
						e.Tx.SetRecipients(nil)
						e.Tx.Notes().Set("n", n)
						e.Tx.Header().Remove("Subject")
					}
				}
			}}}, zap.NewNop())
			in := New(Options{Me: "mx.test", Queue: s, Dispatcher: s, Chain: late, Mail: maillog.Nop(), Log: zap.NewNop(), Now: time.Now})
			r, v := in.Accept(t.Context(), &hook.Connection{Notes: mail.Notes{}}, transaction(true, "Subject: x\r\n\r\n"))
			want := "450 4.7.1 plugin timeout (ABC.1)"
			if p.Observes() {
				want = "250 2.0.0 Message Queued (ABC.1)"
			}
			if r.String() != want || v.Code.Disconnects() || (len(s.events) > 0) != p.Observes() || p.Observes() && !strings.Contains(s.content, "Subject: x") {
				t.Errorf("%s: %s %+v %v %q", p, r, v, s.events, s.content)
			}
			close(release)
			late.Wait(t.Context())
		})
	}
}

func TestPutFailureIsTemporary(t *testing.T) {
	for _, err := range []error{errors.New("disk on fire"), reply.New(452, "4.3.1", "Insufficient system storage"), reply.New(550, "", "odd")} {
		s := &store{err: err}
		r, _ := accept(true, nil, s, "\r\n")
		if !r.Temporary() || strings.Contains(r.Text, "fire") || len(s.events) != 1 {
			t.Errorf("%v: %s %v", err, r, s.events)
		}
	}
}

// signer is a Seal.
type signer struct {
	err  error
	seen string
}

func (s *signer) Seal(_ context.Context, m hook.Outgoing) ([]byte, error) {
	r, _ := m.Content().Open()
	b, _ := io.ReadAll(r)
	s.seen = string(b)
	return []byte("Signature: x\r\n"), s.err
}

// What is signed is what is queued, whatever handlers of any point do, and without the
// signature nothing is.
func TestSeal(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{nil, "250 2.0.0 Message Queued (ABC.1)"},
		{reply.New(451, "4.7.0", "no key"), "451 4.7.0 no key (ABC.1)"},
		{errors.New("secret"), "451 4.3.0 Temporary local problem, please try again later (ABC.1)"},
	} {
		s, seal := &store{}, &signer{err: tc.err}
		change := func(e *hook.Event) hook.Verdict {
			e.Tx.Header().Add("X-Changed", "yes")
			return hook.Proceed()
		}
		tx := transaction(true, "Subject: x\r\n\r\nbody\r\n")
		in := New(Options{
			Me: "mx.test", Queue: s, Dispatcher: s, Chain: chain{hook.OnQueueOutbound: change, hook.OnPreSendTransEmail: change}, Seal: seal,
			Mail: maillog.Nop(), Log: zap.NewNop(), Now: time.Now,
		})
		r, _ := in.Accept(t.Context(), &hook.Connection{}, tx)
		if r.String() != tc.want || strings.Count(seal.seen, "X-Changed: yes\r\n") != 2 {
			t.Errorf("%s, signed %q", r, seal.seen)
		}
		if want := "Signature: x\r\n" + seal.seen; tc.err == nil && s.content != want || tc.err != nil && len(s.events) > 0 {
			t.Errorf("queued %q (%v), want %q", s.content, s.events, want)
		}

		// What stands behind, such as queue_ok, finds the message closed.
		change(&hook.Event{Tx: tx.View()})
		if n := tx.Header.Count("X-Changed"); n != 2 {
			t.Errorf("%d changes", n)
		}
	}
}

// A stranger's message is never passed to the Seal here: it has no way into the queue but
// by a plugin.
func TestSealOfStrangers(t *testing.T) {
	seal := &signer{}
	tx := transaction(false, "From: a@ours.test\r\n\r\n")
	taken := chain{hook.OnQueue: func(*hook.Event) hook.Verdict { return hook.Answer(hook.OK, "") }}
	in := New(Options{Chain: taken, Seal: seal, Mail: maillog.Nop(), Log: zap.NewNop(), Now: time.Now})
	if r, _ := in.Accept(t.Context(), &hook.Connection{}, tx); !r.Positive() || seal.seen != "" {
		t.Errorf("%s, signed %q", r, seal.seen)
	}
	tx.View().Header().Add("X-Late", "yes")
	if tx.Header.Has("X-Late") {
		t.Error("changed behind the plugin that took it")
	}
}
