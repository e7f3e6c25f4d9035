package session

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/hook"
)

func TestLineLength(t *testing.T) {
	r := newRig(t, false)
	for name, line := range map[string]string{
		"with LF": "NOOP " + strings.Repeat("x", 2048) + "\r\n", "without": strings.Repeat("x", 2048), "endless": strings.Repeat("x", 1<<20),
		"one more": "NOOP " + strings.Repeat("x", 2048-5-1) + "\r\n",
	} {
		c := r.hello()
		go func() { _, _ = io.WriteString(c.conn, line+"MAIL FROM:<a@b.test>\r\n") }()
		if got := c.read(); got != "521 5.5.2 Command line too long" {
			t.Errorf("%s: %q", name, got)
		}
		c.closed()
	}
	r.hello().cmd("NOOP "+strings.Repeat("x", 2048-5-2), "250")
	if r.hooks.count(hook.OnMail) != 0 {
		t.Error("what followed was executed")
	}
}

func TestWrongProtocol(t *testing.T) {
	r := newRig(t, false)
	for in, want := range map[string]string{
		"POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO evil\r\nMAIL FROM:<a@b.test>\r\n": "521 5.5.1",
		"GET / HTTP/1.1\r\n\r\n":               "521 5.5.1",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc": "501 5.5.1 SSL attempted over a non-SSL port",
		"\x16":                                 "501 5.5.1",
	} {
		c := r.dial()
		c.want("220")
		c.send(in)
		c.want(want)
		c.closed()
	}
	c := r.hello()
	c.cmd("GET / HTTP/1.1", "500 ") // not first: only an unknown command
	c.cmd("NOOP a\rb", "501 5.5.2")
	c.cmd("NOOP a\x00b", "501 5.5.2")
	if r.hooks.count(hook.OnMail) != 0 {
		t.Error("what followed was executed")
	}
}

// TestPipelining: replies to commands in one segment come in one segment.
func TestPipelining(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<a@c.test>\r\nRCPT TO:<b@c.test>\r\nDATA\r\n")
	b := make([]byte, 4096)
	n, err := c.conn.Read(b)
	if err != nil || strings.Count(string(b[:n]), "\r\n") != 4 {
		t.Errorf("got %q in the first segment", b[:n])
	}
	// Content behind DATA that did not wait for 354, and commands behind that.
	c.send("A: b\r\n\r\n.\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<a@c.test>\r\nDATA\r\nC: d\r\n\r\nx\r\n.\r\nQUIT\r\n")
	for _, want := range []string{"250 2.0.0 Message", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0 Message", "221"} {
		c.want(want)
	}
	c.closed()
	// DATA that is refused: what follows are commands, not content.
	c = r.hello()
	c.send("DATA\r\nMAIL FROM:<a@b.test>\r\nQUIT\r\n")
	for _, want := range []string{"503", "250 2.1.0", "221"} {
		c.want(want)
	}
}

func TestSTARTTLS(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	c.cmd("MAIL FROM:<a@b.test>", "250")
	c.cmd("STARTTLS", "220 2.0.0")
	c.startTLS(r.pool)
	c.cmd("MAIL FROM:<a@b.test>", "503 5.5.1 Use EHLO") // nothing survives
	c.cmd("STARTTLS", "503 5.5.1 Already")
	if got := c.cmd("EHLO again", "250-mx.test Hello"); strings.Contains(got, "STARTTLS") {
		t.Errorf("%q", got)
	}
	c.message("\r\n.\r\n", "250")
	c.cmd("QUIT", "221")
	m := r.intake.messages()[0]
	if !strings.Contains(m.raw, "from again (") || !strings.Contains(m.raw, "with ESMTPS id") || !strings.Contains(m.raw, "\r\n\ttls TLS_") {
		t.Errorf("%q", m.raw)
	}
	if r.hooks.count(hook.OnConnect) != 1 || r.hooks.count(hook.OnResetTransaction) != 2 {
		t.Error("hooks")
	}
}

// TestSTARTTLSInjection: not a byte that came in clear behind STARTTLS survives.
func TestSTARTTLSInjection(t *testing.T) {
	for _, behind := range []string{"MAIL FROM:<evil@x.test>\r\n", "E", "\x16\x03\x01"} {
		r := newRig(t, false)
		c := r.hello()
		c.send("STARTTLS\r\n" + behind)
		c.want("503 5.5.0")
		c.closed()
		c = r.hello()
		c.cmd("STARTTLS", "220")
		c.send("MAIL FROM:<evil@x.test>\r\n") // later: no handshake
		b := make([]byte, 512)
		if n, _ := io.ReadFull(c.conn, b); strings.Contains(string(b[:n]), "250") {
			t.Errorf("got %q", b[:n])
		}
		if r.hooks.count(hook.OnMail) != 0 {
			t.Error("a forged command reached the hooks")
		}
	}
}

