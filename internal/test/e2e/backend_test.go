package e2e

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tarishi/internal/test/load/instance"
	"tarishi/internal/test/smtptest"
)

// awkward is a message with what relays are known to damage. Servers that would
// add missing fields find them there.
const awkward = "Date: Mon, 2 Jan 2026 10:00:00 +0000\r\nMessage-ID: <awkward@client.test>\r\nFrom: \"A. B.\" <from@client.test>\r\n" +
	"To: <to@sink.test>\r\nSubject: =?utf-8?q?awkward?=\r\n\tfolded\r\nX-Empty:\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"Content-Transfer-Encoding: 8bit\r\n\r\n" +
	".\r\n..\r\n.leading dot\r\n\r\n gr\u00fc\u00dfe \u4e2d\u6587  \r\n\ttab\t\r\nFrom the beginning of a line\r\n.\r\n\r\n\r\n"

// stuffed is a message as it goes over the wire.
func stuffed(content string) string {
	return strings.TrimPrefix(strings.ReplaceAll("\r\n"+content, "\r\n.", "\r\n.."), "\r\n")
}

// portOf is the port of a server that listens on loopback.
func portOf(t *testing.T, s *instance.Server) int {
	t.Helper()
	_, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	return n
}

// mustSend sends a message and returns the reply to it, which must be positive.
func mustSend(t *testing.T, addr, to, content string) string {
	t.Helper()
	reply, err := letter(addr, to, stuffed(content))
	if err != nil || reply[0] != '2' {
		t.Fatalf("to %s: reply %q, %v", to, reply, err)
	}
	return reply
}

// identical fails unless content is what was sent below fields that servers
// have put on top.
func identical(t *testing.T, content, sent string) {
	t.Helper()
	if !strings.HasSuffix(content, "\r\n"+sent) {
		t.Errorf("it did not arrive as it was:\n%q\nwant\n%q", content, sent)
	}
}

// mechanisms are those that every client of ours knows.
var mechanisms = []string{"plain", "login", "cram-md5"}

// securePostfix starts a Postfix that takes mail over TLS from users that
// Dovecot knows and passes it to next.
func securePostfix(t *testing.T, auth *dovecot, next *smtptest.Server) *instance.Server {
	t.Helper()
	cert, key := certificate(t)
	return startPostfix(t, map[string]string{
		"relayhost":                    fmt.Sprintf("[127.0.0.1]:%d", next.Port()),
		"smtpd_tls_security_level":     "encrypt",
		"smtpd_tls_auth_only":          "yes",
		"smtpd_tls_cert_file":          "DIR/cert.pem",
		"smtpd_tls_key_file":           "DIR/key.pem",
		"smtpd_tls_received_header":    "yes",
		"smtpd_sasl_auth_enable":       "yes",
		"smtpd_sasl_type":              "dovecot",
		"smtpd_sasl_path":              auth.sasl,
		"smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
		"smtpd_relay_restrictions":     "permit_sasl_authenticated, reject",
		"smtputf8_enable":              "yes",
	}, "cert.pem", cert, "key.pem", key)
}

