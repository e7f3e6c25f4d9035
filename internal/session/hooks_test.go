package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/message"
	"tarishi/internal/reply"
)

// talk leads a client to the point where a hook runs and returns the reply that
// the hook decides.
func talk(r *rig, p hook.Point) (*client, string) {
	c := r.dial()
	if p == hook.OnLookupRDNS || p == hook.OnConnect {
		return c, c.read()
	}
	c.want("220 ")
	if p == hook.OnHelo || p == hook.OnEhlo {
		c.send(strings.ToUpper(string(p)) + " client.test\r\n")
		return c, c.read()
	}
	c.cmd("EHLO client.test", "250")
	switch p {
	case hook.OnUnrecognized:
		c.send("XYZZY plugh\r\n")
		return c, c.read()
	case hook.OnRset, hook.OnQuit, hook.OnVrfy, hook.OnNoop:
		c.send(strings.ToUpper(string(p)) + "\r\n")
		return c, c.read()
	}
	c.send("MAIL FROM:<a@client.test>\r\n")
	if p == hook.OnMail {
		return c, c.read()
	}
	c.want("250")
	c.send("RCPT TO:<b@here.test>\r\n")
	if p == hook.OnRcpt || p == hook.OnRcptOK {
		return c, c.read()
	}
	c.want("250")
	c.send("DATA\r\n")
	if p == hook.OnData {
		return c, c.read()
	}
	c.want("354")
	if p == hook.OnMaxDataExceeded {
		c.send(strings.Repeat("x", 2<<20) + "\r\n")
	}
	c.send("\r\n.\r\n")
	return c, c.read()
}

