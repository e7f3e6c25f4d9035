package conf

import (
	"bytes"
	"strings"
	"unicode"

	"gopkg.in/ini.v1"
)

// Haraka's ini grammar differs from every dialect of ini.v1, so scan first
// reads the file into statements (which also gives the line of each), and
// normalise writes those down again in the one form that ini.v1 cannot
// misread. ini.v1 then keeps sections, keys and repeated values.

// iniFile is one parsed file. Section names and keys are case-sensitive; the
// keys above the first section header are those of [main].
type iniFile struct {
	sections []*iniSection // in order of appearance, main first
	bad      []badLine
}

type iniSection struct {
	name string
	line int // of its first header; 0: the implicit main
	keys []*iniKey
}

type iniKey struct {
	name   string
	line   int
	array  bool     // k[]=v: values may be many
	bare   bool     // no equals sign: values is empty
	values []string // trimmed, quotes and all
	at     []int    // the line of each value
	lines  []int    // of every occurrence, the overridden ones too
}

// badLine is a line that says nothing in the grammar and was skipped.
type badLine struct {
	line int
	text string // why, without the line's value
	// source is the line itself where it is no assignment. It may hold a password.
	source string
}

func (f *iniFile) section(name string) *iniSection {
	for _, s := range f.sections {
		if s.name == name {
			return s
		}
	}
	return &iniSection{name: name}
}

func (s *iniSection) key(name string) *iniKey {
	for _, k := range s.keys {
		if k.name == name {
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

// scan splits data into logical lines and checks each against the grammar.
func scan(data []byte) (statements []statement, bad []badLine) {
	section, ignored := "main", false
	pending, first := "", 0 // a continued line so far, and where it began
	for i, line := range splitLines(data) {
		no := i + 1
		trimmed := strings.TrimFunc(line, isBlank)
		if trimmed == "" || trimmed[0] == ';' || trimmed[0] == '#' {
			continue
		}
		if name, ok := header(trimmed); ok {
			section, ignored = name, isUnsafe(name)
			if ignored {
				bad = append(bad, badLine{line: no, text: "section [" + name + "]: this name is never read"})
				continue
			}
			statements = append(statements, statement{section: name, line: no})
			continue
		}
		if pending == "" {
			first = no
		}
		if head, ok := strings.CutSuffix(strings.TrimRight(line, " \t"), `\`); ok {
			pending += head
			continue
		}
		line, pending = pending+line, ""
		s, why := assignment(line)
		switch {
		case why != "":
			bad = append(bad, badLine{first, why, line})
		case !ignored:
			s.section, s.line = section, first
			statements = append(statements, s)
		}
	}
	if pending != "" {
		bad = append(bad, badLine{line: first, text: `the line ends in \ but nothing follows: skipped`})
	}
	return statements, bad
}

// splitLines cuts data at CRLF, CR and LF.
func splitLines(data []byte) []string {
	text := strings.ToValidUTF8(string(data), "\ufffd")
	return strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n")
}

func isBlank(r rune) bool {
	return unicode.IsSpace(r) && r != '\u0085' || r == '\ufeff' // a byte order mark is white space too
}

func header(trimmed string) (name string, ok bool) {
	if trimmed[0] != '[' || strings.IndexByte(trimmed, ']') != len(trimmed)-1 {
		return "", false
	}
	return strings.TrimFunc(trimmed[1:len(trimmed)-1], isBlank), true
}

// assignment reads "key", "key=value" or "key[]=value".
func assignment(line string) (s statement, why string) {
	key, value, found := strings.Cut(line, "=")
	key = strings.TrimFunc(key, isBlank)
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return !isKeyRune(r) }) {
		return s, "not a section, a key or a comment: skipped" // and not quoted: it may hold a password
	}
	s = statement{key: key, bare: !found, value: strings.TrimFunc(value, isBlank)}
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

// excerpt quotes the start of a text for a complaint.
func excerpt(s string) string {
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

// override marks the statements that a later one for the same key replaces: a
// plain key replaces all before it, an array element only plain ones.
func override(statements []statement) {
	type name struct{ section, key string }
	live := map[name][]int{}
	for i, s := range statements {
		if s.key == "" {
			continue
		}
		n := name{s.section, s.key}
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
// keys ("-") or an empty value, all of which it treats specially.
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
		mark := valueMark
		if s.bare {
			mark = bareMark
		}
		b.WriteString(nameMark + s.key + "=`" + mark + s.value + "`\n")
	}
	return b.Bytes()
}

// parseINI reads a file. It never fails: what is outside the grammar is in bad.
func parseINI(data []byte) *iniFile {
	statements, bad := scan(data)
	override(statements)
	f := &iniFile{bad: bad, sections: []*iniSection{{name: "main"}}}
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
		f.bad = append(f.bad, badLine{text: err.Error()})
		return f
	}
	type name struct{ section, key string }
	lines := map[name][]statement{}
	for _, s := range statements {
		n := name{s.section, s.key}
		lines[n] = append(lines[n], s)
	}
	for _, sec := range parsed.Sections() {
		sectionName, ok := strings.CutPrefix(sec.Name(), nameMark)
		if !ok {
			continue // ini.v1's own DEFAULT
		}
		s := f.sections[0]
		if sectionName != "main" {
			s = &iniSection{name: sectionName, line: lines[name{section: sectionName}][0].line}
			f.sections = append(f.sections, s)
		}
		for _, k := range sec.Keys() {
			key := &iniKey{name: strings.TrimPrefix(k.Name(), nameMark)}
			for _, st := range lines[name{sectionName, key.name}] {
				key.lines = append(key.lines, st.line)
				if st.overridden {
					continue
				}
				if key.line == 0 {
					key.line, key.array = st.line, st.array
				}
				if !st.bare {
					key.at = append(key.at, st.line)
				}
			}
			for _, v := range k.ValueWithShadows() {
				if v == bareMark {
					key.bare = !key.array // an element without a value is none
					continue
				}
				key.values = append(key.values, strings.TrimPrefix(v, valueMark))
			}
			s.keys = append(s.keys, key)
		}
	}
	return f
}