// Postfix as a backend that wants TLS and AUTH: relayed in the session and
// queued, with each mechanism, as a user of its own. No two users share a
// connection, and each needs one only.
func TestPostfixAuth(t *testing.T) {
	t.Parallel()
	users := map[string]string{}
	for _, m := range mechanisms {
		users["user-"+m] = "secret of " + m
	}
	next := smtptest.New(t)
	p := securePostfix(t, startDovecot(t, users), next)
	var ini strings.Builder
	fmt.Fprintf(&ini, "port=%d\ncheck_recipient=true\n", portOf(t, p))
	domains := []string{}
	for _, queue := range []string{"smtp_forward", "outbound"} {
		for _, m := range mechanisms {
			domain := m + "." + strings.ReplaceAll(queue, "_", "-") + ".test"
			domains = append(domains, domain)
			fmt.Fprintf(&ini, "[%s]\nhost=127.0.0.1\nqueue=%s\nenable_tls=true\nrequire_tls=true\nauth_type=%s\nauth_user=user-%s\nauth_pass=secret of %s\n", domain, queue, m, m, m)
		}
	}
	fmt.Fprintf(&ini, "[wrong.test]\nhost=127.0.0.1\nenable_tls=true\nauth_type=plain\nauth_user=user-plain\nauth_pass=not the secret\n")
	fmt.Fprintf(&ini, "[none.test]\nhost=127.0.0.1\nenable_tls=true\n")
	d := Start(t, map[string]string{
		"plugins": "relay\nqueue/smtp_forward\n", "relay_acl_allow": "127.0.0.0/8\n", "smtp_forward.ini": ini.String(),
	})
	const each = 3
	for i, domain := range domains {
		if i == len(mechanisms) {
			// All that were relayed one after the other took one connection for each
			// user; the first one was the test's own, which waited for the greeting.
			logins := regexp.MustCompile(`: client=.*, sasl_method=`)
			eventually(t, "Postfix's log of them", func() bool { return len(logins.FindAllString(p.Log(), -1)) >= i*each })
			if n := strings.Count(p.Log(), "]: connect from ") - 1; n != len(mechanisms) {
				t.Errorf("%d connections for %d users", n, len(mechanisms))
			}
		}
		for range each {
			reply := mustSend(t, d.Addr(), "to@"+domain, awkward)
			if i < len(mechanisms) && !strings.Contains(reply, "Ok: queued as ") {
				t.Errorf("the reply is not Postfix's: %q", reply)
			}
		}
	}
	got := next.WaitMessages(each * len(domains))
	for _, x := range got {
		identical(t, string(x.Content), awkward)
		if !strings.Contains(string(x.Content), "using TLSv1.3") {
			t.Errorf("Postfix did not get it over TLS:\n%s", x.Content)
		}
	}
	for _, domain := range domains {
		n := 0
		for _, x := range got {
			if slices.Equal(x.Accepted(), []string{"to@" + domain}) {
				n++
			}
		}
		if n != each {
			t.Errorf("%d messages to %s, want %d", n, domain, each)
		}
	}
	// Who may not, gets a deferral, and the message is not sent without AUTH.
	if reply, err := letter(d.Addr(), "to@wrong.test", oneMessage); err != nil || !strings.HasPrefix(reply, "451 4.") {
		t.Errorf("wrong password: %q %v", reply, err)
	}
	if reply, err := letter(d.Addr(), "to@none.test", oneMessage); err != nil || reply[0] == '2' {
		t.Errorf("no AUTH: %q %v", reply, err)
	}
	d.awaitLog(`forward failed .*domain=wrong\.test\b`)
	d.awaitLog(` forwarded .*domain=cram-md5\.smtp-forward\.test .*tls="TLSv1\.3 .*auth=true reused=false .*queued as`)
	d.awaitLog(` forwarded .*domain=cram-md5\.smtp-forward\.test .*tls="TLSv1\.3 .*auth=true reused=true .*queued as`)
	d.awaitLog(` delivered .*to=to@cram-md5\.outbound\.test .*tls="TLSv1\.3 .*auth=true .*queued as`)
	eventually(t, "Postfix's log of all", func() bool { return strings.Count(p.Log(), ", sasl_method=") >= each*len(domains) })
	seen, session := map[string]int{}, map[string]string{}
	line := regexp.MustCompile(`smtpd\[(\d+)\]: (?:(connect) from|.*: client=.*, sasl_method=(\S+), sasl_username=(\S+))`)
	for _, m := range line.FindAllStringSubmatch(p.Log(), -1) {
		if m[2] != "" {
			delete(session, m[1])
			continue
		}
		seen[strings.ToLower(m[3])+" "+m[4]]++
		if other, ok := session[m[1]]; ok && other != m[4] {
			t.Errorf("%s and %s shared a connection", other, m[4])
		}
		session[m[1]] = m[4]
	}
	for _, m := range mechanisms {
		if n := seen[m+" user-"+m]; n != 2*each {
			t.Errorf("Postfix saw %d messages of user-%s, want %d: %v", n, m, 2*each, seen)
		}
	}
	for _, secret := range users {
		if strings.Contains(d.Log(), secret) {
			t.Error("a password is in the log")
		}
	}
}

