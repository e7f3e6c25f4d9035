package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/test/smtptest"
)

// A backend may be a socket on this host that speaks SMTP, for the relay and as a
// smart host of the queue.
func TestSMTPOverSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "socket") // a path that fits into an address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "smtp")
	s := smtptest.New(t, smtptest.Listen("unix", path))
	relay := Start(t, relayConfig("[sink.test]\nhost=unix://"+path+"\n"))
	answered(t, relay, "to@sink.test", "250 ")
	relay.awaitLog(`forwarded .*mode=SMTP `)
	queue := Start(t, queueTo(t, 25, "[sink.test]\nhost=unix://"+path+"\n"))
	mustSend(t, queue.Addr(), "to@sink.test", oneMessage)
	queue.awaitLog(`delivered .*mode=SMTP `)
	queued := Start(t, relayConfig("[sink.test]\nhost=unix://"+path+"\nqueue=outbound\n"))
	answered(t, queued, "to@sink.test", "250 ")
	s.WaitMessages(3)
}

// With several mechanisms the first that the server offers is used.
func TestFirstMechanism(t *testing.T) {
	t.Parallel()
	for value, offered := range map[string]string{"[plain login]": "LOGIN", "plain|login": "PLAIN LOGIN", "login, plain": "PLAIN", "plain cram-md5": "CRAM-MD5"} {
		want, _, _ := strings.Cut(offered, " ")
		s := peer(t, smtptest.Credentials("u", "s3cret"), smtptest.Mechanisms(strings.Fields(offered)...),
			smtptest.On(smtptest.Auth, func(e smtptest.Event) smtptest.Action {
				if strings.HasPrefix(e.Line, "AUTH ") && !strings.HasPrefix(e.Line, "AUTH "+want) {
					return smtptest.Reply("504 5.5.4 another one")
				}
				return smtptest.Action{}
			}))
		login := "auth_type=" + value + "\nauth_user=u\nauth_pass=s3cret\n"
		d := Start(t, relayConfig("[sink.test]\nhost="+s.Addr()+"\n"+login))
		answered(t, d, "to@sink.test", "250 ")
		queue := Start(t, queueTo(t, 25, "[sink.test]\nhost="+s.Addr()+"\n"+login))
		mustSend(t, queue.Addr(), "to@sink.test", oneMessage)
		for _, m := range s.WaitMessages(2) {
			if m.User != "u" {
				t.Errorf("%s, %s offered: logged in as %q", value, offered, m.User)
			}
		}
	}
}

// Sections with the same host share its connections, whatever else differs that
// the host cannot notice; the default port of a section is that above it.
func TestConnectionsAreShared(t *testing.T) {
	t.Parallel()
	s := peer(t)
	host, port, _ := strings.Cut(s.Addr(), ":")
	d := Start(t, relayConfig(fmt.Sprintf("host=%[1]s\nport=%[2]s\n[one.test]\nhost=%[1]s\n[two.test]\nhost=%[1]s:%[2]s\ntimeout=20\n"+
		"[three.test]\nhost=%[1]s\nmax_messages=50\nenable_outbound=false\n[bare.test]\n", host, port)))
	for _, domain := range []string{"one.test", "two.test", "three.test", "bare.test"} {
		answered(t, d, "to@"+domain, "250 ")
	}
	if s.WaitMessages(4); s.Connections() != 1 {
		t.Errorf("%d connections", s.Connections())
	}
}

