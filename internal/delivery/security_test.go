package delivery

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/destination"
	"tarishi/internal/dns"
	"tarishi/internal/dns/memory"
	"tarishi/internal/mail"
	"tarishi/internal/mtasts"
	"tarishi/internal/pool"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// published is the MTA-STS policies of domains.
type published map[string]*mtasts.Policy

func (p published) Policy(_ context.Context, domain string) (*mtasts.Policy, *mtasts.Fetch) {
	return p[domain], nil
}

func enforce(mx ...string) *mtasts.Policy { return &mtasts.Policy{Mode: mtasts.Enforce, MX: mx} }
func testingOnly(mx ...string) *mtasts.Policy {
	return &mtasts.Policy{Mode: mtasts.Testing, MX: mx}
}

// rig is a signed DNS, and d.test with the MX mx.d.test (127.0.0.1) and, for
// those who use it, two.d.test (127.0.0.2), each with a certificate of its own.
type rig struct {
	t        *testing.T
	dns      *dnstest.Server
	one, two *smtptest.Server
	o        Options
	job      Job
	logs     *observer.ObservedLogs
	sts      published
}

func newRig(t *testing.T, options ...smtptest.Option) *rig {
	r := &rig{t: t, dns: dnstest.New(t), sts: published{}}
	if options == nil {
		options = []smtptest.Option{smtptest.TLS("mx.d.test")}
	}
	r.one = smtptest.New(t, options...)
	_, port, err := net.SplitHostPort(r.one.Addr())
	if err != nil {
		t.Fatal(err)
	}
	r.dns.MX("d.test", 10, "mx.d.test")
	r.dns.A("mx.d.test", "127.0.0.1")
	r.dns.Secure("d.test", "mx.d.test", "_"+port+"._tcp.mx.d.test")
	core, logs := observer.New(zap.WarnLevel)
	r.logs = logs
	n, _ := strconv.Atoi(port)
	roots := x509.NewCertPool()
	r.o = Options{
		Settings: &destination.Settings{Port: n, LocalMXOK: true, EnableTLS: true, IPv6: true, PoolTimeout: time.Minute}, Me: "me.test", DANE: true, STS: r.sts, TLSConfig: trusting(roots),
		Log: zap.New(core), Sender: pool.New(pool.Options{}),
	}
	r.resolver(true)
	if r.one.Roots() != nil {
		roots.AddCert(leafOf(t, r.one))
	}
	env := envelope(1)
	env.Recipients[0].Address = mail.Address{Local: "to", Domain: "d.test"}
	r.job = Job{Envelope: env, Content: content, Domain: "d.test"}
	return r
}

// second makes two.d.test a second MX.
func (r *rig) second(options ...smtptest.Option) {
	r.two = smtptest.New(r.t, append(options, smtptest.Listen("tcp", net.JoinHostPort("127.0.0.2", strconv.Itoa(r.o.Port))))...)
	r.dns.MX("d.test", 20, "two.d.test")
	r.dns.A("two.d.test", "127.0.0.2")
	r.dns.Secure("two.d.test", r.tlsa("two.d.test"))
}

func (r *rig) resolver(dnssec bool) {
	res, err := dns.New(dns.Settings{Servers: []string{r.dns.Addr()}, Tries: 1, DNSSEC: dnssec})
	if err != nil {
		r.t.Fatal(err)
	}
	r.o.Resolver = res
}

func (r *rig) tlsa(host string) string { return "_" + strconv.Itoa(r.o.Port) + "._tcp." + host }

func (r *rig) attempt() Result { return New(r.o).Attempt(r.t.Context(), r.job, nil) }