// TestReplies is Haraka's reply table, with the enhanced codes that are ours.
func TestReplies(t *testing.T) {
	const (
		bannerText = "220 mx.test ESMTP Tarishi/1.0 ready ("
		mailOK     = "250 2.1.0 sender <a@client.test> OK"
		rcptOK     = "250 2.1.5 recipient <b@here.test> OK"
		noRcpt     = "550 5.7.1 I cannot deliver mail for <b@here.test>"
		queued     = "250 2.0.0 Message Queued ("
		bigReply   = "552 5.3.4 Message too big!"
		dc         = "!" // then the connection is closed
	)
	for _, tc := range []struct {
		point                                                       hook.Point
		deny, soft, denyDC, softDC, ok, cont, stop, drop, delay, nh string
	}{
		{
			hook.OnLookupRDNS, "554 5.7.1 rDNS Lookup Failed", "421 4.7.1 rDNS Temporary Failure", "!554 5.7.1 rDNS Lookup Failed",
			"!421 4.7.1 rDNS Temporary Failure", bannerText, bannerText, bannerText, "!554 5.7.1 rDNS Lookup Failed", bannerText, bannerText,
		},
		{
			hook.OnConnect, "554 5.7.1 Your mail is not welcome here", "421 4.7.1 Come back later", "!554 5.7.1 Your mail is not welcome here",
			"!421 4.7.1 Come back later", bannerText, bannerText, bannerText, "!554 5.7.1 Your mail is not welcome here", bannerText, bannerText,
		},
		{
			hook.OnHelo, "550 5.7.1 HELO denied", "450 4.7.1 HELO denied", "!550 5.7.1 HELO denied", "!450 4.7.1 HELO denied",
			"250 mx.test Hello ", "250 mx.test Hello ", "250 mx.test Hello ", "250 mx.test Hello ", "250 mx.test Hello ", "250 mx.test Hello ",
		},
		{
			hook.OnEhlo, "550 5.7.1 EHLO denied", "450 4.7.1 EHLO denied", "!550 5.7.1 EHLO denied", "!450 4.7.1 EHLO denied",
			"250-mx.test Hello ", "250-mx.test Hello ", "250-mx.test Hello ", "250-mx.test Hello ", "250-mx.test Hello ", "250-mx.test Hello ",
		},
		{
			hook.OnMail, "550 5.7.1 sender <a@client.test> denied", "450 4.7.1 sender <a@client.test> denied",
			"!550 5.7.1 sender <a@client.test> denied", "!450 4.7.1 sender <a@client.test> denied", mailOK, mailOK, mailOK, mailOK, mailOK, mailOK,
		},
		{
			hook.OnRcpt, "550 5.7.1 recipient <b@here.test> denied", "450 4.7.1 recipient <b@here.test> denied",
			"!550 5.7.1 recipient <b@here.test> denied", "!450 4.7.1 recipient <b@here.test> denied", rcptOK, noRcpt, noRcpt, noRcpt, noRcpt, noRcpt,
		},
		{
			hook.OnRcptOK, "550 5.7.1 recipient <b@here.test> denied", "450 4.7.1 recipient <b@here.test> denied",
			"!550 5.7.1 recipient <b@here.test> denied", "!450 4.7.1 recipient <b@here.test> denied", rcptOK, rcptOK, rcptOK, rcptOK, rcptOK, rcptOK,
		},
		{
			hook.OnData, "554 5.7.1 Message denied", "451 4.7.1 Message denied", "!554 5.7.1 Message denied", "!451 4.7.1 Message denied",
			"354 ", "354 ", "354 ", "354 ", "354 ", "354 ",
		},
		{
			hook.OnMaxDataExceeded, bigReply, "452 4.3.4 Message too big!", bigReply, "452 4.3.4 Message too big!",
			bigReply, bigReply, bigReply, bigReply, bigReply, bigReply,
		},
		{
			hook.OnDataPost, "550 5.7.1 Message denied", "450 4.7.1 Message denied temporarily", "!550 5.7.1 Message denied",
			"!450 4.7.1 Message denied temporarily", queued, queued, queued, queued, queued, queued,
		},
		{hook.OnQueueOK, queued, queued, queued, queued, queued, queued, queued, queued, queued, queued},
		{hook.OnResetTransaction, queued, queued, queued, queued, queued, queued, queued, queued, queued, queued},
		{
			hook.OnRset, "250 2.0.0 OK", "250 2.0.0 OK", "250 2.0.0 OK", "250 2.0.0 OK", "250 2.0.0 OK",
			"250 2.0.0 OK", "250 2.0.0 OK", "250 2.0.0 OK", "250 2.0.0 OK", "250 2.0.0 OK",
		},
		{
			hook.OnVrfy, "550 5.7.1 Access Denied", "450 4.7.1 Lookup Failed", "!550 5.7.1 Access Denied", "!450 4.7.1 Lookup Failed",
			"250 2.1.5 User OK", "252 2.1.5 Just try", "252 2.1.5 Just try", "252 2.1.5 Just try", "252 2.1.5 Just try", "252 2.1.5 Just try",
		},
		{
			hook.OnNoop, "500 5.7.1 Stop wasting my time", "250 2.0.0 OK", "!500 5.7.1 Stop wasting my time", "250 2.0.0 OK", "250 2.0.0 OK",
			"250 2.0.0 OK", "250 2.0.0 OK", "250 2.0.0 OK", "250 2.0.0 OK", "250 2.0.0 OK",
		},
		{
			hook.OnUnrecognized, "500 5.5.1 Unrecognized command", "500 5.5.1 Unrecognized command", "!521 5.5.1 Unrecognized command",
			"!421 4.5.1 Unrecognized command", "250 2.0.0 OK", "500 5.5.1 ", "500 5.5.1 ", "500 5.5.1 ", "500 5.5.1 ", "500 5.5.1 ",
		},
		{
			hook.OnQuit, "!221 ", "!221 ", "!221 ", "!221 ", "!221 ",
			"!221 ", "!221 ", "!221 ", "!221 ", "!221 ",
		},
	} {
		for code, want := range map[hook.Code]string{
			hook.Deny: tc.deny, hook.DenySoft: tc.soft, hook.DenyDisconnect: tc.denyDC, hook.DenySoftDisconnect: tc.softDC, hook.OK: tc.ok,
			hook.Cont: tc.cont, hook.Stop: tc.stop, hook.Drop: tc.drop, hook.Delay: tc.delay, hook.NextHook: tc.nh, 0: tc.cont,
		} {
			t.Run(fmt.Sprintf("%s/%s", tc.point, code), func(t *testing.T) {
				r := newRig(t, false)
				r.hooks.answer(tc.point, hook.Verdict{Code: code})
				c, got := talk(r, tc.point)
				want, closes := strings.CutPrefix(want, dc)
				if !strings.HasPrefix(got, want) {
					t.Fatalf("got %q, want %q…", got, want)
				}
				if closes {
					c.closed()
				} else if strings.HasPrefix(got, "354") {
					c.send(".\r\n")
					c.want("250")
				} else if !strings.HasPrefix(want, "554 5.7.1 rDNS") && !strings.HasPrefix(want, "421") && !strings.HasPrefix(want, "554 5.7.1 Your") {
					c.cmd("RSET", "250")
				}
			})
		}
	}
}

