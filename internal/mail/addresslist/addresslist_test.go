package addresslist

import (
	"errors"
	"strings"
	"testing"

	"tarishi/internal/mail"
)

func TestParse(t *testing.T) {
	for value, want := range map[string]string{
		"":              "",
		"a@example.org": "a@example.org",
		"Ann <a@example.org>, bob@example.net (Bob)":         "a@example.org bob@example.net",
		"Doe, John <john@example.org>":                       "john@example.org",
		`"Doe, <x@y.example> \" John" <john@example.org>`:    "john@example.org",
		"evil@example.net <john@example.org>":                "john@example.org",
		"<a@x.example> <b@y.example>":                        "a@x.example b@y.example",
		"a@x.example b@y.example":                            "a@x.example b@y.example",
		"Joe a@x.example":                                    "a@x.example",
		"joe @ example . org":                                "joe@example.org",
		`"a b"@example.org`:                                  `"a b"@example.org`,
		`"a@b"@example.org`:                                  `"a@b"@example.org`,
		"Friends: a@x.example, <b@y.example>; c@z.example":   "a@x.example b@y.example c@z.example",
		"undisclosed recipients:;":                           "",
		"nobody":                                             "",
		"<>":                                                 "",
		"=?utf-8?q?=C3=84nn?= <a@example.org>":               "a@example.org",
		"a@[192.0.2.1], b@[IPv6:2001:db8::1]":                "a@[192.0.2.1] b@[IPv6:2001:db8::1]",
		"(a (nested \\) comment) <x@y.example>) a@b.example": "a@b.example",
		"<@relay.example:a@example.org>":                     "a@example.org",
		"\xc3\x84nn <a@\xc3\xa4.example>":                    "a@\xc3\xa4.example",
	} {
		got, err := Parse(value)
		var texts []string
		for _, a := range got {
			texts = append(texts, a.String())
		}
		if err != nil || strings.Join(texts, " ") != want {
			t.Errorf("%s: %q, %v, want %q", value, texts, err, want)
		}
	}
	for _, value := range []string{"a@", "<a@b", "(a", `"a`, "a@[1", "@b.example", "a@b..example", "<a>", "a@b.example.", "a@b c@", "a@\x01.example", "a\x00@b.example"} {
		if got, err := Parse(value); !errors.Is(err, mail.ErrAddress) {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"Ann <a@example.org>, b@c (x)", `"\"" <"a@b"@c>;:,`, "a @ b . c d@e", "[<(\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		list, err := Parse(value)
		if err != nil && len(list) > 0 {
			t.Error("addresses with an error")
		}
		for _, a := range list {
			if a.Domain == "" && !strings.EqualFold(a.Local, "postmaster") {
				t.Errorf("%q in %q", a, value)
			}
		}
	})
}
