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
		{"root@web_01.Test", "root", "web_01.Test", "root@web_01.Test", "web_01.test"},
		{"u@_dmarc.b__c_", "u", "_dmarc.b__c_", "u@_dmarc.b__c_", "_dmarc.b__c_"},
		{"u@web_01.exämple.com", "u", "web_01.exämple.com", "u@web_01.exämple.com", "web_01.xn--exmple-cua.com"},
		{"u@büro_1.test", "u", "büro_1.test", "u@büro_1.test", "xn--bro_1-kva.test"},
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
		"nobody", "@b.c", "a@", "a@b..c", "a@.b", "a@b.", "a@-b.c", "a@b-.c", "a@b c", "a@b\r\nRCPT TO:<x@y>",
		"a\x00@b.c", "a\n@b.c", "a@[1.2.3]", "a@[IPv6:1.2.3.4]", "a@[::1]", "a@[IPv6:fe80::1%eth0]", "\xff@b.c",
		`"a"b"@c.d`, "a@" + strings.Repeat("x", 64) + ".c", "a@" + strings.Repeat("x.", 200) + "c",
		strings.Repeat("a", 2000) + "@b.c", "a@b.c>", "a@b/c",
		"a@℀.test", "a@ü b.test", "a@ü..test", "a@。ü", "a@-ü.test", "a@ü⑴.test", "a@_-.ü-", "a@" + strings.Repeat("ü", 63) + ".test",
	} {
		if a, err := ParseAddress(in); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: got %+v, %v", in, a, err)
		}
	}
}

func TestIsHostName(t *testing.T) {
	for name, want := range map[string]bool{
		"mx.test": true, "a": true, "xn--exmple-cua.com": true, "exämple.com": true, "a-b.test.": true,
		"": false, "web_01.test": false, "_a.test": false, "büro_1.test": false, "a..b": false, "-a.test": false, "a b": false, "[192.0.2.1]": false,
	} {
		if IsHostName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestHidden(t *testing.T) {
	for _, r := range "\u0080\u0085\u009b\u009f\u00a0\u00ad\u034f\u061c\u115f\u1680\u180e\u2000\u2003\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e" +
		"\u202f\u205f\u2060\u2064\u2066\u2067\u2068\u2069\u206f\u2800\u3000\u3164\ufe0f\ufeff\uffa0\ufff9\ufffe\U0001d173\U000e0001\U000e0041\U000e0100\U0010ffff" {
		for _, s := range []string{"x" + string(r) + "y@a.test", string(r) + "@a.test", "x" + string(r) + "@a.test"} {
			a, err := ParseAddress(s)
			if err == nil && !a.HasHidden() || !IsHidden(r) {
				t.Errorf("%U in a local part passes", r)
			}
		}
		if a, err := ParseAddress("x@a" + string(r) + "b.test"); err == nil && !a.HasHidden() {
			t.Errorf("%U in a domain passes", r)
		}
	}
	for _, s := range []string{"می\u200c@b.test", "\u200cمی@b.test", "می\u200c\u200dم@b.test", "م\u200ca@b.test", "م\u200b\u0645@b.test"} {
		if a, err := ParseAddress(s); err == nil && !a.HasHidden() {
			t.Errorf("%+q passes", s)
		}
	}
	for _, s := range []string{"a@b.test", `"a b"@b.test`, "josé@exämple.com", "用户@例子.广告", "अजय@डाटा.भारत", "ποτε@test.test", "ünïcödé+1@b.test", "👋@b.test", "x@نامه\u200cای.com", "می\u200cخواهم@b.test", "ක්\u200dර@b.test", `"نامه\u200cای x"@b.test`} {
		a, err := ParseAddress(s)
		if err != nil || a.HasHidden() {
			t.Errorf("%q: %v", s, err)
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

// TestReadsBack compares the quick way with the slow one.
func TestReadsBack(t *testing.T) {
	parts := []string{"", "a", "a.b", ".a", "a..b", "a b", `a"b`, "a@b", "<a>", "é", "a\x00", "-a", "a-", "a_b", "[192.0.2.1]", "[x]", "postmaster", strings.Repeat("x", 64), strings.Repeat("x", 999)}
	for _, local := range parts {
		for _, domain := range parts {
			a := Address{Local: local, Domain: domain}
			b, err := ParseAddress(a.String())
			if want := err == nil && a == b; (a.ReadsBack() == nil) != want {
				t.Errorf("%q: %v, want it to read back: %v", a, a.ReadsBack(), want)
			}
			if got := string(a.AppendTo([]byte("x"))); got != "x"+a.String() {
				t.Errorf("%q, want %q", got, "x"+a.String())
			}
		}
	}
}
