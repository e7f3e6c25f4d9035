package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/message"
	"tarishi/internal/reply"
	"tarishi/internal/result"
)

// memory is a Body, and lends more of them. It counts those that were not discarded.
type memory struct {
	bytes.Buffer
	lent *int
}

func (m *memory) NewBody() Body {
	*m.lent++
	return &memory{lent: m.lent}
}

func (m *memory) Content() (mail.Content, error) { return mail.Memory{m.Bytes()}, nil }

func (m *memory) Discard() { *m.lent-- }

const raw = "Subject: x\r\nX-Note: y\r\n\r\nbody\r\n"

// state is everything that an Event can lead to.
type state struct {
	conn *Connection
	tx   *Transaction
	d    *Delivery
	lent int
}

func newState() *state {
	s := &state{}
	h, size, _ := mail.ParseHeader([]byte(raw))
	s.tx = transaction()
	s.tx.Header, s.tx.HeaderSize, s.tx.Content = h, int64(size), mail.Memory{[]byte(raw)}
	s.tx.Recipients = []mail.Recipient{{Address: mail.Address{Local: "r", Domain: "x.test"}}}
	s.tx.Notes["list"], s.tx.Bodies = []any{1.0, "a"}, &memory{lent: &s.lent}
	s.conn = &Connection{
		ID: "A", Me: "mx.test", Notes: mail.Notes{}, Results: new(result.Store), AuthUser: "u", AuthPass: "p", AuthMech: "PLAIN",
		Hello: Hello{"EHLO", "h"}, Remote: Remote{Addr: netip.MustParseAddrPort("192.0.2.1:25")},
	}
	all := []mail.Recipient{{Address: mail.Address{Local: "to", Domain: "example.com"}}}
	s.d = &Delivery{
		Envelope: mail.Envelope{ID: "A.1", Recipients: all, Notes: mail.Notes{}}, Domain: "example.com", Notes: mail.Notes{},
		Content: mail.Memory{[]byte(raw)}, MX: []mail.NextHop{{Host: "mx"}}, Path: func() (string, error) { return "file", nil },
	}
	return s
}

// event leads to all of s, and has lists of its own.
func (s *state) event() *Event {
	results := []RecipientResult{{Recipient: s.d.Recipients[0], Reply: reply.New(450, "", "x")}}
	return &Event{
		Conn: s.conn.View(), Tx: s.tx.View(), Delivery: s.d.View(), Params: map[string]string{"SIZE": "1"},
		Failed: results, Deferred: results, Success: &DeliveredParams{Host: "mx", OKRecipients: slices.Clone(s.d.Recipients)},
	}
}

// print is what s says.
func (s *state) print(t *testing.T) string {
	t.Helper()
	r, err := s.tx.Final().Open()
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(r)
	var b strings.Builder
	for _, v := range []any{*s.conn, s.conn.Results.Of("late"), s.tx.Envelope, s.tx.Relaying, s.tx.Results.Of("late"), s.tx.Size, string(text), s.d.Envelope, s.d.Notes, s.d.ForceTLS, s.d.Recipients} {
		fmt.Fprintf(&b, "%+v\n", v)
	}
	return b.String()
}

// scribble changes all that an Event leads to.
func scribble(e *Event, n int) {
	e.Host, e.Text = "late", "late"
	if e.Params != nil {
		e.Params["late"] = "late"
	}
	e.Conn.Notes().Set("late", n)
	e.Conn.Results().Set("late", "n", n)
	e.Conn.Results().Pass("late", "n")
	e.Conn.SetRelaying(true)
	e.Conn.SetOfferTLS(true)
	e.Conn.SetRemote(Remote{Host: "late"})
	e.Conn.OfferAuth(nil)
	e.Tx.Notes().Set("late", n)
	e.Tx.Notes().Set("deep.late", n)
	e.Tx.Results().Fail("late", "n")
	e.Tx.SetFrom(mail.Address{Local: "late", Domain: "x"})
	e.Tx.SetRelaying(true)
	e.Tx.SetRecipients(nil)
	e.Tx.Header().Add("Late", "n")
	e.Tx.Header().AddLeading("Late", "n")
	e.Tx.Header().Remove("Subject")
	e.Tx.Header().Rename("X-Note", "Late")
	e.Delivery.Notes().Set("late", n)
	e.Delivery.MessageNotes().Set("late", n)
	e.Delivery.SetForceTLS()
	for _, list := range [][]RecipientResult{e.Failed, e.Deferred} {
		if len(list) > 0 {
			list[0] = RecipientResult{}
		}
	}
	if e.Success != nil {
		e.Success.OKRecipients[0], e.Success.Host = mail.Recipient{}, "late"
	}
	if e.Denied != nil {
		e.Denied.Point = "late"
	}
}