// TestVerdictText checks how a plugin's own words and codes become a reply.
func TestVerdictText(t *testing.T) {
	for _, tc := range []struct {
		v    hook.Verdict
		want string
	}{
		{hook.Answer(hook.Deny, "no\r\nreally"), "550-5.7.1 no\n550 5.7.1 really"},
		{hook.Answer(hook.Deny, "5.7.23 SPF"), "550 5.7.23 SPF"},
		{hook.Answer(hook.DenySoft, "5.7.23 SPF"), "450 4.7.1 SPF"},
		{hook.Answer(hook.Deny, "a\x00\x1b[2J\xff"), "550 5.7.1 a??[2J?"},
		{hook.Verdict{Code: hook.Deny, Reply: reply.New(553, "5.1.8", "own")}, "553 5.1.8 own"},
		{hook.Verdict{Code: hook.Deny, Reply: reply.New(250, "2.0.0", "own")}, "550 5.7.1 own"},
		{hook.Verdict{Code: hook.Deny, Reply: &reply.Reply{Code: 521}}, "521 5.0.0 sender <a@client.test> denied"},
		{hook.Answer(hook.Cont, "fine"), "250 2.1.0 fine"},
		{hook.Answer(hook.Cont, "two\nlines"), "250-2.1.0 two\n250 2.1.0 lines"},
	} {
		r := newRig(t, false)
		r.hooks.answer(hook.OnMail, tc.v)
		_, got := talk(r, hook.OnMail)
		if got != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.v, got, tc.want)
		}
	}
	r := newRig(t, false, func(o *Options) { o.DenyChars = 4 })
	r.hooks.answer(hook.OnMail, hook.Answer(hook.Deny, "no"))
	if _, got := talk(r, hook.OnMail); !strings.HasPrefix(got, "550 5.7.1 [") || !strings.HasSuffix(got, "@mx] no") {
		t.Errorf("got %q", got)
	}
	r.hooks.answer(hook.OnMail, hook.Proceed())
	r.hooks.answer(hook.OnConnect, hook.Answer(hook.Cont, "my banner"))
	if c := r.dial(); c.want("220 my banner") == "" {
		t.Error("no banner")
	}
}

// TestUnwelcome: the connection stays open, but only QUIT works, and not for
// ever.
func TestUnwelcome(t *testing.T) {
	r := newRig(t, false)
	r.hooks.answer(hook.OnConnect, hook.Verdict{Code: hook.Deny})
	c := r.dial()
	c.want("554 5.7.1 Your")
	c.cmd("EHLO x", "554 5.7.1 Your")
	c.cmd("MAIL FROM:<a@b.test>", "554 5.7.1 Your")
	c.cmd("quit", "221 ")
	c.closed()
	c = r.dial()
	c.want("554")
	for range loopCommands {
		c.cmd("NOOP", "554")
	}
	c.closed()
	if r.hooks.count(hook.OnEhlo) != 0 {
		t.Error("a refused client's EHLO reached the hooks")
	}
}