func leafOf(t *testing.T, s *smtptest.Server) *x509.Certificate {
	c, err := x509.ParseCertificate(s.Certificate().Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// digest is the data of a 3 1 1 record of a server.
func digest(t *testing.T, s *smtptest.Server) []byte {
	sum := sha256.Sum256(leafOf(t, s).RawSubjectPublicKeyInfo)
	return sum[:]
}

// outcome is what a row says of an attempt.
type outcome struct {
	reply         string // prefix
	wanted, got   string
	one, two      int  // messages that a server took
	mistrusted    int  // warnings of policies in testing
	encryptedOnly bool // what was taken came over TLS
}

func (r *rig) check(name string, res Result, want outcome) {
	r.t.Helper()
	if len(res.Replies) != 1 || !strings.HasPrefix(res.Replies[0].String(), want.reply) {
		r.t.Errorf("%s: replies %v, want %s", name, res.Replies, want.reply)
	}
	if res.PolicyWanted != want.wanted || res.PolicyGot != want.got {
		r.t.Errorf("%s: policy %q, got %q, want %q, %q", name, res.PolicyWanted, res.PolicyGot, want.wanted, want.got)
	}
	if n := len(r.one.Messages()); n != want.one {
		r.t.Errorf("%s: the first server took %d messages, want %d", name, n, want.one)
	}
	if r.two != nil {
		if n := len(r.two.Messages()); n != want.two {
			r.t.Errorf("%s: the second server took %d messages, want %d", name, n, want.two)
		}
	}
	// A policy that does not hold is no trouble of the site.
	if policy := strings.HasPrefix(want.reply, "451 4.7.5") || strings.HasPrefix(want.reply, "454") || strings.Contains(want.reply, "TLSA"); policy && !res.Reached {
		r.t.Errorf("%s: not reached", name)
	}
	if n := len(r.logs.FilterMessageSnippet("MTA-STS policy in testing").All()); n != want.mistrusted {
		r.t.Errorf("%s: %d warnings, want %d", name, n, want.mistrusted)
	}
	if want.encryptedOnly && (res.TLS == "" || res.TLS == "none") {
		r.t.Errorf("%s: sent in clear", name)
	}
}

func TestDANE(t *testing.T) {
	wrong := make([]byte, 32)
	plain := []smtptest.Option{smtptest.Without("STARTTLS")}
	for _, tt := range []struct {
		name    string
		options []smtptest.Option
		change  func(r *rig)
		want    outcome
	}{
		{name: "no TLSA", want: outcome{reply: "250", wanted: "may", got: "no", one: 1}},
		{
			name: "usable, match", change: func(r *rig) { r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, digest(r.t, r.one)) },
			want: outcome{reply: "250", wanted: "dane", got: "dane", one: 1, encryptedOnly: true},
		},
		{
			name: "usable, match, no authority and another name", options: []smtptest.Option{smtptest.TLS("whoever.test")},
			change: func(r *rig) {
				r.o.TLSConfig = nil
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, digest(r.t, r.one))
			},
			want: outcome{reply: "250", wanted: "dane", got: "dane", one: 1, encryptedOnly: true},
		},
		{
			name: "authority in the record, the domain's name", options: []smtptest.Option{smtptest.TLS("d.test")},
			change: func(r *rig) { r.dns.TLSA(r.tlsa("mx.d.test"), 2, 0, 0, leafOf(r.t, r.one).Raw) },
			want:   outcome{reply: "250", wanted: "dane", got: "dane", one: 1},
		},
		{
			name: "authority in the record, the MX's name", options: []smtptest.Option{smtptest.TLS("mx.d.test")},
			change: func(r *rig) { r.dns.TLSA(r.tlsa("mx.d.test"), 2, 0, 0, leafOf(r.t, r.one).Raw) },
			want:   outcome{reply: "250", wanted: "dane", got: "dane", one: 1},
		},
		{
			name: "authority in the record, the name that the domain is an alias of", options: []smtptest.Option{smtptest.TLS("hosted.e.test")},
			change: func(r *rig) {
				r.dns.Remove("d.test")
				r.dns.CNAME("d.test", "hosted.e.test")
				r.dns.MX("hosted.e.test", 10, "mx.d.test")
				r.dns.Secure("d.test", "hosted.e.test")
				r.dns.TLSA(r.tlsa("mx.d.test"), 2, 0, 0, leafOf(r.t, r.one).Raw)
			},
			want: outcome{reply: "250", wanted: "dane", got: "dane", one: 1},
		},
		{
			name: "authority in the record, another name", options: []smtptest.Option{smtptest.TLS("e.test")},
			change: func(r *rig) { r.dns.TLSA(r.tlsa("mx.d.test"), 2, 0, 0, leafOf(r.t, r.one).Raw) },
			want:   outcome{reply: "451 4.7.5", wanted: "dane"},
		},
		{
			name: "usable, mismatch, though the certificate is valid", change: func(r *rig) { r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong) },
			want: outcome{reply: "451 4.7.5", wanted: "dane"},
		},
		{
			name: "usable, no STARTTLS", options: plain, change: func(r *rig) { r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong) },
			want: outcome{reply: "451 4.7.5", wanted: "dane"},
		},
		{
			name: "usable, STARTTLS is refused", options: []smtptest.Option{smtptest.TLS("x"), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Reply("454 4.7.0 not now")))},
			change: func(r *rig) { r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, digest(r.t, r.one)) },
			want:   outcome{reply: "454 4.7.0", wanted: "dane"},
		},
		{
			name: "unusable", change: func(r *rig) { r.dns.TLSA(r.tlsa("mx.d.test"), 1, 1, 1, wrong) },
			want: outcome{reply: "250", wanted: "encrypt", got: "no", one: 1, encryptedOnly: true},
		},
		{
			name: "unusable, no STARTTLS", options: plain, change: func(r *rig) { r.dns.TLSA(r.tlsa("mx.d.test"), 1, 1, 1, wrong) },
			want: outcome{reply: "451 4.7.5", wanted: "encrypt"},
		},
		{
			name: "TLSA bogus", change: func(r *rig) { r.dns.Fail(r.tlsa("mx.d.test"), dnstest.ServFail) },
			want: outcome{reply: "451 4.4.3 TLSA lookup of mx.d.test failed", wanted: "dane"},
		},
		{
			name: "TLSA insecure", change: func(r *rig) {
				r.dns.Remove(r.tlsa("mx.d.test"))
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
			},
			want: outcome{reply: "250", wanted: "may", got: "no", one: 1},
		},
		{
			name: "MX insecure", change: func(r *rig) {
				r.dns.Remove("d.test")
				r.dns.MX("d.test", 10, "mx.d.test")
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
			},
			want: outcome{reply: "250", wanted: "may", got: "no", one: 1},
		},
		{
			name: "MX bogus", change: func(r *rig) { r.dns.Fail("d.test", dnstest.ServFail) },
			want: outcome{reply: "451 4.4.3"},
		},
		{
			name: "address insecure", change: func(r *rig) {
				r.dns.Remove("mx.d.test")
				r.dns.A("mx.d.test", "127.0.0.1")
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
			},
			want: outcome{reply: "250", wanted: "may", got: "no", one: 1},
		},
		{
			name: "address insecure, TLSA fails as at old servers", change: func(r *rig) {
				r.dns.Remove("mx.d.test")
				r.dns.A("mx.d.test", "127.0.0.1")
				r.dns.Fail(r.tlsa("mx.d.test"), dnstest.ServFail)
			},
			want: outcome{reply: "250", wanted: "may", got: "no", one: 1},
		},
		{
			name: "address bogus", change: func(r *rig) { r.dns.Fail("mx.d.test", dnstest.ServFail) },
			want: outcome{reply: "451 4.4.3"},
		},
		{
			name: "the resolver is not trusted", change: func(r *rig) {
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
				r.resolver(false)
			},
			want: outcome{reply: "250", wanted: "may", got: "no", one: 1},
		},
		{
			name: "dane=false", change: func(r *rig) {
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
				r.o.DANE = false
			},
			want: outcome{reply: "250", wanted: "may", got: "no", one: 1},
		},
		{
			name: "alias, TLSA at its end", change: func(r *rig) {
				r.alias("host.e.test", true, true)
				r.dns.TLSA(r.tlsa("host.e.test"), 3, 1, 1, digest(r.t, r.one))
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
			},
			want: outcome{reply: "250", wanted: "dane", got: "dane", one: 1},
		},
		{
			name: "alias, TLSA only at its own name", change: func(r *rig) {
				r.alias("host.e.test", true, true)
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
			},
			want: outcome{reply: "451 4.7.5", wanted: "dane"},
		},
		{
			name: "alias, TLSA at its end bogus", change: func(r *rig) {
				r.alias("host.e.test", true, true)
				r.dns.Fail(r.tlsa("host.e.test"), dnstest.ServFail)
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, digest(r.t, r.one))
			},
			want: outcome{reply: "451 4.4.3 TLSA lookup of host.e.test", wanted: "dane"},
		},
		{
			name: "secure alias to an insecure host: its own name only", change: func(r *rig) {
				r.alias("host.e.test", true, false)
				r.dns.TLSA(r.tlsa("host.e.test"), 3, 1, 1, wrong)
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, digest(r.t, r.one))
			},
			want: outcome{reply: "250", wanted: "dane", got: "dane", one: 1},
		},
		{
			name: "insecure alias", change: func(r *rig) {
				r.alias("host.e.test", false, true)
				r.dns.TLSA(r.tlsa("host.e.test"), 3, 1, 1, wrong)
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
			},
			want: outcome{reply: "250", wanted: "may", got: "no", one: 1},
		},
		{
			name: "implicit MX, mismatch", change: func(r *rig) {
				r.job.Domain = "mx.d.test"
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
			},
			want: outcome{reply: "451 4.7.5", wanted: "dane"},
		},
		{
			name: "the first MX does not match, the second does", change: func(r *rig) {
				r.second(smtptest.TLS("two.d.test"))
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
				r.dns.TLSA(r.tlsa("two.d.test"), 3, 1, 1, digest(r.t, r.two))
			},
			want: outcome{reply: "250", wanted: "dane", got: "dane", two: 1},
		},
		{
			name: "the first MX is bogus, the second has no TLSA", change: func(r *rig) {
				r.second(smtptest.TLS("two.d.test"))
				r.dns.Fail(r.tlsa("mx.d.test"), dnstest.ServFail)
			},
			want: outcome{reply: "250", wanted: "may", got: "no", two: 1},
		},
		{
			name: "DANE wins over an MTA-STS policy without the MX", change: func(r *rig) {
				r.sts["d.test"] = enforce("other.d.test")
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, digest(r.t, r.one))
			},
			want: outcome{reply: "250", wanted: "dane", got: "dane", one: 1},
		},
		{
			name: "MTA-STS does not save a DANE mismatch", change: func(r *rig) {
				r.sts["d.test"] = enforce("mx.d.test")
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
			},
			want: outcome{reply: "451 4.7.5", wanted: "dane"},
		},
		{
			name: "unusable TLSA beside an MTA-STS policy", change: func(r *rig) {
				r.sts["d.test"] = enforce("mx.d.test")
				r.dns.TLSA(r.tlsa("mx.d.test"), 0, 1, 1, wrong)
			},
			want: outcome{reply: "250", wanted: "sts", got: "pkix", one: 1},
		},
		{
			name: "force_tls_hosts is satisfied by DANE", options: []smtptest.Option{smtptest.TLS("whoever.test")}, change: func(r *rig) {
				r.o.TLS.ForceTLSHosts = []string{"d.test"}
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, digest(r.t, r.one))
			},
			want: outcome{reply: "250", wanted: "dane", got: "dane", one: 1},
		},
		{
			name: "note force_tls is satisfied by DANE, whatever the level", options: []smtptest.Option{smtptest.TLS("whoever.test")}, change: func(r *rig) {
				r.job.Settings.TLS = mail.TLSMay
				r.job.Envelope.Notes = mail.Notes{"force_tls": true}
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, digest(r.t, r.one))
			},
			want: outcome{reply: "250", wanted: "dane", got: "dane", one: 1},
		},
		{
			name: "no_tls_hosts is stronger", change: func(r *rig) {
				r.o.TLS.NoTLSHosts = []string{"mx.d.test"}
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
			},
			want: outcome{reply: "250", wanted: "none", got: "no", one: 1},
		},
		{
			name: "the destination's level may is stronger", change: func(r *rig) {
				r.job.Settings.TLS = mail.TLSMay
				r.dns.Fail(r.tlsa("mx.d.test"), dnstest.ServFail)
			},
			want: outcome{reply: "250", wanted: "may", got: "no", one: 1, encryptedOnly: true},
		},
		{
			name: "the destination's level encrypt takes nothing away", change: func(r *rig) {
				r.job.Settings.TLS = mail.TLSEncrypt
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
			},
			want: outcome{reply: "451 4.7.5", wanted: "dane"},
		},
		{
			name: "the destination's level encrypt adds", change: func(r *rig) { r.job.Settings.TLS = mail.TLSEncrypt },
			want: outcome{reply: "250", wanted: "encrypt", got: "no", one: 1, encryptedOnly: true},
		},
		{
			name: "the destination's level verify is satisfied by DANE", options: []smtptest.Option{smtptest.TLS("whoever.test")}, change: func(r *rig) {
				r.job.Settings.TLS = mail.TLSVerify
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, digest(r.t, r.one))
			},
			want: outcome{reply: "250", wanted: "dane", got: "dane", one: 1},
		},
		{
			name: "enable_tls=false", change: func(r *rig) {
				r.o.EnableTLS = false
				r.dns.TLSA(r.tlsa("mx.d.test"), 3, 1, 1, wrong)
			},
			want: outcome{reply: "250", wanted: "none", got: "no", one: 1},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.options...)
			if tt.change != nil {
				tt.change(r)
			}
			r.check(tt.name, r.attempt(), tt.want)
		})
	}
}

