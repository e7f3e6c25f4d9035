package ini

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"tarishi/internal/ini/grammar"
)

// Reader loads tables from the files of a configuration folder, and collects what
// is wrong with them.
type Reader struct {
	// Dir is the folder's path, for names of files that stand in values. "":
	// there is no folder, and no such name is looked up.
	Dir string

	fs       fs.FS
	files    map[string]*grammar.File // parsed ones, by name
	tables   []*Table
	problems Problems
}

// NewReader returns a Reader of the files of a configuration folder.
func NewReader(files fs.FS, dir string) *Reader {
	return &Reader{Dir: dir, fs: files, files: map[string]*grammar.File{}}
}

// Place is how a file of the configuration is called in a Problem.
func Place(name string) string { return path.Join("config", name) }

// FS returns the files of the folder.
func (r *Reader) FS() fs.FS { return r.fs }

// Add adds a problem.
func (r *Reader) Add(p Problem) { r.problems = append(r.problems, p) }

// Problems returns what was added so far, sorted.
func (r *Reader) Problems() Problems {
	r.problems.Sort()
	return r.problems
}

// Tables returns the tables that were loaded.
func (r *Reader) Tables() []*Table { return r.tables }

// Read returns the bytes of a file of the folder, and whether it is there. A file
// that cannot be read, such as a link to nothing or a pipe, is an error and counts as
// missing.
func (r *Reader) Read(name string) ([]byte, bool) {
	info, err := fs.Stat(r.fs, name)
	switch {
	case err == nil && !info.IsDir() && !info.Mode().IsRegular():
		// A pipe would be waited for, and a device may never end.
		r.Add(Problem{File: Place(name), Text: "cannot be read: it is no regular file"})
		return nil, false
	case errors.Is(err, fs.ErrNotExist):
		// What was meant to be there must not count as left out.
		if _, err := fs.Lstat(r.fs, name); err == nil {
			r.Add(Problem{File: Place(name), Text: "cannot be read: it is a link to a file that does not exist"})
			return nil, false
		}
	}

	data, err := fs.ReadFile(r.fs, name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			// The path stands in front of the problem already, and need not be
			// repeated by the error.
			cause := err
			var pathError *fs.PathError
			if errors.As(err, &pathError) {
				cause = pathError.Err
			}
			r.Add(Problem{File: Place(name), Text: "cannot be read: " + cause.Error()})
		}
		return nil, false
	}
	return data, true
}

// Lines returns the lines of a list file; a missing one has none.
func (r *Reader) Lines(name string) []grammar.Line {
	data, _ := r.Read(name)
	return grammar.ParseList(data)
}

// Value sets the variable of kind from the first line of a flat file. It reports
// whether it did.
func (r *Reader) Value(name string, kind Kind) bool {
	lines := r.Lines(name)
	if len(lines) == 0 {
		return false
	}
	if err := kind.Set([]string{lines[0].Text}); err != nil {
		r.Add(Problem{File: Place(name), Line: lines[0].No, Text: err.Error()})
		return false
	}
	return true
}

// Entries lists a folder below the configuration folder; "." is that
// folder itself.
func (r *Reader) Entries(name string) []fs.DirEntry {
	entries, _ := fs.ReadDir(r.fs, name)
	return entries
}

// File returns an ini file, read once; a missing one is empty.
func (r *Reader) File(name string) *grammar.File {
	if f, ok := r.files[name]; ok {
		return f
	}
	data, _ := r.Read(name)
	f := grammar.Parse(data)
	// Every reader of the file gets the same parsed form, so that a bad line
	// is reported once.
	for _, b := range f.Bad {
		r.Add(Problem{File: Place(name), Line: b.Line, Text: cmp.Or(r.wordOf(name, b.Source), b.Text)})
	}
	r.files[name] = f
	return f
}

// Load gives every variable of the tables its default, and then what the files
// say, in the order of the tables. It is called once.
func (r *Reader) Load(tables []*Table) {
	r.tables = tables
	// Defaults come first for all: a file may depend on the values of another.
	for _, t := range tables {
		t.setDefaults()
	}
	// Tables of one file are read together: a key that one package does not
	// know may be the key of another.
	done := map[string]bool{}
	for _, t := range tables {
		if done[t.File] {
			continue
		}
		done[t.File] = true
		same := TablesOf(tables, t.File)
		for _, one := range same {
			if one.Begin != nil {
				one.Begin(r)
			}
		}
		if t.Flat() {
			r.readFlatFile(t)
		} else {
			r.applyFile(r.joinFile(same), r.File(t.File))
		}
		for _, one := range same {
			if one.Finish != nil {
				one.Finish(r)
			}
		}
	}
}

// TablesOf returns the tables of one file.
func TablesOf(tables []*Table, file string) []*Table {
	var same []*Table
	for _, t := range tables {
		if t.File == file {
			same = append(same, t)
		}
	}
	return same
}