// Exim as a backend, relayed and queued: TLS, each mechanism, a refused
// recipient beside one that is taken, BDAT for what is large.
func TestEximBackend(t *testing.T) {
	t.Parallel()
	next := smtptest.New(t)
	e := startExim(t, next.Port())
	var ini strings.Builder
	fmt.Fprintf(&ini, "port=%d\ncheck_recipient=true\n", e.port)
	var domains []string
	for _, queue := range []string{"smtp_forward", "outbound"} {
		for _, m := range mechanisms {
			domain := m + "." + strings.ReplaceAll(queue, "_", "-") + ".test"
			domains = append(domains, domain)
			fmt.Fprintf(&ini, "[%s]\nhost=127.0.0.1\nqueue=%s\nenable_tls=true\nrequire_tls=true\nauth_type=%s\nauth_user=u\nauth_pass=p\n", domain, queue, m)
		}
	}
	d := Start(t, map[string]string{
		"plugins": "relay\nqueue/smtp_forward\n", "relay_acl_allow": "127.0.0.0/8\n", "smtp_forward.ini": ini.String(),
	})
	large := awkward + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 20_000)
	for _, domain := range domains {
		mustSend(t, d.Addr(), "to@"+domain, awkward)
		mustSend(t, d.Addr(), "to@"+domain, large)
	}
	for _, x := range next.WaitMessages(2 * len(domains)) {
		sent := awkward
		if len(x.Content) > 100_000 {
			sent = large
		}
		identical(t, string(x.Content), sent)
	}
	// All refused: the client learns it. Some refused: the others get it.
	if reply, err := letter(d.Addr(), "refused@"+domains[0], oneMessage); err != nil || !strings.HasPrefix(reply, "550 5.") || !strings.Contains(reply, "nobody has that name here") {
		t.Errorf("refused recipient: %q %v", reply, err)
	}
	c := dial(t, d.Addr())
	c.say("MAIL FROM:<from@client.test>", "250")
	c.say("RCPT TO:<to@"+domains[0]+">", "250")
	c.say("RCPT TO:<refused@"+domains[0]+">", "250")
	c.say("DATA", "354")
	c.send(oneMessage)
	if reply := c.say(".", "250"); !strings.Contains(reply, "refused@") {
		t.Errorf("the reply does not name who was refused: %q", reply)
	}
	c.say("QUIT", "221")
	got := next.WaitMessages(2*len(domains) + 1)
	if to := got[len(got)-1].Accepted(); !slices.Equal(to, []string{"to@" + domains[0]}) {
		t.Errorf("delivered to %q", to)
	}
	eventually(t, "Exim's log", func() bool { return strings.Count(e.log(), " <= ") >= 2*len(domains)+1 })
	for _, m := range mechanisms {
		name, _, _ := strings.Cut(m, "-")
		if n := len(regexp.MustCompile(`<= .*P=esmtpsa .*X=TLS1.3.* A=`+name+`:u `).FindAllString(e.log(), -1)); n < 4 {
			t.Errorf("Exim saw %d messages over TLS with %s, want 4", n, m)
		}
	}
	if n := len(regexp.MustCompile(`<= .* K `).FindAllString(e.log(), -1)); n < len(domains) {
		t.Errorf("%d messages came with BDAT, want %d", n, len(domains))
	}
	if t.Failed() {
		t.Log(e.log())
	}
}

// Dovecot takes mail by LMTP, over TCP and a Unix socket. Of one message a
// recipient is unknown and refused, one has it, and the mailbox of one cannot
// be written: he is tried again, the others are not.
func TestDovecotLMTP(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"tcp", "unix", "tcp, queued"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			v := startDovecot(t, map[string]string{"anna": "x", "bert": "x", "broken": "x"})
			ini := fmt.Sprintf("host=127.0.0.1\nport=%d\nusing_lmtp=true\n", v.lmtpPort)
			if way == "unix" {
				ini = "host=lmtp+unix:" + v.lmtp + "\n"
			}
			if way == "tcp, queued" {
				ini = "check_recipient=true\n[box.test]\n" + ini + "queue=outbound\n"
			}
			d := Start(t, map[string]string{
				"plugins": "relay\nqueue/smtp_forward\n", "relay_acl_allow": "127.0.0.0/8\n", "smtp_forward.ini": ini,
				"outbound.ini": "temp_fail_intervals=1s,1h\n",
			})
			mustSend(t, d.Addr(), "anna@box.test", awkward)
			mustSend(t, d.Addr(), "bert@box.test", awkward)
			eventually(t, "two messages", func() bool { return len(v.mailbox(t, "anna")) == 1 && len(v.mailbox(t, "bert")) == 1 })
			for _, name := range []string{"anna", "bert"} {
				identical(t, v.mailbox(t, name)[0], awkward)
			}
			queued := way == "tcp, queued"
			if reply, err := letter(d.Addr(), "nobody@box.test", oneMessage); err != nil || !queued && !strings.HasPrefix(reply, "550 5.1.1 ") {
				t.Errorf("unknown user: %q %v", reply, err)
			}
			c := dial(t, d.Addr())
			c.say("MAIL FROM:<>", "250")
			for _, name := range []string{"nobody", "anna", "broken", "bert"} {
				c.say("RCPT TO:<"+name+"@box.test>", "250")
			}
			c.say("DATA", "354")
			c.send(oneMessage)
			if reply := c.say(".", "250"); !queued && !strings.Contains(reply, "nobody@box.test") {
				t.Errorf("the reply does not name who was refused: %q", reply)
			}
			c.say("QUIT", "221")
			eventually(t, "their second messages", func() bool { return len(v.mailbox(t, "anna")) == 2 && len(v.mailbox(t, "bert")) == 2 })
			d.awaitLog(`\bdeferred\b.*broken@box\.test`)
			if queued != !strings.Contains(d.Log(), " forwarded ") {
				t.Errorf("queued %t, and the log says otherwise", queued)
			}
			if n := len(v.mailbox(t, "anna")) + len(v.mailbox(t, "bert")); n != 4 {
				t.Errorf("%d messages in the mailboxes, want 4", n)
			}
		})
	}
}