// alias makes mx.d.test an alias of host.
func (r *rig) alias(host string, aliasSecure, hostSecure bool) {
	r.dns.Remove("mx.d.test")
	r.dns.CNAME("mx.d.test", host)
	r.dns.A(host, "127.0.0.1")
	if aliasSecure {
		r.dns.Secure("mx.d.test")
	}
	if hostSecure {
		r.dns.Secure(host)
	}
	r.dns.Secure(r.tlsa(host))
}

// An address in place of an MX's name has no TLSA records, whatever is published.
func TestDANEOfAddress(t *testing.T) {
	r := newRig(t)
	r.dns.MX("d.test", 5, "127.0.0.1")
	name := r.tlsa("127.0.0.1")
	r.dns.TLSA(name, 3, 1, 1, make([]byte, 32))
	r.dns.Secure(name)
	r.check("an address", r.attempt(), outcome{reply: "250", wanted: "may", got: "no", one: 1, encryptedOnly: true})
}

func TestMTASTS(t *testing.T) {
	foreign := []smtptest.Option{smtptest.TLS("other.d.test")}
	plain := []smtptest.Option{smtptest.Without("STARTTLS")}
	untrusted := func(r *rig) { r.o.TLSConfig = trusting(x509.NewCertPool()) }
	for _, tt := range []struct {
		name    string
		options []smtptest.Option
		policy  *mtasts.Policy
		change  func(r *rig)
		want    outcome
	}{
		{name: "none", options: foreign, want: outcome{reply: "250", wanted: "may", got: "no", one: 1}},
		{name: "none, no STARTTLS", options: plain, want: outcome{reply: "250", wanted: "may", got: "no", one: 1}},

		{name: "enforce", policy: enforce("mx.d.test"), want: outcome{reply: "250", wanted: "sts", got: "pkix", one: 1, encryptedOnly: true}},
		{name: "enforce, wildcard", policy: enforce("*.d.test"), want: outcome{reply: "250", wanted: "sts", got: "pkix", one: 1}},
		{name: "enforce, not an MX of the policy", policy: enforce("other.d.test"), want: outcome{reply: "451 4.7.5 MTA-STS policy of d.test does not allow the MX mx.d.test", wanted: "sts"}},
		{name: "enforce, other name", options: foreign, policy: enforce("mx.d.test"), want: outcome{reply: "451 4.7.5", wanted: "sts"}},
		{name: "enforce, the name of the domain is not enough", options: []smtptest.Option{smtptest.TLS("d.test")}, policy: enforce("mx.d.test"), want: outcome{reply: "451 4.7.5", wanted: "sts"}},
		{name: "enforce, not trusted", policy: enforce("mx.d.test"), change: untrusted, want: outcome{reply: "451 4.7.5", wanted: "sts"}},
		{name: "enforce, no STARTTLS", options: plain, policy: enforce("mx.d.test"), want: outcome{reply: "451 4.7.5", wanted: "sts"}},
		{
			name: "enforce, one of two MX is allowed", policy: enforce("two.d.test"),
			change: func(r *rig) {
				r.second(smtptest.TLS("two.d.test"))
				r.o.TLSConfig(false).RootCAs.AddCert(leafOf(r.t, r.two))
			},
			want: outcome{reply: "250", wanted: "sts", got: "pkix", two: 1},
		},
		{
			name: "enforce, the first MX does not verify", options: foreign, policy: enforce("*.d.test"),
			change: func(r *rig) {
				r.second(smtptest.TLS("two.d.test"))
				r.o.TLSConfig(false).RootCAs.AddCert(leafOf(r.t, r.two))
			},
			want: outcome{reply: "250", wanted: "sts", got: "pkix", two: 1},
		},
		{
			name: "enforce, another domain's", policy: nil, change: func(r *rig) { r.sts["x.test"] = enforce("other.test") },
			want: outcome{reply: "250", wanted: "may", got: "no", one: 1},
		},
		{
			name: "REQUIRETLS beside testing", options: []smtptest.Option{smtptest.TLS("mx.d.test"), smtptest.With("REQUIRETLS")}, policy: testingOnly("mx.d.test"),
			change: func(r *rig) { r.job.Envelope.RequireTLS = true },
			want:   outcome{reply: "250", wanted: "verify", got: "pkix", one: 1},
		},
		{
			name: "hops of a hook have no policy", options: foreign, policy: enforce("other.d.test"),
			change: func(r *rig) { r.job.Hops = []mail.NextHop{{Host: "127.0.0.1", Port: r.o.Port}} },
			want:   outcome{reply: "250", wanted: "may", got: "no", one: 1},
		},

		{
			name: "enforce, an address as MX", policy: enforce("127.0.0.1", "*.0.0.1", "127.0.0.*"),
			change: func(r *rig) { r.dns.MX("d.test", 5, "127.0.0.1") },
			want:   outcome{reply: "451 4.7.5", wanted: "sts"},
		},
		{
			name: "testing, an address as MX", policy: testingOnly("127.0.0.1"), change: func(r *rig) { r.dns.MX("d.test", 5, "127.0.0.1") },
			want: outcome{reply: "250", wanted: "may", got: "no", one: 1, mistrusted: 1},
		},
		{
			name: "REQUIRETLS, an address as MX", options: []smtptest.Option{smtptest.TLS("127.0.0.1"), smtptest.With("REQUIRETLS")}, policy: enforce("127.0.0.1"),
			change: func(r *rig) {
				r.job.Envelope.RequireTLS = true
				r.resolver(false)
				r.dns.MX("d.test", 5, "127.0.0.1")
			},
			want: outcome{reply: "451 4.7.10", wanted: "verify"},
		},

		{name: "testing", policy: testingOnly("mx.d.test"), want: outcome{reply: "250", wanted: "may", got: "no", one: 1}},
		{name: "testing, not an MX of the policy", policy: testingOnly("other.d.test"), want: outcome{reply: "250", wanted: "may", got: "no", one: 1, mistrusted: 1}},
		{name: "testing, other name", options: foreign, policy: testingOnly("mx.d.test"), want: outcome{reply: "250", wanted: "may", got: "no", one: 1, mistrusted: 1, encryptedOnly: true}},
		{name: "testing, not trusted", policy: testingOnly("mx.d.test"), change: untrusted, want: outcome{reply: "250", wanted: "may", got: "no", one: 1, mistrusted: 1}},
		{name: "testing, no STARTTLS", options: plain, policy: testingOnly("mx.d.test"), want: outcome{reply: "250", wanted: "may", got: "no", one: 1, mistrusted: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.options...)
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

// TestSharedMX holds that domains with the same MX are judged each by its own
// policy, whatever connection is kept: a broken policy of one harms no other, and
// none gets less than its own asks for.
func TestSharedMX(t *testing.T) {
	r := newRig(t, smtptest.TLS("other.test")) // does not verify
	for _, domain := range []string{"plain.test", "enforcing.test", "trying.test", "trying-too.test"} {
		r.dns.MX(domain, 10, "mx.d.test")
	}
	r.sts["enforcing.test"], r.sts["trying.test"] = enforce("mx.d.test"), testingOnly("mx.d.test")
	r.sts["trying-too.test"] = testingOnly("mx.d.test")
	d := New(r.o)
	sites := map[string]bool{}
	for range 2 {
		for domain, want := range map[string]string{"plain.test": "250", "enforcing.test": "451 4.7.5", "trying.test": "250", "trying-too.test": "250"} {
			r.job.Domain = domain
			p, refused := d.Plan(t.Context(), r.job)
			if refused != nil {
				t.Fatal(refused)
			}
			sites[p.Site()] = true
			if res := d.Attempt(t.Context(), r.job, p); !strings.HasPrefix(res.Replies[0].String(), want) {
				t.Errorf("%s: %v, want %s", domain, res.Replies, want)
			}
		}
	}
	if len(sites) != 1 || !sites["mx.d.test"] {
		t.Errorf("sites %v", sites)
	}
	if n := len(r.one.Messages()); n != 6 {
		t.Errorf("%d messages", n)
	}
	if n := r.one.Connections(); n != 3+2 { // one kept for each of three, one refused twice
		t.Errorf("%d connections", n)
	}
}

// TestAuthentication holds that a hop's credentials are used where they are
// wanted: refused, the mail waits; not offered, it goes without, unless they are
// required.
func TestAuthentication(t *testing.T) {
	for _, tt := range []struct {
		name     string
		options  []smtptest.Option
		required bool
		want     string
		warned   bool
	}{
		{"accepted", []smtptest.Option{smtptest.Credentials("u", "p")}, false, "250", false},
		{"refused", []smtptest.Option{smtptest.Credentials("u", "other")}, false, "451 4.", false},
		{"not offered", []smtptest.Option{smtptest.TLS("x")}, false, "250", true},
		{"not offered and required", []smtptest.Option{smtptest.TLS("x")}, true, "451 4.7.0", false},
	} {
		r := newRig(t, tt.options...)
		r.job.Hops = []mail.NextHop{{Host: "127.0.0.1", Port: r.o.Port, AuthUser: "u", AuthPass: "p", AuthRequired: tt.required}}
		res := r.attempt()
		if !strings.HasPrefix(res.Replies[0].String(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, res.Replies, tt.want)
		}
		if n := r.logs.FilterMessageSnippet("without authentication").Len(); n > 0 != tt.warned {
			t.Errorf("%s: %d warnings", tt.name, n)
		}
	}
}

// TestSmartHosts has the first of two hosts refuse the credentials.
func TestSmartHosts(t *testing.T) {
	r := newRig(t, smtptest.Credentials("u", "other"))
	r.second(smtptest.Credentials("u", "p"))
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
		r.job.Hops = append(r.job.Hops, mail.NextHop{Host: host, Port: r.o.Port, AuthUser: "u", AuthPass: "p", AuthRequired: true})
	}
	for n := 1; n <= 3; n++ {
		res := r.attempt()
		if len(res.Replies) != 1 || !res.Replies[0].Positive() || !res.Authenticated || res.Host != "127.0.0.2" || len(r.two.Messages()) != n {
			t.Fatalf("message %d: %+v", n, res)
		}
	}
	if n := r.one.Connections(); n != 1 {
		t.Errorf("refused %d times", n)
	}
	r.job.Hops = r.job.Hops[:1]
	if res := r.attempt(); !res.Replies[0].Temporary() || !res.Reached || res.Throttled {
		t.Errorf("%+v", res)
	}
}

// trusting is a configuration of these authorities.
func trusting(roots *x509.CertPool) func(bool) *tls.Config {
	c := &tls.Config{RootCAs: roots}
	return func(bool) *tls.Config { return c }
}

// TestClientCertificate holds who gets to see ours.
func TestClientCertificate(t *testing.T) {
	r := newRig(t)
	with, without := &tls.Config{}, &tls.Config{}
	r.o.TLSConfig = func(show bool) *tls.Config {
		if show {
			return with
		}
		return without
	}
	shows := func() bool {
		s := &sender{}
		r.o.Sender = s
		r.attempt()
		return s.targets[0].TLSConfig == with
	}
	if !shows() {
		t.Error("not shown without a list")
	}
	r.o.TLS.ShowTo = []string{"other.test"}
	if shows() {
		t.Error("shown to one not on the list")
	}
	r.o.TLS.ShowTo = []string{"mx.d.test"}
	if !shows() {
		t.Error("not shown to one on the list")
	}
	r.o.TLS.ShowTo, r.o.TLS.HideFrom = nil, []string{"d.test"}
	if shows() {
		t.Error("shown to one who is left out")
	}
}

// TestGroups holds that addresses of one host with different policies are not in
// one Send, and those with the same are.
func TestGroups(t *testing.T) {
	m := &memory.Resolver{}
	m.AddMX("d.test", 10, "mx.d.test")
	m.AddAddr("mx.d.test", "192.0.2.1", "2001:db8::1", "198.51.100.1", "2001:db8::2")
	s := &sender{answers: map[string]any{}}
	for _, a := range []string{"192.0.2.1:25", "[2001:db8::1]:25", "198.51.100.1:25", "[2001:db8::2]:25"} {
		s.answers[a] = unreachable()
	}
	o := options(s)
	o.Resolver, o.Interfaces, o.PublicIP = m, func() ([]netip.Addr, error) { return nil, nil }, ""
	o.TLS.NoTLSHosts = []string{"192.0.2.0/24"}
	o.TLS.ForceTLSHosts = []string{"2001:db8::2"}
	res := New(o).Attempt(t.Context(), Job{Envelope: envelope(1), Content: content, Domain: "d.test"}, nil)
	var got []string
	for _, target := range s.targets {
		line := target.Host + " " + strconv.Itoa(int(target.TLS))
		for _, a := range target.Addrs {
			line += " " + a.String()
		}
		got = append(got, line)
	}
	want := []string{
		"mx.d.test 1 [2001:db8::1]:25 198.51.100.1:25",
		"mx.d.test 4 [2001:db8::2]:25",
		"mx.d.test 0 192.0.2.1:25",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if res.Reached || !res.Replies[0].Temporary() {
		t.Errorf("%+v", res)
	}
}