// joinFile joins the tables of a file, and adds the places in it that are the older ones
// of keys elsewhere: those read them.
func (r *Reader) joinFile(same []*Table) *file {
	f := joinTables(same)
	// An older place in this file belongs to a row elsewhere. Without a row
	// here it would be reported as unknown.
	for _, t := range r.tables {
		for i := range t.Rows {
			for _, old := range t.Rows[i].Was {
				if name, section, key, inINI := SplitOld(old); inINI && name == f.name {
					f.rows = append(f.rows, Row{Section: section, Key: key})
				}
			}
		}
	}
	return f
}

// readFlatFile reads a file that is no ini file.
func (r *Reader) readFlatFile(t *Table) {
	if t.Template != nil {
		if data, ok := r.Read(t.File); ok && len(data) > 0 {
			*t.Template = grammar.ParseText(data)
		}
		return
	}
	if t.Value.active() {
		r.Value(t.File, t.Value)
		return
	}
	// A wrong line of a list costs that line only.
	for _, line := range r.Lines(t.File) {
		if err := t.Line(r, line.Text, line.No); err != nil {
			r.Add(Problem{File: Place(t.File), Line: line.No, Text: err.Error()})
		}
	}
}

// applyFile gives what f says to the rows of a file.
func (r *Reader) applyFile(t *file, f *grammar.File) {
	// Sections first: what stands in an unknown one is not reported again.
	for _, s := range f.Sections {
		r.checkSection(t, s)
	}

	// In the table's order, so that what a later row says wins.
	for i := range t.rows {
		row := &t.rows[i]
		if k := f.Section(row.In()).Key(row.Key); k != nil {
			r.applyKey(t.name, row, k)
		}
		r.applyOldPlaces(t.name, row)
	}
	for _, s := range f.Sections {
		if !t.hasSection(s.Name) || slices.Contains(t.free, s.Name) {
			continue
		}
		for _, k := range s.Keys {
			if !slices.ContainsFunc(t.rows, func(row Row) bool { return row.In() == s.Name && row.Key == k.Name }) {
				r.Add(r.unknownKey(t, s.Name, k))
			}
		}
	}
}

// checkSection reports a section that has no keys here.
func (r *Reader) checkSection(t *file, s *grammar.Section) {
	if slices.Contains(t.free, s.Name) || t.many != nil && !t.hasSection(s.Name) {
		return
	}
	// Sections of Haraka's are known by name, some to be dropped and some to
	// stop the start.
	note, idle := t.drop[s.Name]
	refusal, refused := t.refuse[s.Name]
	switch {
	case idle:
	case refused:
		note = refusal
	case t.hasSection(s.Name):
		return
	case t.hosts != "" && strings.Contains(s.Name, "."):
		note = t.hosts
	default:
		r.Add(Problem{
			File: Place(t.name), Line: s.Line, Section: s.Name, Text: "unknown",
			Nearest: Nearest(s.Name, t.sections()),
		})
		return
	}
	if len(s.Keys) > 0 {
		r.Add(Problem{File: Place(t.name), Line: s.Line, Section: s.Name, Text: note, Warning: idle})
	}
}

// SecretFiles returns the files in which a secret stands.
func (r *Reader) SecretFiles() []string {
	var files []string
	for _, name := range SecretFiles(r.tables) {
		if slices.ContainsFunc(TablesOf(r.tables, name), func(t *Table) bool {
			return t.Flat() && len(t.Lines()) > 0 || !t.Flat() && t.hasSecret(r.File(name))
		}) {
			files = append(files, name)
		}
	}
	return files
}

// holdsSecrets reports whether a file may hold passwords.
func (r *Reader) holdsSecrets(name string) bool {
	return slices.ContainsFunc(r.tables, func(t *Table) bool { return t.File == name && t.secret() })
}

const noKey = "a line that is no key=value: skipped"

// unknownKey is the Problem of a key that the file does not know. The name of one
// without a value may be a password.
func (r *Reader) unknownKey(t *file, section string, k *grammar.Key) Problem {
	p := Problem{File: Place(t.name), Line: k.Line, Section: Shown(section), Key: k.Name, Text: "unknown"}
	if why := r.OtherWord(t.name, k.Name); why != "" {
		p.Text = why
		return p
	}
	// A password that wraps to a line without an equals sign looks like a
	// key: it must not be shown.
	if k.Bare && r.holdsSecrets(t.name) {
		p.Key, p.Text = "", noKey
	}
	// A key in the wrong section gets that section named; only then a name
	// that is spelled like it.
	var here []string
	for i := range t.rows {
		row := &t.rows[i]
		if row.In() == section {
			here = append(here, row.Key)
		} else if row.Key == k.Name && row.Kind.active() {
			p.Text = "unknown here, it belongs to [" + row.In() + "]"
			return p
		}
	}
	p.Nearest = Nearest(k.Name, here)
	return p
}

// Shown is a section's name in a Problem: main is not named.
func Shown(section string) string {
	if section == "main" {
		return ""
	}
	return section
}

