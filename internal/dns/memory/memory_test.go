package memory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"tarishi/internal/dns"
)

func TestResolver(t *testing.T) {
	var m Resolver
	m.AddMX("D.example", 20, "b.example")
	m.AddMX("d.example.", 10, "a.example")
	m.AddAddr("a.example", "192.0.2.1", "2001:db8::1")
	m.AddPTR("192.0.2.1", "a.example")
	m.AddTXT("d.example", "text")
	m.Fail("bad.example", "", dns.Temporary)
	m.Fail("a.example", "MX", dns.NXDomain)
	ctx := t.Context()
	if mx, err := m.MX(ctx, "d.EXAMPLE"); err != nil || !slices.Equal(mx, []dns.MX{{Host: "a.example", Preference: 10, Domain: "d.example"}, {Host: "b.example", Preference: 20, Domain: "d.example"}}) {
		t.Errorf("MX: %v, %v", mx, err)
	}
	if a, err := m.Addrs(ctx, "a.example"); err != nil || fmt.Sprint(a) != "[2001:db8::1 192.0.2.1]" {
		t.Errorf("Addrs: %v, %v", a, err)
	}
	if a, err := m.Host(ctx, "[::1]"); err != nil || fmt.Sprint(a) != "[::1]" {
		t.Errorf("Host: %v, %v", a, err)
	}
	if n, err := m.PTR(ctx, netip.MustParseAddr("192.0.2.1")); len(n) != 1 {
		t.Errorf("PTR: %v, %v", n, err)
	}
	if n, err := m.TXT(ctx, "d.example"); len(n) != 1 {
		t.Errorf("TXT: %v, %v", n, err)
	}
	_, absent := m.MX(ctx, "absent.example")
	_, nodata := m.Addrs(ctx, "d.example")
	_, bad := m.TXT(ctx, "bad.example")
	_, told := m.MX(ctx, "a.example")
	var failure *dns.Error
	if !dns.IsNXDomain(absent) || !dns.IsNoData(nodata) || !errors.As(bad, &failure) || failure.Kind != dns.Temporary || !dns.IsNXDomain(told) {
		t.Errorf("%v; %v; %v; %v", absent, nodata, bad, told)
	}
	if m.Count("d.example", "MX") != 1 {
		t.Error("not counted")
	}
	m.AddTLSA("_25._tcp.a.example", dns.TLSA{Usage: 3, Data: []byte{1}})
	if _, err := m.TLSA(ctx, "_25._tcp.a.example"); !dns.IsNoData(err) {
		t.Errorf("insecure TLSA: %v", err)
	}
	m.SetSecure("a.example", "_25._tcp.a.example")
	if r, err := m.TLSA(ctx, "_25._tcp.A.example"); len(r) != 1 {
		t.Errorf("TLSA: %v, %v", r, err)
	}
	if a, err := m.Addresses(ctx, "a.example"); err != nil || !a.Secure || a.Name != "a.example" {
		t.Errorf("Addresses: %+v, %v", a, err)
	}
	m.Remove("bad.example")
	if _, err := m.TXT(ctx, "bad.example"); !dns.IsNXDomain(err) {
		t.Errorf("removed: %v", err)
	}
}

// resolver is what both have in common.
type resolver interface {
	MX(context.Context, string) ([]dns.MX, error)
	Addrs(context.Context, string) ([]netip.Addr, error)
	Host(context.Context, string) ([]netip.Addr, error)
	PTR(context.Context, netip.Addr) ([]string, error)
	TXT(context.Context, string) ([]string, error)
	Addresses(context.Context, string) (dns.Addresses, error)
	TLSA(context.Context, string) ([]dns.TLSA, error)
}

var (
	_ resolver = (*dns.Resolver)(nil)
	_ resolver = (*Resolver)(nil)
)
