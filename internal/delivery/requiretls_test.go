package delivery

import (
	"strings"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/mtasts"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// TestRequireTLS is RFC 8689 section 4.2.1: who vouches for the MX, and what
// becomes of mail that no MX can take as it asks.
func TestRequireTLS(t *testing.T) {
	able := []smtptest.Option{smtptest.TLS("mx.d.test"), smtptest.With("REQUIRETLS")}
	unsigned := func(r *rig) { r.resolver(false) }
	both := func(first, second func(*rig)) func(*rig) { return func(r *rig) { first(r); second(r) } }
	second := func(options ...smtptest.Option) func(*rig) {
		return func(r *rig) {
			r.second(append(options, smtptest.TLS("two.d.test"))...)
			r.o.TLSConfig(false).RootCAs.AddCert(leafOf(r.t, r.two))
		}
	}
	for _, tt := range []struct {
		name    string
		options []smtptest.Option // of the first MX
		policy  *mtasts.Policy
		change  func(r *rig)
		want    outcome
	}{
		{name: "signed", options: able, want: outcome{reply: "250", wanted: "verify", got: "pkix", one: 1}},
		{name: "not signed", options: able, change: unsigned, want: outcome{reply: "451 4.7.10", wanted: "verify"}},
		{name: "enforce", options: able, change: unsigned, policy: enforce("mx.d.test"), want: outcome{reply: "250", wanted: "sts", got: "pkix", one: 1}},
		{name: "testing", options: able, change: unsigned, policy: testingOnly("mx.d.test"), want: outcome{reply: "250", wanted: "verify", got: "pkix", one: 1}},
		{name: "enforce, another MX", options: able, change: unsigned, policy: enforce("other.test"), want: outcome{reply: "451 4.7.10", wanted: "verify"}},
		{name: "testing, another MX", options: able, change: unsigned, policy: testingOnly("other.test"), want: outcome{reply: "451 4.7.10", wanted: "verify"}},
		{name: "the policy names the second MX", options: able, policy: enforce("two.d.test"), change: both(unsigned, second(smtptest.With("REQUIRETLS"))), want: outcome{reply: "250", wanted: "sts", got: "pkix", two: 1}},
		{
			// The name in the certificate is the recipient's own.
			name: "no MX, not signed", options: []smtptest.Option{smtptest.TLS("d.test"), smtptest.With("REQUIRETLS")},
			change: both(unsigned, func(r *rig) { r.dns.Remove("d.test"); r.dns.A("d.test", "127.0.0.1") }),
			want:   outcome{reply: "250", wanted: "verify", got: "pkix", one: 1},
		},
		{name: "address literal", options: able, change: func(r *rig) { r.job.Domain = "[127.0.0.1]" }, want: outcome{reply: "250", wanted: "verify", got: "pkix", one: 1}},
		{name: "hop of a hook", options: able, change: func(r *rig) { r.job.Hops = []mail.NextHop{{Host: "127.0.0.1", Port: r.o.Port}} }, want: outcome{reply: "250", wanted: "verify", got: "pkix", one: 1}},
		{name: "TLS is off", options: able, change: both(unsigned, func(r *rig) { r.o.EnableTLS = false }), want: outcome{reply: "451 4.7.10", wanted: "verify"}},

		{name: "not offered", want: outcome{reply: "550 5.7.30", wanted: "verify", got: ""}},
		{name: "not offered by either", change: second(), want: outcome{reply: "550 5.7.30", wanted: "verify"}},
		{name: "offered by the second", change: second(smtptest.With("REQUIRETLS")), want: outcome{reply: "250", wanted: "verify", got: "pkix", two: 1}},
		{
			name: "not offered by one, the other is not there", want: outcome{reply: "4", wanted: "verify"},
			change: func(r *rig) {
				r.dns.MX("d.test", 20, "gone.d.test")
				r.dns.A("gone.d.test", "127.0.0.3")
				r.dns.Secure("gone.d.test")
			},
		},
		{
			name: "not offered by one, the other is not known", want: outcome{reply: "4", wanted: "verify"},
			change: func(r *rig) { r.dns.MX("d.test", 20, "lame.d.test"); r.dns.Fail("lame.d.test", dnstest.ServFail) },
		},
		{
			name: "not offered by one, the other may not be used", want: outcome{reply: "4", wanted: "sts"},
			policy: enforce("mx.d.test"), change: both(unsigned, second(smtptest.With("REQUIRETLS"))),
		},
		{name: "no STARTTLS", options: []smtptest.Option{smtptest.With("REQUIRETLS")}, want: outcome{reply: "4", wanted: "verify"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.options...)
			r.job.Envelope.RequireTLS = true
			if tt.policy != nil {
				r.sts["d.test"] = tt.policy
			}
			if tt.change != nil {
				tt.change(r)
			}
			res := r.attempt()
			r.check(tt.name, res, tt.want)
			for _, m := range append(r.one.Messages(), messages(r.two)...) {
				if _, told := m.Params["REQUIRETLS"]; !m.TLS || !told {
					t.Errorf("sent with TLS %v and %v", m.TLS, m.Params)
				}
			}
		})
	}

	// A server that says so itself about MAIL is not asked in vain: it is its reply.
	r := newRig(t, append(able, smtptest.On(smtptest.Mail, smtptest.Always(smtptest.Reply("450 4.7.30 not here"))))...)
	r.job.Envelope.RequireTLS = true
	if res := r.attempt(); !strings.HasPrefix(res.Replies[0].String(), "450") || !res.Reached {
		t.Errorf("%v", res.Replies)
	}
}

func messages(s *smtptest.Server) []smtptest.Transaction {
	if s == nil {
		return nil
	}
	return s.Messages()
}
