package filter

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/mail"
)

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"abc", "abc", true},
		{"abc", "abcd", false},
		{"", "", true},
		{"*", "", true},
		{"*", "abc", true},
		{"**", "", true},
		{"a*", "a", true},
		{"a*", "ba", false},
		{"*c", "abc", true},
		{"*c", "abcd", false},
		{"a*c", "abc", true},
		{"a*c", "ac", true},
		{"a*a", "a", false}, // one a is not both
		{"a*b*c", "axbxc", true},
		{"a*b*c", "axcxc", false},
		{"*b*b*", "abab", true},
		{"*b*b*", "ab", false},
		{"ab*ba", "aba", false},
	} {
		if got := parsePattern(c.pattern).match(c.text); got != c.want {
			t.Errorf("%s, %s: %v", c.pattern, c.text, got)
		}
	}
}

// FuzzPattern: a pattern matches what is made of it by putting text for its stars.
func FuzzPattern(f *testing.F) {
	f.Add("a*b*c", "x", "y")
	f.Add("**", "", "*")
	f.Fuzz(func(t *testing.T, pattern, one, other string) {
		first, rest, ok := strings.Cut(pattern, "*")
		text := first
		if ok {
			text += one + strings.ReplaceAll(rest, "*", other)
		}
		if !parsePattern(pattern).match(text) {
			t.Errorf("%q does not match %q", pattern, text)
		}
	})
}

func TestAge(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0s": 0, "90s": 90 * time.Second, "5m": 5 * time.Minute, "12h": 12 * time.Hour, "3d": 72 * time.Hour, "2w": 14 * 24 * time.Hour,
		"5": -1, "h": -1, "-1h": -1, "1.5h": -1, "1y": -1, "99999999w": -1, "1 h": -1, "9223372036854775808s": -1,
	} {
		got, err := parseAge(in)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%s: %v, want %v", in, got, want)
		}
	}
}

func TestDomain(t *testing.T) {
	for _, c := range []struct {
		pattern, host string
		want          bool
	}{
		{"x.test", "x.test", true},
		{"X.Test.", "x.test", true},
		{"*.x.test", "a.b.x.test", true},
		{"*.x.test", "x.test", false},
		{"*x.test", "x.test", true},
		{"MAIL*.Test", "mail7.test", true},
		{"*.bücher.test", "a.xn--bcher-kva.test", true},
		{"[127.0.0.1]", "[127.0.0.1]", true},
	} {
		match, err := parseDomain(c.pattern)
		if err != nil || match(c.host) != c.want {
			t.Errorf("%s, %s: %v", c.pattern, c.host, err)
		}
	}
	for _, s := range []string{"", "@", "a b", "..", "a@b.test", "*@b.test", "a..b", ".*", "*..x"} {
		if _, err := parseDomain(s); err == nil {
			t.Errorf("%q is taken for a domain", s)
		}
	}
}

// TestAddress: patterns of addresses; the null sender is matched by <> and by *
// alone.
func TestAddress(t *testing.T) {
	address := func(s string) mail.Address {
		a, err := mail.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct {
		pattern, address string
		want             bool
	}{
		{"a@x.test", "A@X.test", true},
		{"<a@x.test>", "a@x.test", true},
		{"@x.test", "b@x.test", true},
		{"@*.test", "b@x.test", true},
		{"*@x.test", "b@x.test", true},
		{"<News-*@*.Test>", "NEWS-7@x.test", true},
		{"a*@x.test", "b@x.test", false},
		{"*@*", "<>", false},
		{"@*", "<>", false},
		{"*", "<>", true},
		{"*", "a@x.test", true},
		{"<>", "<>", true},
		{"<>", "a@x.test", false},
		{`"a b"@x.test`, `"a b"@x.test`, true},
		{"postmaster", "Postmaster", true},
	} {
		match, err := parseAddress(c.pattern)
		if err != nil || match(address(c.address)) != c.want {
			t.Errorf("%s, %s: %v", c.pattern, c.address, err)
		}
	}
	for _, s := range []string{"nobody", "@", "*nobody", "a b", "@a b", "a*@"} {
		if _, err := parseAddress(s); err == nil {
			t.Errorf("%q is taken for an address", s)
		}
	}
}

// FuzzNew: conditions of any form are refused or can be matched.
func FuzzNew(f *testing.F) {
	for _, q := range []string{
		"sender=*@x.test&older=1h", "domain=*.b%C3%BCcher.test", "reason=(a|b)*%5b", "state=held&attempts=3", "site=mx*,&recipient=<a@b>", "id=A.1&limit=3", "newer=2w",
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		op := control.Operation{Parameters: Parameters()}
		a := control.Arguments(q)
		if op.Check(a, "") != nil {
			return
		}
		filter, err := New(a, View{Now: time.Unix(1e9, 0)})
		if err != nil {
			if !errors.Is(err, control.ErrInvalid) {
				t.Error(err)
			}
			return
		}
		filter.Match(&mail.Pending{ID: "A.1", From: mail.Address{Local: "a", Domain: "x.test"}, Recipients: []mail.PendingRecipient{{Address: mail.Address{Local: "b", Domain: "y.test"}, Last: "451 x"}}})
	})
}

// TestLimitAndIDs: which of several IDs a limit would mean is nobody's guess.
func TestLimitAndIDs(t *testing.T) {
	if _, err := New(control.Arguments{"id": {"A.1"}, "limit": {"1"}}, View{}); !errors.Is(err, control.ErrInvalid) {
		t.Error(err)
	}
}
