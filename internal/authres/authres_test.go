package authres

import (
	"strings"
	"testing"
)

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		r    Result
		want string
	}{
		{Result{Method: "spf", Value: "none"}, "spf=none"},
		{Result{Method: "spf", Value: "pass", Properties: []Property{{"smtp.mailfrom", "example.org"}, {"smtp.helo", ""}}}, "spf=pass smtp.mailfrom=example.org"},
		{
			Result{Method: "dkim", Value: "fail", Comment: `body (hash) did\not verify`, Reason: `a "reason"`, Properties: []Property{{"header.i", "@example.org"}, {"header.b", "ab/c=="}}},
			`dkim=fail (body \(hash\) did\\not verify) reason="a \"reason\"" header.i=@example.org header.b="ab/c=="`,
		},
		{Result{Method: "auth", Value: "pass", Properties: []Property{{"smtp.auth", "a b;c=d\r\nX: y"}}}, `auth=pass smtp.auth="a b;c=d??X: y"`},
		{Result{Method: "dkim", Value: "pass", Properties: []Property{{"header.d", "\xff\u202e.\u00e4.example"}}}, "dkim=pass header.d=??.\u00e4.example"},
	} {
		if got := c.r.String(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	long := Result{Method: "dkim", Value: "pass", Properties: []Property{{"header.d", strings.Repeat("a", 1<<20)}}}.String()
	if len(long) > 2*maxValue {
		t.Errorf("%d octets", len(long))
	}
	if got := Format("mx.example.org", []string{"spf=pass", "dkim=none"}); got != "mx.example.org;\r\n\tspf=pass;\r\n\tdkim=none" {
		t.Errorf("%q", got)
	}
	if got := Format("mx.example.org", nil); got != "" {
		t.Errorf("%q", got)
	}
}

// The examples of RFC 8601 appendix B, and fields as a forger would write them.
func TestServiceID(t *testing.T) {
	for value, want := range map[string]string{
		"example.org 1; none":                                       "example.org",
		"example.com; spf=pass smtp.mailfrom=example.net":           "example.com",
		"foo.example.net (foobar) 1 (baz);\r\n dkim (x) / 1 = fail": "foo.example.net",
		" (we) MX.Example.ORG. ;auth=pass":                          "mx.example.org",
		`"mx.\example.org"; spf=pass`:                               "mx.example.org",
		"mx.example.org":                                            "mx.example.org",
		"mx.example.org(a (b) c\\)) ; x":                            "mx.example.org",
		"m\xc3\xbcller.example; x":                                  "xn--mller-kva.example",
	} {
		if got, ok := ServiceID(value); !ok || got != want {
			t.Errorf("%q: %q, %v, want %q", value, got, ok, want)
		}
	}
	for _, value := range []string{"", ";", "(", `"mx`, `"mx\`, "a b; x", "(x", "mx.example.org (", "; spf=pass", "spf=pass", "a@b; x"} {
		if got, ok := ServiceID(value); ok {
			t.Errorf("%q: %q", value, got)
		}
	}
	for value, want := range map[string]bool{
		"MX.example.org; spf=pass": true, "(x) mx.example.org 1; spf=pass": true, "mx spf=pass": true, "": true,
		"\vmx.example.org; spf=pass": true, "mx.example.org\x00; spf=pass": true, "\u00a0mx.example.org; spf=pass": true, "mx.example.org\f; x": true,
		`"mx.example.org "; spf=pass`: true, "\ufeffmx.example.org; x": true, "mx.example.org\x85; x": true,
		"other.example.org; spf=pass": false, "example.org; spf=pass": false,
	} {
		if got := IsForged(value, "mx.Example.org"); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

// Whatever a value holds, the field has one line for each result and begins with our name.
func FuzzFormat(f *testing.F) {
	f.Add("a\r\nB: c", "(\\", `"`)
	f.Fuzz(func(t *testing.T, comment, reason, v string) {
		r := Result{Method: "dkim", Value: "pass", Comment: comment, Reason: reason, Properties: []Property{{"header.d", v}}}
		text := Format("mx.example.org", []string{r.String()})
		if strings.Count(text, "\n") != 1 || strings.Count(text, "\r") != 1 {
			t.Errorf("%q", text)
		}
		if id, ok := ServiceID(text); !ok || id != "mx.example.org" {
			t.Errorf("%q: %q, %v", text, id, ok)
		}
	})
}
