package rehearsal

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/session"
)

// play has a client talk to handlers, and returns what was written without the times.
func play(t *testing.T, change func(*Client), handlers ...hook.Registration) (text string, accepted bool) {
	t.Helper()
	c := &Client{
		From: netip.MustParseAddrPort("203.0.113.9:50000"), To: netip.MustParseAddrPort("192.0.2.1:25"),
		Verb: "EHLO", Host: "client.test", Sender: "a@client.test", Recipients: []string{"b@here.test"}, Message: []byte("Subject: s\n\n.dot\n"),
	}
	if change != nil {
		change(c)
	}
	var out bytes.Buffer
	on := Stage{Conversation: session.Conversation{Me: "mx.test"}, Handlers: handlers, Version: "1.0", Log: zap.NewNop()}
	accepted, err := c.Play(t.Context(), on, &out)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`  +\d+\.\d ms`).ReplaceAllString(out.String(), ""), accepted
}

// at is a handler with one answer.
func at(p hook.Point, plugin string, v hook.Verdict) hook.Registration {
	return hook.Registration{Point: p, Plugin: plugin, Function: "look", Handler: func(context.Context, *hook.Event) hook.Verdict { return v }}
}

// contains checks that lines stand in a text, in this order.
func contains(t *testing.T, text string, lines ...string) {
	t.Helper()
	rest := text
	for _, line := range lines {
		_, behind, found := strings.Cut(rest, line)
		if !found {
			t.Errorf("%q is not there, or not in its place, in\n%s", line, text)
			return
		}
		rest = behind
	}
}

func TestAccepted(t *testing.T) {
	queued := false
	queue := at(hook.OnQueue, "queue/test", hook.Proceed())
	queue.Handler = func(context.Context, *hook.Event) hook.Verdict { queued = true; return hook.Answer(hook.OK, "") }
	var seen hook.Remote
	look := at(hook.OnConnect, "look", hook.Proceed())
	look.Handler = func(_ context.Context, e *hook.Event) hook.Verdict { seen = e.Conn.Remote(); return hook.Proceed() }
	stamp := at(hook.OnDataPost, "stamp", hook.Proceed())
	stamp.Handler = func(_ context.Context, e *hook.Event) hook.Verdict {
		e.Tx.Header().AddLeading("X-Seen", "yes\x1b[2J")
		return hook.Proceed()
	}
	text, accepted := play(t, nil, look, at(hook.OnRcpt, "here", hook.Answer(hook.OK, "fine")), stamp, queue)
	if !accepted || queued {
		t.Errorf("accepted %v, queued %v", accepted, queued)
	}
	if seen.Addr != netip.MustParseAddrPort("203.0.113.9:50000") {
		t.Errorf("the client is %v", seen.Addr)
	}
	contains(t, text,
		"   connect        look.look", "CONT\n", "S: 220 mx.test", "C: EHLO client.test", "S: 250-mx.test", "C: MAIL FROM:<a@client.test>", "S: 250 ",
		"C: RCPT TO:<b@here.test>", "   rcpt           here.look", "OK  fine\n", "S: 250 ", "C: DATA", "S: 354 ",
		"   data_post      stamp.look", "   queue          queue/test.look", "(is not asked)", `   | X-Seen: yes\x1b[2J`, "   | Subject: s", "S: 250 ", "C: QUIT", "S: 221 ",
	)
}

func TestRefused(t *testing.T) {
	refuse := at(hook.OnMail, "list", hook.Answer(hook.Deny, "not you"))
	text, accepted := play(t, nil, refuse)
	if accepted || strings.Contains(text, "RCPT") {
		t.Errorf("accepted %v:\n%s", accepted, text)
	}
	contains(t, text, "   mail           list.look", "DENY  not you", "S: 550 ", "not you", "C: QUIT", "S: 221 ")

	// What comes behind a refusal can be seen too.
	text, accepted = play(t, func(c *Client) { c.Pardoned = true }, refuse, at(hook.OnRcpt, "here", hook.Answer(hook.OK, "")), at(hook.OnQueue, "q", hook.Proceed()))
	if !accepted {
		t.Errorf("with the refusal pardoned:\n%s", text)
	}
	contains(t, text, "DENY  not you", "C: RCPT", "S: 250 2.0.0 The message would be taken")
}

// TestNobodyTakes: no plugin of the queue is there, or the client may relay.
func TestNobodyTakes(t *testing.T) {
	here := at(hook.OnRcpt, "here", hook.Answer(hook.OK, ""))
	if text, accepted := play(t, nil, here); accepted {
		t.Error(text)
	}
	relaying := func(c *Client) { c.Relaying, c.Recipients = true, []string{"x@elsewhere.test", "y@elsewhere.test"} }
	if text, accepted := play(t, relaying); !accepted {
		t.Error(text)
	}
	if text, accepted := play(t, func(c *Client) { c.Recipients = []string{"x@elsewhere.test"} }); accepted || !strings.Contains(text, "S: 550") {
		t.Error(text)
	}
}

// TestClosed: a plugin ends the connection.
func TestClosed(t *testing.T) {
	here := at(hook.OnRcpt, "here", hook.Answer(hook.OK, ""))
	for _, p := range []hook.Point{hook.OnConnect, hook.OnEhlo, hook.OnMail, hook.OnDataPost} {
		text, accepted := play(t, nil, here, at(p, "end", hook.Answer(hook.DenyDisconnect, "go away")), at(hook.OnQueue, "q", hook.Proceed()))
		if accepted {
			t.Errorf("%s: accepted", p)
		}
		contains(t, text, "DENYDISCONNECT", "go away", "S: 5", "(the connection is closed)")
	}
}

// TestCutOff: the caller has enough.
func TestCutOff(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	wait := at(hook.OnEhlo, "slow", hook.Proceed())
	wait.Timeout = time.Hour
	wait.Handler = func(own context.Context, _ *hook.Event) hook.Verdict {
		cancel(enough)
		<-own.Done()
		return hook.Proceed()
	}
	c := &Client{Verb: "EHLO", Host: "client.test", From: netip.MustParseAddrPort("203.0.113.9:50000"), To: netip.MustParseAddrPort("192.0.2.1:25")}
	on := Stage{Conversation: session.Conversation{Me: "mx.test"}, Handlers: []hook.Registration{wait}, Log: zap.NewNop()}
	if _, err := c.Play(ctx, on, new(bytes.Buffer)); !errors.Is(err, enough) {
		t.Errorf("error %v", err)
	}
}