// sees reports whether anything can be seen through the views of an Event.
func sees(e *Event) bool {
	_, err := e.Delivery.Path()
	return e.Conn.ID()+e.Conn.Me()+e.Conn.Hello().Host+e.Conn.Authenticated().User != "" || e.Conn.Remote() != (Remote{}) ||
		e.Tx.ID() != "" || e.Tx.From().Local != "" || e.Tx.Recipients() != nil || e.Tx.RecipientCount() > 0 || e.Tx.Final() != nil ||
		e.Tx.Message() != nil || e.Tx.Notes().All() != nil || e.Tx.Notes().Get("list") != nil || e.Tx.Header().Len() > 0 ||
		e.Tx.Envelope().ID != "" || e.Delivery.ID() != "" || e.Delivery.Content() != nil || e.Delivery.MX() != nil || !errors.Is(err, ErrRevoked)
}

// TestLateHandler: a handler whose time is over neither sees nor changes anything, and
// what it holds of lists and maps is its own. The race detector watches.
func TestLateHandler(t *testing.T) {
	for _, p := range Points() {
		t.Run(string(p), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, release := newState(), make(chan struct{})
				before := s.print(t)
				follows := 0
				next := func(_ context.Context, e *Event) Verdict {
					follows++
					if e.Text != "" || e.Success.Host != "mx" || e.Success.OKRecipients[0].Address.Local != "to" || e.Failed[0].Reply == nil || len(e.Params) != 1 {
						t.Errorf("saw %+v", e)
					}
					return Proceed()
				}
				late := func(ctx context.Context, e *Event) Verdict {
					content, list, rcpts := e.Tx.Final(), e.Tx.Notes().Get("list").([]any), e.Tx.Recipients()
					env, reader := e.Tx.Envelope(), open(t, e.Tx.Final())
					<-ctx.Done()
					time.Sleep(time.Millisecond) // the chain gives up first
					for n := 0; ; n++ {
						scribble(e, n)
						list[0], rcpts[0], env.Notes["late"], env.Recipients[0] = n, mail.Recipient{}, n, mail.Recipient{}
						if _, err := reader.Read(make([]byte, 1)); sees(e) || !errors.Is(err, ErrRevoked) {
							t.Errorf("a late handler sees %+v, %v", e, err)
						}
						if _, err := content.Open(); !errors.Is(err, ErrRevoked) {
							t.Errorf("a late handler opens the message: %v", err)
						}
						if err := e.Tx.Rewrite(nil); !errors.Is(err, ErrRevoked) {
							t.Errorf("a late handler rewrites the message: %v", err)
						}
						select {
						case <-release:
							reader.Close()
							return Answer(OK, "late")
						case <-time.After(time.Second):
						}
					}
				}
				c := NewChain([]Registration{
					{Point: p, Plugin: "late", Timeout: time.Minute, Handler: late},
					{Point: p, Plugin: "next", Timeout: time.Minute, Handler: next},
					{Point: p, Plugin: "inline", Handler: next},
				}, zap.NewNop())
				v := c.Run(t.Context(), p, s.event())
				if decides := !p.failsOpen(); decides != (v.Code == DenySoft) || decides && (v.Text != textTimeout || follows > 0) || !decides && follows != 2 {
					t.Errorf("verdict %+v, %d handlers behind it", v, follows)
				}
				for range 10 {
					time.Sleep(time.Second)
					s.conn.Notes.Set("live", true) // nobody else may be there
					s.tx.Notes.Set("live", true)
					s.tx.Header.Add("Live", "yes")
					s.tx.Header.Remove("Live")
				}
				delete(s.conn.Notes, "live")
				delete(s.tx.Notes, "live")
				if after := s.print(t); after != before || s.lent != 0 {
					t.Errorf("changed to\n%s\nfrom\n%s, %d bodies", after, before, s.lent)
				}
				close(release)
				c.Wait(t.Context())
			})
		})
	}
}

