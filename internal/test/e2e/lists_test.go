package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tarishi/internal/test/smtptest"
)

// Lists in the DNS are tested at the start: one that answers properly is asked, one that
// has every address is disabled, with one line, and shows in the metrics. A client that is
// listed is refused.
func TestDNSLists(t *testing.T) {
	t.Parallel()
	names := nameServer(t)
	names.A("2.0.0.127.good.test", "127.0.0.2")
	names.A("2.0.0.127.lying.test", "127.0.0.2")
	names.A("1.0.0.127.lying.test", "127.0.0.2")
	names.A("9.0.0.127.ips.backscatterer.org", "127.0.0.2")
	d := Start(t, with(relayTo(smtptest.New(t).Port()),
		"plugins", "dns-list\nrcpt_to.in_host_list\nqueue/smtp_forward\n", "dns.ini", dnsINI(names),
		"dns-list.ini", "zones=good.test lying.test\n[ips.backscatterer.org]\nenable=true\n"))
	d.awaitLog(`enabling block zone.*good\.test`)
	d.awaitLog(`disabling block zone.*lying\.test.*127\.0\.0\.1 is listed`)
	metrics := execute(t, binary(t), "metrics", "-c", d.Dir).out
	for _, want := range []string{"tarishi_plugin_dns_list_zones_active 1", "tarishi_plugin_dns_list_zones_disabled 1"} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("no %s in the metrics", want)
		}
	}

	// A client with a private address is asked about only where reports are concerned.
	c := dialFrom(t, "127.0.0.9", d.Addr())
	c.expect("220")
	c.say("EHLO client.test", "250")
	if reply := c.say("MAIL FROM:<>", "550"); !strings.HasSuffix(reply, "[127.0.0.9] is listed by ips.backscatterer.org\r\n") {
		t.Errorf("the report got %q", reply)
	}
	c.say("MAIL FROM:<from@client.test>", "250")
	c.say("QUIT", "221")
	if n := names.Count("9.0.0.127.good.test", "A"); n != 0 {
		t.Errorf("the client was asked for %d times in good.test", n)
	}
}

// A listed client is refused at the start of its conversation, whether a proxy or a peer
// that may hand clients over says who it is; one on a list of those to be let in is not, and
// one that is on no list is not either.
func TestListedClients(t *testing.T) {
	t.Parallel()
	names := nameServer(t)
	for _, zone := range []string{"block.test", "more.test", "allow.test"} {
		names.A("2.0.0.127."+zone, "127.0.0.2")
	}
	names.A("2.1.45.5.block.test", "127.0.0.2")
	names.A("3.1.45.5.block.test", "127.0.0.2")
	names.A("3.1.45.5.more.test", "127.0.0.10")
	names.A("4.1.45.5.block.test", "127.0.0.2")
	names.A("4.1.45.5.allow.test", "127.0.0.3")
	six := "5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.f.4.0.1.0.a.2.block.test"
	names.A(six, "127.0.0.2")
	dir := folder(t, with(relayTo(smtptest.New(t).Port()),
		"plugins", "xclient\ndns-list\nrcpt_to.in_host_list\nqueue/smtp_forward\n", "dns.ini", dnsINI(names), "xclient.hosts", "127.0.0.1\n",
		"connection.ini", "[haproxy]\nhosts[]=127.0.0.2\n", "dns-list.ini", "zones=block.test more.test allow.test\n[allow.test]\ntype=allow\n"))
	d := startIn(t, dir)
	for _, zone := range []string{`block zone.*block\.test`, `block zone.*more\.test`, `allow zone.*allow\.test`} {
		d.awaitLog("enabling " + zone)
	}

	for _, client := range []struct{ addr, refusal string }{
		{"5.45.1.1", ""},
		{"5.45.1.2", "554 5.7.1 host [5.45.1.2] is listed on block.test\r\n"},
		{"5.45.1.3", "554 5.7.1 host [5.45.1.3] is listed on block.test, more.test\r\n"},
		{"5.45.1.4", ""},
		{"2a01:4f8::25", "554 5.7.1 host [2a01:4f8::25] is listed on block.test\r\n"},
		{"10.45.1.2", ""},
	} {
		want, family, server := client.refusal, "TCP4", "5.5.5.25"
		if strings.Contains(client.addr, ":") {
			family, server = "TCP6", "2a01:4f8::1"
		}
		if want == "" {
			want = "220"
		}

		// The refusal is the greeting, and all that the client hears from then on.
		c := dialFrom(t, "127.0.0.2", d.Addr())
		proxied := c.say(fmt.Sprintf("PROXY %s %s %s 4711 25", family, client.addr, server), want)
		switch {
		case client.refusal == "":
			c.say("EHLO mx.client.test", "250")
			c.say("MAIL FROM:<from@client.test>", "250")
		case proxied != client.refusal:
			t.Errorf("%s by PROXY: %q", client.addr, proxied)
		default:
			c.say("EHLO mx.client.test", client.refusal)
			c.say("MAIL FROM:<from@client.test>", client.refusal)
		}
		c.say("QUIT", "221")

		c = dialFrom(t, "127.0.0.1", d.Addr())
		c.expect("220")
		c.say("EHLO peer.test", "250")
		addr := client.addr
		if family == "TCP6" {
			addr = "IPV6:" + addr
		}
		if handed := c.say("XCLIENT ADDR="+addr, want); client.refusal != "" && handed != client.refusal {
			t.Errorf("%s by XCLIENT: %q", client.addr, handed)
		}
		if client.refusal == "" {
			c.say("EHLO mx.client.test", "250")
			c.say("MAIL FROM:<from@client.test>", "250")
		}
	}
	d.awaitLog(`dns-list.*fail:\s*block\.test`)
	if n := names.Count("2.1.45.10.block.test", "A"); n != 0 {
		t.Errorf("a private address was asked for %d times", n)
	}
}

