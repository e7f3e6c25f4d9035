package delivery

import (
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/mtasts"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// TestTLSOptional is RFC 8689 section 4.2.2: what the domain publishes keeps no message with
// "TLS-Required: No" back, and what our own configuration demands does.
func TestTLSOptional(t *testing.T) {
	wrong := make([]byte, 32)
	plain := []smtptest.Option{smtptest.Without("STARTTLS")}
	mismatch := func(r *rig) { r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong) }
	match := func(r *rig) { r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, digest(r.t, r.one)) }
	and := func(first, second func(*rig)) func(*rig) { return func(r *rig) { first(r); second(r) } }
	goes := outcome{reply: "250", wanted: "may", got: "no", one: 1, encryptedOnly: true}
	inClear := outcome{reply: "250", wanted: "may", got: "no", one: 1}
	stays := outcome{reply: "451 4.7.5", wanted: "dane"}
	for _, tt := range []struct {
		name    string
		options []smtptest.Option
		policy  *mtasts.Policy
		change  func(r *rig)
		want    outcome
	}{
		{name: "DANE, mismatch", change: mismatch, want: goes},
		{name: "DANE, no STARTTLS", options: plain, change: mismatch, want: inClear},
		{name: "DANE, match", change: match, want: goes},
		{name: "DANE, broken DNS", change: func(r *rig) { r.dns.Fail(r.tlsa("mx.d.test"), dnstest.ServFail) }, want: goes},
		{name: "DANE, broken handshake", options: []smtptest.Option{smtptest.TLS("x"), smtptest.On(smtptest.StartTLS, smtptest.First(1, smtptest.BreakTLS()))}, change: mismatch, want: inClear},
		{name: "MTA-STS, another MX", policy: enforce("other.test"), want: goes},
		{name: "MTA-STS, no STARTTLS", options: plain, policy: enforce("mx.d.test"), want: inClear},
		{name: "MTA-STS, another certificate", options: []smtptest.Option{smtptest.TLS("x.test")}, policy: enforce("mx.d.test"), want: goes},
		{name: "MTA-STS, testing", policy: testingOnly("other.test"), want: goes},

		{name: "the field is ignored", change: and(mismatch, func(r *rig) { r.o.TLS.TLSRequiredHeader = false }), want: stays},
		{name: "REQUIRETLS", change: and(mismatch, func(r *rig) { r.job.Envelope.RequireTLS = true }), want: stays},
		{name: "force_tls", change: and(mismatch, func(r *rig) { r.job.Envelope.Notes = mail.Notes{"force_tls": true} }), want: stays},
		{name: "force_tls_hosts, the domain", change: and(mismatch, func(r *rig) { r.o.TLS.ForceTLSHosts = []string{"d.test"} }), want: stays},
		{name: "force_tls_hosts, the MX", change: and(mismatch, func(r *rig) { r.o.TLS.ForceTLSHosts = []string{"mx.d.test"} }), want: stays},
		{name: "force_tls_hosts, the address", change: and(mismatch, func(r *rig) { r.o.TLS.ForceTLSHosts = []string{"127.0.0.1"} }), want: stays},
		{name: "force_tls_hosts, match", change: and(match, func(r *rig) { r.o.TLS.ForceTLSHosts = []string{"d.test"} }), want: outcome{reply: "250", wanted: "dane", got: "dane", one: 1, encryptedOnly: true}},
		{name: "rejectUnauthorized", change: and(mismatch, func(r *rig) { r.o.TLS.RejectUnauthorized = true }), want: stays},
		{name: "tls=verify", change: and(mismatch, func(r *rig) { r.job.Settings.TLS = mail.TLSVerify }), want: stays},
		{name: "tls=encrypt", change: and(mismatch, func(r *rig) { r.job.Settings.TLS = mail.TLSEncrypt }), want: outcome{reply: "250", wanted: "encrypt", got: "no", one: 1, encryptedOnly: true}},
		{name: "tls=encrypt, no STARTTLS", options: plain, change: and(mismatch, func(r *rig) { r.job.Settings.TLS = mail.TLSEncrypt }), want: outcome{reply: "451 4.7.5", wanted: "encrypt"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.options...)
			r.job.Envelope.TLSOptional, r.o.TLS.TLSRequiredHeader = true, true
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
