package mail

import (
	"errors"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, tc := range []struct{ in, local, domain, out, host string }{
		{"", "", "", "", ""},
		{"<>", "", "", "", ""},
		{"a@b.c", "a", "b.c", "a@b.c", "b.c"},
		{"<A.B@Ex.COM>", "A.B", "Ex.COM", "A.B@Ex.COM", "ex.com"},
		{"postmaster", "postmaster", "", "postmaster", ""},
		{`<"a b"@c.d>`, "a b", "c.d", `"a b"@c.d`, "c.d"},
		{"a b@c.d", "a b", "c.d", `"a b"@c.d`, "c.d"}, // as go-smtp hands it over
		{`"a\"b\\"@c.d`, `a"b\`, "c.d", `"a\"b\\"@c.d`, "c.d"},
		{`x@y@c.d`, "x@y", "c.d", `"x@y"@c.d`, "c.d"},
		{"<@r.c,@s.d:u@h.t>", "u", "h.t", "u@h.t", "h.t"},
		{"u@[192.0.2.1]", "u", "[192.0.2.1]", "u@[192.0.2.1]", "[192.0.2.1]"},
		{"u@[IPv6:::1]", "u", "[IPv6:::1]", "u@[IPv6:::1]", "[ipv6:::1]"},
		{"josé@exämple.com", "josé", "exämple.com", "josé@exämple.com", "xn--exmple-cua.com"},
		{"a..b@c.d", "a..b", "c.d", `"a..b"@c.d`, "c.d"},
		{"u@localhost", "u", "localhost", "u@localhost", "localhost"},
	} {
		a, err := ParseAddress(tc.in)
		if err != nil {
			t.Errorf("%q: %v", tc.in, err)
			continue
		}
		if a.Local != tc.local || a.Domain != tc.domain || a.String() != tc.out || a.Host() != tc.host {
			t.Errorf("%q: got %q %q %q %q", tc.in, a.Local, a.Domain, a.String(), a.Host())
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, in := range []string{
		"nobody", "@b.c", "a@", "a@b..c", "a@.b", "a@b.", "a@-b.c", "a@b-.c", "a@b_c.d", "a@b c", "a@b\r\nRCPT TO:<x@y>",
		"a\x00@b.c", "a\n@b.c", "a@[1.2.3]", "a@[IPv6:1.2.3.4]", "a@[::1]", "a@[IPv6:fe80::1%eth0]", "\xff@b.c",
		`"a"b"@c.d`, "a@" + strings.Repeat("x", 64) + ".c", "a@" + strings.Repeat("x.", 200) + "c",
		strings.Repeat("a", 2000) + "@b.c", "a@b.c>", "a@b/c",
	} {
		if a, err := ParseAddress(in); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: got %+v, %v", in, a, err)
		}
	}
}

func TestAddressASCII(t *testing.T) {
	a, _ := ParseAddress("info@exämple.com")
	if b, ok := a.ASCII(); !ok || b.String() != "info@xn--exmple-cua.com" {
		t.Errorf("got %v %v", b, ok)
	}
	if _, ok := (Address{Local: "josé", Domain: "example.com"}).ASCII(); ok {
		t.Error("a UTF-8 local part has no ASCII form")
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"a@b.c", `"a b"@c.d`, "<@r:u@h>", "u@[IPv6:::1]", "é@ü.de", "a@b\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		out := a.String()
		if strings.ContainsAny(out, "\r\n\x00") {
			t.Fatalf("%q carries a control character", out)
		}
		b, err := ParseAddress(a.Path())
		if err != nil || b != a {
			t.Fatalf("%q → %q → %+v, %v, want %+v", s, out, b, err, a)
		}
	})
}