// applyKey applies k to a row, and reports a wrong value.
func (r *Reader) applyKey(file string, row *Row, k *grammar.Key) {
	p := Problem{File: Place(file), Line: k.Line, Section: Shown(row.In()), Key: k.Name}
	if !row.Kind.active() {
		if row.Note != "" {
			p.Text, p.Warning = row.Note, row.Stops == nil || !row.Stops(k.Values)
			r.Add(p)
		}
		return
	}
	// A repeated key is a slip more often than not, and for some keys certainly
	// one, such as a user where the password was meant.
	if n := len(k.Lines); !k.Array && n > 1 {
		again := p
		again.Line, again.Warning = k.Lines[n-1], true
		if row.Once != "" {
			again.Warning, again.Nearest = false, row.Once
			again.Text = fmt.Sprintf("stands on line %d already", k.Lines[n-2])
			r.Add(again)
			return
		}
		again.Text = fmt.Sprintf("stands on line %d already, this one counts", k.Lines[n-2])
		r.Add(again)
	}
	// key[]= below key= does not add to it, which is seldom meant.
	if k.Array && k.Lines[0] < k.Line {
		mixed := p
		mixed.Warning, mixed.Text = true, fmt.Sprintf("%s[] replaces line %d: write [] there too", k.Name, k.Lines[0])
		r.Add(mixed)
	}
	if p, ok := Assign(p, row.Kind, k); !ok {
		r.Add(p)
	}
}

// Assign sets the variable of kind from k. If it cannot, or something is odd, it
// returns a Problem made of p and false.
func Assign(p Problem, kind Kind, k *grammar.Key) (Problem, bool) {
	values := k.Values
	if k.Bare {
		if !kind.yesNo || kind.Set([]string{""}) != nil {
			p.Text = "has no value"
			return p, false
		}
		p.Text, p.Warning = "without a value means false: write "+k.Name+"=true or "+k.Name+"=false", true
		return p, false
	}
	// Haraka takes an empty value for a missing key.
	if !k.Array && values[0] == "" && !kind.yesNo {
		return p, true // set to nothing: the default
	}
	if err := kind.Set(values); err != nil {
		p.Text = err.Error()
		// The line of the element helps more than that of the first one.
		var element *elementError
		if errors.As(err, &element) && element.index < len(k.At) {
			p.Line = k.At[element.index]
		}
		var word *ChoiceError
		if errors.As(err, &word) {
			p.Nearest = Nearest(word.Value, word.Known)
		}
		return p, false
	}
	return p, true
}

// Section reads the keys of a section that is one of many of its kind. Those of
// the main rows are for all of them, which all names, and do not belong there.
func (r *Reader) Section(file string, s *grammar.Section, rows, main []Row, all string) {
	// Every section has rows bound to its own variables.
	for i := range rows {
		rows[i].Section = s.Name
		if k := s.Key(rows[i].Key); k != nil {
			r.applyKey(file, &rows[i], k)
		}
	}
	for _, k := range s.Keys {
		p := Problem{File: Place(file), Line: k.Line, Section: s.Name, Key: k.Name}
		known := func(row Row) bool { return row.Key == k.Name }
		switch {
		case slices.ContainsFunc(rows, known):
			continue
		case slices.ContainsFunc(main, known):
			p.Text = "belongs above the first section: it holds for all " + all
		case r.OtherWord(file, k.Name) != "":
			p.Text = r.OtherWord(file, k.Name)
		default:
			var names []string
			for i := range rows {
				names = append(names, rows[i].Key)
			}
			p.Nearest, p.Text = Nearest(k.Name, names), "unknown"
			if k.Bare && r.holdsSecrets(file) {
				p.Key, p.Text = "", noKey
			}
		}
		r.Add(p)
	}
}

// OtherWord says of a word of a file that other servers have what has its meaning
// here; "": nothing that is known.
func (r *Reader) OtherWord(file, word string) string {
	for _, t := range TablesOf(r.tables, file) {
		if here := t.Other[word]; here != "" {
			return "unknown, use " + here
		}
	}
	return ""
}

// wordOf says of a line that is no assignment what its first word should have been:
// maddy writes no equals signs. It quotes that word alone, if it is known, since the
// rest may hold a password; "": it is not known.
func (r *Reader) wordOf(file, line string) string {
	fields := strings.FieldsFunc(line, grammar.IsBlank)
	if len(fields) < 2 {
		return ""
	}
	// Only a known word is quoted, the rest of the line never.
	word := fields[0]
	if why := r.OtherWord(file, word); why != "" {
		return `"` + word + ` …": ` + why
	}
	known := func(row Row) bool { return row.Key == word && row.Kind.active() }
	if !slices.ContainsFunc(TablesOf(r.tables, file), func(t *Table) bool { return slices.ContainsFunc(t.Rows, known) }) {
		return ""
	}
	return `"` + word + ` …": there is no equals sign, write ` + word + "=…"
}
