package outbound

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/store"
	"tarishi/internal/test/smtptest"
)

// submitted returns what the message with the ID would be sent as.
func (r *rig) submitted(id mail.ID) (*mail.Envelope, string) {
	r.t.Helper()
	env, c, err := r.queue.Load(id)
	if err != nil {
		r.t.Fatal(err)
	}
	in, err := c.Open()
	if err != nil {
		r.t.Fatal(err)
	}
	defer in.Close()
	b, err := io.ReadAll(in)
	if err != nil {
		r.t.Fatal(err)
	}
	return env, string(b)
}

func TestSubmit(t *testing.T) {
	const fields = "Date: yesterday\r\nMessage-Id: <x@y>\r\n"
	// The first look at the header section ends between the CR and LF of the
	// empty line.
	long, longer := strings.Repeat("x", 8<<10-len(fields)-len("A: \r\n\r")), strings.Repeat("x", 8<<10-len("A: \r\n\r"))
	for _, tc := range []struct{ name, contents, want string }{
		{"as it is", fields + "\r\nHello\r\n", fields + "\r\nHello\r\n"},
		{"line feeds", "Date: yesterday\nMessage-Id: <x@y>\n\none\n\ntwo\n", fields + "\r\none\r\n\r\ntwo\r\n"},
		{"carriage returns", fields + "\r\none\r\rtwo\r\n", fields + "\r\none\r\n\r\ntwo\r\n"},
		{"last line without an end", fields + "\r\nHello", fields + "\r\nHello\r\n"},
		{"last line ends in CR", fields + "\r\nHello\r", fields + "\r\nHello\r\n"},
		{"an empty line ends in CR", fields + "\r\nHello\r\n\r", fields + "\r\nHello\r\n\r\n"},
		{"an empty line across two reads", fields + "A: " + long + "\r\n\r\nHello\r\n", fields + "A: " + long + "\r\n\r\nHello\r\n"},
		{"an empty line across two reads, and a field more", "A: " + longer + "\r\n\r\nHello\r\n", "A: " + longer + "\r\nMessage-Id: <ID@me.test>\r\nDate: DATE\r\n\r\nHello\r\n"},
		{"dots stay", fields + "\r\n.\r\n..\r\n.x", fields + "\r\n.\r\n..\r\n.x\r\n"},
		{"no empty line", fields + "Hello World\r\n", fields + "\r\nHello World\r\n"},
		{"no body", fields, fields + "\r\n"},
		{"a first line that is a fold", " Hello\r\n", "Message-Id: <ID@me.test>\r\nDate: DATE\r\n\r\n Hello\r\n"},
		{"nothing", "", "Message-Id: <ID@me.test>\r\nDate: DATE\r\n\r\n"},
		{"fields are added", "Subject: x\n\nHello\n", "Subject: x\r\nMessage-Id: <ID@me.test>\r\nDate: DATE\r\n\r\nHello\r\n"},
		{"an empty Message-Id", "Message-Id: <>\nDate: yesterday\n\n", "Date: yesterday\r\nMessage-Id: <ID@me.test>\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, cut := range map[string]func(io.Reader) io.Reader{
				"whole": func(r io.Reader) io.Reader { return r }, "by byte": iotest.OneByteReader, "end with data": iotest.DataErrReader,
			} {
				inBubble(t, func(r *rig) {
					r.o.Disabled = true
					r.start()
					id, err := r.out.Submit(r.t.Context(), hook.Submission{From: "s@from.test", To: []string{"<one@a.test>"}, Contents: cut(strings.NewReader(tc.contents))})
					if err != nil {
						t.Fatal(err)
					}
					want := strings.NewReplacer("ID", string(id), "DATE", time.Now().Format("Mon, 02 Jan 2006 15:04:05 -0700")).Replace(strings.ReplaceAll(tc.want, "Message-Id", "message-!"))
					want = strings.ReplaceAll(want, "message-!", "Message-Id")
					if _, got := r.submitted(id); got != want {
						t.Errorf("%s\n got %q\nwant %q", name, got, want)
					}
				})
			}
		})
	}
}

