package server

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// relaying is a daemon that forwards.
type relaying struct {
	t    *testing.T
	addr string
	dns  *dnstest.Server
}

// startRelay runs a daemon with these files, and dns.ini and outbound.ini to go
// with them. Mail by MX goes to port.
func startRelay(t *testing.T, port int, files map[string]string) *relaying {
	t.Helper()
	r := &relaying{t: t, dns: dnstest.New(t)}
	all := map[string]string{
		"me": "me.test\n", "smtp.ini": "listen=127.0.0.1:0\n", "dns.ini": "servers[]=" + r.dns.Addr() + "\n",
		"outbound.ini": fmt.Sprintf("port=%d\nlocal_mx_ok=true\ntemp_fail_intervals=1s*30\n", port),
		"plugins":      "rcpt_to.in_host_list\nqueue/smtp_forward\n",
	}
	for name, text := range files {
		all[name] = text
	}
	stop, s := launch(t, instance(t, all))
	t.Cleanup(stop)
	r.addr = s.listener.Addrs()[0].String()
	return r
}

// dial connects from a loopback address.
func (r *relaying) dial(from string) *textproto.Conn {
	r.t.Helper()
	d := net.Dialer{Timeout: time.Minute, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	raw, err := d.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { raw.Close() })
	_ = raw.SetDeadline(time.Now().Add(2 * time.Minute))
	c := textproto.NewConn(raw)
	if _, _, err := c.ReadResponse(220); err != nil {
		r.t.Fatal(err)
	}
	r.say(c, "EHLO client.test", "250")
	return c
}

// say sends a line and compares the beginning of the reply.
func (r *relaying) say(c *textproto.Conn, line, want string) {
	r.t.Helper()
	if err := c.PrintfLine("%s", line); err != nil {
		r.t.Fatal(err)
	}
	code, text, err := c.ReadResponse(0)
	if got := fmt.Sprintf("%d %s", code, text); err != nil || !strings.HasPrefix(got, want) {
		r.t.Errorf("%s: %s, %v; want %s", line, got, err, want)
	}
}

// send carries one message; each recipient is an address and what is answered.
func (r *relaying) send(c *textproto.Conn, want string, recipients ...string) {
	r.t.Helper()
	r.say(c, "MAIL FROM:<sender@origin.test>", "250")
	for i := 0; i < len(recipients); i += 2 {
		r.say(c, "RCPT TO:<"+recipients[i]+">", recipients[i+1])
	}
	r.say(c, "DATA", "354")
	r.say(c, "Subject: x\r\n\r\nbody\r\n.", want)
}