func open(t *testing.T, c mail.Content) io.ReadCloser {
	t.Helper()
	r, err := c.Open()
	if err != nil {
		t.Error(err)
	}
	return r
}

// TestGoroutineLeftBehind: the views of a handler with a timeout end when it returns.
func TestGoroutineLeftBehind(t *testing.T) {
	s := newState()
	var kept *Event
	c := NewChain([]Registration{{Point: OnDataPost, Plugin: "a", Timeout: time.Minute, Handler: func(_ context.Context, e *Event) Verdict {
		kept = e
		scribble(e, 1)
		return Proceed()
	}}}, zap.NewNop())
	c.Run(t.Context(), OnDataPost, s.event())
	now := s.print(t)
	if s.conn.Notes["late"] != 1 || !s.conn.Relaying || s.tx.From.Local != "late" || s.tx.Header.Has("Subject") || s.tx.Header.Count("Late") != 3 || !s.d.ForceTLS || s.tx.Recipients != nil {
		t.Errorf("what it did in time is gone: %s", now)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for n := range 100 {
			scribble(kept, n+2)
		}
	})
	for range 100 {
		s.conn.Notes.Set("live", true)
		s.tx.Notes.Set("live", true)
	}
	all.Wait()
	if s.conn.Notes["late"] != 1 || sees(kept) {
		t.Error("it still sees or changes something")
	}
}

// TestLateDenyHandler: a deny handler that is late can drop no refusal.
func TestLateDenyHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var sc script
		s := newState()
		c := NewChain([]Registration{sc.on(OnMail, "no", Answer(Deny, "no")), sc.on(OnMail, "next", Proceed()), {
			Point: OnDeny, Plugin: "late", Timeout: time.Minute, Handler: func(_ context.Context, e *Event) Verdict {
				<-release
				scribble(e, 1)
				return Answer(OK, "")
			},
		}}, zap.NewNop())
		v := c.Run(t.Context(), OnMail, s.event())
		if v.Code != Deny || v.Text != "no" || len(sc.ran) != 1 {
			t.Errorf("verdict %+v, ran %q", v, sc.ran)
		}
		close(release)
		c.Wait(t.Context())
	})
}

// TestViewsOfNothing: at points without a transaction or a delivery the views are zero,
// and nothing happens to them.
func TestViewsOfNothing(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Minute} {
		c := NewChain([]Registration{{Point: OnInit, Plugin: "a", Timeout: timeout, Handler: func(_ context.Context, e *Event) Verdict {
			if !e.Conn.IsZero() || !e.Tx.IsZero() || !e.Delivery.IsZero() {
				t.Error("there is something")
			}
			scribble(e, 1)
			if err := e.Tx.Rewrite(nil); !errors.Is(err, ErrNoBody) {
				t.Errorf("%v", err)
			}
			sees(e)
			return Proceed()
		}}}, zap.NewNop())
		if v := c.Run(t.Context(), OnInit, &Event{}); v.Code != Cont {
			t.Errorf("%+v", v)
		}
	}
}

// TestCapability: nothing that a plugin adds can break the reply to EHLO.
func TestCapability(t *testing.T) {
	c := &Connection{}
	for line, good := range map[string]bool{
		"XFOO": true, "X-FOO a=b c": true, "8BIT": true, "": false, " X": false, "-X": false, "X\r\n250 Y": false, "X\x00": false, "X é": false,
		"X=1": false, "X " + strings.Repeat("y", 504): true, "X " + strings.Repeat("y", 505): false,
	} {
		before := len(c.Capabilities)
		if err := c.View().AddCapability(line); (err == nil) != good || good != (len(c.Capabilities) == before+1) {
			t.Errorf("%q: %v, %d lines", line, err, len(c.Capabilities)-before)
		}
	}
}

