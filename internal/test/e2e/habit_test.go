package e2e

import (
	"fmt"
	"regexp"
	"testing"

	"tarishi/internal/test/smtptest"
)

// TestHabits: servers that are not wrong enough to lose mail for it. None of six
// messages to each is deferred or comes back.
func TestHabits(t *testing.T) {
	t.Parallel()
	always := func(stage smtptest.Stage, reply string) smtptest.Option {
		return smtptest.On(stage, smtptest.Always(smtptest.Reply(reply)))
	}
	first := smtptest.New(t, smtptest.Listen("tcp", "127.0.0.31:0"), smtptest.On(smtptest.Mail, func(e smtptest.Event) smtptest.Action {
		if e.Transaction > 1 {
			return smtptest.Reply("554 5.5.0 one message a connection")
		}
		return smtptest.Action{}
	}))
	at := func(ip string, options ...smtptest.Option) *smtptest.Server {
		return smtptest.New(t, append(options, smtptest.Listen("tcp", fmt.Sprintf("%s:%d", ip, first.Port())))...)
	}
	servers := map[string]*smtptest.Server{
		"onemessage.test": first,
		"hangsup.test":    at("127.0.0.32", smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Reset()))),
		"address.test":    at("127.0.0.33"),
		"full.test":       at("127.0.0.35"),
		"greylists.test":  at("127.0.0.37"),
	}
	at("127.0.0.34", always(smtptest.Dot, "452 4.3.1 disk full"))
	at("127.0.0.36", always(smtptest.Rcpt, "450 4.2.0 greylisted"))
	dns := nameServer(t)
	for domain, ips := range map[string][]string{
		"onemessage.test": {"127.0.0.31"}, "hangsup.test": {"127.0.0.32"}, "full.test": {"127.0.0.34", "127.0.0.35"}, "greylists.test": {"127.0.0.36", "127.0.0.37"},
	} {
		for i, ip := range ips {
			host := fmt.Sprintf("mx%d.%s", i+1, domain)
			dns.MX(domain, 10*i, host)
			dns.A(host, ip)
		}
	}
	dns.MX("address.test", 10, "127.0.0.33")
	config := with(queueTo(t, first.Port(), ""), "dns.ini", dnsINI(dns))
	d := Start(t, config)
	for domain, s := range servers {
		for range 6 {
			mustSend(t, d.Addr(), "to@"+domain, oneMessage)
		}
		s.WaitMessages(6)
	}
	if line := regexp.MustCompile(`.*\b(deferred|failed)\b.*`).FindString(d.Log()); line != "" {
		t.Error(line)
	}
}
