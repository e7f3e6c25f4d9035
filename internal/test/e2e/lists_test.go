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
	names.A("1.0.0.127.ips.backscatterer.org", "127.0.0.2")
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
	c := dial(t, d.Addr())
	if reply := c.say("MAIL FROM:<>", "550"); !strings.HasSuffix(reply, "[127.0.0.1] is listed by ips.backscatterer.org\r\n") {
		t.Errorf("the report got %q", reply)
	}
	c.say("MAIL FROM:<from@client.test>", "250")
	c.say("QUIT", "221")
	if n := names.Count("1.0.0.127.good.test", "A"); n != 1 {
		t.Errorf("127.0.0.1 was asked for %d times in good.test, want only the test", n)
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
