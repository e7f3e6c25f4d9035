package session

import (
	"strconv"
	"strings"
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
)

func TestMessage(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	c.message("Subject: hi\r\nX: y\r\n\r\nline\r\n..dot\r\n.\r\n", "250 2.0.0 Message Queued (")
	c.message("Subject: two\r\n\r\n.\r\n", "250 ")
	c.cmd("QUIT", "221 2.0.0 mx.test closing connection")
	c.closed()
	got := r.intake.messages()
	if len(got) != 2 {
		t.Fatalf("%d messages", len(got))
	}
	lines := strings.Split(got[0].raw, "\r\n")
	want := []string{
		"Received: from client.test (Unknown [127.0.0.1])", "\tby mx.test (Tarishi/1.0) with ESMTP id " + string(got[0].tx.ID),
		"\tenvelope-from <a@client.test>;", "", "Subject: hi", "X: y", "", "line", ".dot", "",
	}
	for i, w := range want {
		if i != 3 && (i >= len(lines) || lines[i] != w) {
			t.Errorf("line %d of %q: want %q", i, got[0].raw, w)
		}
	}
	if !strings.HasSuffix(got[0].head, "X: y\r\n\r\n") || got[0].tx.Size != int64(len("Subject: hi\r\nX: y\r\n\r\nline\r\n.dot\r\n")) {
		t.Errorf("header %q, size %d", got[0].head, got[0].tx.Size)
	}
	if !strings.HasSuffix(string(got[1].tx.ID), ".2") || len(got[1].tx.Recipients) != 1 {
		t.Errorf("second transaction is %+v", got[1].tx.Envelope)
	}
	trail := []hook.Point{
		hook.OnConnectInit, hook.OnLookupRDNS, hook.OnConnect, hook.OnEhlo, hook.OnCapabilities, hook.OnMail, hook.OnRcpt, hook.OnRcptOK,
		hook.OnData, hook.OnDataPost, hook.OnQueueOK, hook.OnResetTransaction,
	}
	ran := r.hooks.trail()
	for i, p := range trail {
		if i >= len(ran) || ran[i] != p {
			t.Fatalf("hooks ran as %v, want %v", ran, trail)
		}
	}
}

// The separator line of a mailbox file on top of a message becomes a field, by
// DATA and by BDAT, with our trace field or without: it ended the header section
// once, and all of it was text then.
func TestMailboxLine(t *testing.T) {
	for _, trace := range []bool{true, false} {
		r := newRig(t, false, func(o *Options) { o.AddReceived = trace })
		c := r.hello()
		for _, top := range []string{"From ann@a.test Mon Jan  1 12:34:56 2024\r\n", ">From ann Mon\r\n", "From ann\r\n>From bob\r\n"} {
			content := top + "Subject: s\r\nMessage-Id: <1@a.test>\r\n\r\nFrom here\r\n"
			c.message(content+".\r\n", "250 ")
			c.envelope()
			c.cmd("BDAT "+strconv.Itoa(len(content))+" LAST\r\n"+strings.TrimSuffix(content, "\r\n"), "250 ")
		}
		for _, m := range r.intake.messages() {
			h, size, complete := mail.ParseHeader([]byte(m.raw))
			if !complete || m.raw[size:] != "From here\r\n" || h.Get("Subject") != "s" || h.Count("Message-Id") != 1 || h.Has("Received") != trace {
				t.Errorf("%q", m.raw)
			}
			if got := h.All("X-Mailbox-Line"); len(got) == 0 || !strings.Contains(got[0], "From ann") || h.Changed() {
				t.Errorf("%q", m.raw)
			}
			if tx := m.tx; tx.Header.Get("Subject") != "s" {
				t.Errorf("plugins saw %q", tx.Header.Bytes())
			}
		}
		if n := len(r.intake.messages()); n != 6 {
			t.Errorf("%d messages", n)
		}
	}
}
