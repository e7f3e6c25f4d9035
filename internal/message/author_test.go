package message

import (
	"strings"
	"testing"
)

// What is a list of addresses is one here where it is one for @haraka/email-address
// 3.1.6, which is given in words where the two differ.
func TestAuthors(t *testing.T) {
	const unreadable = "unreadable"
	for value, want := range map[string]string{
		"a@b.c": "a@b.c", `"X" <a@b.c>`: "a@b.c", "a@b.c <a@b.c>": "a@b.c", "X Y <a@b.c>, z@d.e": "a@b.c z@d.e",
		"x@y.z <a@b.c>, u@v.w <d@e.f>": "a@b.c d@e.f", "X": unreadable, "": unreadable, "<>": unreadable, "undisclosed:;": "",
		"G: a@b.c, d@e.f;": "a@b.c d@e.f", // there: the group is one address without a host
		"X <a@b>":          "a@b", "X. Y <a@b.c>": "a@b.c", "=?utf-8?q?J=C3=B6?= <a@b.c>": "a@b.c", "=?koi8-r?B?9A==?= <a@b.c>": "a@b.c",
		"Jö <a@b.c>": "a@b.c", "a@b.c (c)": "a@b.c", "<a@b.c": unreadable, "a@b.c>": unreadable, `"a@b.c`: unreadable,
		"X <a@b.c> junk": unreadable, "pay,pal <a@b.c>": unreadable, "a b@c.d": unreadable, "X <a@[192.0.2.1]>": "a@[192.0.2.1]",
		"a@b.c;d@e.f": unreadable, "X <a..b@c.d>": unreadable, "X [y] <a@b.c>": unreadable, `<"a b"@c.d>`: `"a b"@c.d`,
		"X<a@b.c>": "a@b.c", "MAILER-DAEMON": unreadable, "a@exämple.com": "a@exämple.com",
	} {
		list, err := Authors(value)
		var texts []string
		for _, a := range list {
			texts = append(texts, a.String())
		}
		got := strings.Join(texts, " ")
		if err != nil {
			got = unreadable
		}
		if got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func FuzzAuthors(f *testing.F) {
	for _, s := range []string{`"X" <a@b.c>`, "a@b.c <a@b.c>, d@e.f", "=?utf-8?q?=?= <a@b.c>", "G: a@b.c;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		list, err := Authors(value)
		if err != nil && len(list) > 0 {
			t.Error("addresses beside an error")
		}
		DecodeWords(value)
	})
}
