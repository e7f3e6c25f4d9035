package hostname

import (
	"net/netip"
	"testing"
)

func TestOrganisation(t *testing.T) {
	for name, want := range map[string]string{
		"mail.example.com": "example.com", "example.com": "example.com", "EXAMPLE.Com": "example.com", "com": "", "": "",
		"a.foo.github.io": "foo.github.io", "github.io": "", "x.test": "", "localhost": "", "mx.local": "", "1.2.3.4": "",
		"a.b.co.uk": "b.co.uk", "b.co.uk": "b.co.uk", "co.uk": "", "a.kawasaki.jp": "", "x.a.kawasaki.jp": "x.a.kawasaki.jp",
		"x.city.kawasaki.jp": "city.kawasaki.jp", "example.com.": "", "a..com": "", ".com": "",
		"mx.exämple.com": "xn--exmple-cua.com", "mx.xn--exmple-cua.com": "xn--exmple-cua.com", "[192.0.2.1]": "", "under_score.example.com": "example.com",
	} {
		if got := Organisation(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if !IsSameOrganisation("a.example.com", "B.Example.Com") || IsSameOrganisation("a.test", "b.test") || IsSameOrganisation("", "") {
		t.Error("IsSameOrganisation")
	}
	if !IsWithin("mx.Example.com", "example.COM") || !IsWithin("example.com", "example.com") || IsWithin("notexample.com", "example.com") || IsWithin("", "") {
		t.Error("IsWithin")
	}
}

// The cases are what haraka-net-utils 1.9.3 answers.
func TestHoldsAddress(t *testing.T) {
	for _, test := range []struct {
		addr, name string
		want       bool
	}{
		{"1.2.3.4", "host34.example.com", true},
		{"1.2.3.4", "mail.example.com", false},
		{"1.2.3.4", "1234.com", false},
		{"67.171.0.90", "c-67-171-0-90.hsd1.wa.comcast.net", true},
		{"192.168.1.1", "mx1.example.com", false},
		{"10.11.12.13", "0a0b0c0d.dyn.example.com", true},
		{"203.0.113.9", "host-9.113.example.co.uk", true},
		{"203.0.113.9", "9.113.test", true},
		{"203.0.113.9", "CB007109.EXAMPLE.com", true},
		{"203.0.113.9", "", false},
		{"2001:db8::1", "1.1.example.com", false},
		{"::ffff:1.2.3.4", "host34.example.com", true},
	} {
		if got := HoldsAddress(test.name, netip.MustParseAddr(test.addr)); got != test.want {
			t.Errorf("%s in %s: %v", test.addr, test.name, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	a := netip.MustParseAddr("8.8.8.8")
	for other, want := range map[string]bool{"8.8.8.1": true, "8.8.9.8": false, "::ffff:8.8.8.9": true, "2001:db8::1": false} {
		if got := IsSameNetwork(a, netip.MustParseAddr(other)); got != want {
			t.Errorf("%s: %v", other, got)
		}
	}
	for name, want := range map[string]string{
		"[192.0.2.1]": "192.0.2.1", "[IPv6:2001:db8::1]": "2001:db8::1", "[ipv6:::1]": "::1", "[::1]": "::1", "192.0.2.1": "", "[mx]": "",
		"[]": "", "[fe80::1%1]": "", "": "",
	} {
		got, ok := Literal(name)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
}
