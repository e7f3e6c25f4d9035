package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"tarishi/internal/test/smtptest"
)

// With rejectUnauthorized, at the top of tls.ini or in [outbound], a queue's mail
// does not go to an MX whose certificate nobody vouches for, neither over TLS nor
// in clear.
func TestRejectUnauthorized(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, tls string
		delivered string // what the mail log says of it; "": deferred
	}{
		{"at the top", "rejectUnauthorized=true\n", ""},
		{"outbound", "[outbound]\nrejectUnauthorized=true\n", ""},
		{"authority", "rejectUnauthorized=true\n[outbound]\nca=ca.pem\n", `policy=may-verify verified=pkix`},
		{"outbound says otherwise", "rejectUnauthorized=true\n[outbound]\nrejectUnauthorized=false\n", `policy=may verified=no`},
		{"not set", "", `policy=may verified=no`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mx := smtptest.New(t, smtptest.TLS("mx.sink.test"))
			d := Start(t, with(queueTo(t, mx.Port(), ""), "tls.ini", c.tls, "ca.pem", mx.PEM()))
			mustSend(t, d.Addr(), "to@sink.test", oneMessage)
			if c.delivered != "" {
				d.awaitLog(`delivered .*` + c.delivered)
				if m := mx.WaitMessages(1); !m[0].TLS {
					t.Error("sent in clear")
				}
				return
			}
			d.awaitLog(`deferred .*policy=may-verify .*4\.7\.5 `)
			if n := len(mx.Messages()); n > 0 {
				t.Errorf("%d messages went to a server that nobody vouches for", n)
			}
		})
	}
}

// A setting that protects something and that the daemon cannot honour stops its
// start.
func TestSettingsThatStopTheStart(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]map[string]string{
		`tls\.ini:1: key requireAuthorized: cannot be honoured`: {"tls.ini": "requireAuthorized[]=465\n"},
		`tls\.ini:2: key crl: cannot be honoured`:               {"tls.ini": "\ncrl=revoked.pem\n"},
		`host_list:1: mail for here\.example goes nowhere`: {
			"plugins": "rcpt_to.in_host_list\nqueue/smtp_forward\n", "host_list": "here.example\n", "smtp_forward.ini": "[other.example]\nhost=127.0.0.1:1\n",
		},
		`plugins:1: there is no plugin queue/lmtp: queue/smtp_forward speaks LMTP`: {"plugins": "queue/lmtp\n"},
		`relay_dest_domains\.ini:2: \[domains\] key example\.com: is not of the form`: {
			"relay_dest_domains.ini": "[domains]\nexample.com={\"action\":\"accept\"\n", "plugins": "relay_force_routing\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, config)
			for _, command := range []string{"serve", "check"} {
				o := execute(t, binary(t), command, "-c", dir)
				if o.exit != 1 || !regexp.MustCompile(name).MatchString(o.out) {
					t.Errorf("%s: exit %d, %s", command, o.exit, o.out)
				}
			}
		})
	}
}

// Sections that say nothing of where their mail goes share the host above them.
func TestBareSections(t *testing.T) {
	t.Parallel()
	backend := smtptest.New(t)
	d := Start(t, map[string]string{
		"plugins": "queue/smtp_forward\n",
		"smtp_forward.ini": fmt.Sprintf("host=127.0.0.1\nport=%d\ncheck_recipient=true\n\n[example.com]\n[example.net]\n"+
			"[tls.example]\nenable_tls=true\n[queued.example]\nqueue=outbound\n[timed.example]\nconnect_timeout=7\n", backend.Port()),
	})
	domains := strings.Fields("example.com example.net tls.example queued.example timed.example")
	for _, domain := range domains {
		mustSend(t, d.Addr(), "to@"+domain, oneMessage)
	}
	backend.WaitMessages(len(domains))
	if reply, err := letter(d.Addr(), "to@other.example", oneMessage); err != nil || !strings.HasPrefix(reply, "550") {
		t.Errorf("a domain without a section: %q, %v", reply, err)
	}
}

// auth_user and auth_pass alone are no reason to log in: what the manual says is
// that auth_type is required.
func TestCredentialsWithoutAType(t *testing.T) {
	t.Parallel()
	for _, section := range []string{"", "[sink.test]\nhost=127.0.0.1\n"} {
		backend := smtptest.New(t, smtptest.Credentials("u", "s3cret"))
		config := relayTo(backend.Port())
		config["smtp_forward.ini"] += section + "auth_user=u\nauth_pass=s3cret\n"
		d := Start(t, config)
		mustSend(t, d.Addr(), "to@sink.test", oneMessage)
		if m := backend.WaitMessages(1); m[0].User != "" {
			t.Errorf("%q: logged in as %q", section, m[0].User)
		}
		o := execute(t, binary(t), "check", "-c", d.Dir)
		if o.exit != 0 || !strings.Contains(o.out, "key auth_user: no AUTH without auth_type") || strings.Contains(o.out, "s3cret") {
			t.Errorf("exit %d: %s", o.exit, o.out)
		}
	}
}
