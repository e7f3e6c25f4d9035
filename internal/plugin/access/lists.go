package access

import (
	"regexp"
	"slices"
	"strings"

	"tarishi/internal/hostname"
	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/mail"
	"tarishi/internal/pattern"
)

// lists are those of one hook.
type lists struct{ White, Black list }

// list is one list and its companion with regular expressions.
type list struct {
	exact    map[string]bool // lower case
	patterns []*regexp.Regexp
	file     string

	lines, expressions []string // as they are written
}

// find returns the file in which one of several names, or a pattern that matches one,
// stands; "": none does. Each name is looked for in both before the next.
func (l *list) find(names ...string) string {
	// An address without a name in the DNS has one thing to look for.
	for _, name := range names {
		if name == "" {
			continue
		}
		if l.exact[strings.ToLower(name)] {
			return l.file
		}
		if slices.ContainsFunc(l.patterns, func(p *regexp.Regexp) bool { return p.MatchString(name) }) {
			return l.file + expressionEnding
		}
	}
	return ""
}

// expressionEnding is that of the files with regular expressions.
const expressionEnding = "_regex"

// tables declares both files of a list; what describes the entries.
func (l *list) tables(file, what string) []*ini.Table {
	return []*ini.Table{
		{
			File: file, Since: "0.3.0",
			Doc: what + " Entries are exact, in any case.",
			Line: func(_ *ini.Reader, text string, _ int) error {
				l.exact[strings.ToLower(text)] = true
				l.lines = append(l.lines, text)
				return nil
			},
			Lines: func() []string { return l.lines },
			Begin: func(*ini.Reader) { l.exact, l.file, l.lines = map[string]bool{}, file, nil },
		},
		{
			File: file + expressionEnding, Since: "0.3.0",
			Doc: what + ` Entries are regular expressions: the whole of it must match, in any case. Look-around and back references
				cannot be expressed.`,
			Line: func(_ *ini.Reader, text string, _ int) error {
				expression, err := pattern.Whole(text)
				if err == nil {
					l.patterns, l.expressions = append(l.patterns, expression), append(l.expressions, text)
				}
				return err
			},
			Lines: func() []string { return l.expressions },
			Begin: func(*ini.Reader) { l.patterns, l.expressions = nil, nil },
		},
	}
}

// domains is access.domains.
type domains struct {
	allow, deny map[string]bool // names, organisational domains and addresses; lower case
	lines       []string
}

const domainFile = "access.domains"

// lets reports whether one of several names is let in.
func (d *domains) lets(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return d.allow[strings.ToLower(name)] })
}

// refuses reports whether a name is refused.
func (d *domains) refuses(name string) bool { return d.deny[strings.ToLower(name)] }

// table declares access.domains.
func (d *domains) table() *ini.Table {
	return &ini.Table{
		File: domainFile, Since: "0.3.0",
		Doc: `Domains and addresses that are refused wherever they are named: as the client's name in the DNS, in HELO and EHLO, as
			sender, recipient and author. A domain stands for the whole organisation that it belongs to. With an exclamation
			mark in front, !example.com or !user@example.com, they are let in.`,
		Line:  d.line,
		Lines: func() []string { return d.lines },
		Begin: func(*ini.Reader) { d.allow, d.deny, d.lines = map[string]bool{}, map[string]bool{}, nil },
	}
}

// line reads one line of access.domains.
func (d *domains) line(r *ini.Reader, text string, no int) error {
	d.lines = append(d.lines, text)
	// An entry that lets in may be any name, however deep, or an address.
	if name, let := strings.CutPrefix(text, "!"); let {
		d.allow[strings.ToLower(name)] = true
		return nil
	}
	if strings.Contains(text, "@") {
		d.deny[strings.ToLower(text)] = true
		return nil
	}

	// Lookups use the organisational domain.
	p := ini.Problem{File: ini.Place(domainFile), Line: no, Warning: true}
	organisation := hostname.Organisation(text)
	switch {
	case organisation == "":
		p.Text = grammar.Quote(text) + " is below no registered domain: it matches nothing"
		r.Add(p)
		return nil
	case organisation != mail.CanonicalDomain(text):
		p.Text = grammar.Quote(text) + " stands for all of " + organisation
		r.Add(p)
	}
	d.deny[organisation] = true
	return nil
}
