package nexthop

import (
	"context"
	"strings"
	"testing"

	"tarishi/internal/dns"
	"tarishi/internal/dns/memory"
	"tarishi/internal/mail"
	"tarishi/internal/mtasts"
)

// policies is a Policies.
type policies map[string]*mtasts.Policy

func (p policies) Policy(_ context.Context, domain string) (*mtasts.Policy, *mtasts.Fetch) {
	return p[domain], nil
}

// TestPlan: where the mail of a domain goes, or why nowhere.
func TestPlan(t *testing.T) {
	m := &memory.Resolver{}
	m.AddMX("two.test", 20, "mx2.two.test")
	m.AddMX("two.test", 10, "mx1.two.test")
	m.AddMX("null.test", 0, "")
	m.AddAddr("bare.test", "192.0.2.3")
	m.AddTXT("lost.test", "no address")
	m.Fail("fails.test", "MX", dns.Temporary)
	m.AddTXT("addrfails.test", "x")
	m.Fail("addrfails.test", "ADDR", dns.Temporary)
	m.AddMX("ours.test", 10, "me.test")
	m.AddMX("backup.test", 10, "mx1.two.test")
	m.AddMX("backup.test", 20, "me.test")
	m.AddMX("backup.test", 30, "mx2.two.test")
	sts := policies{"two.test": &mtasts.Policy{}}
	for _, tt := range []struct {
		domain string
		hops   []mail.NextHop
		hosts  string // of the plan, or the reply
		site   string
		mxOK   bool
	}{
		{domain: "two.test", hosts: "mx1.two.test mx2.two.test", site: "mx1.two.test,mx2.two.test"},
		{domain: "bare.test", hosts: "bare.test", site: "bare.test"},
		{domain: "[192.0.2.9]", hosts: "192.0.2.9", site: "[192.0.2.9]"},
		{domain: "x.test", hops: []mail.NextHop{{Host: "b", Port: 26}, {Path: "/a"}}, hosts: "b /a", site: "hop:/a,b:26"},
		{domain: "backup.test", hosts: "mx1.two.test", site: "me.test,mx1.two.test,mx2.two.test"},
		{domain: "ours.test", mxOK: true, hosts: "me.test", site: "me.test"},
		{domain: "ours.test", hosts: "550 5.4.6 Mail for ours.test loops back to myself"},
		{domain: "null.test", hosts: "556 5.1.10 Domain null.test sends and receives no email (NULL MX)"},
		{domain: "lost.test", hosts: "550 5.1.2 Nowhere to deliver mail to for domain: lost.test"},
		{domain: "unknown.test", hosts: "550 5.1.2 Nowhere to deliver mail to for domain: unknown.test"},
		{domain: "fails.test", hosts: "451 4.4.3 DNS lookup of fails.test failed temporarily"},
		{domain: "addrfails.test", hosts: "451 4.4.3 DNS lookup of addrfails.test failed temporarily"},
		{domain: "", hosts: "550 5.1.2 Recipient address has no domain"},
		{domain: "[x]", hosts: "550 5.1.2 [x] is not an address literal"},
	} {
		f := Finder{Me: "me.test", Port: 25, Resolver: m, Policies: sts, LocalMXOK: tt.mxOK}
		p, refusal := f.Plan(t.Context(), tt.domain, tt.hops)
		if refusal != nil {
			if got := refusal.String(); got != tt.hosts {
				t.Errorf("%s: %s", tt.domain, got)
			}
			continue
		}
		if got := strings.Join(p.Hosts(), " "); got != tt.hosts || p.Site() != tt.site || p.Given != (tt.hops != nil) || p.Pending() {
			t.Errorf("%s: %s, site %s, %+v", tt.domain, got, p.Site(), p)
		}
		if p.STS != sts[tt.domain] && tt.hops == nil {
			t.Errorf("%s: policy %v", tt.domain, p.STS)
		}
	}
}
