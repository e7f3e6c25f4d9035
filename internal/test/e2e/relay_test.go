package e2e

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/test/smtptest"
)

// relayConfig relays for the domains that have a section, and for no client to
// elsewhere.
func relayConfig(ini string) map[string]string {
	return map[string]string{"plugins": "queue/smtp_forward\n", "smtp_forward.ini": "check_recipient=true\n" + ini}
}

// answered fails unless the reply to a message to this address begins so.
func answered(t *testing.T, d *Daemon, to, want string) {
	t.Helper()
	if reply, err := letter(d.Addr(), to, oneMessage); err != nil || !strings.HasPrefix(reply, want) {
		t.Errorf("to %s: reply %q, %v; want %s", to, reply, err, want)
	}
}

// recipients are those of all messages, in order.
func recipients(s *smtptest.Server) []string {
	var all []string
	for _, x := range s.Messages() {
		all = append(all, x.Accepted()...)
	}
	return all
}

// Routes to one and the same backend that differ in what matters to it never
// share a connection, and each keeps its own.
func TestConnectionsAreNotShared(t *testing.T) {
	t.Parallel()
	s := peer(t, smtptest.TLS(), smtptest.Credentials("one", "x"),
		smtptest.On(smtptest.Auth, smtptest.Always(smtptest.Reply("235 2.7.0 welcome"))))
	routes := []struct {
		domain, section string
		ok              func(x smtptest.Transaction) bool
	}{
		{"one.test", "auth_type=plain\nauth_user=one\nauth_pass=x\n", func(x smtptest.Transaction) bool { return x.User == "one" && !x.TLS }},
		{"two.test", "auth_type=plain\nauth_user=two\nauth_pass=x\n", func(x smtptest.Transaction) bool { return x.User == "two" && !x.TLS }},
		{"pass.test", "auth_type=plain\nauth_user=one\nauth_pass=y\n", func(x smtptest.Transaction) bool { return x.User == "one" && !x.TLS }},
		{"nobody.test", "", func(x smtptest.Transaction) bool { return x.User == "" && !x.TLS }},
		{"may.test", "enable_tls=true\n", func(x smtptest.Transaction) bool { return x.User == "" && x.TLS }},
		{"must.test", "enable_tls=true\nrequire_tls=true\n", func(x smtptest.Transaction) bool { return x.User == "" && x.TLS }},
		{"tls-user.test", "enable_tls=true\nauth_type=plain\nauth_user=one\nauth_pass=x\n", func(x smtptest.Transaction) bool { return x.User == "one" && x.TLS }},
		{"bind1.test", "bind=127.0.0.1\n", func(x smtptest.Transaction) bool { return strings.HasPrefix(x.Remote, "127.0.0.1:") }},
		{"bind2.test", "bind=127.0.0.2\n", func(x smtptest.Transaction) bool { return strings.HasPrefix(x.Remote, "127.0.0.2:") }},
		{"helo.test", "bind_helo=other.test\n", func(x smtptest.Transaction) bool { return x.Helo == "other.test" }},
	}
	var ini strings.Builder
	for _, r := range routes {
		fmt.Fprintf(&ini, "[%s]\nhost=%s\nmax_connections=1\n%s", r.domain, s.Addr(), r.section)
	}
	d := Start(t, relayConfig(ini.String()))
	const each = 5
	var running sync.WaitGroup
	for i := range each * len(routes) {
		running.Go(func() { answered(t, d, "to@"+routes[i%len(routes)].domain, "250 ") })
	}
	running.Wait()
	domains := map[int]string{} // of a connection
	for _, x := range s.WaitMessages(each * len(routes)) {
		to := x.Accepted()[0]
		i := slices.IndexFunc(routes, func(r struct {
			domain, section string
			ok              func(x smtptest.Transaction) bool
		},
		) bool {
			return "to@"+r.domain == to
		})
		if !routes[i].ok(x) {
			t.Errorf("to %s: user %q, TLS %t, from %s, as %s", to, x.User, x.TLS, x.Remote, x.Helo)
		}
		if other, ok := domains[x.Conn]; ok && other != to {
			t.Errorf("%s and %s shared a connection", other, to)
		}
		domains[x.Conn] = to
	}
	if n := s.Connections(); n != len(routes) {
		t.Errorf("%d connections for %d routes", n, len(routes))
	}
}

