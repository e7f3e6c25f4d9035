package xclient

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for in, want := range map[string]Client{
		"ADDR=192.0.2.1": {Addr: v4},
		"NAME=a.example ADDR=192.0.2.1 PORT=1234 PROTO=ESMTP HELO=b.example LOGIN=user+40a.example DESTADDR=IPV6:2001:db8::1 DESTPORT=587": {
			Addr: v4, Port: 1234, Name: "a.example", Protocol: "ESMTP", Helo: "b.example", Login: "user@a.example", DestAddr: v6, DestPort: 587,
		},
		"addr=ipv6:2001:DB8::1 proto=smtp": {Addr: v6, Protocol: "SMTP"},
		"ADDR=IPV6:::ffff:192.0.2.1":       {Addr: v4},
		"ADDR=2001:db8::1":                 {Addr: v6},
		"NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=[UNAVAILABLE] PROTO=[unavailable] HELO=[TEMPUNAVAIL] LOGIN=[UNAVAILABLE]": {Addr: v4},
		"  ADDR=192.0.2.1   FUTURE=x  WORD  =y ":           {Addr: v4},
		"ADDR=192.0.2.1 LOGIN=J+C3+BCrgen":                 {Addr: v4, Login: "Jürgen"},
		"ADDR=192.0.2.1 LOGIN=" + strings.Repeat("u", 255): {Addr: v4, Login: strings.Repeat("u", 255)},
	} {
		if got, bad := Parse(in); bad != nil || *got != want {
			t.Errorf("%q: %+v %v", in, got, bad)
		}
	}
}

func TestParseMalformed(t *testing.T) {
	for in, want := range map[string]string{
		"": "501 5.5.4 No valid IP", "NAME=a.example": "501 5.5.4 No valid IP", "ADDR=[UNAVAILABLE]": "501 5.5.4 No valid IP",
		"ADDR=192.0.2": "501 5.5.4 No valid IP", "ADDR=IPV6:x": "501 5.5.4 No valid IP", "ADDR=fe80::1%eth0": "501 5.5.4 No valid IP",
		"ADDR=": "501 5.5.4 Bad XCLIENT attribute ADDR", "ADDR": "501 5.5.4 Bad XCLIENT attribute ADDR",
		"ADDR=192.0.2.1 ADDR=192.0.2.2":                   "501 5.5.4 Bad XCLIENT attribute ADDR",
		"ADDR=192.0.2.1 LOGIN=a LOGIN=b":                  "501 5.5.4 Bad XCLIENT attribute LOGIN",
		"ADDR=192.0.2.1 LOGIN=a+0Ab":                      "501 5.5.4 Bad XCLIENT attribute LOGIN",
		"ADDR=192.0.2.1 LOGIN=a+zz":                       "501 5.5.4 Bad XCLIENT attribute LOGIN",
		"ADDR=192.0.2.1 LOGIN=a+FF":                       "501 5.5.4 Bad XCLIENT attribute LOGIN",
		"ADDR=192.0.2.1 NAME=a+20b":                       "501 5.5.4 Bad XCLIENT attribute NAME",
		"ADDR=192.0.2.1 HELO=a+0D+0AQUIT":                 "501 5.5.4 Bad XCLIENT attribute HELO",
		"ADDR=192.0.2.1 HELO=\xff":                        "501 5.5.4 Bad XCLIENT attribute HELO",
		"ADDR=192.0.2.1 PROTO=LMTP":                       "501 5.5.4 Bad XCLIENT attribute PROTO",
		"ADDR=192.0.2.1 PORT=65536":                       "501 5.5.4 Bad XCLIENT attribute PORT",
		"ADDR=192.0.2.1 DESTPORT=-1":                      "501 5.5.4 Bad XCLIENT attribute DESTPORT",
		"ADDR=192.0.2.1 DESTADDR=localhost":               "501 5.5.4 Bad XCLIENT attribute DESTADDR",
		"ADDR=192.0.2.1 HELO=" + strings.Repeat("u", 256): "501 5.5.4 Bad XCLIENT attribute HELO",
	} {
		if got, bad := Parse(in); bad == nil || !strings.HasPrefix(bad.String(), want) {
			t.Errorf("%q: %+v %v", in, got, bad)
		}
	}
}

// FuzzParse: what is accepted can stand in logs, replies and trace fields.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"NAME=a.example ADDR=192.0.2.1 PORT=1 PROTO=ESMTP HELO=b LOGIN=u+40x DESTADDR=IPV6:::1 DESTPORT=25", "ADDR=[UNAVAILABLE]", "ADDR=ipv6:: LOGIN=+C3+BC",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		c, bad := Parse(in)
		if (c == nil) == (bad == nil) || bad != nil && bad.Code != 501 {
			t.Fatalf("%q: %+v %v", in, c, bad)
		}
		if c == nil {
			return
		}
		if !c.Addr.IsValid() || c.Addr.Is4In6() || !isWord(c.Name) || !isWord(c.Helo) || !isVisible(c.Login) || len(c.Login) > maxValue {
			t.Fatalf("%q: %+v", in, c)
		}
	})
}