func TestSubmitOptions(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.ReceivedHeader = "ours"
		r.o.TempFailIntervals = interval
		r.o.DelayWarning = -1
		r.o.Disabled = true
		seen := r.on(hook.OnPreSendTransEmail, hook.Answer(hook.Deny, "no")) // which changes nothing
		r.start()
		notes := mail.Notes{"campaign": "spring"}
		origin := &mail.Origin{Name: "client.test"}
		id, err := r.out.Submit(r.t.Context(), hook.Submission{
			From: "<>", To: []string{"one@a.test", "two@b.test", "one@a.test", "three@a.test"},
			Contents:   strings.NewReader("Subject: caf\xc3\xa9\nDate: d\nMessage-Id: <m@x>\n\n..one dot\n...\n.\n"),
			DotStuffed: true, Notes: notes, RemoveMessageID: true, RemoveDate: true, Origin: origin,
		})
		if err != nil {
			t.Fatal(err)
		}
		notes.Set("campaign", "changed afterwards")
		env, got := r.submitted(id)
		now := time.Now().Format("Mon, 02 Jan 2006 15:04:05 -0700")
		want := "Received: (ours); " + now + "\r\nSubject: caf\xc3\xa9\r\nMessage-Id: <" + string(id) + "@me.test>\r\nDate: " + now + "\r\n\r\n.one dot\r\n..\r\n"
		if got != want {
			t.Errorf("\n got %q\nwant %q", got, want)
		}
		if !env.From.IsNull() || len(env.Recipients) != 3 || env.Body != "8BITMIME" || env.Notes.String("campaign") != "spring" || *env.Origin != *origin {
			t.Errorf("%+v", env)
		}
		if n := r.out.Stat().Ready; n != 2 {
			t.Errorf("%d deliveries", n)
		}
		if len(*seen) != 1 || (*seen)[0].Tx.ID() != id || (*seen)[0].Tx.Header().Get("Message-Id") == "" {
			t.Errorf("%+v", *seen)
		}
	})
}

// A mailbox line on top of a submission does not end its header section.
func TestSubmitMailboxLine(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.ReceivedHeader = "disabled"
		r.o.TempFailIntervals = interval
		r.o.DelayWarning = -1
		r.o.Disabled = true
		r.start()
		long := strings.Repeat(">From x\r\n", 2000) // more than is read at first
		for _, top := range []string{"From ann Mon\n", ">From ann Mon\n", long} {
			id, err := r.out.Submit(r.t.Context(), hook.Submission{
				From: "s@from.test", To: []string{"one@a.test"}, Contents: strings.NewReader(top + "Date: d\nMessage-Id: <m@x>\n\nbody\n"),
			})
			if err != nil {
				t.Fatal(err)
			}
			_, got := r.submitted(id)
			if h, n, _ := mail.ParseHeader([]byte(got)); got[n:] != "body\r\n" || h.Get("Message-Id") != "<m@x>" || h.Count("Date") != 1 || !h.Has("X-Mailbox-Line") {
				t.Errorf("%.300q", got)
			}
		}
	})
}

// TestSubmitChanged: what a plugin does at pre_send_trans_email goes out.
func TestSubmitChanged(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.Disabled = true
		for _, name := range []string{"signer", "skipped"} {
			r.regs = append(r.regs, hook.Registration{Point: hook.OnPreSendTransEmail, Plugin: name, Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
				e.Tx.Header().AddLeading("X-By", name)
				return hook.Proceed()
			}})
		}
		r.start()
		id, err := r.out.Submit(r.t.Context(), hook.Submission{
			From: "s@from.test", To: []string{"one@a.test"}, Contents: strings.NewReader("Date: d\nMessage-Id: <m@x>\n\nbody"), Notes: mail.Notes{"skip_plugins": []string{"skipped"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, got := r.submitted(id); got != "X-By: signer\r\nDate: d\r\nMessage-Id: <m@x>\r\n\r\nbody\r\n" {
			t.Errorf("%q", got)
		}
	})
}

func TestSubmitRefuses(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.o.Disabled = true
		r.start()
		good := func() hook.Submission {
			return hook.Submission{From: "s@from.test", To: []string{"one@a.test"}, Contents: strings.NewReader("Subject: x\n\nbody\n")}
		}
		ended, end := context.WithCancel(r.t.Context())
		end()
		for name, tc := range map[string]struct {
			change func(s *hook.Submission)
			ctx    context.Context
			code   int
		}{
			"from":        {func(s *hook.Submission) { s.From = "a b@c d" }, nil, 553},
			"to":          {func(s *hook.Submission) { s.To = append(s.To, "x@y@") }, nil, 553},
			"a null to":   {func(s *hook.Submission) { s.To = []string{"<>"} }, nil, 553},
			"nobody":      {func(s *hook.Submission) { s.To = nil }, nil, 554},
			"no contents": {func(s *hook.Submission) { s.Contents = nil }, nil, 554},
			"notes":       {func(s *hook.Submission) { s.Notes = mail.Notes{"x": func() {}} }, nil, 554},
			"behind the end": {func(s *hook.Submission) {
				s.DotStuffed, s.Contents = true, strings.NewReader("a: b\n\n.\nmore")
			}, nil, 554},
			"a broken stream": {func(s *hook.Submission) { s.Contents = iotest.ErrReader(errors.New("broken")) }, nil, 451},
			"a long header":   {func(s *hook.Submission) { s.Contents = strings.NewReader(strings.Repeat("A: b\n", 300_000)) }, nil, 552},
			"ended":           {func(*hook.Submission) {}, ended, 451},
		} {
			s := good()
			tc.change(&s)
			ctx := tc.ctx
			if ctx == nil {
				ctx = r.t.Context()
			}
			id, err := r.out.Submit(ctx, s)
			var got *reply.Reply
			if !errors.As(err, &got) || got.Code != tc.code || id != "" {
				t.Errorf("%s: %q %v", name, id, err)
			}
		}
		r.queue.set("put", errDisk)
		if _, err := r.out.Submit(r.t.Context(), good()); !errors.Is(err, errDisk) {
			t.Error(err)
		}
		r.queue.set("put", nil)
		if n := r.queue.left(); n != 0 || r.out.Stat().Ready != 0 {
			t.Errorf("%d messages are in the queue", n)
		}
	})
}

