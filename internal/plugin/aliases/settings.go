package aliases

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/mail"
)

// Settings is aliases.json, or aliases where there is none.
type Settings struct {
	Entries map[string]Entry // by key, domains in the form of mail.CanonicalDomain

	lines, older []string // the files as they are written
}

// Entry is what an alias stands for.
type Entry struct {
	Drop bool
	To   []mail.Address // without a domain: in that of the recipient
}

const (
	file      = "aliases.json"
	olderFile = "aliases"
)

// mostTargets is how many addresses one alias may stand for: a client can have a message
// sent to so many for each recipient that it names.
const mostTargets = 100

// The actions, with Haraka's words.
const (
	actionDrop  = "drop"
	actionAlias = "alias"
)

// Tables declares the files.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{
		{
			File: file, Since: "0.3.0",
			Doc: `Recipients that stand for others, as JSON: {"sales@example.com": {"action": "alias", "to": ["a@example.com", "b"]}, "@example.net":
				{"action": "drop"}}. A key is an address, a user at any domain, @domain, or * for all others.`,
			Template: &s.lines,
		},
		{
			File: olderFile, Since: "0.3.0",
			Doc:      "The same, read where there is no aliases.json.",
			Template: &s.older,
			Begin:    func(*ini.Reader) { s.Entries = map[string]Entry{} },
			Finish:   s.read,
		},
	}
}

// read reads the file that counts.
func (s *Settings) read(r *ini.Reader) {
	name, lines := file, s.lines
	if len(lines) == 0 {
		name, lines = olderFile, s.older
	}
	if len(lines) == 0 {
		return
	}
	text := strings.Join(lines, "\n")
	p := &parser{Reader: r, file: name, text: text, dec: json.NewDecoder(strings.NewReader(text)), entries: s.Entries}

	// An entry with a fault costs the start, so all of them are shown at once; behind a fault
	// in the grammar nothing can be read.
	if err := p.parse(); err != nil {
		p.report(p.lineAt(err), "", err.Error())
	}
}

// parser reads one file.
type parser struct {
	*ini.Reader
	file, text string
	dec        *json.Decoder
	entries    map[string]Entry
}

// report adds an error.
func (p *parser) report(line int, key, text string) {
	p.Add(ini.Problem{File: ini.Place(p.file), Line: line, Key: key, Text: text})
}

// line is where the parser stands.
func (p *parser) line() int { return 1 + strings.Count(p.text[:p.dec.InputOffset()], "\n") }

// lineAt is where an error was found.
func (p *parser) lineAt(err error) int {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && syntax.Offset > 0 {
		return 1 + strings.Count(p.text[:min(int(syntax.Offset)-1, len(p.text))], "\n")
	}
	return p.line()
}

var errForm = errors.New(`is not of the form {"user@example.com": {"action": "alias", "to": "other@example.com"}}`)

// parse reads the whole file. The error is one of its grammar.
func (p *parser) parse() error {
	if t, err := p.dec.Token(); err != nil {
		return fmt.Errorf("%w: %w", errForm, err)
	} else if t != json.Delim('{') {
		return errForm
	}
	for p.dec.More() {
		t, err := p.dec.Token()
		if err != nil {
			return fmt.Errorf("%w: %w", errForm, err)
		}
		key, line := t.(string), p.line()
		var fields map[string]json.RawMessage
		var mistyped *json.UnmarshalTypeError
		switch err := p.dec.Decode(&fields); {
		case errors.As(err, &mistyped), err == nil && fields == nil:
			p.report(line, key, `is not of the form {"action": "alias", "to": "other@example.com"}`)
		case err != nil:
			return fmt.Errorf("%w: %w", errForm, err)
		default:
			p.add(key, line, fields)
		}
	}
	if _, err := p.dec.Token(); err != nil { // the closing brace
		return fmt.Errorf("%w: %w", errForm, err)
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more follows behind it", errForm)
	}
	return nil
}

// add adds an entry.
func (p *parser) add(key string, line int, fields map[string]json.RawMessage) {
	for _, name := range ini.SortedKeys(fields) {
		if name != "action" && name != "to" {
			p.Add(ini.Problem{
				File: ini.Place(p.file), Line: line, Key: key, Text: grammar.Quote(name) + " has no effect", Warning: true,
				Nearest: ini.Nearest(name, []string{"action", "to"}),
			})
		}
	}
	known, err := canonicalKey(key)
	var e Entry
	if err == nil {
		e, err = parseEntry(fields)
	}
	if err != nil {
		p.report(line, key, err.Error())
		return
	}

	// Haraka takes the last one too, without a word.
	if _, again := p.entries[known]; again {
		p.Add(ini.Problem{File: ini.Place(p.file), Line: line, Key: key, Text: "stands there before, this one counts", Warning: true})
	}
	p.entries[known] = e
}

// canonicalKey returns a key in the form in which recipients are looked for.
func canonicalKey(key string) (string, error) {
	local, domain, hasDomain := cutLast(key)
	if key == "*" {
		return key, nil
	}
	example := mail.Address{Local: local, Domain: domain}
	if local == "" {
		example.Local = "user"
	}
	if !hasDomain {
		example.Domain = "example.com"
	}
	if _, err := mail.ParseAddress(example.String()); err != nil || key == "" {
		return "", errors.New("is no address, user, @domain or *")
	}
	if !hasDomain {
		return key, nil
	}
	return local + "@" + mail.CanonicalDomain(domain), nil
}

// cutLast splits an address at its last @.
func cutLast(s string) (local, domain string, found bool) {
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		return s[:at], s[at+1:], true
	}
	return s, "", false
}

// parseEntry reads the value of a key.
func parseEntry(fields map[string]json.RawMessage) (Entry, error) {
	var action string
	if raw, ok := fields["action"]; !ok || json.Unmarshal(raw, &action) != nil {
		return Entry{}, errors.New("has no action: want alias or drop")
	}
	switch strings.ToLower(action) {
	case actionDrop:
		return Entry{Drop: true}, nil
	case actionAlias:
	default:
		return Entry{}, fmt.Errorf("the action %s is neither alias nor drop", grammar.Quote(action))
	}

	// One address may stand without brackets.
	var one string
	var all []string
	raw := fields["to"]
	if json.Unmarshal(raw, &one) == nil {
		all = []string{one}
	} else if json.Unmarshal(raw, &all) != nil {
		all = nil
	}
	switch {
	case len(all) == 0:
		return Entry{}, errors.New(`has no "to": want an address, or several in square brackets`)
	case len(all) > mostTargets:
		return Entry{}, fmt.Errorf("stands for %d addresses, more than %d", len(all), mostTargets)
	}
	var e Entry
	for _, text := range all {
		_, _, hasDomain := cutLast(text)
		whole := text
		if !hasDomain {
			whole += "@example.com"
		}
		to, err := mail.ParseAddress(whole)
		if err != nil || to.IsNull() {
			return Entry{}, fmt.Errorf(`"to": %s is no address`, grammar.Quote(text))
		}
		if !hasDomain {
			to.Domain = ""
		}
		e.To = append(e.To, to)
	}
	return e, nil
}