// The certificate of tls.ini [outbound] is shown to backends and to mail hosts
// that ask for one; that for our clients only with mutual_tls.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	for _, c := range []struct {
		tls  string
		want string // the common name on what is shown
	}{
		{"", ""},
		{"mutual_tls=true\n", "localhost"},
		{"[outbound]\nkey=tls_key.pem\ncert=tls_cert.pem\n", "localhost"},
	} {
		for _, config := range []func(s *smtptest.Server) map[string]string{
			func(s *smtptest.Server) map[string]string { return queueTo(t, s.Port(), "enable_tls=true") },
			func(s *smtptest.Server) map[string]string {
				return relayConfig(fmt.Sprintf("[sink.test]\nhost=127.0.0.1\nport=%d\nenable_tls=true\n", s.Port()))
			},
		} {
			s := smtptest.New(t, smtptest.TLS("mx.sink.test"))
			d := Start(t, with(config(s), "tls.ini", c.tls, "tls_key.pem", key, "tls_cert.pem", cert))
			mustSend(t, d.Addr(), "to@sink.test", oneMessage)
			if m := s.WaitMessages(1); !m[0].TLS || m[0].Certificate != c.want {
				t.Errorf("%q: TLS %t, shown %q, want %q", c.tls, m[0].TLS, m[0].Certificate, c.want)
			}
		}
	}
}

// The words of another server are no riddle: 'check' says what to write.
func TestForeignWords(t *testing.T) {
	t.Parallel()
	dir := folder(t, with(relayTo(25), "smtp_forward.ini", "targets=tcp://127.0.0.1:25\nhost=127.0.0.1\nattempt_starttls=yes\nauth plain user s3cret\ntls_client {\n"))
	for _, command := range []string{"check", "serve"} {
		o := execute(t, binary(t), command, "-c", dir)
		for _, want := range []string{"key targets: unknown, use host", "key attempt_starttls: unknown, use enable_tls", `"auth …": unknown, use auth_type`, `"tls_client …": unknown, use the section [tls]`} {
			if !strings.Contains(o.out, want) {
				t.Errorf("%s: no %q in %s", command, want, o.out)
			}
		}
		if o.exit == 0 || strings.Contains(o.out, "s3cret") {
			t.Errorf("%s: exit %d: %s", command, o.exit, o.out)
		}
	}
}

// Backends that begin with TLS, and that speak LMTP.
func TestBackendsByScheme(t *testing.T) {
	t.Parallel()
	for scheme, options := range map[string][]smtptest.Option{"tls": {smtptest.ImplicitTLS()}, "lmtp": {smtptest.LMTP()}, "tcp": nil} {
		s := smtptest.New(t, options...)
		d := Start(t, relayConfig("[sink.test]\nhost="+scheme+"://"+s.Addr()+"\n"))
		answered(t, d, "to@sink.test", "250 ")
		if m := s.WaitMessages(1); m[0].TLS != (scheme == "tls") {
			t.Errorf("%s: TLS %t", scheme, m[0].TLS)
		}
	}
}

