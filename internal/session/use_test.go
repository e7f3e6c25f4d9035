package session

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
)

// isClosed reports whether a channel is.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestUse: a connection has the Conversation that was in force when it was accepted,
// hooks included, until it ends; those that come later have the next one.
func TestUse(t *testing.T) {
	r := newRig(t, false)
	old, others := r.hello(), &hooks{on: map[hook.Point]func(*hook.Event) hook.Verdict{}}
	others.answer(hook.OnRcpt, hook.Answer(hook.Deny, "no more"))
	second := &intake{}
	drained := r.use(func(c *Conversation) {
		c.Me, c.Chain, c.Intake, c.MaxRecipients, c.TLSConfig, c.Close = "mx.next.test", others, second, 1, nil, "Bye."
	})

	next := r.dial()
	next.want("220 mx.next.test ESMTP ")
	if got := next.cmd("EHLO client.test", "250-mx.next.test Hello "); strings.Contains(got, "STARTTLS") {
		t.Errorf("TLS of the old one is offered: %q", got)
	}
	next.cmd("MAIL FROM:<a@client.test>", "250")
	next.cmd("RCPT TO:<b@here.test>", "550 5.7.1 no more")
	next.cmd("QUIT", "221 2.0.0 mx.next.test Bye.")

	// The old one goes on as it began, TLS and all, and its plugins see its end.
	old.cmd("STARTTLS", "220")
	old.startTLS(r.pool)
	old.cmd("EHLO client.test", "250-mx.test Hello ")
	old.message("Subject: x\r\n\r\nx\r\n.\r\n", "250")
	if isClosed(drained) {
		t.Error("drained while a connection goes on")
	}
	old.cmd("QUIT", "221 2.0.0 mx.test closing connection.")
	old.conn.Close()
	<-drained
	for end := time.Now().Add(time.Minute); others.count(hook.OnDisconnect) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // it has ended for the client, and not yet for its plugins
	}
	if r.hooks.count(hook.OnDisconnect) != 1 || others.count(hook.OnConnectInit) != 1 || others.count(hook.OnDisconnect) != 1 {
		t.Errorf("old hooks %v, next hooks %v", r.hooks.trail(), others.trail())
	}
	if len(r.intake.got) != 1 || len(second.got) != 0 {
		t.Errorf("the old intake took %d messages, the next one %d", len(r.intake.got), len(second.got))
	}
}

// TestUseOfLateHandler: what a plugin's handler needs is held until the handler has
// returned, though its connection has ended; for a minute if it never does.
func TestUseOfLateHandler(t *testing.T) {
	for _, returns := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			chain := hook.NewChain([]hook.Registration{{
				Point: hook.OnNoop, Plugin: "late", Timeout: time.Second,
				Handler: func(context.Context, *hook.Event) hook.Verdict {
					<-release
					return hook.Proceed()
				},
			}}, zap.NewNop())
			r := prepare(t, func(o *Options) { o.Chain = chain })
			c := r.pipe()
			c.want("220")
			go func() { _, _ = io.WriteString(c.conn, "EHLO x\r\nNOOP\r\nQUIT\r\n") }()
			for _, want := range []string{"250", "250", "221"} {
				c.want(want)
			}
			drained := r.use(func(c *Conversation) { c.Chain = &hooks{} })
			c.conn.Close()
			r.finish()
			synctest.Wait()
			if isClosed(drained) {
				t.Error("drained while a handler runs")
			}
			began := time.Now()
			if returns {
				close(release)
			}
			<-drained
			if held := time.Since(began); returns && held > 0 || !returns && held != lateGrace {
				t.Errorf("held for %v", held)
			}
			if !returns {
				close(release)
			}
		})
	}
}

// TestUseBounds: what bounds all connections together counts at once for those that are
// open.
func TestUseBounds(t *testing.T) {
	const recipient = "RCPT TO:<b@here.test>\r\n"
	r := authRig(t, users{mechs: []string{"PLAIN"}})
	r.use(func(c *Conversation) { c.MaxRecipients = 0 })
	c := r.hello()
	wrong := "AUTH PLAIN " + b64("\x00user\x00wrong")
	c.cmd(wrong, "535")
	r.use(func(c *Conversation) { c.MaxAuthFailures = 1 })
	c.cmd(wrong, "535")
	other := r.hello()
	other.cmd(wrong, "421 4.7.0")
	r.use(func(c *Conversation) { c.MaxAuthFailures = 0 })
	c.cmd(wrong, "535")

	// Recipients need memory, beyond those that each session may have.
	r.use(func(c *Conversation) { c.Memory = 1 })
	c.cmd("MAIL FROM:<a@client.test>", "250")
	refused := func() bool {
		for range 100 {
			c.send(recipient)
			if got := c.read(); strings.HasPrefix(got, "452 4.3.1") {
				return true
			} else if !strings.HasPrefix(got, "250") {
				t.Fatal(got)
			}
		}
		return false
	}
	if !refused() {
		t.Error("memory has no bound")
	}
	r.use(func(c *Conversation) { c.Memory = 0 })
	if refused() {
		t.Error("the bound is still there")
	}
}

// TestUseManyTimes: while clients come and go, each Conversation drains, and no hook of it
// runs after that.
func TestUseManyTimes(t *testing.T) {
	r := newRig(t, false)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for !isClosed(stop) {
				conn, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(conn, "EHLO x\r\nQUIT\r\n")
				replies, _ := io.ReadAll(conn)
				conn.Close()
				if !strings.Contains(string(replies), "\n221 ") {
					t.Errorf("no goodbye in %q", replies)
				}
			}
		})
	}
	for range 100 {
		held := r.srv.current.Now().Chain.(*hooks)
		<-r.use(func(c *Conversation) { c.Chain = &hooks{on: held.on} })
		ran := len(held.trail())
		if begun, ended := held.count(hook.OnConnectInit), held.count(hook.OnDisconnect); begun != ended || ran != len(held.trail()) {
			t.Errorf("drained with %d connections begun and %d ended", begun, ended)
		}
	}
	close(stop)
	clients.Wait()
}