// REQUIRETLS is offered and taken under TLS only, and kept with the message
// (RFC 8689).
func TestRequireTLS(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	if got := c.cmd("EHLO clear", "250-"); strings.Contains(got, "REQUIRETLS") {
		t.Errorf("in clear: %q", got)
	}
	c.cmd("MAIL FROM:<a@b.test> REQUIRETLS", "504 5.5.4")
	c.cmd("STARTTLS", "220 2.0.0")
	c.startTLS(r.pool)
	if got := c.cmd("EHLO encrypted", "250-mx.test Hello "); strings.Count(got, "\n250-REQUIRETLS\n") != 1 {
		t.Errorf("under TLS: %q", got)
	}
	for _, parameter := range []string{" REQUIRETLS", " requiretls RET=HDRS", ""} {
		c.cmd("MAIL FROM:<a@b.test>"+parameter, "250")
		c.cmd("RCPT TO:<b@here.test>", "250")
		c.cmd("DATA", "354")
		c.send("\r\n.\r\n")
		c.want("250")
	}
	for i, want := range []bool{true, true, false} {
		if got := r.intake.messages()[i].tx.RequireTLS; got != want {
			t.Errorf("message %d: REQUIRETLS %v", i, got)
		}
	}
}

func TestSTARTTLSNotOffered(t *testing.T) {
	for name, set := range map[string]setting{
		"no certificate": func(o *Options) { o.TLSConfig = nil },
		"no plugin": func(o *Options) {
			o.Chain.(*hooks).set(hook.OnConnectInit, func(*hook.Event) hook.Verdict { return hook.Proceed() })
		},
	} {
		r := newRig(t, false, set)
		c := r.dial()
		c.want("220")
		if got := c.cmd("EHLO x", "250"); strings.Contains(got, "STARTTLS") {
			t.Errorf("%s: %q", name, got)
		}
		c.cmd("STARTTLS", "502 5.5.1")
		c.cmd("\u017fTARTTLS", "500") // must not be folded to STARTTLS
		c.cmd("NOOP", "250")
	}
	r := newRig(t, false)
	c := r.hello()
	c.cmd("\u017fTARTTLS", "500 5.5.1")
	c.cmd("NOOP", "250")
}

func TestImplicitTLS(t *testing.T) {
	r := newRig(t, true)
	c := r.dial()
	c.startTLS(r.pool)
	c.want("220 mx.test ESMTP")
	if got := c.cmd("EHLO x", "250"); strings.Contains(got, "STARTTLS") {
		t.Errorf("%q", got)
	}
	c.message("\r\n.\r\n", "250")
	c.send("NOOP " + strings.Repeat("x", 5000))
	c.want("521")
	c.closed()
	plain := r.dial()
	plain.send("EHLO x\r\n")
	if b, _ := io.ReadAll(plain.conn); strings.Contains(string(b), "250") {
		t.Errorf("%q", b)
	}
}

func TestTimeouts(t *testing.T) {
	const limit = time.Minute
	synctest.Test(t, func(t *testing.T) {
		r := prepare(t, func(o *Options) { o.InactivityTimeout = limit })
		began := time.Now()
		late := func(c *client) {
			t.Helper()
			c.closed()
			if d := time.Since(began); d != limit {
				t.Errorf("ended after %v", d)
			}
			began = time.Now()
		}
		greet := func() *client {
			c := r.pipe()
			c.want("220")
			c.cmd("EHLO x", "250")
			return c
		}
		c := greet()
		c.want("421 4.4.2 mx.test timeout")
		late(c)

		c = greet() // the time is for a whole command
		c.send("NO")
		time.Sleep(limit / 2)
		c.send("O")
		c.want("421 4.4.2")
		late(c)

		c = greet()
		c.envelope()
		c.cmd("DATA", "354")
		time.Sleep(limit / 2)
		c.send("half")
		began = time.Now()
		c.want("421 4.4.2")
		late(c)

		c = greet()
		c.cmd("STARTTLS", "220") // and no handshake
		late(c)
		r.finish()
	})
}

// TestNeverReads: a client that reads no replies is left when its time for them is
// over, whatever it goes on to send, and what it had pipelined is not done.
func TestNeverReads(t *testing.T) {
	const limit = time.Minute
	for name, what := range map[string]string{
		"EHLO": "EHLO x\r\n", "NOOP": "NOOP\r\n", "nonsense": "RCPT\r\n", "empty chunks": "BDAT 0\r\n",
		"messages": "MAIL FROM:<a@b.test>\r\nRCPT TO:<b@c.test>\r\nDATA\r\n\r\nx\r\n.\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := prepare(t, func(o *Options) { o.InactivityTimeout = limit })
				c := r.pipe()
				c.want("220")
				c.cmd("EHLO x", "250")
				began := time.Now()
				for flood := strings.Repeat(what, 1+1000/len(what)); ; time.Sleep(time.Second) {
					_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second))
					if _, err := io.WriteString(c.conn, flood); errors.Is(err, io.ErrClosedPipe) {
						break
					}
					if time.Since(began) > time.Hour {
						t.Error("served for an hour")
						_ = c.conn.Close()
						break
					}
				}
				if d := time.Since(began); d > limit+time.Minute {
					t.Errorf("left after %v", d)
				}
				r.finish()
			})
		})
	}
}

