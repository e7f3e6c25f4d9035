package session

import (
	"strings"
	"testing"

	"tarishi/internal/hook"
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

// open returns how many sessions there are.
func (s *Server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}
