package manual

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"tarishi/internal/ini"
)

// tables are what two packages declare for one file, and one for another.
func tables() []*ini.Table {
	var mode, pass string
	var wait time.Duration
	var hosts []string
	var weight int
	return []*ini.Table{
		{
			File: "a.ini", Doc: "The first file.\n\nWith a second paragraph.",
			Rows: []ini.Row{
				{Key: "mode", Kind: ini.Choice(&mode, "slow", "quick"), Default: "slow", Doc: "How fast it is.", Was: []string{"a.mode"}},
				{Section: "x", Key: "hosts", Kind: ini.Each(&hosts, "hosts", func(h string) (string, error) { return h, nil }, strings.ToLower), Example: "h.example", Doc: "Its hosts.", Haraka: ini.None, Since: "0.2.0"},
			},
		},
		{
			File: "a.ini", Since: "0.3.0", Sections: map[string]string{"x": "The second section."},
			Free: []ini.Free{{Section: "x", Doc: "And any name.", Example: "name=1"}, {Section: "y", Doc: "Names alone.", Example: "name=2"}},
			Rows: []ini.Row{
				{Key: "wait", Kind: ini.Duration(&wait, time.Second), Default: "90", Doc: "How long it waits.", Haraka: "patience"},
				{Section: "x", Key: "pass", Kind: ini.Secret(&pass), Doc: "The password."},
				{Key: "nodes", Note: "has no effect: there is one"},
			},
			Many: &ini.Many{
				Title: "Sections for hosts", Doc: "One for each host.", Example: "[host.example]",
				Rows: []ini.Row{{Key: "weight", Kind: ini.AtLeast(&weight, 1), Example: "3", Doc: "Its weight."}},
			},
		},
		{File: "list", Doc: "Some words.", Line: func(*ini.Reader, string, int) error { return nil }},
	}
}

// TestShip: the shipped file has every key, and is read without complaint.
func TestShip(t *testing.T) {
	got := string(Ship(tables(), "a.ini"))
	const want = `; The first file.
;
; With a second paragraph.

; How fast it is.
mode=slow

; How long it waits.
wait=90

; The second section.
[x]
; Its hosts.
;hosts[]=h.example

; The password.
;pass=

; And any name.
;name=1

; Names alone.
[y]
;name=2

; One for each host.
;
;[host.example]
; Its weight.
;weight=3
`
	if got != want {
		t.Errorf("%s", got)
	}
	r := ini.NewReader(fstest.MapFS{"a.ini": {Data: []byte(got)}}, "")
	r.Load(tables())
	if problems := r.Problems(); len(problems) > 0 {
		t.Error(problems)
	}
}

func TestReference(t *testing.T) {
	got := Reference(tables())
	for _, want := range []string{
		"\n## a.ini\n\nThe first file.\n\nWith a second paragraph.\n",
		"\n#### `mode`\n\nHow fast it is.\n\nKind: slow, quick · default: `slow` · since 0.1.0 · Haraka: the same name · also read from `a.mode`\n",
		"\n#### `[x] hosts`\n\nIts hosts.\n\nKind: hosts · default: none · example: `h.example` · since 0.2.0 · Haraka: none\n",
		"· default: `90` · since 0.3.0 · Haraka: `patience`\n",
		"\n### [x]\n\nThe second section.\n",
		"\n\nAnd any name.\n\n```\n[x]\nname=1\n```\n",
		"\n### [y]\n\nNames alone.\n\n```\n[y]\nname=2\n```\n",
		"\n### Sections for hosts\n\nOne for each host.\n\n#### `[…] weight`\n\nIts weight.\n\nKind: ",
		"· example: `3` · since 0.3.0 · Haraka: the same name\n",
		"| `nodes` | has no effect: there is one |\n",
		"\n## list\n\nSome words.\n\nKind: one entry on each line",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q", want)
		}
	}
	if strings.Count(got, "#### `wait`") != 1 {
		t.Errorf("%s", got)
	}
}

func TestSettings(t *testing.T) {
	var names []string
	for _, s := range Settings(tables()) {
		names = append(names, s.File+":"+s.Section+":"+s.Key)
	}
	if want := []string{"a.ini::mode", "a.ini:x:hosts", "a.ini::wait", "a.ini:x:pass", "a.ini:*:weight"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}
