package ini

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// sample is what two packages declare, for one file and another.
type sample struct {
	Mode  string
	Wait  time.Duration
	Hosts []string
	Pass  string
	Lines []string
	Many  map[string]*int
}

func (s *sample) Tables() []*Table {
	number := func(p *int) []Row {
		return []Row{{Key: "weight", Kind: AtLeast(p, 1), Example: "3", Doc: "Its weight."}}
	}
	return []*Table{
		{
			File: "a.ini", Doc: "The first file.\n\nWith a second paragraph.",
			Rows: []Row{
				{Key: "mode", Kind: Choice(&s.Mode, "slow", "quick"), Default: "slow", Doc: "How fast it is.", Was: []string{"a.mode"}},
				{Section: "x", Key: "hosts", Kind: Each(&s.Hosts, "hosts", func(h string) (string, error) { return h, nil }, strings.ToLower), Example: "h.example", Doc: "Its hosts.", Haraka: None, Since: "0.2.0"},
			},
		},
		{
			File: "a.ini", Sections: map[string]string{"x": "The second section."},
			Rows: []Row{
				{Key: "wait", Kind: Duration(&s.Wait, time.Second), Default: "90", Doc: "How long it waits.", Haraka: "patience"},
				{Section: "x", Key: "pass", Kind: Secret(&s.Pass), Doc: "The password."},
				{Key: "nodes", Note: "has no effect: there is one"},
			},
			Many: &Many{
				Title: "Sections for hosts", Doc: "One for each host.", Example: "[host.example]", Rows: number(new(int)),
				Sections: func() []Part {
					var all []Part
					for _, name := range SortedKeys(s.Many) {
						all = append(all, Part{Name: name, Rows: number(s.Many[name])})
					}
					return all
				},
			},
			Begin: func(*Reader) { s.Many = map[string]*int{} },
			Finish: func(r *Reader) {
				for _, section := range r.File("a.ini").Sections {
					if section.Name != "main" && section.Name != "x" {
						n := new(int)
						r.Section("a.ini", section, number(n), nil, "hosts")
						s.Many[section.Name] = n
					}
				}
			},
		},
		{
			File: "list", Doc: "Some words.",
			Line:  func(_ *Reader, text string, _ int) error { s.Lines = append(s.Lines, text); return nil },
			Lines: func() []string { return s.Lines },
		},
	}
}

func read(files map[string]string) (*sample, []string, *Reader) {
	all := fstest.MapFS{}
	for name, text := range files {
		all[name] = &fstest.MapFile{Data: []byte(text)}
	}
	s := &sample{}
	r := NewReader(all, "/etc/x/config")
	r.Load(s.Tables())
	var texts []string
	for _, p := range r.Problems() {
		texts = append(texts, p.String())
	}
	return s, texts, r
}

// TestTables: packages share a file, and each gets what it declared.
func TestTables(t *testing.T) {
	s, texts, r := read(map[string]string{
		"a.ini": "wait=2m\nnodes=3\nmoed=quick\n[x]\nhosts[]=A\nhosts[]=B\npass=p\n[b.example]\nweight=7\n[c.example]\nwaight=1\n", "a.mode": "quick\n", "list": "# words\none\n\ntwo\n",
	})
	if s.Mode != "quick" || s.Wait != 2*time.Minute || !slices.Equal(s.Hosts, []string{"A", "B"}) || s.Pass != "p" || !slices.Equal(s.Lines, []string{"one", "two"}) || *s.Many["b.example"] != 7 {
		t.Errorf("%+v", s)
	}
	if want := []string{
		"config/a.ini:2: warning: key nodes: has no effect: there is one",
		"config/a.ini:3: key moed: unknown, did you mean mode?",
		"config/a.ini:11: [c.example] key waight: unknown, did you mean weight?",
		"config/a.mode:1: warning: is the old place of config/a.ini mode, still read",
	}; !slices.Equal(texts, want) {
		t.Errorf("%q", texts)
	}
	if !slices.Equal(r.SecretFiles(), []string{"a.ini"}) {
		t.Error(r.SecretFiles())
	}
	var b bytes.Buffer
	Print(&b, s.Tables())
	const want = `
; config/a.ini
mode=quick
wait=120

[x]
hosts[]=a
hosts[]=b
pass=********

[b.example]
weight=7

[c.example]
weight=0

; config/list
one
two
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
	if s, texts, r = read(nil); s.Mode != "slow" || s.Wait != 90*time.Second || len(texts)+len(r.SecretFiles()) > 0 {
		t.Errorf("%+v %q", s, texts)
	}
}

// TestWrongDefault: a default that its own kind refuses is a mistake in the program.
func TestWrongDefault(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	var n int
	NewReader(fstest.MapFS{}, "").Load([]*Table{{File: "a.ini", Rows: []Row{{Key: "n", Kind: Port(&n), Default: "0"}}}})
}
