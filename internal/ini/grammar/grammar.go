// Package grammar reads Haraka's ini files and lists: comments only on lines of their
// own (; or #), quotes are part of the value, key[]=v appends, the last plain key
// wins, a trailing backslash continues the line, [main] is what stands above the
// first section. It knows where each value stands and what none of its files should
// hold, and nothing of what a key means.
package grammar

import (
	"bytes"
	"strings"
	"unicode"

	"gopkg.in/ini.v1"
)

// Haraka's ini grammar differs from every dialect of ini.v1, so scanLines first
// reads the file into statements (which also gives the line of each), and
// normalise writes those down again in the one form that ini.v1 cannot
// misread. ini.v1 then keeps sections, keys and repeated values.

// File is one parsed file. Section names and keys are case-sensitive; the
// keys above the first section header are those of [main].
type File struct {
	Sections []*Section // in order of appearance, main first
	Bad      []BadLine
}

// Section is what stands below all headers of one name.
type Section struct {
	Name string
	Line int // of its first header; 0: the implicit main
	Keys []*Key
}

// Key is one key of a section, with all that the file says for it.
type Key struct {
	Name   string
	Line   int
	Array  bool     // k[]=v: values may be many
	Bare   bool     // no equals sign: Values is empty
	Values []string // trimmed, quotes and all
	At     []int    // the line of each value
	Lines  []int    // of every occurrence, the overridden ones too
}

// BadLine is a line that says nothing in the grammar and was skipped.
type BadLine struct {
	Line int
	Text string // why, without the line's value
	// Source is the line itself where it is no assignment. It may hold a password.
	Source string
}

// Section returns the section of a name; one that the file lacks is empty.
func (f *File) Section(name string) *Section {
	for _, s := range f.Sections {
		if s.Name == name {
			return s
		}
	}
	return &Section{Name: name}
}

// Key returns the key of a name, nil if the section lacks it.
func (s *Section) Key(name string) *Key {
	for _, k := range s.Keys {
		if k.Name == name {
			return k
		}
	}
	return nil
}

// statement is one logical line: a section header (key == "") or a key.
type statement struct {
	section, key string
	array, bare  bool
	value        string
	line         int
	overridden   bool // a later statement for the same key replaces it
}