func TestHelloRefusedLater(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	c.cmd("MAIL FROM:<a@b.test>", "250")
	r.hooks.answer(hook.OnEhlo, hook.Verdict{Code: hook.Deny})
	c.cmd("EHLO again", "550 5.7.1 EHLO denied")
	c.cmd("MAIL FROM:<a@b.test>", "503 5.5.1 Use EHLO/HELO")
	if r.hooks.count(hook.OnResetTransaction) != 1 {
		t.Error("the transaction was not reset")
	}
	r.hooks.answer(hook.OnEhlo, hook.Proceed())
	c.cmd("EHLO again", "250")
	c.message("\r\n.\r\n", "250")
}

// TestBlanksBehindVerbs: RFC 5321 section 4.1.1 asks servers to tolerate them.
func TestBlanksBehindVerbs(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	for _, blanks := range []string{" ", "  ", " \t"} {
		c.cmd("NOOP"+blanks, "250")
		c.cmd("rset"+blanks, "250")
		c.cmd("HELP"+blanks, "502")
	}
	c.cmd("QUIT ", "221")
}

func TestSequence(t *testing.T) {
	r := newRig(t, false)
	c := r.dial()
	c.want("220")
	c.cmd("MAIL FROM:<a@b.test>", "503 5.5.1 Use EHLO/HELO")
	c.cmd("EHLO", "501 5.5.4")
	c.cmd("EHLO a\x01b", "501 5.5.4")
	c.cmd("EHLO b\xfccher", "501 5.5.4")
	if got := c.cmd("EHLO client.test", "250-"); !strings.Contains(got, "PIPELINING") || !strings.Contains(got, "SIZE 1048576") ||
		!strings.Contains(got, "8BITMIME") || !strings.Contains(got, "CHUNKING") || !strings.Contains(got, "SMTPUTF8") ||
		!strings.Contains(got, "DSN") || !strings.Contains(got, "ENHANCEDSTATUSCODES") || !strings.Contains(got, "STARTTLS") ||
		strings.Contains(got, "AUTH") || strings.Contains(got, "BINARYMIME") || strings.Contains(got, "REQUIRETLS") {
		t.Errorf("%q", got)
	}
	c.cmd("RCPT TO:<a@b.test>", "503 5.5.1 Use MAIL")
	c.cmd("DATA", "503 5.5.1 MAIL required")
	c.cmd("BDAT 5 LAST\r\nabc", "503 5.5.1 MAIL required")
	c.cmd("NOOP", "250")
	c.cmd("VRFY x", "252")
	c.cmd("MAIL FROM:<a@b.test>", "250")
	c.cmd("DATA", "503 5.5.1 RCPT required")
	c.cmd("DATA x", "501")
	r.hooks.answer(hook.OnRcpt, hook.Proceed())
	c.cmd("RCPT TO:<a@b.test>", "550 5.7.1 I cannot deliver mail for <a@b.test>")
	c.cmd("DATA", "554 5.5.1 No valid recipients")
	r.hooks.answer(hook.OnRcpt, hook.Verdict{Code: hook.OK})
	for i := range 5 {
		c.cmd(fmt.Sprintf("RCPT TO:<%d@b.test>", i), "250")
	}
	c.cmd("RCPT TO:<6@b.test>", "452 4.5.3")
	c.cmd("MAIL FROM:<b@b.test>", "250") // resets
	if r.hooks.count(hook.OnResetTransaction) != 1 {
		t.Error("MAIL in a transaction did not reset it")
	}
	c.cmd("DATA", "503 5.5.1 RCPT required")
	c.cmd("RSET", "250")
	c.cmd("RSET", "250")
	if r.hooks.count(hook.OnResetTransaction) != 2 || r.hooks.count(hook.OnRset) != 2 {
		t.Error("RSET")
	}
	c.cmd("MAIL FROM:<b@b.test> SIZE=2000000", "552 5.3.4")
	c.cmd("MAIL FROM:<b@b.test> SIZE=4294967295", "552 5.3.4")
	c.cmd("MAIL FROM:<b@b.test> SIZE=4294967296", "552 5.3.4")
	c.cmd("MAIL FROM:<b@b.test> size=99999999999999999999", "552 5.3.4")
	c.cmd("MAIL FROM:<b@b.test> SIZE=4294967296x", "501 5.5.4")
	c.cmd("STARTTLS now", "501")
	c.cmd("HELO client.test", "250 mx.test Hello ")
	c.message("\r\n.\r\n", "250")
	if m := r.intake.messages(); !strings.Contains(m[0].raw, " with SMTP id ") {
		t.Errorf("%q", m[0].raw)
	}
}