// The files and keys of the manual's page on outbound mail.
func TestOutboundManual(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, ini string, options []smtptest.Option, nameAndText ...string) (*smtptest.Server, *Daemon) {
		t.Parallel()
		s := smtptest.New(t, options...)
		return s, Start(t, with(queueTo(t, s.Port(), ini), nameAndText...))
	}
	several := func(t *testing.T, d *Daemon) {
		t.Helper()
		c := dial(t, d.Addr())
		c.say("MAIL FROM:<from@client.test>", "250")
		for _, to := range []string{"a", "b", "c"} {
			c.say("RCPT TO:<"+to+"@sink.test>", "250")
		}
		c.say("DATA", "354")
		c.send(oneMessage)
		c.say(".", "250")
	}
	t.Run("recipients are grouped", func(t *testing.T) {
		s, d := start(t, "", nil)
		several(t, d)
		if m := s.WaitMessages(1); len(m[0].Accepted()) != 3 {
			t.Errorf("%+v", m)
		}
	})
	for name, text := range map[string]string{"outbound.ini": "always_split=true", "outbound.always_split": "1\n"} {
		t.Run("always_split in "+name, func(t *testing.T) {
			ini, old := text, []string(nil)
			if name != "outbound.ini" {
				ini, old = "", []string{name, text}
			}
			s, d := start(t, ini, nil, old...)
			several(t, d)
			for _, m := range s.WaitMessages(3) {
				if len(m.Accepted()) != 1 {
					t.Errorf("%+v", m)
				}
			}
		})
	}
	for value, want := range map[string]bool{"Relayed by us": true, "disabled": false} {
		t.Run("received_header="+value, func(t *testing.T) {
			s, d := start(t, "received_header="+value, nil)
			mustSend(t, d.Addr(), "to@sink.test", oneMessage)
			if m := s.WaitMessages(1); strings.Contains(string(m[0].Content), "(Relayed by us)") != want {
				t.Errorf("%s", m[0].Content)
			}
		})
	}
	for value, want := range map[string]int{"50": 1, "0": 2} {
		t.Run("pool_timeout="+value, func(t *testing.T) {
			s, d := start(t, "pool_timeout="+value, nil)
			for i := range 2 {
				mustSend(t, d.Addr(), "to@sink.test", oneMessage)
				s.WaitMessages(i + 1)
				eventually(t, "the first is settled", func() bool {
					return strings.Count(d.Log(), " delivered ") == i+1
				})
			}
			if n := s.Connections(); n != want {
				t.Errorf("%d connections, want %d", n, want)
			}
		})
	}
	for name, text := range map[string]string{"outbound.ini": "enable_tls=false", "outbound.enable_tls": "0\n"} {
		t.Run("enable_tls in "+name, func(t *testing.T) {
			ini, old := text, []string(nil)
			if name != "outbound.ini" {
				ini, old = "", []string{name, text}
			}
			s, d := start(t, ini, []smtptest.Option{smtptest.TLS()}, old...)
			mustSend(t, d.Addr(), "to@sink.test", oneMessage)
			if m := s.WaitMessages(1); m[0].TLS {
				t.Error("TLS though it is switched off")
			}
		})
	}
	t.Run("bounce_message", func(t *testing.T) {
		t.Parallel()
		s := smtptest.New(t, smtptest.On(smtptest.Rcpt, func(e smtptest.Event) smtptest.Action {
			if strings.Contains(e.Line, "nobody@") {
				return smtptest.Reply("550 5.1.1 nobody of that name")
			}
			return smtptest.Action{}
		}))
		d := Start(t, with(queueTo(t, s.Port(), "dsn_wait=0", "client.test"), "me", "mta.test\n", "outbound.bounce_message_html", "",
			"outbound.bounce_message", "From: MAILER-DAEMON@{me}\nTo: {from}\nSubject: returned\nMessage-Id: {msgid}\nDate: {date}\n\npid {pid}\nto {to}\nfrom {from}\nwhy {reason}\n"))
		mustSend(t, d.Addr(), "nobody@sink.test", oneMessage)
		got := string(s.WaitMessages(1)[0].Content)
		for _, want := range []string{
			"From: MAILER-DAEMON@mta.test", "To: <from@client.test>", "Subject: returned", fmt.Sprintf("pid %d\r\n", d.PID()),
			"to <nobody@sink.test>", "from <from@client.test>", "nobody of that name",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in %s", want, got)
			}
		}
	})
}

// ipv6_enabled decides whether AAAA records of mail hosts are used.
func TestIPv6Enabled(t *testing.T) {
	t.Parallel()
	if ln, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("this system has no ::1")
	} else {
		ln.Close()
	}
	four := smtptest.New(t, smtptest.Listen("tcp", "127.0.0.41:0"))
	six := smtptest.New(t, smtptest.Listen("tcp", fmt.Sprintf("[::1]:%d", four.Port())))
	for ini, want := range map[string]*smtptest.Server{"inet_prefer=v6": six, "inet_prefer=v6\nipv6_enabled=false": four} {
		config := queueTo(t, four.Port(), ini)
		dns := nameServer(t)
		dns.MX("six.test", 10, "mx.six.test")
		dns.A("mx.six.test", "127.0.0.41")
		dns.AAAA("mx.six.test", "::1")
		d := Start(t, with(config, "dns.ini", dnsINI(dns)))
		mustSend(t, d.Addr(), "to@six.test", oneMessage)
		want.WaitMessages(1)
	}
	if n := len(four.Messages()) + len(six.Messages()); n != 2 {
		t.Errorf("%d messages", n)
	}
}
