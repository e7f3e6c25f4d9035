package domaincheck

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/internal/dkim"
	"tarishi/internal/dns"
	"tarishi/internal/dns/memory"
	"tarishi/internal/mtasts"
	"tarishi/internal/test/smtptest"
)

// published is a policy that needs no fetch; nil: there is none.
type published struct{ policy *mtasts.Policy }

func (p published) Policy(context.Context, string) (*mtasts.Policy, *mtasts.Fetch) {
	return p.policy, nil
}

// rig is a domain in good order, d.test, whose only mail exchanger is a server of the test.
type rig struct {
	*Checker
	dns    *memory.Resolver
	server *smtptest.Server
}

func newRig(t *testing.T, options ...smtptest.Option) *rig {
	t.Helper()
	r := &rig{dns: new(memory.Resolver), server: smtptest.New(t, slices.Concat([]smtptest.Option{smtptest.TLS("mx.d.test")}, options)...)}
	key, err := dkim.NewKey("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	k := dkim.Key{Selector: "one", Private: key}
	record, err := k.Record()
	if err != nil {
		t.Fatal(err)
	}

	sum := sha256.Sum256(r.server.Certificate().Certificate[0])
	r.dns.AddMX("d.test", 10, "mx.d.test")
	r.dns.AddAddr("mx.d.test", "203.0.113.1")
	r.dns.AddAddr("me.d.test", "203.0.113.2")
	r.dns.AddPTR("203.0.113.2", "me.d.test")
	r.dns.AddTXT("d.test", "v=spf1 ip4:203.0.113.2 -all")
	r.dns.AddTXT("one._domainkey.d.test", record)
	r.dns.AddTXT("_dmarc.d.test", "v=DMARC1; p=reject; rua=mailto:x@d.test")
	r.dns.AddTXT("_mta-sts.d.test", "v=STSv1; id=1;")
	r.dns.AddTXT("_smtp._tls.d.test", "v=TLSRPTv1; rua=mailto:x@d.test")
	r.dns.AddTLSA("_25._tcp.mx.d.test", dns.TLSA{Usage: 3, MatchingType: 1, Data: sum[:]})
	r.dns.SetSecure("d.test", "mx.d.test", "_25._tcp.mx.d.test")
	r.Checker = &Checker{
		Resolver: r.dns, Policies: published{&mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.d.test"}, MaxAge: 48 * time.Hour}}, DNSSEC: true,
		Me: "me.d.test", Keys: []dkim.Key{k}, Roots: r.server.Roots(),
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			if address != "203.0.113.1:25" {
				return nil, fmt.Errorf("%s is not here", address)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", r.server.Addr())
		},
	}
	return r
}

// lines are the findings, a line each.
func (r *rig) lines(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, f := range r.Check(t.Context(), "d.test") {
		fmt.Fprintf(&b, "%s %s %s\n", f.Level, f.About, f.Text)
	}
	return b.String()
}

// TestGood: a domain in good order has good findings only, and all of them.
func TestGood(t *testing.T) {
	got := newRig(t).lines(t)
	for _, about := range []string{"MX", "PTR", "SPF", "DKIM", "DMARC", "MTA-STS", "TLSRPT", "DANE", "TLS"} {
		if !strings.Contains(got, "ok "+about+" ") {
			t.Errorf("nothing of %s", about)
		}
	}
	if n := strings.Count(got, "\n"); n != 9 || strings.Count(got, "ok ") != n {
		t.Error(got)
	}
}

// TestFindings: what is wrong is found, once.
func TestFindings(t *testing.T) {
	for name, c := range map[string]struct {
		breaks  func(r *rig)
		options []smtptest.Option
		want    string // the lines that are not ok begin so
	}{
		"no such domain": {breaks: func(r *rig) {
			r.dns.Remove("d.test")
		}, want: "error MX d.test has neither|error SPF d.test has no record"},
		"no MX": {breaks: func(r *rig) {
			r.dns.Remove("d.test")
			r.dns.AddAddr("d.test", "203.0.113.1")
			r.dns.AddTXT("d.test", "v=spf1 a:me.d.test -all")
		}, want: "warning MX d.test has no MX record|error MTA-STS the policy does not allow the mail exchanger d.test|error TLS d.test: |note DANE"},
		"null MX": {breaks: func(r *rig) {
			r.dns.Remove("d.test")
			r.dns.AddMX("d.test", 0, "")
			r.dns.AddTXT("d.test", "v=spf1 +ip4:203.0.113.2 -all")
		}, want: "note MX d.test says"},
		"an address as MX": {breaks: func(r *rig) { r.dns.AddMX("d.test", 20, "203.0.113.9") }, want: "error MX 203.0.113.9 is an address"},
		"a private MX":     {breaks: func(r *rig) { r.dns.AddAddr("mx.d.test", "10.0.0.1") }, want: "error MX mx.d.test has the address 10.0.0.1"},
		"MX unknown":       {breaks: func(r *rig) { r.dns.Fail("d.test", "MX", dns.Temporary) }, want: "error MX "},
		"no PTR":           {breaks: func(r *rig) { r.dns.Remove("203.0.113.2") }, want: "error PTR 203.0.113.2 has no name"},
		"PTR elsewhere": {breaks: func(r *rig) {
			r.dns.Remove("203.0.113.2")
			r.dns.AddPTR("203.0.113.2", "other.test")
		}, want: "error PTR 203.0.113.2 is called other.test, which"},
		"another name": {breaks: func(r *rig) {
			r.dns.Remove("203.0.113.2")
			r.dns.AddPTR("203.0.113.2", "host.d.test")
			r.dns.AddAddr("host.d.test", "203.0.113.2")
		}, want: "note PTR 203.0.113.2 is called host.d.test, and we say me.d.test"},
		"no address": {breaks: func(r *rig) { r.Me = "nowhere.test" }, want: "error PTR nowhere.test"},
		"address given": {
			breaks: func(r *rig) { r.Addresses = []netip.Addr{netip.MustParseAddr("203.0.113.3")} },
			want:   "error PTR 203.0.113.3 has no name|error SPF 203.0.113.3: fail",
		},
		"no key": {breaks: func(r *rig) { r.Keys = nil }, want: "warning DKIM no key"},
		"another key": {breaks: func(r *rig) {
			r.dns.Remove("one._domainkey.d.test")
			r.dns.AddTXT("one._domainkey.d.test", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
		}, want: "error DKIM one._domainkey.d.test: "},
		"keys of others": {breaks: func(r *rig) { r.Keys, r.Selectors = nil, []string{"one", "two"} }, want: "error DKIM two._domainkey.d.test: "},
		"no policy":      {breaks: func(r *rig) { r.dns.Remove("_dmarc.d.test") }, want: "error DMARC d.test has no policy"},
		"policy none": {breaks: func(r *rig) {
			r.dns.Remove("_dmarc.d.test")
			r.dns.AddTXT("_dmarc.d.test", "v=DMARC1; p=none")
		}, want: "note DMARC p=none of d.test: |note DMARC d.test asks for no reports"},
		"DMARC unknown":            {breaks: func(r *rig) { r.dns.Fail("_dmarc.d.test", "TXT", dns.Temporary) }, want: "error DMARC temperror"},
		"MTA-STS without a policy": {breaks: func(r *rig) { r.Policies = published{} }, want: "error MTA-STS _mta-sts.d.test says"},
		"MTA-STS without a record": {breaks: func(r *rig) { r.dns.Remove("_mta-sts.d.test") }, want: "note MTA-STS"},
		"MTA-STS for another": {breaks: func(r *rig) {
			r.Policies = published{&mtasts.Policy{Mode: mtasts.Testing, MX: []string{"other.test"}}}
		}, want: "note MTA-STS mode testing|error MTA-STS the policy does not allow the mail exchanger mx.d.test"},
		"no reports": {breaks: func(r *rig) { r.dns.Remove("_smtp._tls.d.test") }, want: "note TLSRPT"},
		"another certificate": {breaks: func(r *rig) {
			r.dns.Remove("_25._tcp.mx.d.test")
			r.dns.AddTLSA("_25._tcp.mx.d.test", dns.TLSA{Usage: 3, MatchingType: 1, Data: make([]byte, 32)})
			r.dns.SetSecure("_25._tcp.mx.d.test")
		}, want: "error DANE mx.d.test: "},
		"TLSA of no use": {breaks: func(r *rig) {
			r.dns.Remove("_25._tcp.mx.d.test")
			r.dns.AddTLSA("_25._tcp.mx.d.test", dns.TLSA{Usage: 1, MatchingType: 1, Data: make([]byte, 32)})
			r.dns.SetSecure("_25._tcp.mx.d.test")
		}, want: "error DANE mx.d.test: none of its 1"},
		"TLSA unknown":    {breaks: func(r *rig) { r.dns.Fail("_25._tcp.mx.d.test", "TLSA", dns.Temporary) }, want: "error DANE mx.d.test: |note DANE"},
		"foreign names":   {options: []smtptest.Option{smtptest.TLS("other.test")}, want: "error TLS mx.d.test: "},
		"no STARTTLS":     {options: []smtptest.Option{smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Reply("454 4.7.0 not now")))}, want: "error TLS mx.d.test: no STARTTLS: 454"},
		"no TLS at all":   {options: []smtptest.Option{smtptest.On(smtptest.Hello, smtptest.Always(smtptest.Reply("250 mx.d.test")))}, want: "error TLS mx.d.test: no STARTTLS"},
		"nobody answers":  {options: []smtptest.Option{smtptest.On(smtptest.Connect, smtptest.Always(smtptest.Close()))}, want: "error TLS mx.d.test: greeting"},
		"without a visit": {breaks: func(r *rig) { r.Dial = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.options...)
			if c.breaks != nil {
				c.breaks(r)
			}
			var bad []string
			for line := range strings.Lines(r.lines(t)) {
				if !strings.HasPrefix(line, "ok ") {
					bad = append(bad, strings.TrimSpace(line))
				}
			}
			want := strings.Split(c.want, "|")
			if c.want == "" {
				want = nil
			}
			if !slices.EqualFunc(bad, want, strings.HasPrefix) {
				t.Errorf("%s\nwant %s", strings.Join(bad, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}
