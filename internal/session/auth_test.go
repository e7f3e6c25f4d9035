package session

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
)

// users is an Authenticator with one user.
type users struct {
	mechs []string
	err   error
}

func (u users) Mechanisms() []string { return u.mechs }

func (u users) Authenticate(_ context.Context, _ hook.ConnectionView, user, pass string) (bool, error) {
	return user == "user" && pass == "secret", u.err
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func authRig(t *testing.T, u users) *rig {
	r := newRig(t, false)
	r.hooks.set(hook.OnCapabilities, func(e *hook.Event) hook.Verdict {
		e.Conn.OfferAuth(u)
		return hook.Proceed()
	})
	return r
}

func TestAuth(t *testing.T) {
	both := users{mechs: []string{"PLAIN", "LOGIN"}}
	const ok = "235 2.7.0 Authentication successful"
	for name, tc := range map[string]struct {
		u     users
		lines []string // client, server, client, …
	}{
		"plain":              {both, []string{"AUTH PLAIN " + b64("\x00user\x00secret"), ok, "AUTH PLAIN", "503"}},
		"plain, asked":       {both, []string{"auth plain", "334 ", b64("\x00user\x00secret"), ok}},
		"plain, identity":    {both, []string{"AUTH PLAIN " + b64("user\x00user\x00secret"), ok}},
		"plain, other":       {both, []string{"AUTH PLAIN " + b64("root\x00user\x00secret"), "535 5.7.8"}},
		"login":              {both, []string{"AUTH LOGIN", "334 VXNlcm5hbWU6", b64("user"), "334 UGFzc3dvcmQ6", b64("secret"), ok}},
		"login, initial":     {both, []string{"AUTH LOGIN " + b64("user"), "334 UGFzc3dvcmQ6", b64("secret"), ok}},
		"wrong":              {both, []string{"AUTH LOGIN " + b64("user"), "334 ", b64("guess"), "535 5.7.8 Authentication failed", "NOOP", "250"}},
		"cancelled":          {both, []string{"AUTH LOGIN", "334 ", "*", "501", "NOOP", "250"}},
		"a command as reply": {both, []string{"AUTH LOGIN", "334 ", "DATA", "334 ", "QUIT", "535", "NOOP", "250"}}, // they are base64
		"not base64":         {both, []string{"AUTH LOGIN", "334 ", "!!!", "454", "NOOP", "250"}},
		"garbage":            {both, []string{"AUTH PLAIN " + b64("x"), "501 5.5.2", "NOOP", "250"}},
		"unknown mechanism":  {both, []string{"AUTH CRAM-MD5", "504 5.5.4"}},
		"not configured":     {users{mechs: []string{"PLAIN"}}, []string{"AUTH LOGIN", "504 5.5.4"}},
		"back end down":      {users{mechs: both.mechs, err: errors.New("db")}, []string{"AUTH PLAIN " + b64("\x00user\x00secret"), "454 4.7.0"}},
		"odd spaces":         {both, []string{"AUTH  PLAIN   " + b64("\x00user\x00secret"), ok}},
		"no mechanism":       {both, []string{"AUTH", "50", "AUTH ", "50", "NOOP", "250"}},
		"in a transaction":   {both, []string{"MAIL FROM:<>", "250", "AUTH LOGIN", "503 5.5.1"}},
		"many": {both, []string{
			"AUTH PLAIN " + b64("\x00a\x00b"), "535", "AUTH PLAIN " + b64("\x00a\x00b"), "535", "AUTH PLAIN " + b64("\x00a\x00b"), "535",
			"AUTH PLAIN " + b64("\x00a\x00b"), "535", "AUTH PLAIN " + b64("\x00a\x00b"), "421 4.7.0",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := authRig(t, tc.u)
			c := r.dial()
			c.want("220")
			if got := c.cmd("EHLO x", "250"); !strings.Contains(got, "AUTH "+strings.Join(tc.u.mechs, " ")) {
				t.Errorf("%q", got)
			}
			for i := 0; i < len(tc.lines); i += 2 {
				c.cmd(tc.lines[i], tc.lines[i+1])
			}
		})
	}
}

func TestAuthRelays(t *testing.T) {
	r := authRig(t, users{mechs: []string{"PLAIN"}})
	r.hooks.answer(hook.OnRcpt, hook.Proceed())
	c := r.hello()
	c.cmd("AUTH PLAIN "+b64("\x00user\x00secret"), "235")
	c.cmd("STARTTLS", "503")
	c.message("\r\n.\r\n", "250")
	if raw := r.intake.messages()[0].raw; !strings.Contains(raw, "with ESMTPA id") || !strings.Contains(raw, "(authenticated bits=0)") ||
		strings.Contains(raw, "user") {
		t.Errorf("%q", raw)
	}
}

// TestAuthPolicy: a public address gets AUTH only under TLS, or when told so.
func TestAuthPolicy(t *testing.T) {
	r := authRig(t, users{mechs: []string{"PLAIN"}})
	r.hooks.set(hook.OnConnectInit, func(e *hook.Event) hook.Verdict {
		remote := e.Conn.Remote()
		remote.Private, remote.Local = false, false
		e.Conn.SetRemote(remote)
		e.Conn.SetOfferTLS(true)
		return hook.Proceed()
	})
	c := r.dial()
	c.want("220")
	if got := c.cmd("EHLO x", "250"); strings.Contains(got, "AUTH") {
		t.Errorf("%q", got)
	}
	c.cmd("AUTH PLAIN "+b64("\x00user\x00secret"), "538 5.7.11")
	c.cmd("STARTTLS", "220")
	c.startTLS(r.pool)
	if got := c.cmd("EHLO x", "250"); !strings.Contains(got, "AUTH PLAIN") {
		t.Errorf("%q", got)
	}
	c.cmd("AUTH PLAIN "+b64("\x00user\x00secret"), "235")
	r.use(func(c *Conversation) { c.AuthInsecure = true })
	c = r.dial()
	c.want("220")
	if got := c.cmd("EHLO x", "250"); !strings.Contains(got, "AUTH PLAIN") {
		t.Errorf("%q", got)
	}
}

// The envelope carries what XCLIENT and XFORWARD tell, and no password.
func TestOrigin(t *testing.T) {
	r := authRig(t, users{mechs: []string{"PLAIN"}})
	var got []mail.Origin
	r.hooks.set(hook.OnMail, func(e *hook.Event) hook.Verdict {
		got = append(got, *e.Tx.Envelope().Origin)
		if c := e.Conn.Authenticated(); c.User != "" && (c.Password != "secret" || c.Mechanism != "PLAIN") {
			t.Errorf("credentials %+v", c)
		}
		return hook.Proceed()
	})
	c := r.dial()
	c.want("220")
	for _, line := range []string{"HELO old.example", "MAIL FROM:<>", "RSET", "EHLO new.example"} {
		c.cmd(line, "250")
	}
	c.cmd("AUTH PLAIN "+b64("\x00user\x00secret"), "235")
	c.cmd("MAIL FROM:<>", "250")
	if len(got) != 2 || got[0].Port == 0 || !got[0].Addr.Is4() {
		t.Fatalf("%+v", got)
	}
	for i := range got {
		got[i].Port, got[i].Addr = 0, netip.Addr{}
	}
	if got[0] != (mail.Origin{Helo: "old.example", Protocol: "SMTP"}) || got[1] != (mail.Origin{Helo: "new.example", Protocol: "ESMTP", Login: "user"}) {
		t.Errorf("%+v", got)
	}
}

// clock is a time that a test sets.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Unix(1e9, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// A hundred connections with a wrong password each: ten are verified, and then no
// password from there until the wait is over, not even a right one.
func TestAuthFlood(t *testing.T) {
	c := newClock()
	var asked atomic.Int32
	r := newRig(t, false, func(o *Options) { o.MaxAuthFailures, o.Now = 10, c.now })
	r.hooks.set(hook.OnCapabilities, func(e *hook.Event) hook.Verdict {
		e.Conn.OfferAuth(&counted{users{mechs: []string{"PLAIN", "LOGIN"}}, &asked})
		return hook.Proceed()
	})
	var wg sync.WaitGroup
	replies := make(chan string, 100)
	for i := range 100 {
		client := r.hello()
		wg.Go(func() {
			client.send("AUTH PLAIN " + b64(fmt.Sprintf("\x00user\x00wrong%d", i)) + "\r\n")
			line, _ := client.r.ReadString('\n')
			replies <- line
		})
	}
	wg.Wait()
	close(replies)
	wrong := 0
	for line := range replies {
		switch {
		case strings.HasPrefix(line, "535 5.7.8"):
			wrong++
		case !strings.HasPrefix(line, "421 4.7.0"):
			t.Errorf("%q", line)
		}
	}
	if wrong != 10 || asked.Load() != 10 {
		t.Errorf("%d were answered, %d verified", wrong, asked.Load())
	}
	late := r.hello()
	late.cmd("AUTH LOGIN", "421 4.7.0")
	late.closed()
	c.advance(30 * time.Second)
	r.hello().cmd("AUTH PLAIN "+b64("\x00user\x00secret"), "235")
}

// counted is an Authenticator that counts passwords.
type counted struct {
	users
	n *atomic.Int32
}

func (c *counted) Authenticate(ctx context.Context, conn hook.ConnectionView, user, pass string) (bool, error) {
	c.n.Add(1)
	return c.users.Authenticate(ctx, conn, user, pass)
}
