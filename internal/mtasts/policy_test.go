package mtasts

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	good := "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"
	for _, tt := range []struct {
		name, text string
		want       string // "MODE MX,MX AGE", or what the error says
	}{
		{"as in the RFC", good, "enforce mail.example.com,*.example.net 168h0m0s"},
		{"LF", strings.ReplaceAll(good, "\r\n", "\n"), "enforce mail.example.com,*.example.net 168h0m0s"},
		{"no end of the last line", strings.TrimSuffix(good, "\r\n"), "enforce mail.example.com,*.example.net 168h0m0s"},
		{"blanks", "version:STSv1  \nmode:  testing\nmx:\tA.Example \n\nmax_age : 1\n", "testing a.example 1s"},
		{"other order, unknown fields", "max_age: 1\nx-y: z: z\nmx: a.example.\nmode: testing\nversion: STSv1\n", "testing a.example 1s"},
		{"the first of two counts", "version: STSv1\nmode: testing\nmode: enforce\nmx: a.example\nmax_age: 1\nmax_age: 2\n", "testing a.example 1s"},
		{"none needs no mx", "version: STSv1\nmode: none\nmax_age: 86400\n", "none  24h0m0s"},
		{"longest", "version: STSv1\nmode: none\nmax_age: 9999999999\n", "none  8766h0m0s"},
		{"zero", "version: STSv1\nmode: none\nmax_age: 0\n", "none  0s"},
		{"A-labels", "version: STSv1\nmode: enforce\nmx: xn--bcher-kva.example\nmx: *.bücher.example\nmax_age: 1\n", "enforce xn--bcher-kva.example,*.xn--bcher-kva.example 1s"},
		{"patterns that are none", "version: STSv1\nmode: enforce\nmx: *\nmx: a.*.example\nmx: 192.0.2.1\nmx: *.*.example\nmx:\nmx: b.example\nmax_age: 1\n", "enforce b.example 1s"},

		{"empty", "", "version"},
		{"other version", "version: STSv2\nmode: none\nmax_age: 1\n", "version"},
		{"no mode", "version: STSv1\nmax_age: 1\n", "mode"},
		{"unknown mode", "version: STSv1\nmode: Enforce\nmx: a.example\nmax_age: 1\n", "mode"},
		{"no max_age", "version: STSv1\nmode: none\n", "max_age"},
		{"negative", "version: STSv1\nmode: none\nmax_age: -1\n", "max_age"},
		{"signed", "version: STSv1\nmode: none\nmax_age: +1\n", "max_age"},
		{"too many digits", "version: STSv1\nmode: none\nmax_age: 10000000000\n", "max_age"},
		{"no number", "version: STSv1\nmode: none\nmax_age: 1d\n", "max_age"},
		{"no mx", "version: STSv1\nmode: enforce\nmax_age: 1\n", "no mx"},
		{"only patterns that are none", "version: STSv1\nmode: testing\nmx: *.*\nmax_age: 1\n", "no mx"},
		{"a page", "<html>\n<title>404: not found</title>\n", "<html>"},
	} {
		p, err := Parse([]byte(tt.text))
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
			continue
		}
		if got := string(p.Mode) + " " + strings.Join(p.MX, ",") + " " + p.MaxAge.String(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestAllows(t *testing.T) {
	p := &Policy{MX: []string{"mail.example.com", "*.example.net", "xn--bcher-kva.example", "192.0.2.1", "*.0.2.2", "2001:db8::1"}}
	for mx, want := range map[string]bool{
		"mail.example.com": true, "MAIL.example.com.": true, "a.example.net": true, "bücher.example": true,
		"xn--bcher-kva.example": true,
		"other.example.com":     false, "a.mail.example.com": false, "example.net": false, "a.b.example.net": false,
		"192.0.2.1": false, "192.0.2.2": false, "2001:db8::1": false,
		"aexample.net": false, "net": false, "": false, "mail.example.com.evil.example": false,
	} {
		if got := p.Allows(mx); got != want {
			t.Errorf("%q: %v", mx, got)
		}
	}
}

func TestRecordID(t *testing.T) {
	for _, tt := range []struct {
		texts []string
		want  string
	}{
		{[]string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z"},
		{[]string{"v=STSv1;id=a"}, "a"},
		{[]string{"v=STSv1 ; x=y; id=a ; "}, "a"},
		{[]string{"v=spf1 -all", "v=STSv1; id=a", ""}, "a"},
		{[]string{"v=STSv1; id=a; id=b"}, "a"},
		{[]string{"v=STSv1; id=a", "v=STSv1; id=a"}, ""}, // not exactly one
		{[]string{"v=STSv1"}, ""},
		{[]string{"v=STSv1; id="}, ""},
		{[]string{"v=STSv1; id=a-b"}, ""},
		{[]string{"v=STSv1; id=" + strings.Repeat("a", 33)}, ""},
		{[]string{"v=STSv2; id=a"}, ""},
		{[]string{"x; v=STSv1; id=a"}, ""},
		{nil, ""},
	} {
		if got, ok := recordID(tt.texts); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%q: %q %v, want %q", tt.texts, got, ok, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"))
	f.Add([]byte("version: STSv1\nmode: none\nmax_age: 1"))
	f.Add([]byte("v=STSv1; id=x;\x00mx: *.\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, ok := recordID([]string{string(b)}); ok != (id != "") || len(id) > 32 {
			t.Fatalf("id %q", id)
		}
		p, err := Parse(b)
		if err != nil {
			return
		}
		if !p.Mode.isKnown() || p.MaxAge < 0 || p.MaxAge > maxAge || len(p.MX) == 0 && p.Mode != None {
			t.Fatalf("%+v", p)
		}
		for _, mx := range p.MX {
			if again, ok := canonicalPattern(mx); !ok || again != mx {
				t.Fatalf("pattern %q", mx)
			}
			if host := strings.Replace(mx, "*.", "a.", 1); !p.Allows(host) && len(host) <= 253 {
				t.Fatalf("%q is not allowed by %q", host, mx)
			}
		}
		if slices.Contains(p.MX, "*") {
			t.Fatal("bare wildcard")
		}
	})
}