// TestRelaying: a client that may relay reaches any domain, without a plugin
// that accepts the recipient.
func TestRelaying(t *testing.T) {
	r := newRig(t, false)
	r.hooks.answer(hook.OnRcpt, hook.Proceed())
	r.hooks.set(hook.OnConnect, func(e *hook.Event) hook.Verdict { e.Conn.SetRelaying(true); return hook.Proceed() })
	c := r.hello()
	c.message("\r\n.\r\n", "250")
	r.hooks.answer(hook.OnRcpt, hook.Verdict{Code: hook.Stop})
	c.cmd("MAIL FROM:<>", "250 2.1.0 sender <> OK")
	c.cmd("RCPT TO:<a@b.test>", "550 5.7.1 I cannot")
	if m := r.intake.messages(); !m[0].tx.Relaying {
		t.Error("the transaction does not relay")
	}
}

func TestIntake(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	r.intake.healthy = reply.New(452, "4.3.1", "disk full")
	c.cmd("MAIL FROM:<a@b.test>", "452 4.3.1 disk full")
	r.intake.healthy = errors.New("anything")
	c.cmd("MAIL FROM:<a@b.test>", "451 4.3.0")
	r.intake.healthy = nil
	r.intake.room = 1000
	c.cmd("MAIL FROM:<b@b.test> SIZE=1001", "452 4.3.1")
	r.intake.room = 0
	r.intake.accept = func(*hook.Transaction) (*reply.Reply, bool) { return reply.New(451, "4.3.5", "later"), false }
	c.message("\r\n.\r\n", "451 4.3.5 later")
	c.cmd("DATA", "503")
	r.intake.accept = nil
	r.intake.writeErr = errors.New("EIO")
	c.message("\r\n.\r\n", "451 4.3.0")
	r.intake.writeErr = reply.New(452, "4.3.1", "full")
	c.message("\r\n.\r\n", "452 4.3.1 full")
	r.intake.writeErr = nil
	if len(r.intake.messages()) != 0 || r.hooks.count(hook.OnQueueOK) != 0 || r.hooks.count(hook.OnDataPost) != 1 {
		t.Error("something was taken")
	}
	r.intake.accept = func(*hook.Transaction) (*reply.Reply, bool) { return reply.New(550, "5.7.1", "no"), true }
	c.message("\r\n.\r\n", "550 5.7.1 no")
	c.closed()
}

// TestPanic: a hook that panics costs its connection, nothing else.
func TestPanic(t *testing.T) {
	for _, p := range []hook.Point{
		hook.OnConnectInit, hook.OnConnect, hook.OnEhlo, hook.OnMail, hook.OnRcpt, hook.OnRcptOK, hook.OnData, hook.OnMaxDataExceeded,
		hook.OnDataPost, hook.OnRset, hook.OnQuit,
	} {
		t.Run(string(p), func(t *testing.T) {
			r := newRig(t, false)
			r.panics = 1
			r.hooks.set(p, func(*hook.Event) hook.Verdict { panic("plugin") })
			at := p
			if p == hook.OnConnectInit {
				at = hook.OnConnect
			}
			c, got := talk(r, at)
			if !strings.HasPrefix(got, "421 4.3.0") {
				t.Errorf("got %q", got)
			}
			c.closed()
			r.hooks.answer(p, hook.Verdict{Code: hook.OK})
			if p == hook.OnConnectInit || p == hook.OnConnect {
				r.hooks.answer(p, hook.Proceed())
			}
			r.hello().message("\r\n.\r\n", "250")
		})
	}
}

