package delivery

import (
	"crypto/x509"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/mtasts"
	"tarishi/internal/test/smtptest"
)

// TestRejectUnauthorized: where there is TLS the certificate must be valid, or the
// one of the domain's TLSA records; a handshake that fails is not followed by a
// connection in clear.
func TestRejectUnauthorized(t *testing.T) {
	plain := []smtptest.Option{smtptest.Without("STARTTLS")}
	foreign := []smtptest.Option{smtptest.TLS("other.d.test")}
	untrusted := func(r *rig) { r.o.TLSConfig = trusting(x509.NewCertPool()) }
	level := func(l mail.TLSLevel) func(*rig) {
		return func(r *rig) { untrusted(r); r.job.Settings.TLS = l }
	}
	for _, tt := range []struct {
		name    string
		options []smtptest.Option
		policy  *mtasts.Policy
		change  func(r *rig)
		want    outcome
	}{
		{name: "valid", want: outcome{reply: "250", wanted: "may-verify", got: "pkix", one: 1, encryptedOnly: true}},
		{name: "self-signed", change: untrusted, want: outcome{reply: "451 4.7.5", wanted: "may-verify"}},
		{name: "other name", options: foreign, want: outcome{reply: "451 4.7.5", wanted: "may-verify"}},
		{name: "no TLS", options: plain, want: outcome{reply: "250", wanted: "may-verify", got: "no", one: 1}},
		{
			name:    "STARTTLS refused",
			options: []smtptest.Option{smtptest.TLS("mx.d.test"), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Reply("454 4.7.0 not now")))},
			want:    outcome{reply: "454", wanted: "may-verify"},
		},
		{
			name: "DANE", change: func(r *rig) { untrusted(r); r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, digest(r.t, r.one)) },
			want: outcome{reply: "250", wanted: "dane", got: "dane", one: 1, encryptedOnly: true},
		},
		{
			name: "TLSA that cannot be used", change: func(r *rig) { untrusted(r); r.dns.TLSA(r.tlsa("mx.d.test"), 0, 1, 1, digest(r.t, r.one)) },
			want: outcome{reply: "451 4.7.5", wanted: "verify"},
		},
		{name: "MTA-STS in testing", policy: testingOnly("mx.d.test"), change: untrusted, want: outcome{reply: "451 4.7.5", wanted: "may-verify"}},
		{
			name: "the second MX is valid", options: foreign,
			change: func(r *rig) {
				r.second(smtptest.TLS("two.d.test"))
				r.o.TLSConfig(false).RootCAs.AddCert(leafOf(r.t, r.two))
			},
			want: outcome{reply: "250", wanted: "may-verify", got: "pkix", two: 1, encryptedOnly: true},
		},
		{name: "tls=encrypt", change: level(mail.TLSEncrypt), want: outcome{reply: "451 4.7.5", wanted: "verify"}},
		{name: "tls=may says otherwise", change: level(mail.TLSMay), want: outcome{reply: "250", wanted: "may", got: "no", one: 1, encryptedOnly: true}},
		{name: "enable_tls=false", change: func(r *rig) { r.o.EnableTLS = false }, want: outcome{reply: "250", wanted: "none", got: "no", one: 1}},
		{
			name: "a hop with TLS from the start", options: []smtptest.Option{smtptest.ImplicitTLS("x")},
			change: func(r *rig) {
				untrusted(r)
				r.job.Hops = []mail.NextHop{{Host: "127.0.0.1", Port: r.o.Port, ImplicitTLS: true}}
			},
			want: outcome{reply: "451 4.7.5", wanted: "verify"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.options...)
			r.o.TLS.RejectUnauthorized = true
			if tt.policy != nil {
				r.sts["d.test"] = tt.policy
			}
			if tt.change != nil {
				tt.change(r)
			}
			r.check(tt.name, r.attempt(), tt.want)
		})
	}
}
