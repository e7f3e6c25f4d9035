package server

import (
	"fmt"
	"net/smtp"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// TestTLSOptional: a message with "TLS-Required: No" goes to a domain whose TLSA record is wrong, and so
// does the report about one; without the field both wait (RFC 8689).
func TestTLSOptional(t *testing.T) {
	to := smtptest.New(t, smtptest.TLS("mx.dane.test"), smtptest.On(smtptest.Rcpt, smtptest.For(smtptest.Reply("550 5.1.1 nobody"), "nobody@open.test")))
	names := dnstest.New(t)
	mx, tlsa := "mx.dane.test", fmt.Sprintf("_%d._tcp.mx.dane.test", to.Port())
	names.MX("dane.test", 10, mx)
	names.A(mx, "127.0.0.1")
	names.TLSA(tlsa, 3, 1, 1, make([]byte, 32))
	names.Secure("dane.test", mx, tlsa)
	names.MX("open.test", 10, "mx.open.test")
	names.A("mx.open.test", "127.0.0.1")
	stop, s := launch(t, instance(t, map[string]string{
		"me": "me.test\n", "plugins": "relay\n", "relay_acl_allow": "127.0.0.1\n", "smtp.ini": "listen=127.0.0.1:0\n",
		"dns.ini":      "servers[]=" + names.Addr() + "\ndnssec=true\n",
		"outbound.ini": fmt.Sprintf("port=%d\nlocal_mx_ok=true\ntemp_fail_intervals=1h\n", to.Port()),
	}))
	defer stop()
	addr := s.listener.Addrs()[0].String()
	for _, one := range []struct{ to, field string }{
		{"to@dane.test", "TLS-Required: No\r\nSubject: optional\r\n"},
		{"to@dane.test", "Subject: plain\r\n"},
		{"to@dane.test", "TLS-Required: No\r\nTLS-Required: No\r\nSubject: twice\r\n"},
		{"nobody@open.test", "TLS-Required: No\r\nSubject: refused\r\n"},
		{"nobody@open.test", "Subject: refused too\r\n"},
	} {
		if err := smtp.SendMail(addr, nil, "from@dane.test", []string{one.to}, []byte(one.field+"\r\nbody\r\n")); err != nil {
			t.Fatal(err)
		}
	}

	// One message and one report come through.
	got := to.WaitMessages(2)
	for _, x := range got {
		content := string(x.Content)
		switch {
		case x.From == "" && strings.Count(content[:strings.Index(content, "\r\n\r\n")], "TLS-Required: No") == 1 && strings.Contains(content, "Subject: refused\r\n"):
		case x.From != "" && strings.Contains(content, "Subject: optional"):
		default:
			t.Errorf("from %q: %s", x.From, content)
		}
	}
	for deadline := time.Now().Add(time.Minute); s.outbound.Stat().Waiting != 3 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if stat := s.outbound.Stat(); stat.Waiting != 3 {
		t.Errorf("%+v", stat)
	}
	if n := len(to.Messages()); n != 2 {
		t.Errorf("%d messages", n)
	}
}
