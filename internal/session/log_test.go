package session

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/dns"
	"tarishi/internal/dns/memory"
	"tarishi/internal/hook"
	"tarishi/internal/maillog"
	"tarishi/internal/session/peer"
	"tarishi/internal/session/policy"
	"tarishi/internal/smtpd"
	"tarishi/internal/smtpd/scan"
)

// TestReverseName: hooks and the client see what the PTR record says; the trace
// field and next hops only a name that has the client's address.
func TestReverseName(t *testing.T) {
	for name, tc := range map[string]struct {
		set         func(m *memory.Resolver)
		host, trace string
	}{
		"name": {func(m *memory.Resolver) {
			m.AddPTR("127.0.0.1", "client.test")
			m.AddAddr("client.test", "2001:db8::1")
			m.AddAddr("client.test", "127.0.0.1")
		}, "client.test", "client.test"},
		"forged": {func(m *memory.Resolver) {
			m.AddPTR("127.0.0.1", "bank.test")
			m.AddAddr("bank.test", "192.0.2.1")
		}, "bank.test", peer.Unknown},
		"no host":  {func(m *memory.Resolver) { m.AddPTR("127.0.0.1", "gone.test") }, "gone.test", peer.Unknown},
		"nxdomain": {func(*memory.Resolver) {}, peer.NXDomain, peer.NXDomain},
		"failure":  {func(m *memory.Resolver) { m.Fail("127.0.0.1", "PTR", dns.Temporary) }, peer.DNSError, peer.DNSError},
		"no data":  {func(m *memory.Resolver) { m.Fail("127.0.0.1", "PTR", dns.NoData) }, peer.Unknown, peer.Unknown},
	} {
		var m memory.Resolver
		tc.set(&m)
		r := newRig(t, false, func(o *Options) { o.Resolver = &m })
		c := r.dial()
		c.want("220")
		want := "250-mx.test Hello [127.0.0.1], "
		if tc.host != peer.NXDomain && tc.host != peer.DNSError {
			want = "250-mx.test Hello " + tc.host + " [127.0.0.1], "
		}
		c.cmd("EHLO x", want)
		c.message("\r\n.\r\n", "250")
		got := r.intake.messages()[0]
		if !strings.Contains(got.raw, "from x ("+tc.trace+" [127.0.0.1])") {
			t.Errorf("%s: %q", name, got.raw)
		}
		if o := got.tx.Origin.Name; (o != "") != (tc.trace == "client.test") || o != "" && o != tc.trace {
			t.Errorf("%s: next hops are told of %q", name, o)
		}
	}
	r := newRig(t, false)
	r.hooks.answer(hook.OnLookupRDNS, hook.Verdict{Code: hook.OK, Text: "plugin.test"})
	c := r.dial()
	c.want("220")
	c.cmd("EHLO x", "250-mx.test Hello plugin.test [127.0.0.1], ")
}

// mute is a Resolver that does not answer when it is asked for addresses.
type mute struct{ memory.Resolver }

