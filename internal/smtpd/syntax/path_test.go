package syntax

import (
	"strings"
	"testing"
	"unicode/utf8"

	"tarishi/internal/mail"
)

func TestPaths(t *testing.T) {
	for text, want := range map[string]struct {
		local, domain string
		ok, valid     bool
	}{
		"<>":                         {"", "", true, true},
		" <a@b.test>":                {"a", "b.test", true, true},
		"a@b.test":                   {"a", "b.test", true, true},
		`<"a b"@c.test>`:             {"a b", "c.test", true, true},
		`<"\"@\\"@c.test>`:           {`"@\`, "c.test", true, true},
		`<"a@b"@c.test>`:             {"a@b", "c.test", true, true},
		"<@r.test,@s.test:a@b.test>": {"a", "b.test", true, true},
		"<a@b@c.test>":               {"a", "b@c.test", true, false},
		`<"a"@b@c.test>`:             {"a", "b@c.test", true, false},
		"<a@b..test>":                {"a", "b..test", true, false},
		"<a..b@c.test>":              {"a..b", "c.test", true, true}, // not by the grammar, but it is delivered
		"<a>":                        {}, "<a@>": {}, "<@b>": {}, "<@r:>": {}, `<"a@b>`: {}, "<a@b": {}, "a@b>": {}, "<a(b)@c>": {}, "<a@b@>": {}, `<a"b"@c>`: {}, "": {},
	} {
		p, ok := parsePath("from:"+text, "FROM:", true)
		if ok != want.ok || p.Address != (mail.Address{Local: want.local, Domain: want.domain}) || (p.Err == nil) != (want.valid || !ok) {
			t.Errorf("%q is %+v, %v", text, p, ok)
		}
	}
	if _, ok := parsePath("TO:<>", "TO:", false); ok {
		t.Error("a recipient without an address")
	}
}

// FuzzCommands: what passes is harmless, and nothing is lost between path and
// parameters.
func FuzzCommands(f *testing.F) {
	for _, s := range []string{`<"a@b"@c.d>`, `<@r:u@h> ORCPT=rfc822;a+2Bb`, `<"\"">`, `<a@b@c>`, `<"a"@b@c> X=<d@e>`, `<a@b> NOTIFY=NEVER`, `<a@b> ORCPT=utf-8;\x{E9}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		arg := "TO:" + text
		if kept, list, ok := cutPath(arg); ok && kept+list != arg {
			t.Fatalf("%q became %q and %q", arg, kept, list)
		}
		r, bad := ParseRcpt(arg, true)
		if bad != nil {
			return
		}
		for _, s := range []string{r.OriginalRecipient, r.To.Address.Path()} {
			if r.To.Err == nil && (strings.ContainsAny(s, "\r\n\x00") || !utf8.ValidString(s)) {
				t.Fatalf("%q: %q passes", arg, s)
			}
		}
	})
}