// scanLines splits data into logical lines and checks each against the grammar.
func scanLines(data []byte) (statements []statement, bad []BadLine) {
	section, ignored := "main", false
	pending, first := "", 0 // a continued line so far, and where it began
	for i, line := range splitLines(data) {
		no := i + 1
		trimmed := strings.TrimFunc(line, IsBlank)
		if trimmed == "" || trimmed[0] == ';' || trimmed[0] == '#' {
			continue
		}

		// Headers are recognised before lines are joined, as in Haraka: a header is never part of a
		// continued value.
		if name, ok := sectionName(trimmed); ok {
			section, ignored = name, isUnsafe(name)
			if ignored {
				bad = append(bad, BadLine{Line: no, Text: "section [" + name + "]: this name is never read"})
				continue
			}
			statements = append(statements, statement{section: name, line: no})
			continue
		}

		// Problems of a joined line name its first line, where its key stands.
		if pending == "" {
			first = no
		}
		if head, ok := strings.CutSuffix(strings.TrimRight(line, " \t"), `\`); ok {
			pending += head
			continue
		}
		line, pending = pending+line, ""

		// Keys below a section that is never read are skipped in silence: the section has been
		// reported already.
		s, why := assignment(line)
		switch {
		case why != "":
			bad = append(bad, BadLine{Line: first, Text: why, Source: line})
		case !ignored:
			s.section, s.line = section, first
			statements = append(statements, s)
		}
	}
	if pending != "" {
		bad = append(bad, BadLine{Line: first, Text: `the line ends in \ but nothing follows: skipped`})
	}
	return statements, bad
}

// splitLines cuts data at CRLF, CR and LF.
func splitLines(data []byte) []string {
	text := strings.ToValidUTF8(string(data), "\ufffd")
	return strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n")
}

// IsBlank reports whether r is white space between words.
func IsBlank(r rune) bool {
	return unicode.IsSpace(r) && r != '\u0085' || r == '\ufeff' // a byte order mark is white space too
}

func sectionName(trimmed string) (name string, ok bool) {
	if trimmed[0] != '[' || strings.IndexByte(trimmed, ']') != len(trimmed)-1 {
		return "", false
	}
	return strings.TrimFunc(trimmed[1:len(trimmed)-1], IsBlank), true
}

// assignment reads "key", "key=value" or "key[]=value".
func assignment(line string) (s statement, why string) {
	key, value, found := strings.Cut(line, "=")
	key = strings.TrimFunc(key, IsBlank)
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return !isKeyRune(r) }) {
		return s, "not a section, a key or a comment: skipped" // and not quoted: it may hold a password
	}
	s = statement{key: key, bare: !found, value: strings.TrimFunc(value, IsBlank)}

	// Two brackets make an element of a list, as in Haraka. Alone they are no name.
	if base, ok := strings.CutSuffix(key, "[]"); ok && base != "" {
		s.key, s.array = base, true
	}
	if isUnsafe(s.key) {
		return s, "key " + s.key + ": this name is never read"
	}
	return s, ""
}

func isKeyRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_@:.+-/[]", r)
}

// isUnsafe reports whether Haraka refuses a name because JavaScript objects
// have it already.
func isUnsafe(name string) bool {
	return name == "__proto__" || name == "constructor" || name == "prototype"
}

// Quote quotes the start of a text for a complaint.
func Quote(s string) string {
	if r := []rune(s); len(r) > 30 {
		s = string(r[:30]) + "…"
	}
	return `"` + strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s) + `"`
}

// markOverridden marks the statements that a later one for the same key replaces: a
// plain key replaces all before it, an array element only plain ones.
func markOverridden(statements []statement) {
	type name struct{ section, key string }
	live := map[name][]int{}
	for i, s := range statements {
		if s.key == "" {
			continue
		}
		n := name{s.section, s.key}

		// Overridden statements stay in the list. A repeated key is reported with all of its lines.
		if before := live[n]; len(before) > 0 && (!s.array || !statements[before[0]].array) {
			for _, j := range before {
				statements[j].overridden = true
			}
			live[n] = before[:0]
		}
		live[n] = append(live[n], i)
	}
}

// The marks in front of every name and value that normalise writes: they keep
// ini.v1 from seeing an empty section, its own DEFAULT section, its automatic
// keys ("-") or an empty value, which it treats specially.
const (
	nameMark  = "/"
	valueMark = "="
	bareMark  = "!"
)

// normalise writes statements as ini.v1 text. Values stand between backquotes,
// where ini.v1 takes every byte up to the last backquote of the line.
func normalise(statements []statement) []byte {
	var b bytes.Buffer
	section := ""
	for i, s := range statements {
		if i == 0 || s.section != section || s.key == "" {
			section = s.section
			b.WriteString("[" + nameMark + section + "]\n")
		}
		if s.key == "" || s.overridden {
			continue
		}

		// The mark also tells a bare key from an empty value, which ini.v1 would make the same.
		mark := valueMark
		if s.bare {
			mark = bareMark
		}
		b.WriteString(nameMark + s.key + "=`" + mark + s.value + "`\n")
	}
	return b.Bytes()
}

// Parse reads a file. It never fails: lines outside the grammar are in Bad.
func Parse(data []byte) *File {
	statements, bad := scanLines(data)
	markOverridden(statements)
	f := &File{Bad: bad, Sections: []*Section{{Name: "main"}}}
	parsed, err := ini.LoadSources(ini.LoadOptions{
		IgnoreInlineComment:        true,
		IgnoreContinuation:         true,
		PreserveSurroundedQuote:    true,
		AllowShadows:               true,
		AllowDuplicateShadowValues: true,
		KeyValueDelimiters:         "=",
		ChildSectionDelimiter:      "\x00", // no inheritance by dotted names
	}, normalise(statements))
	if err != nil {
		f.Bad = append(f.Bad, BadLine{Text: err.Error()})
		return f
	}

	// ini.v1 knows no line numbers: they come from the statements.
	at := map[place][]statement{}
	for _, s := range statements {
		n := place{s.section, s.key}
		at[n] = append(at[n], s)
	}
	for _, sec := range parsed.Sections() {
		name, ok := strings.CutPrefix(sec.Name(), nameMark)
		if !ok {
			continue // ini.v1's own DEFAULT
		}
		s := f.Sections[0]
		if name != "main" {
			s = &Section{Name: name, Line: at[place{section: name}][0].line}
			f.Sections = append(f.Sections, s)
		}
		for _, k := range sec.Keys() {
			key := strings.TrimPrefix(k.Name(), nameMark)
			s.Keys = append(s.Keys, newKey(key, at[place{name, key}], k.ValueWithShadows()))
		}
	}
	return f
}

// place names a key of a file; without a key, its section.
type place struct{ section, key string }

// newKey joins the statements for one key and the values that ini.v1 kept of them.
func newKey(name string, statements []statement, values []string) *Key {
	key := &Key{Name: name}
	for _, st := range statements {
		key.Lines = append(key.Lines, st.line)
		if st.overridden {
			continue
		}
		if key.Line == 0 {
			key.Line, key.Array = st.line, st.array
		}
		if !st.bare {
			key.At = append(key.At, st.line)
		}
	}

	// ini.v1 has kept the values that count. Only our marks have to come off.
	for _, v := range values {
		if v == bareMark {
			key.Bare = !key.Array // an element without a value is none
			continue
		}
		key.Values = append(key.Values, strings.TrimPrefix(v, valueMark))
	}
	return key
}
