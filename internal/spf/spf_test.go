package spf

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
)

// zone is a Resolver with the policies of a test; every name has the address 192.0.2.1
// and is its own mail exchanger. It counts what it is asked.
type zone struct {
	policies map[string]string
	asked    atomic.Int32
	silent   bool
}

func (z *zone) TXT(ctx context.Context, name string) ([]string, error) {
	z.asked.Add(1)
	if z.silent {
		<-ctx.Done()
		return nil, &dns.Error{Kind: dns.Temporary, Cause: ctx.Err()}
	}
	if text, ok := z.policies[strings.TrimSuffix(strings.ToLower(name), ".")]; ok {
		return []string{text}, nil
	}
	return nil, &dns.Error{Kind: dns.NXDomain}
}

func (z *zone) MX(_ context.Context, domain string) ([]dns.MX, error) {
	z.asked.Add(1)
	return []dns.MX{{Host: domain}}, nil
}

func (z *zone) Addrs(context.Context, string) ([]netip.Addr, error) {
	z.asked.Add(1)
	return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
}

func (z *zone) PTR(context.Context, netip.Addr) ([]string, error) {
	z.asked.Add(1)
	return []string{"host.example.org"}, nil
}

var client = netip.MustParseAddr("192.0.2.1")

// What Haraka's plugin gets wrong of valid records, and what it and this package agree on.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		policy string
		want   Status
	}{
		{"v=spf1 ip4:192.0.2.1 -all", Pass},
		{"v=spf1 -all", Fail},
		{"v=spf1 ~all", SoftFail},
		{"v=spf1", Neutral},
		{"v=spf1 exists:%{I}.%{D} exp=e.%{d} -all", Pass}, // macros in upper case and in modifiers
		{"v=spf1 redirect=%{d2}.other.example", PermError},
		{"v=spf1 redirect=_spf.%{d}", Pass},
		{"v=spf1 a//64 mx//64 -all", Pass},
		{"v=spf1 a/24//64 -all", Pass},
		{"v=spf1 " + strings.Repeat("a:x.example.net/32 ", 9) + "mx ~all", Pass},
		{"v=spf1 -include:none.example.org ~all", PermError},
		{"v=spf1 include:loop.example.org -all", PermError},
		{"v=spf1 redirect=none.example.org", PermError},
		{"v=spf1 unknown:x -all", PermError},
		{"v=spf1 unknown=x ip4:192.0.2.1", Pass},
		{"v=spf1 ip4:192.0.2.1 unknown:x", PermError}, // also behind what matches
		{"v=spf1 ip4:192.0.2.300 -all", PermError},
		{"v=spf1 ip4:192.0.2.0/024 -all", PermError},
		{"v=spf1 exp=a.b exp=a.b -all", PermError},
		{"V=SPF1 IP4:192.0.2.1", Pass},
		{"v=spf10 -all", None},
		{"v=spf1 ptr:example.org -all", Pass},
	} {
		z := &zone{policies: map[string]string{
			"example.org": c.policy, "loop.example.org": "v=spf1 include:loop.example.org", "_spf.example.org": "v=spf1 +all",
		}}
		got := (&Checker{Resolver: z}).CheckMail(t.Context(), client, "helo.example.net", mail.Address{Local: "a", Domain: "Example.ORG"})
		if got.Status != c.want || got.Domain != "example.org" {
			t.Errorf("%s: %s (%s) for %s, want %s", c.policy, got.Status, got.Reason, got.Domain, c.want)
		}
	}
}

func TestCheckWho(t *testing.T) {
	z := &zone{policies: map[string]string{
		"example.org": "v=spf1 exists:%{l}.%{o}.example -all", "helo.example.net": "v=spf1 ip4:192.0.2.1 -all", "v6.example": "v=spf1 ip6:2001:db8::/32 -all",
	}}
	c := &Checker{Resolver: z}
	if got := c.CheckMail(t.Context(), client, "Helo.example.net", mail.Address{}); got.Status != Pass || got.Domain != "helo.example.net" {
		t.Errorf("null reverse-path: %+v", got)
	}
	if got := c.CheckMail(t.Context(), netip.MustParseAddr("::ffff:192.0.2.1"), "x", mail.Address{Domain: "helo.example.net", Local: `a"@"b`}); got.Status != Pass {
		t.Errorf("mapped address: %+v", got)
	}
	if got := c.CheckMail(t.Context(), netip.MustParseAddr("2001:db8::1%eth0"), "x", mail.Address{Domain: "v6.example", Local: "a"}); got.Status != Pass {
		t.Errorf("address with a zone: %+v", got)
	}
	z.asked.Store(0)
	for _, domain := range []string{"", "localhost", "[192.0.2.1]", "[IPv6:2001:db8::1]", "a..example", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 130) + "example"} {
		if got := c.CheckHello(t.Context(), client, domain); got.Status != None || got.Domain != "" {
			t.Errorf("%s: %+v", domain, got)
		}
	}
	if n := z.asked.Load(); n > 0 {
		t.Errorf("%d look-ups for what is no domain", n)
	}
	if got := c.CheckMail(t.Context(), client, "x", mail.Address{Local: "a", Domain: "none.example"}); got.Status != None || got.Domain != "none.example" {
		t.Errorf("no record: %+v", got)
	}
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		got := (&Checker{Resolver: &zone{silent: true}, Timeout: 7 * time.Second}).CheckHello(t.Context(), client, "a.example")
		if got.Status != TempError || time.Since(began) != 7*time.Second {
			t.Errorf("%+v after %s", got, time.Since(began))
		}
	})
}

func TestStatus(t *testing.T) {
	var words []string
	for s := None; s <= PermError+1; s++ {
		words = append(words, s.String())
	}
	if got := fmt.Sprint(words); got != "[none pass fail softfail neutral temperror permerror Status(7)]" {
		t.Error(got)
	}
}

// No policy makes us ask for more than the ten look-ups of RFC 7208, each of which may
// lead to ten more, nor panic.
func FuzzCheck(f *testing.F) {
	f.Add("v=spf1 a mx ptr exists:%{i}.%{d} include:b.example redirect=b.example -all", "v=spf1 mx a:%{l1r-}.x.example ?all", "a-b")
	f.Add("v=spf1 a:%{p}.%{h}/24//64 exp=%{s} unknown=%{c}", "v=spf1 ip6:::/0", "x@y")
	f.Fuzz(func(t *testing.T, first, second, local string) {
		z := &zone{policies: map[string]string{"a.example": first, "b.example": second}}
		(&Checker{Resolver: z}).CheckMail(t.Context(), client, "helo.example", mail.Address{Local: local, Domain: "a.example"})
		if n := z.asked.Load(); n > 150 {
			t.Errorf("%d look-ups", n)
		}
	})
}