// deadHost is an address at which connections are neither made nor refused: the
// queue of its listener is full.
func deadHost(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 10 {
		c, err := net.DialTimeout("tcp", addr, 300*time.Millisecond)
		if e, ok := err.(net.Error); ok && e.Timeout() {
			return addr
		} else if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue of the listener is never full")
	return ""
}

// Of three hosts one is dead. That costs no message, and one connect_timeout in
// all, not one for each message.
func TestDeadHostAmongThree(t *testing.T) {
	t.Parallel()
	for key, clients := range map[string]int{"host": 20, "forwarding_host_pool": 1} {
		t.Run(fmt.Sprintf("%s, %d clients", key, clients), func(t *testing.T) {
			t.Parallel()
			one, two := smtptest.New(t), smtptest.New(t)
			const timeout = 10 * time.Second // of which a busy machine must not lose a half
			d := Start(t, relayConfig(fmt.Sprintf("[sink.test]\n%s=%s,%s,%s\nconnect_timeout=%d\ndead_forwarding_host_retry_secs=60\n",
				key, deadHost(t), one.Addr(), two.Addr(), timeout/time.Second)))
			// They go on for longer than any back-off of the first failure.
			const lasts = timeout + 4*time.Second
			var running sync.WaitGroup
			var messages, slow atomic.Int32
			begin := time.Now()
			for range clients {
				running.Go(func() {
					for time.Since(begin) < lasts {
						start := time.Now()
						answered(t, d, "to@sink.test", "250 ")
						messages.Add(1)
						if end := time.Now(); end.Sub(start) > timeout/2 {
							slow.Add(1)
							if end.Sub(begin) > timeout+timeout/2 {
								t.Errorf("a message took %v, after %v", end.Sub(start), start.Sub(begin))
							}
						}
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
			running.Wait()
			t.Logf("%d messages, %d of them slow", messages.Load(), slow.Load())
			if slow.Load() > int32(clients) {
				t.Errorf("%d messages of %d clients were slow", slow.Load(), clients)
			}
			a, b := len(one.Messages()), len(two.Messages())
			all := int(messages.Load())
			if a+b != all {
				t.Errorf("%d and %d messages arrived, want %d", a, b, all)
			}
			if key == "host" && b != 0 || key != "host" && (a < all/4 || b < all/4) {
				t.Errorf("%d and %d messages at the living hosts", a, b)
			}
		})
	}
}

// What the manual of smtp_forward says of routes by domain, with hosts that
// differ only in their addresses, since sections without a port take main's.
func TestRoutesByDomain(t *testing.T) {
	t.Parallel()
	first := smtptest.New(t)
	at := func(ip string) *smtptest.Server {
		return smtptest.New(t, smtptest.Listen("tcp", fmt.Sprintf("%s:%d", ip, first.Port())))
	}
	second, third, mx := at("127.0.0.5"), at("127.0.0.6"), at("127.0.0.7")
	ini := fmt.Sprintf("host=127.0.0.1\nport=%d\n[example1.com]\nhost=127.0.0.5\n[example2.com]\nhost=127.0.0.5\n[example3.com]\nhost=127.0.0.6\n"+
		"[example4.com]\nenable_outbound=false\n", first.Port())
	dns := nameServer(t)
	for _, domain := range []string{"example1.com", "example4.com", "elsewhere.test"} {
		dns.MX(domain, 10, "mx."+domain)
		dns.A("mx."+domain, "127.0.0.7")
	}
	common := map[string]string{
		"plugins": "rcpt_to.in_host_list\nqueue/smtp_forward\n", "host_list": "sink.test\n",
		"dns.ini": dnsINI(dns), "outbound.ini": fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", first.Port()),
	}
	start := func(nameAndText ...string) *Daemon {
		config := map[string]string{}
		for name, text := range common {
			config[name] = text
		}
		return Start(t, with(config, nameAndText...))
	}
	took := func(s *smtptest.Server, want ...string) {
		t.Helper()
		s.Wait(func() bool { return len(recipients(s)) >= len(want) }, "mail for "+want[len(want)-1])
		if got := recipients(s); !slices.Equal(got, want) {
			t.Errorf("%s has mail for %q, want %q", s.Addr(), got, want)
		}
	}

	// Mail that comes in. Who shares a next hop goes there in one transaction;
	// who has another one is deferred, and comes later.
	in := start("smtp_forward.ini", "check_recipient=true\n"+ini)
	answered(t, in, "a@example1.com", "250 ")
	answered(t, in, "a@example3.com", "250 ")
	answered(t, in, "a@sink.test", "250 ")
	answered(t, in, "a@elsewhere.test", "550 ")
	c := dial(t, in.Addr())
	c.say("MAIL FROM:<from@client.test>", "250")
	c.say("RCPT TO:<b@example1.com>", "250")
	c.say("RCPT TO:<b@EXAMPLE2.com>", "250")
	c.say("RCPT TO:<b@example3.com>", "450")
	c.say("DATA", "354")
	c.send(oneMessage)
	c.say(".", "250")
	c.say("MAIL FROM:<from@client.test>", "250")
	c.say("RCPT TO:<b@example3.com>", "250")
	c.say("DATA", "354")
	c.send(oneMessage)
	c.say(".", "250")
	c.say("QUIT", "221")
	took(first, "a@sink.test")
	took(second, "a@example1.com", "b@example1.com", "b@EXAMPLE2.com")
	took(third, "a@example3.com", "b@example3.com")
	if n := len(second.Messages()); n != 2 {
		t.Errorf("%d transactions for two recipients of one next hop", n)
	}

	// Mail of clients that may relay: forwarded as well, but for the domain that
	// says no, which goes to its MX.
	out := start("plugins", "relay\nqueue/smtp_forward\n", "relay_acl_allow", "127.0.0.0/8\n", "smtp_forward.ini", ini)
	answered(t, out, "c@example1.com", "250 ")
	answered(t, out, "c@elsewhere.test", "250 ")
	answered(t, out, "c@example4.com", "250 ")
	took(mx, "c@example4.com")
	took(first, "a@sink.test", "c@elsewhere.test")
	took(second, "a@example1.com", "b@example1.com", "b@EXAMPLE2.com", "c@example1.com")

	// With enable_outbound=false on top all of it goes by MX.
	none := start("plugins", "relay\nqueue/smtp_forward\n", "relay_acl_allow", "127.0.0.0/8\n",
		"smtp_forward.ini", "enable_outbound=false\n"+ini)
	answered(t, none, "d@elsewhere.test", "250 ")
	took(mx, "c@example4.com", "d@elsewhere.test")

	// The sender's domain chooses.
	sender := start("smtp_forward.ini", "domain_selector=mail_from\n"+ini)
	for from, where := range map[string]*smtptest.Server{"s@example3.com": third, "s@client.test": first} {
		before := len(where.Messages())
		if reply, err := letterFrom(sender.Addr(), "127.0.0.1", from, "e@sink.test", oneMessage); err != nil || reply[0] != '2' {
			t.Errorf("from %s: %q %v", from, reply, err)
		}
		if got := where.WaitMessages(before + 1); got[before].From != from {
			t.Errorf("%s has %+v", where.Addr(), got[before])
		}
	}

	// A sender of one of our domains must be allowed to relay.
	spoof := start("smtp_forward.ini", "check_sender=true\n"+ini)
	if reply, err := letterFrom(spoof.Addr(), "127.0.0.1", "boss@example1.com", "f@sink.test", oneMessage); err != nil || !strings.HasPrefix(reply, "550 5.7.1 ") {
		t.Errorf("spoofed sender: %q %v", reply, err)
	}
	answered(t, spoof, "f@sink.test", "250 ")
}

// With split=fanout, and by a client that may relay, recipients of different
// routes are all accepted; the message is queued once and each route relays its
// own.
func TestFanout(t *testing.T) {
	t.Parallel()
	for _, split := range []string{"split=fanout\n", ""} {
		fanOut(t, split)
	}
}

func fanOut(t *testing.T, split string) {
	t.Helper()
	one, two := smtptest.New(t), smtptest.New(t)
	config := relayConfig(fmt.Sprintf("%s[one.test]\nhost=%s\n[two.test]\nhost=%s\n", split, one.Addr(), two.Addr()))
	if split == "" {
		config["plugins"], config["relay_acl_allow"] = "relay\nqueue/smtp_forward\n", "127.0.0.0/8\n"
	}
	d := Start(t, config)
	c := dial(t, d.Addr())
	c.say("MAIL FROM:<from@client.test>", "250")
	for _, to := range []string{"a@one.test", "b@two.test", "c@one.test"} {
		c.say("RCPT TO:<"+to+">", "250")
	}
	c.say("DATA", "354")
	c.send(stuffed(awkward))
	c.say(".", "250")
	c.say("QUIT", "221")
	for s, want := range map[*smtptest.Server][]string{one: {"a@one.test", "c@one.test"}, two: {"b@two.test"}} {
		got := s.WaitMessages(1)
		to := recipients(s)
		slices.Sort(to)
		if !slices.Equal(to, want) {
			t.Errorf("mail for %q, want %q", to, want)
		}
		identical(t, string(got[0].Content), awkward)
	}
	d.Stop()
	if n := len(regexp.MustCompile(`(?m) queued id=\S+ from=.*$`).FindAllString(d.Log(), -1)); n != 1 {
		t.Errorf("queued %d times", n)
	}
}

// With on_failure=queue a message that the backend cannot take now is accepted
// and relayed later by the same route; what it refuses is refused, and what it
// may have taken is told to the client as before.
func TestQueuedOnFailure(t *testing.T) {
	t.Parallel()
	later := smtptest.New(t, smtptest.TLS(), smtptest.Credentials("u", "p"), smtptest.On(smtptest.Rcpt, smtptest.First(2, smtptest.Reply("451 4.3.2 not now"))))
	never := smtptest.New(t, smtptest.On(smtptest.Rcpt, smtptest.Always(smtptest.Reply("550 5.1.1 unknown"))))
	port := freePort(t)
	ini := "on_failure=queue\n" +
		fmt.Sprintf("[later.test]\nhost=%s\nrequire_tls=true\nauth_type=plain\nauth_user=u\nauth_pass=p\n[never.test]\nhost=%s\n[down.test]\nhost=127.0.0.1\nport=%d\nconnect_timeout=2\n", later.Addr(), never.Addr(), port)
	d := Start(t, with(relayConfig(ini), "outbound.ini", "temp_fail_intervals=1s*20\n"))
	answered(t, d, "to@later.test", "250 ")
	answered(t, d, "to@never.test", "550 5.1.1 ")
	answered(t, d, "to@down.test", "250 ")
	for _, x := range later.WaitMessages(1) {
		if !x.TLS || x.User != "u" {
			t.Errorf("queued mail went another way: TLS %t, user %q", x.TLS, x.User)
		}
	}
	up := smtptest.New(t, smtptest.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)))
	up.WaitMessages(1)
	d.Stop()
	for _, s := range []*smtptest.Server{later, up} {
		if n := len(s.Transactions()); n != 1 {
			t.Errorf("%d transactions, want 1", n)
		}
	}
	if n := len(never.Messages()); n != 0 {
		t.Errorf("%d messages at the backend that refuses all", n)
	}
	if rest, _ := os.ReadDir(d.Dir + "/queue/msg"); len(rest) > 0 {
		t.Errorf("left in the queue: %v", rest)
	}
}

// With reply_codes=pass the client gets the backend's own code and enhanced
// code, else 450 or 550.
func TestReplyCodes(t *testing.T) {
	t.Parallel()
	s := smtptest.New(t, smtptest.On(smtptest.Rcpt, func(e smtptest.Event) smtptest.Action {
		local, _, _ := strings.Cut(e.Address, "@")
		return smtptest.Reply(strings.ReplaceAll(local, "_", " "))
	}))
	for _, tc := range []struct{ backend, flat, passed string }{
		{"452_4.2.2_full", "450 4.2.2 full ", "452 4.2.2 full "},
		{"451_4.7.1_grey", "450 4.7.1 grey ", "451 4.7.1 grey "},
		{"553_5.1.3_syntax", "550 5.1.3 syntax ", "553 5.1.3 syntax "},
		{"554_5.7.1_policy", "550 5.7.1 policy ", "554 5.7.1 policy "},
	} {
		for _, key := range []string{"flatten", "pass"} {
			t.Run(key+" "+tc.backend, func(t *testing.T) {
				t.Parallel()
				d := Start(t, relayConfig(fmt.Sprintf("reply_codes=%s\n[sink.test]\nhost=%s\n", key, s.Addr())))
				want := tc.flat
				if key == "pass" {
					want = tc.passed
				}
				answered(t, d, tc.backend+"@sink.test", want)
			})
		}
	}
}

// With auth_type=forward the client's own credentials go to the backend, each
// client's over a connection of its own, and they are in no file.
func TestClientsOwnCredentials(t *testing.T) {
	t.Parallel()
	need(t, "swaks")
	s := smtptest.New(t, smtptest.Credentials("", ""), smtptest.Credentials("anna@sink.test", "the secret of anna"))
	d := Start(t, map[string]string{
		"plugins":            "auth/flat_file\nqueue/smtp_forward\n",
		"auth_flat_file.ini": "[core]\nmethods=PLAIN,LOGIN\n[users]\nanna@sink.test=the secret of anna\nbert@sink.test=the secret of bert\n",
		"smtp_forward.ini":   fmt.Sprintf("host=%s\nauth_type=forward\n", s.Addr()),
	})
	host, port, _ := net.SplitHostPort(d.Addr())
	send := func(user string) outcome {
		return execute(t, "swaks", "--server", host, "--port", port, "--from", user+"@sink.test", "--to", "to@sink.test",
			"--auth", "PLAIN", "--auth-user", user+"@sink.test", "--auth-password", "the secret of "+user)
	}
	for range 2 {
		if o := send("anna"); o.exit != 0 {
			t.Errorf("exit %d\n%s", o.exit, o.out)
		}
	}
	for _, x := range s.WaitMessages(2) {
		if x.User != "anna@sink.test" || x.Conn != 1 {
			t.Errorf("user %q on connection %d", x.User, x.Conn)
		}
	}
	// The backend does not know bert.
	if o := send("bert"); o.exit == 0 || !strings.Contains(o.out, " 451 4.7.0 ") {
		t.Errorf("exit %d\n%s", o.exit, o.out)
	}
	if n := len(s.Messages()); n != 2 {
		t.Errorf("%d messages", n)
	}
	if strings.Contains(d.Log(), "the secret of") {
		t.Error("a password is in the log")
	}
}

// Certificates both ways: ours is what external logs in with, the backend's is
// verified by the CA of [tls] or not at all. Who cannot be verified gets nothing.
func TestRelayCertificates(t *testing.T) {
	t.Parallel()
	s := smtptest.New(t, smtptest.TLS(), smtptest.Credentials("u", "p"), smtptest.Mechanisms("EXTERNAL"))
	cert, key := certificate(t)
	config := relayConfig(fmt.Sprintf("[tls]\nkey=relay_key.pem\ncert=relay_cert.pem\nca=ca.pem\n"+
		"[sink.test]\nhost=127.0.0.1\nport=%[1]d\nenable_tls=true\nrequire_tls=true\ntls_verify=true\nauth_type=external\n"+
		"[free.test]\nhost=127.0.0.1\nport=%[1]d\nenable_tls=true\n", s.Port()))
	d := Start(t, with(config, "relay_key.pem", key, "relay_cert.pem", cert, "ca.pem", s.PEM()))
	answered(t, d, "to@sink.test", "250 ")
	answered(t, d, "to@sink.test", "250 ")
	answered(t, d, "to@free.test", "250 ")
	for i, x := range s.WaitMessages(3) {
		if i < 2 && (x.User != "u" || !x.TLS || x.Certificate != "localhost" || x.Conn != 1) {
			t.Errorf("user %q, TLS %t, certificate %q, connection %d", x.User, x.TLS, x.Certificate, x.Conn)
		}
		if i == 2 && (x.User != "" || !x.TLS || x.Conn == 1) {
			t.Errorf("user %q, TLS %t, connection %d", x.User, x.TLS, x.Conn)
		}
	}
	// A CA that did not sign the backend's certificate.
	other := Start(t, with(config, "relay_key.pem", key, "relay_cert.pem", cert, "ca.pem", cert))
	answered(t, other, "to@sink.test", "451 4.7.5 ")
	answered(t, other, "to@free.test", "250 ")
	if n := len(s.Messages()); n != 4 {
		t.Errorf("%d messages, want 4", n)
	}
}

// A backend whose handshake fails gets its mail in clear where TLS is only
// wished for, and is not asked for TLS again with every message.
func TestBrokenTLSIsRemembered(t *testing.T) {
	t.Parallel()
	s := peer(t, smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.BreakTLS())))
	d := Start(t, relayConfig(fmt.Sprintf("[sink.test]\nhost=%[1]s\nenable_tls=true\nmax_messages=1\n[must.test]\nhost=%[1]s\nrequire_tls=true\n", s.Addr())))
	for range 5 {
		answered(t, d, "to@sink.test", "250 ")
	}
	if n := s.Connections(); n != 6 {
		t.Errorf("%d connections for 5 messages, want 6: one in vain", n)
	}
	answered(t, d, "to@must.test", "451 4.7.5 ")
	if n := len(s.Messages()); n != 5 {
		t.Errorf("%d messages, want 5", n)
	}
}