// A recipient that is accepted for its domain leaves by the next hop of the domain, and
// opens the relay for no other, neither in its transaction nor in the next one.
func TestDestDomains(t *testing.T) {
	t.Parallel()
	next, backend := smtptest.New(t), smtptest.New(t)
	d := Start(t, with(relayTo(backend.Port()),
		"plugins", "rcpt_to.in_host_list\nrelay\nqueue/smtp_forward\n",
		"relay.ini", "[relay]\nacl=false\ndest_domains=true\n",
		"relay_dest_domains.ini", fmt.Sprintf("[domains]\nhop.test={\"action\":\"accept\",\"nexthop\":\"127.0.0.1:%d\"}\nalso.test={\"action\":\"continue\"}\n", next.Port()),
		"outbound.ini", "local_mx_ok=true\n"))
	const closed = "550 5.7.1 You are not allowed to relay"
	c := dial(t, d.Addr())
	for range 2 {
		c.say("MAIL FROM:<from@client.test>", "250")
		c.say("RCPT TO:<one@hop.test>", "250")
		c.say("RCPT TO:<two@foreign.test>", closed)
		c.say("RCPT TO:<three@sink.test>", "450 4.5.3 Split transaction")
		c.say("DATA", "354")
		c.say(oneMessage+".", "250")
		c.say("MAIL FROM:<from@client.test>", "250")
		c.say("RCPT TO:<two@foreign.test>", closed)
		c.say("RCPT TO:<three@sink.test>", "250")
		c.say("RCPT TO:<four@also.test>", "250") // by way of the backend, which takes all outbound mail
		c.say("DATA", "354")
		c.say(oneMessage+".", "250")
	}
	next.WaitMessages(2)
	backend.WaitMessages(2)
	if got := recipients(next); !slices.Equal(got, []string{"one@hop.test", "one@hop.test"}) {
		t.Errorf("the next hop got %v", got)
	}
	if got := recipients(backend); !slices.Equal(got, []string{"three@sink.test", "four@also.test", "three@sink.test", "four@also.test"}) {
		t.Errorf("the backend got %v", got)
	}
}

// A recipient that is dropped costs the others nothing; what an alias sends on leaves by
// the queue beside the backend; and a file that cannot be read changes nothing.
func TestAliases(t *testing.T) {
	t.Parallel()
	away, backend := smtptest.New(t), smtptest.New(t)
	names := nameServer(t)
	names.MX("away.test", 10, "mx.away.test")
	names.A("mx.away.test", "127.0.0.1")
	const entries = `{
		"drop": {"action": "drop"},
		"old@sink.test": {"action": "alias", "to": "new"},
		"team": {"action": "alias", "to": ["a", "b@sink.test", "x@away.test"]}
	}`
	d := Start(t, with(relayTo(backend.Port()),
		"plugins", "aliases\nrcpt_to.in_host_list\nqueue/smtp_forward\n", "dns.ini", dnsINI(names), "aliases.json", entries,
		"outbound.ini", fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", away.Port())))
	send := func(to ...string) {
		t.Helper()
		c := dial(t, d.Addr())
		c.say("MAIL FROM:<from@client.test>", "250")
		for _, one := range to {
			c.say("RCPT TO:<"+one+">", "250 2.1.5 recipient <"+one+"> OK")
		}
		c.say("DATA", "354")
		c.say(oneMessage+".", "250 2.0.0 ")
		c.say("QUIT", "221")
	}
	check := func(what string, s *smtptest.Server, want ...string) {
		t.Helper()
		if got := recipients(s); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	send("drop@sink.test")
	d.awaitLog(`message dropped: no recipient is left`)
	send("keep@sink.test", "drop+more@sink.test", "old@sink.test")
	backend.WaitMessages(1)
	check("a drop among others", backend, "keep@sink.test", "new@sink.test")

	// The alias of somebody else's domain is none of ours.
	send("team@sink.test")
	backend.WaitMessages(2)
	away.WaitMessages(1)
	check("at the backend", backend, "keep@sink.test", "new@sink.test", "a@sink.test", "b@sink.test")
	check("at the other domain", away, "x@away.test")
	c := dial(t, d.Addr())
	c.say("MAIL FROM:<from@client.test>", "250")
	for _, to := range []string{"team", "drop", "somebody"} {
		c.say("RCPT TO:<"+to+"@foreign.test>", "550 5.7.1 I cannot deliver mail for <"+to+"@foreign.test>")
	}
	c.say("DATA", "554")
	c.say("QUIT", "221")

	writeFile(t, filepath.Join(d.Dir, "config/aliases.json"), strings.Replace(entries, "},", "}", 1))
	for _, command := range []string{"check", "reload"} {
		if o := execute(t, binary(t), command, "-c", d.Dir); o.exit == 0 || !strings.Contains(o.out, "config/aliases.json:3: ") {
			t.Errorf("%s: exit %d, %s", command, o.exit, o.out)
		}
	}
	send("old@sink.test", "drop@sink.test")
	backend.WaitMessages(3)
	check("after a bad change", backend, "keep@sink.test", "new@sink.test", "a@sink.test", "b@sink.test", "new@sink.test")
}