// TestMinRate: a slow trickle is cut off, a slow link that makes progress is not.
func TestMinRate(t *testing.T) {
	r := newRig(t, false, func(o *Options) { o.MinRate = 1 << 30; o.MinRateWindow = time.Millisecond })
	c := r.hello()
	c.envelope()
	c.cmd("DATA", "354")
	stop := make(chan struct{})
	go func() {
		for {
			if _, err := io.WriteString(c.conn, "x"); err != nil {
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	c.want("421 4.4.2 Too slow")
	close(stop)

	r = newRig(t, false, func(o *Options) { o.MinRate = 1; o.MinRateWindow = time.Millisecond })
	c = r.hello()
	c.envelope()
	c.cmd("DATA", "354")
	for range 100 {
		c.send("xxxxxxxx\r\n")
		pause()
	}
	c.send(".\r\n")
	c.want("250")
}

func TestShutdown(t *testing.T) {
	r := newRig(t, false)
	idle, secure, busy, queueing := r.hello(), r.hello(), r.hello(), r.hello()
	secure.cmd("STARTTLS", "220")
	secure.startTLS(r.pool)
	secure.cmd("NOOP", "250")
	busy.envelope()
	busy.cmd("DATA", "354")
	entered, release := make(chan struct{}), make(chan struct{})
	r.hooks.set(hook.OnDataPost, func(e *hook.Event) hook.Verdict {
		if e.Tx.From().Local == "q" {
			close(entered)
			<-release
		}
		return hook.Proceed()
	})
	queueing.cmd("MAIL FROM:<q@b.test>", "250")
	queueing.cmd("RCPT TO:<a@b.test>", "250")
	queueing.cmd("DATA", "354")
	queueing.send("\r\n.\r\n")
	<-entered

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.srv.Shutdown(ctx) }()
	for _, c := range []*client{idle, secure} {
		c.want("421 4.3.2 mx.test is shutting down")
		c.closed()
	}
	late := r.dial()
	late.want("421 4.3.2")
	late.closed()
	busy.send("\r\nstill here\r\n.\r\n")
	busy.want("250")
	busy.want("421 4.3.2")
	busy.closed()
	close(release)
	queueing.want("250")
	queueing.want("421 4.3.2")
	queueing.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
	cancel()
	if n := len(r.intake.messages()); n != 2 {
		t.Errorf("%d messages", n)
	}
}

// TestShutdownCut: who is not ready in time is cut off, and nothing is taken.
func TestShutdownCut(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	c.envelope()
	c.cmd("DATA", "354")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.srv.Shutdown(ctx); err == nil || !strings.Contains(err.Error(), "1 sessions") {
		t.Error(err)
	}
	c.closed()
	if r.srv.open.Len() != 0 || r.hooks.count(hook.OnResetTransaction) != 1 {
		t.Error("the session lives on")
	}
}

// TestServeContext: the end of Serve's context cuts the session off.
func TestServeContext(t *testing.T) {
	r := newRig(t, false)
	ours, theirs := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		r.srv.Serve(ctx, theirs, false)
		close(done)
	}()
	if _, err := ours.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
}

// TestManyErrors: a client that does not speak SMTP is left; the last words
// reach it.
func TestManyErrors(t *testing.T) {
	r := newRig(t, false)
	c := r.dial()
	c.want("220")
	c.send(strings.Repeat("XYZZY\r\n", 50))
	var last string
	for got := c.read(); got != ""; got = c.read() {
		last = got
	}
	if !strings.HasPrefix(last, "421 4.7.0 Too many unrecognized commands") {
		t.Errorf("%q", last)
	}
}

func TestTLSStateName(t *testing.T) {
	r := newRig(t, false)
	versions := make(chan hook.TLS, 1)
	r.hooks.set(hook.OnMail, func(e *hook.Event) hook.Verdict { versions <- e.Conn.TLS(); return hook.Proceed() })
	c := r.hello()
	c.cmd("STARTTLS", "220")
	c.startTLS(r.pool)
	c.cmd("EHLO x", "250")
	c.cmd("MAIL FROM:<>", "250")
	got := <-versions
	state := c.conn.(*tls.Conn).ConnectionState()
	if got.Version != "TLSv1.3" || got.Cipher != tls.CipherSuiteName(state.CipherSuite) || !got.Enabled || got.Verified {
		t.Errorf("%+v", got)
	}
}
