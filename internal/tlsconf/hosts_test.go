package tlsconf

import (
	"net/netip"
	"testing"
)

func TestTLSHosts(t *testing.T) {
	out := Outbound{ForceTLSHosts: []string{"MX.example.com", "example.net", "192.0.2.0/24", "2001:db8::1", "Bücher.example", "dot.example."}}
	for _, tc := range []struct {
		host, addr, domain string
		want               bool
	}{
		{"mx.example.com", "198.51.100.1", "x", true},
		{"a", "192.0.2.7", "x", true},
		{"a", "2001:db8::1", "x", true},
		{"a", "198.51.100.1", "Example.NET", true},
		{"a", "198.51.100.1", "xn--bcher-kva.example", true},
		{"dot.example", "198.51.100.1", "x", true},
		{"a", "198.51.100.1", "x", false},
		{"", "", "", false},
	} {
		addr, _ := netip.ParseAddr(tc.addr)
		if got := out.Forces(tc.host, addr, tc.domain); got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
		if out.Excludes(tc.host, addr, tc.domain) {
			t.Errorf("%+v: excluded by the wrong list", tc)
		}
	}
}

func TestShows(t *testing.T) {
	for _, tc := range []struct {
		show, hide   []string
		host, domain string
		want         bool
	}{
		{nil, nil, "mx.example", "d.example", true},
		{[]string{"mx.example"}, nil, "mx.example", "d.example", true},
		{[]string{"d.example"}, nil, "mx.example", "d.example", true},
		{[]string{"other.example"}, nil, "mx.example", "d.example", false},
		{nil, []string{"d.example"}, "mx.example", "d.example", false},
		{nil, []string{"mx.example"}, "MX.Example.", "d.example", false},
		{[]string{"mx.example"}, []string{"mx.example"}, "mx.example", "d.example", false},
	} {
		if got := (Outbound{ShowTo: tc.show, HideFrom: tc.hide}).Shows(tc.host, tc.domain); got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}