// TestRewrite: a plugin stamps and replaces, another one sees the new message, and the
// storage of a message that was replaced is freed.
func TestRewrite(t *testing.T) {
	upper := func(_ context.Context, e *Event) Verdict {
		e.Tx.Header().Add("X-Stamp", "yes")
		err := e.Tx.Rewrite(func(p *message.Part) (*message.Change, error) {
			return &message.Change{Transform: func(w io.Writer, old io.Reader) error {
				text, err := io.ReadAll(old)
				if err == nil {
					_, err = w.Write(bytes.ToUpper(text))
				}
				return err
			}}, nil
		})
		if err != nil {
			return Answer(Deny, err.Error())
		}
		return Proceed()
	}
	fails := func(_ context.Context, e *Event) Verdict {
		broken := errors.New("broken")
		if err := e.Tx.Rewrite(func(*message.Part) (*message.Change, error) { return nil, broken }); !errors.Is(err, broken) {
			return Answer(Deny, "no error")
		}
		return Proceed()
	}
	for _, timeout := range []time.Duration{0, time.Minute} {
		s := newState()
		c := NewChain([]Registration{
			{Point: OnDataPost, Plugin: "a", Timeout: timeout, Handler: upper},
			{Point: OnDataPost, Plugin: "b", Timeout: timeout, Handler: fails},
			{Point: OnDataPost, Plugin: "c", Timeout: timeout, Handler: upper},
		}, zap.NewNop())
		if v := c.Run(t.Context(), OnDataPost, s.event()); v.Code != Cont {
			t.Fatalf("%+v", v)
		}
		got, _ := io.ReadAll(open(t, s.tx.Final()))
		want := "Subject: x\r\nX-Note: y\r\nX-Stamp: yes\r\nContent-Transfer-Encoding: quoted-printable\r\nX-Stamp: yes\r\n\r\nBODY\r\n"
		if string(got) != want || s.lent != 1 || s.tx.Header.Changed() {
			t.Errorf("%q, %d bodies", got, s.lent)
		}
		if s.tx.Discard(); s.lent != 0 {
			t.Errorf("%d bodies are left", s.lent)
		}
	}
}

// A message that somebody has taken can be seen and not changed.
func TestFrozen(t *testing.T) {
	tx := &Transaction{}
	tx.ID, tx.Notes, tx.Results = "C.1", mail.Notes{}, new(result.Store)
	raw := []byte("From: a@b.test\r\nSubject: x\r\n\r\nbody\r\n")
	h, size, _ := mail.ParseHeader(raw)
	tx.Header, tx.HeaderSize, tx.Content = h, int64(size), mail.Memory{raw}
	v := tx.View()
	v.Header().Add("X-Early", "yes")
	m := v.Outgoing()
	if m.With(nil).Size() != m.Content().Size() || m.Field("x-early") != "yes" || m.ID() != "C.1" {
		t.Errorf("%+v", m)
	}

	tx.Freeze()
	v.Header().Add("X-Late", "yes")
	v.Header().AddLeading("X-Late", "yes")
	v.Header().Rename("Subject", "X-Late")
	v.Header().Remove("From")
	if got := string(tx.Header.Bytes()); got != "From: a@b.test\r\nSubject: x\r\nX-Early: yes\r\n\r\n" {
		t.Errorf("%q", got)
	}
	if err := v.Rewrite(func(*message.Part) (*message.Change, error) { return nil, nil }); !errors.Is(err, ErrFrozen) {
		t.Errorf("%v", err)
	}
	r, err := m.With([]byte("Signature: y\r\n")).Open()
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(r); string(got) != "Signature: y\r\nFrom: a@b.test\r\nSubject: x\r\nX-Early: yes\r\n\r\nbody\r\n" {
		t.Errorf("%q", got)
	}
}

// Whose From may be believed: that of clients that we know.
func TestIsOurs(t *testing.T) {
	for _, c := range []struct {
		relaying bool
		user     string
		want     bool
	}{{false, "", false}, {true, "", true}, {false, "ann", true}, {true, "ann", true}} {
		conn, tx := &Connection{AuthUser: c.user}, &Transaction{Relaying: c.relaying}
		if got := IsOurs(conn.View(), tx.View()); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