func (*mute) Host(ctx context.Context, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestUnconfirmed: a name that nobody answers for costs no more time than
// RDNSTimeout, and a session that ends does not wait for it.
func TestUnconfirmed(t *testing.T) {
	var m mute
	m.AddPTR("127.0.0.1", "client.test")
	r := newRig(t, false, func(o *Options) { o.Resolver, o.RDNSTimeout = &m, 50*time.Millisecond })
	c := r.hello()
	c.message("\r\n.\r\n", "250")
	if raw := r.intake.messages()[0].raw; !strings.Contains(raw, "(Unknown [127.0.0.1])") {
		t.Errorf("%q", raw)
	}
	r = newRig(t, false, func(o *Options) { o.Resolver, o.RDNSTimeout = &m, time.Hour })
	c = r.hello()
	c.cmd("QUIT", "221")
	c.closed()
	for r.srv.open.Len() != 0 {
		pause()
	}
}

// elsewhere is a connection from an address.
type elsewhere struct {
	net.Conn
	addr net.TCPAddr
}

func (e elsewhere) RemoteAddr() net.Addr { return &e.addr }

// An IPv6 address is an address literal in our trace field (RFC 5321 sections
// 4.1.3 and 4.4).
func TestReceivedAddress(t *testing.T) {
	r := prepare(t)
	for ip, want := range map[string]string{
		"2001:db8::7": "from x (Unknown [IPv6:2001:db8::7])\r\n", "::ffff:192.0.2.7": "from x (Unknown [192.0.2.7])\r\n",
	} {
		ours, theirs := net.Pipe()
		go r.srv.Serve(t.Context(), elsewhere{theirs, net.TCPAddr{IP: net.ParseIP(ip), Port: 9}}, false)
		c := &client{t, ours, bufio.NewReader(ours)}
		c.want("220")
		c.cmd("EHLO x", "250")
		c.message("\r\n.\r\n", "250")
		got := r.intake.messages()
		if head := got[len(got)-1].head; !strings.Contains(head, want) {
			t.Errorf("%s: %q", ip, head)
		}
		c.cmd("QUIT", "221")
		ours.Close()
	}
	r.finish()
}

// TestMailLog: one line for each event, and no password in any.
func TestMailLog(t *testing.T) {
	core, seen := observer.New(zapcore.DebugLevel)
	logger := zap.New(core)
	r := newRig(t, false, func(o *Options) { o.Mail, o.Log = maillog.New(logger), logger })
	r.hooks.set(hook.OnCapabilities, func(e *hook.Event) hook.Verdict {
		e.Conn.OfferAuth(users{mechs: []string{"PLAIN"}})
		return hook.Proceed()
	})
	c := r.hello()
	c.cmd("AUTH PLAIN "+b64("\x00user\x00guess"), "535")
	c.cmd("AUTH PLAIN "+b64("\x00user\x00secret"), "235")
	c.cmd("MAIL FROM:<a@b..test>", "501")
	c.cmd("MAIL FROM:<big@b.test> SIZE=2000000", "552 5.3.4 Message too big!")
	c.envelope()
	c.cmd("RCPT TO:<x@-y>", "501")
	c.cmd("DATA", "354")
	c.send("Message-Id: <m@x>\r\n\r\n.\r\n")
	c.want("250")
	c.cmd("QUIT", "221")
	c.closed()
	ended := func(n int) {
		for seen.FilterMessage("disconnect").Len() < n {
			pause()
		}
	}
	ended(1)
	r.hooks.answer(hook.OnConnect, hook.Answer(hook.DenyDisconnect, "blocked"))
	c = r.dial()
	c.want("554 5.7.1 blocked")
	c.conn.Close()
	ended(2)
	want := map[string]int{"connect": 2, "auth": 2, "sender": 3, "recipient": 2, "message": 1, "disconnect": 2, "refused": 1}
	for event, n := range want {
		if got := seen.FilterMessage(event).Len(); got != n {
			t.Errorf("%d times %s, want %d", got, event, n)
		}
	}
	for _, e := range seen.All() {
		for k, v := range e.ContextMap() {
			if s, ok := v.(string); ok && (strings.Contains(s, "secret") || strings.Contains(s, "guess")) {
				t.Errorf("%s: %s=%q", e.Message, k, s)
			}
		}
	}
	if s := seen.FilterMessage("sender").All()[1].ContextMap(); s["from"] != "big@b.test" || s["code"] != int64(552) {
		t.Errorf("%v", s)
	}
	end := seen.FilterMessage("disconnect").All()[0].ContextMap()
	if end["txns"] != int64(1) || end["relay"] != true || end["esmtp"] != true || end["helo"] != "client.test" || end["lr"] == "" {
		t.Errorf("%v", end)
	}
	if a := seen.FilterMessage("auth").All()[0].ContextMap(); a["ip"] != "127.0.0.1" || a["code"] != int64(535) || a["user"] != "user" {
		t.Errorf("%v", a)
	}
	m := seen.FilterMessage("message").All()[0].ContextMap()
	if m["mid"] != "<m@x>" || m["code"] != int64(250) || m["size"] != int64(21) {
		t.Errorf("%v", m)
	}
}

// TestTrace: at the level protocol the log shows the conversation, but nothing
// that may be a password; at debug it does not.
func TestTrace(t *testing.T) {
	for _, level := range []zapcore.Level{maillog.ProtocolLevel, zapcore.DebugLevel} {
		core, seen := observer.New(level)
		r := newRig(t, false, func(o *Options) { o.Log = zap.New(core) })
		r.hooks.set(hook.OnCapabilities, func(e *hook.Event) hook.Verdict {
			e.Conn.OfferAuth(users{mechs: []string{"PLAIN", "LOGIN"}})
			return hook.Proceed()
		})
		c := r.hello()
		secrets := []string{b64("\x00user\x00guess"), b64("user"), b64("secret")}
		c.cmd(secrets[2], "500")
		c.cmd("AUTH  PLAIN "+secrets[0], "535")
		c.cmd("AUTH "+secrets[2], "504")
		c.cmd("AUTH LOGIN", "334")
		c.cmd(secrets[1], "334")
		c.cmd(secrets[2], "235")
		c.message("Subject: private\r\n\r\n.\r\n", "250")
		c.cmd("QUIT", "221")
		c.closed()
		var lines []string
		for _, e := range seen.All() {
			lines = append(lines, e.Message)
			if e.Level == maillog.ProtocolLevel && e.ContextMap()["uuid"] == "" {
				t.Errorf("%q has no id", e.Message)
			}
		}
		log := strings.Join(lines, "\n")
		for _, s := range append(secrets, "private") {
			if strings.Contains(log, s) {
				t.Errorf("%q is in the log:\n%s", s, log)
			}
		}
		const want = "C: EHLO client.test\nS: 250-mx.test Hello "
		const auth = "C: ********\nS: 500 5.5.1 Unrecognized command\nC: AUTH PLAIN ********\nS: 535 5.7.8 Authentication failed\nC: AUTH ********\nS: 504 5.5.4 Unrecognized authentication type\nC: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: ********\n"
		for _, part := range []string{want, auth, "\nC: RCPT TO:<b@here.test>\nS: 250 2.1.5 ", "\nC: QUIT\nS: 221 "} {
			if strings.Contains(log, part) != (level == maillog.ProtocolLevel) {
				t.Errorf("level %d: %q is missing, or there, in\n%s", level, part, log)
			}
		}
	}
}

// TestServerDefaults: zero options get usable values.
func TestServerDefaults(t *testing.T) {
	srv := NewServer(Options{Conversation: Conversation{Settings: policy.Settings{MaxLine: 1 << 30}}})
	o := srv.current.Now()
	if o.MaxLine != smtpd.LargestLine || o.InactivityTimeout != 5*time.Minute || srv.o.Log == nil || srv.o.Mail == nil || o.Helo == "" || o.Close == "" {
		t.Errorf("%+v", o)
	}
	if errors.Is(scan.ErrBare, smtpd.ErrTimeout) {
		t.Error("the ways to end are not distinct")
	}
}