// TestSubmissionPort: on such a port only clients that may relay get to MAIL.
func TestSubmissionPort(t *testing.T) {
	r := newRig(t, false)
	_, p, err := net.SplitHostPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(p)
	r.use(func(c *Conversation) { c.SubmissionPorts = []int{port} })
	r.hello().cmd("MAIL FROM:<a@b.test>", "550 5.7.1 Authentication required")
	r.hooks.set(hook.OnConnectInit, func(e *hook.Event) hook.Verdict { e.Conn.SetRelaying(true); return hook.Proceed() })
	r.hello().cmd("MAIL FROM:<a@b.test>", "250")
}

// TestCapabilities: lines that plugins add stand in the reply to the EHLO that they were
// asked at, and in no other one.
func TestCapabilities(t *testing.T) {
	r := newRig(t, false)
	asked := 0
	r.hooks.set(hook.OnCapabilities, func(e *hook.Event) hook.Verdict {
		if asked++; asked%2 == 1 {
			if err := e.Conn.AddCapability("XFOO bar"); err != nil {
				t.Error(err)
			}
		}
		return hook.Proceed()
	})
	c := r.dial()
	c.want("220")
	for n, line := range []string{"EHLO x", "EHLO x", "HELO x", "EHLO x"} {
		got := c.cmd(line, "250")
		if has := strings.Contains(got, "\n250-XFOO bar\n"); has != (n == 0 || n == 3) {
			t.Errorf("%d. %s: %q", n+1, line, got)
		}
	}
	c.cmd("STARTTLS", "220")
	c.startTLS(r.pool)
	for n := range 2 {
		if got := c.cmd("EHLO x", "250"); strings.Contains(got, "XFOO") != (n == 1) {
			t.Errorf("under TLS: %q", got)
		}
	}
	c.cmd("QUIT", "221")
}

// TestRewrittenMessage: the message that a plugin rewrites at data_post is the one that is
// taken, and its storage is freed at the end.
func TestRewrittenMessage(t *testing.T) {
	r := newRig(t, false)
	r.hooks.set(hook.OnDataPost, func(e *hook.Event) hook.Verdict {
		e.Tx.Header().Add("X-Stamp", "yes")
		err := e.Tx.Rewrite(func(*message.Part) (*message.Change, error) {
			return &message.Change{Transform: func(w io.Writer, _ io.Reader) error {
				_, err := io.WriteString(w, "another text\r\n")
				return err
			}}, nil
		})
		if err != nil {
			t.Error(err)
		}
		return hook.Proceed()
	})
	c := r.hello()
	c.message("Subject: x\r\n\r\nthe text\r\n.\r\n", "250 ")
	c.message("Subject: x\r\n\r\n"+strings.Repeat("the text\r\n", 10_000)+".\r\n", "250 ")
	c.cmd("QUIT", "221")
	got := r.intake.messages()
	if len(got) != 2 {
		t.Fatalf("%d messages", len(got))
	}
	for _, m := range got {
		if !strings.Contains(m.raw, "Subject: x\r\nX-Stamp: yes\r\n") || !strings.HasSuffix(m.raw, "\r\n\r\nanother text\r\n") {
			t.Errorf("%q", m.raw)
		}
	}
}

// A handler at connect knows whether the client speaks before the banner, and what it
// says is answered behind it.
func TestSpeaksEarly(t *testing.T) {
	r := newRig(t, false)
	r.hooks.set(hook.OnConnect, func(e *hook.Event) hook.Verdict {
		for deadline := time.Now().Add(30 * time.Second); !e.Conn.SpeaksEarly(); pause() {
			if time.Now().After(deadline) {
				t.Error("what the client has said is not heard")
				break
			}
		}
		return hook.Proceed()
	})
	c := r.dial()
	c.send("EHLO early.test\r\n")
	c.want("220 ")
	c.want("250")
}