// endless is n bytes of lines.
type endless struct{ n int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.n <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), e.n)]
	for i := range p {
		p[i] = 'x'
	}
	if len(p) > 1 {
		p[len(p)-1] = '\n'
	}
	e.n -= int64(len(p))
	return len(p), nil
}

// TestSubmitLarge: a long stream is durable and sent without being in memory.
func TestSubmitLarge(t *testing.T) {
	const size = 64 << 20
	server := smtptest.New(t, smtptest.On(smtptest.Rcpt, func(smtptest.Event) smtptest.Action { return smtptest.Reply("450 4.2.1 later") }))
	w := startWhole(t, t.TempDir(), server.Port())
	defer w.stop()
	runtime.GC()
	peak := make(chan uint64, 1)
	watch, stop := context.WithCancel(t.Context())
	go func() {
		var m runtime.MemStats
		top := uint64(0)
		for watch.Err() == nil {
			runtime.ReadMemStats(&m)
			top = max(top, m.HeapInuse)
			time.Sleep(5 * time.Millisecond)
		}
		peak <- top
	}()
	id, err := w.Submit(t.Context(), hook.Submission{
		From: "s@from.test", To: []string{"one@a.test"}, Contents: io.MultiReader(strings.NewReader("Subject: x\n\n"), &endless{size}),
	})
	stop()
	if err != nil {
		t.Fatal(err)
	}
	if top := <-peak; top > 32<<20 {
		t.Errorf("%d bytes of heap for a message of %d", top, size)
	}
	_, c, err := w.queue.Load(id)
	if err != nil || c.Size() < size {
		t.Fatal(c, err)
	}
	if err := w.queue.Remove(id); err != nil || !errors.Is(w.queue.Remove(id), store.ErrUnknown) {
		t.Fatal(err)
	}
}

// signature is a Seal that signs with what it has seen.
type signature struct{ err error }

func (s *signature) Seal(_ context.Context, m hook.Outgoing) ([]byte, error) {
	return []byte("Signature: " + m.Field("Message-Id") + m.Field("X-Hook") + "\r\n"), s.err
}

// Submissions and DSNs are signed behind pre_send_trans_email, and do not get into the queue
// without a signature that is due.
func TestSealed(t *testing.T) {
	inBubble(t, func(r *rig) {
		seal := &signature{}
		r.o.Disabled, r.o.Seal = true, seal
		for _, name := range []string{"one", "two"} {
			r.regs = append(r.regs, hook.Registration{Point: hook.OnPreSendTransEmail, Plugin: name, Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
				e.Tx.Header().Remove("X-Hook")
				e.Tx.Header().Add("X-Hook", name)
				return hook.Proceed()
			}})
		}
		r.start()
		contents := func() hook.Submission {
			return hook.Submission{From: "s@from.test", To: []string{"one@a.test"}, Contents: strings.NewReader("Message-Id: <m>\nDate: d\n\nx\n")}
		}
		id, err := r.out.Submit(t.Context(), contents())
		if err != nil {
			t.Fatal(err)
		}
		if _, got := r.submitted(id); got != "Signature: <m>two\r\nMessage-Id: <m>\r\nDate: d\r\nX-Hook: two\r\n\r\nx\r\n" {
			t.Errorf("%q", got)
		}

		env, content := r.envelope("one@a.test"), mail.Memory{[]byte("Subject: x\r\n\r\n")}
		failed := []hook.RecipientResult{{Recipient: env.Recipients[0], Reply: reply.New(550, "5.1.1", "unknown")}}
		if err := r.out.Report(env, content, failed); err != nil {
			t.Fatal(err)
		}
		var report string
		r.queue.Walk(func(p mail.Pending) bool {
			if p.From.IsNull() {
				_, report = r.submitted(p.ID)
			}
			return true
		})
		if !strings.HasPrefix(report, "Signature: <") || !strings.Contains(report, "two\r\n") {
			t.Errorf("%q", report)
		}

		// Nothing gets past a Seal that fails.
		before := r.queue.left()
		seal.err = reply.New(451, "4.7.0", "no key")
		if _, err := r.out.Submit(t.Context(), contents()); err == nil || err.Error() != "451 4.7.0 no key" {
			t.Errorf("%v", err)
		}
		if err := r.out.Report(env, content, failed); err == nil || r.queue.left() != before {
			t.Errorf("%v, %d messages", err, r.queue.left())
		}
	})
}