// got waits for a server's messages and returns the recipients of each.
func got(s *smtptest.Server, n int) string {
	var list []string
	for _, m := range s.WaitMessages(n) {
		list = append(list, strings.Join(m.Accepted(), "+"))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// at starts a server on another loopback address with the port of first.
func at(t *testing.T, ip string, first *smtptest.Server, options ...smtptest.Option) *smtptest.Server {
	t.Helper()
	return smtptest.New(t, append(options, smtptest.Listen("tcp", fmt.Sprintf("%s:%d", ip, first.Port())))...)
}

// A site with a default backend, sections that name only a host, two of them the
// same one, and a domain whose outgoing mail is not forwarded.
func TestSectionsOfDomains(t *testing.T) {
	byDefault := smtptest.New(t)
	shared, third, mx := at(t, "127.0.0.2", byDefault), at(t, "127.0.0.3", byDefault), at(t, "127.0.0.4", byDefault)
	r := startRelay(t, byDefault.Port(), map[string]string{
		"plugins":         "relay\nrcpt_to.in_host_list\nqueue/smtp_forward\n",
		"relay_acl_allow": "127.0.0.9\n",
		"host_list":       "example1.com\nexample2.com\nexample3.com\nexample4.com\nexample5.com\n",
		"smtp_forward.ini": fmt.Sprintf(`
host=127.0.0.1
port=%d
[example1.com]
host=127.0.0.2
[example2.com]
host=127.0.0.2
[example3.com]
host=127.0.0.3
[example4.com]
enable_outbound=false
`, byDefault.Port()),
	})
	r.dns.MX("example4.com", 10, "mx.example4.com")
	r.dns.A("mx.example4.com", "127.0.0.4")

	c := r.dial("127.0.0.1")
	const split = "450 4.5.3 Split transaction, retry soon"
	r.send(c, "250", "user@example1.com", "250", "user@example2.com", "250", "user@example3.com", split, "user@example5.com", split)
	r.send(c, "250", "user@example3.com", "250", "user@example1.com", split)
	r.send(c, "250", "user@example5.com", "250", "user@example4.com", "250", "user@example2.com", split)
	if s := got(shared, 1); s != "user@example1.com+user@example2.com" {
		t.Errorf("shared: %s", s)
	}
	if s := got(third, 1); s != "user@example3.com" {
		t.Errorf("third: %s", s)
	}
	if s := got(byDefault, 1); s != "user@example5.com+user@example4.com" {
		t.Errorf("default: %s", s)
	}

	// Clients that may relay: everything is forwarded but what is switched off.
	c = r.dial("127.0.0.9")
	r.send(c, "250", "out@example4.com", "250")
	r.send(c, "250", "out@elsewhere.org", "250")
	r.send(c, "250", "out@example3.com", "250")
	if s := got(mx, 1); s != "out@example4.com" {
		t.Errorf("by MX: %s", s)
	}
	if s := got(byDefault, 2); s != "out@elsewhere.org user@example5.com+user@example4.com" {
		t.Errorf("default: %s", s)
	}
	if s := got(third, 2); s != "out@example3.com user@example3.com" {
		t.Errorf("third: %s", s)
	}
}

// split=fanout: one 250 for recipients of three routes, one message on each.
func TestFanOut(t *testing.T) {
	byDefault := smtptest.New(t)
	lmtp := at(t, "127.0.0.2", byDefault, smtptest.LMTP())
	login := at(t, "127.0.0.3", byDefault, smtptest.Credentials("u", "p"), smtptest.Mechanisms("CRAM-MD5"), smtptest.On(smtptest.Dot, smtptest.First(1, smtptest.Reply("451 4.3.0 not now"))))
	r := startRelay(t, byDefault.Port(), map[string]string{
		"host_list": "a.test\nb.test\nc.test\n",
		"smtp_forward.ini": fmt.Sprintf("split=fanout\nhost=127.0.0.1\nport=%d\n[b.test]\nhost=lmtp://127.0.0.2:%[1]d\n"+
			"[c.test]\nhost=127.0.0.3\nauth_type=cram-md5\nauth_user=u\nauth_pass=p\n", byDefault.Port()),
	})
	r.send(r.dial("127.0.0.1"), "250 2.0.0 Message Queued", "x@a.test", "250", "x@b.test", "250", "y@b.test", "250", "x@c.test", "250")
	if s := got(byDefault, 1); s != "x@a.test" {
		t.Errorf("a: %s", s)
	}
	if s := got(lmtp, 1); s != "x@b.test+y@b.test" {
		t.Errorf("b: %s", s)
	}
	if s := got(login, 1); s != "x@c.test" || login.Messages()[0].User != "u" {
		t.Errorf("c: %s", s)
	}
	if len(byDefault.Messages()) != 1 || len(lmtp.Messages()) != 1 {
		t.Error("sent again to those who had it")
	}
}

// on_failure=queue: the client has its 250 although the backend is not ready,
// and the message comes later by the same route.
func TestQueuedOnFailure(t *testing.T) {
	t.Parallel() // it waits
	s := smtptest.New(t, smtptest.TLS(), smtptest.Credentials("u", "p"), smtptest.On(smtptest.Mail, smtptest.First(2, smtptest.Reply("451 4.3.2 not now"))))
	r := startRelay(t, s.Port(), map[string]string{
		"host_list": "a.test\nb.test\n",
		"smtp_forward.ini": fmt.Sprintf("host=127.0.0.1\nport=%d\nrequire_tls=true\nauth_type=login\nauth_user=u\nauth_pass=p\non_failure=queue\n"+
			"[b.test]\nhost=127.0.0.1:1\non_failure=reply\n", s.Port()),
	})
	c := r.dial("127.0.0.1")
	r.send(c, "451 4.4.1 No backend can be reached", "x@b.test", "250")
	r.send(c, "250 2.0.0 Message Queued", "x@a.test", "250")
	begin := time.Now()
	m := s.WaitMessages(1)[0]
	if took := time.Since(begin); took < 1500*time.Millisecond { // 1 s for each of two refusals, one of which was in session
		t.Errorf("the queue sent it after %s", took)
	}
	if !m.TLS || m.User != "u" || !slices.Equal(m.Accepted(), []string{"x@a.test"}) {
		t.Errorf("%+v", m)
	}
}

// The client certificate of [tls], with which the backend knows us, and a CA.
func TestClientCertificate(t *testing.T) {
	s := smtptest.New(t, smtptest.TLS("127.0.0.1"), smtptest.Credentials("u", "p"), smtptest.Mechanisms("EXTERNAL"))
	other := smtptest.New(t, smtptest.TLS("client.test"))
	pair := other.Certificate()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	files := map[string]string{
		"host_list":  "a.test\n",
		"client.pem": block("CERTIFICATE", pair.Certificate[0]) + block("PRIVATE KEY", key),
		"ca.pem":     block("CERTIFICATE", s.Certificate().Certificate[0]),
		"smtp_forward.ini": fmt.Sprintf("host=127.0.0.1\nport=%d\nauth_type=external\n[tls]\nkey=client.pem\ncert=client.pem\nca=ca.pem\n"+
			"force_tls_hosts[]=127.0.0.1\nminVersion=TLSv1.3\n", s.Port()),
	}
	r := startRelay(t, s.Port(), files)
	r.send(r.dial("127.0.0.1"), "250", "x@a.test", "250")
	if m := s.WaitMessages(1)[0]; !m.TLS || m.User == "" || m.Certificate == "" {
		t.Errorf("%+v", m)
	}
	// From the queue with the same certificate and the same roots.
	later := smtptest.New(t, smtptest.TLS("127.0.0.1"), smtptest.Credentials("u", "p"), smtptest.Mechanisms("EXTERNAL"),
		smtptest.On(smtptest.Mail, smtptest.First(1, smtptest.Reply("451 4.3.2 not now"))))
	files["smtp_forward.ini"] += "[b.test]\non_failure=queue\nauth_type=external\n" + fmt.Sprintf("host=127.0.0.1:%d\n", later.Port())
	files["host_list"] += "b.test\n"
	files["ca.pem"] += block("CERTIFICATE", later.Certificate().Certificate[0])
	r = startRelay(t, s.Port(), files)
	r.send(r.dial("127.0.0.1"), "250 2.0.0 Message Queued", "x@b.test", "250")
	if m := later.WaitMessages(1)[0]; !m.TLS || m.User == "" || m.Certificate == "" {
		t.Errorf("%+v", m)
	}
	files["ca.pem"] = files["client.pem"] // not the backend's: force_tls_hosts verifies
	r = startRelay(t, s.Port(), files)
	r.send(r.dial("127.0.0.1"), "451 4.7.5 No secure connection to the backend", "x@a.test", "250")
	if n := len(s.Messages()); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// auth_type=forward: the backend sees the user who logged in here, and
// forward_client=xforward the name of the host.
func TestClientsOwnCredentials(t *testing.T) {
	s := smtptest.New(t, smtptest.Credentials("joe", "secret"), smtptest.With("XFORWARD NAME ADDR"))
	r := startRelay(t, s.Port(), map[string]string{
		"plugins":            "auth/flat_file\nrcpt_to.in_host_list\nqueue/smtp_forward\n",
		"host_list":          "a.test\n",
		"auth_flat_file.ini": "[core]\nmethods=PLAIN\nconstrain_sender=false\n[users]\njoe=secret\nann=hers\n",
		"smtp_forward.ini":   fmt.Sprintf("host=127.0.0.1\nport=%d\nauth_type=forward\nforward_client=xforward\n", s.Port()),
	})
	c := r.dial("127.0.0.1")
	r.send(c, "451 4.7.0 Authentication required", "x@a.test", "250")
	r.say(c, "AUTH PLAIN AGpvZQBzZWNyZXQ=", "235")
	r.send(c, "250", "x@a.test", "250")
	c = r.dial("127.0.0.1")
	r.say(c, "AUTH PLAIN AGFubgBoZXJz", "235")
	r.send(c, "451 4.7.0 No authentication at the backend", "x@a.test", "250")
	if m := s.WaitMessages(1); len(m) != 1 || m[0].User != "joe" || m[0].XForward["NAME"] != "localhost" {
		t.Errorf("%+v", m)
	}
}
