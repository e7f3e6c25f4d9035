package e2e

import (
	"fmt"
	"strings"
	"testing"

	"tarishi/internal/test/smtptest"
)

// TestSenderRewriting: mail that is forwarded out of the site leaves with a sender of the
// site, a report about it comes back and reaches the sender, and nobody can make such an
// address.
func TestSenderRewriting(t *testing.T) {
	t.Parallel()
	next := peer(t, smtptest.On(smtptest.Rcpt, func(e smtptest.Event) smtptest.Action {
		if e.Address == "no@away.test" {
			return smtptest.Reply("550 5.1.1 no such user")
		}
		return smtptest.Action{}
	}))
	dns := nameServer(t)
	for _, domain := range []string{"origin.test", "elsewhere.test"} {
		dns.MX(domain, 10, "mx.origin.test")
	}
	dns.A("mx.origin.test", "127.0.0.20")
	d := Start(t, map[string]string{
		"plugins": "srs\naliases\nrcpt_to.in_host_list\nqueue/smtp_forward\n", "dns.ini": dnsINI(dns),
		"host_list": "here.test\n", "aliases.json": `{"boss@here.test": {"action": "alias", "to": "boss@elsewhere.test"}}`,
		"smtp_forward.ini": fmt.Sprintf("check_recipient=true\n[away.test]\nhost=%s\nqueue=outbound\n", next.Addr()),
		"outbound.ini":     fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", next.Port()),
		"srs.ini":          "domain=srs.test\nrelayed_domains[]=away.test\n", "srs.secrets": "a good secret\n",
	})

	// What the daemon itself reports goes straight to the sender.
	for i, to := range []string{"yes@away.test", "no@away.test"} {
		if got, err := letterFrom(d.Addr(), "127.0.0.1", "a@origin.test", to, oneMessage); err != nil || !strings.HasPrefix(got, "250 ") {
			t.Fatalf("%q, %v", got, err)
		}
		next.WaitMessages(i + 1)
	}
	all := next.WaitMessages(2)
	signed := all[0].From
	if !strings.HasPrefix(signed, "SRS0=") || !strings.HasSuffix(signed, "=origin.test=a@srs.test") || all[0].Accepted()[0] != "yes@away.test" {
		t.Errorf("%s to %v", signed, all[0].Accepted())
	}
	if all[1].From != "" || all[1].Accepted()[0] != "a@origin.test" {
		t.Errorf("a report from %q to %v", all[1].From, all[1].Accepted())
	}

	// The report of another server finds the way back, once it is one.
	forged := strings.Replace(signed, "=origin.test=a@", "=victim.test=a@", 1)
	c := dial(t, d.Addr())
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<"+forged+">", "550 5.7.1 This address was not made here")
	c.say("RCPT TO:<someone@origin.test>", "550")
	c.say("RSET", "250")
	c.say("MAIL FROM:<spam@client.test>", "250")
	c.say("RCPT TO:<"+signed+">", "550 5.7.1 This address takes reports only")
	c.say("RSET", "250")
	if got, err := letterFrom(d.Addr(), "127.0.0.1", "", signed, oneMessage); err != nil || !strings.HasPrefix(got, "250 ") {
		t.Fatalf("%q, %v", got, err)
	}
	all = next.WaitMessages(3)
	if all[2].From != "" || all[2].Accepted()[0] != "a@origin.test" {
		t.Errorf("from %q to %v", all[2].From, all[2].Accepted())
	}

	// So it is with an address that stands for another.
	if got, err := letterFrom(d.Addr(), "127.0.0.1", "a@origin.test", "boss@here.test", oneMessage); err != nil || !strings.HasPrefix(got, "250 ") {
		t.Fatalf("%q, %v", got, err)
	}
	all = next.WaitMessages(4)
	if all[3].From != signed || all[3].Accepted()[0] != "boss@elsewhere.test" {
		t.Errorf("from %q to %v", all[3].From, all[3].Accepted())
	}
}
