// Package ini reads settings: the kinds of values with their bounds, and the tables
// in which packages declare the keys that they use. Its grammar is Haraka's, see
// package grammar.
//
// A Row declares one key: its name and the older places of it, what its value may
// be (a Kind, bound to the variable that it sets), its default and its meaning. A
// Table is the rows of one package for one file; several packages may have tables
// for the same file. Everything that concerns a key comes from its row: a Reader
// loads and checks it, Print writes it, and package manual makes of it the shipped
// file, the page of the documentation and the words for a shell's completion.
//
// Older places of a key are read where the file that replaced them says nothing.
// Durations are whole seconds, or numbers with units such as 5m, 1h30m and 10d.
//
// A wrong value is a Problem with file and line and leaves the default in force.
// The package knows no key itself, opens nothing but the files that it is given, and
// panics on a row with a default that its kind refuses. It exports more names than
// most: each kind of value is one.
package ini

import (
	"slices"
	"strings"

	"tarishi/internal/ini/grammar"
)

// Row declares one key of an ini file. Without a Kind it is one of Haraka's that
// has no effect here, for the reason in Note, or ("" Note) one that other code reads.
type Row struct {
	Section string // "": main
	Key     string
	Kind    Kind
	Default string // as one writes it in the file; "": not set
	Doc     string // its meaning, in whole sentences
	Example string // a value to show in the shipped file, commented out
	Since   string // the version that brought it; "": that of its table
	Haraka  string // its name there, if it is another; None: Haraka has no such key

	// Was names the older places of the setting, the newest first: a flat
	// file, or FILE.ini:SECTION:KEY.
	Was    []string
	Either bool   // a true in an older place counts even where the file itself says false
	Hidden bool   // neither printed nor documented: another key shows its effect
	Once   string // a second one is an error, and was probably meant to be this

	Note string
	// Stops reports whether values ask for a protection that is missing here,
	// which is an error and no notice. nil: none do.
	Stops func(values []string) bool
}

// None is the Haraka of a row that Haraka has no key for.
const None = "-"

// In is the name of the section that the row stands in.
func (r *Row) In() string {
	if r.Section == "" {
		return "main"
	}
	return r.Section
}

// Documented reports whether the row is part of what users are shown.
func (r *Row) Documented() bool { return r.Kind.active() && !r.Hidden }

// Within returns rows as those of a section.
func Within(section string, rows ...Row) []Row {
	for i := range rows {
		rows[i].Section = section
	}
	return rows
}

// Anything reports whether a key is set at all.
func Anything(values []string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return v != "" })
}

// SwitchedOn reports whether a key is set to anything but a word for false.
func SwitchedOn(values []string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return !IsFalse(v) })
}

// OtherThan reports whether a key is set to anything but one word.
func OtherThan(word string) func([]string) bool {
	return func(values []string) bool {
		return slices.ContainsFunc(values, func(v string) bool { return v != "" && !strings.EqualFold(v, word) })
	}
}

// Free is a section with free keys: the table's Finish reads them.
type Free struct {
	Section string
	Doc     string
	Example string // lines to show in the shipped file, commented out
	Secret  bool   // what stands in it is never shown
	Print   func() []string
}

// Many is what a file says of sections that are each one of many of their kind,
// such as those for domains: the table's Finish reads them with Reader.Section.
type Many struct {
	Title   string // of the part of the reference
	Doc     string
	Example string // the name of a section to show in the shipped file
	Rows    []Row  // the keys of each, bound to nothing that counts; nil: those of main
	// Sections returns those that were read, each with rows bound to it.
	Sections func() []Part
}

// Part is one of many sections, to be printed.
type Part struct {
	Name string
	Rows []Row
}

// Table is what one package reads in one file: the rows of an ini file, or a flat
// file, which has exactly one of Value, Line and Template.
type Table struct {
	File string
	Doc  string // the head of the shipped file, and of its part of the reference

	Rows                   []Row
	Free                   []Free
	Many                   *Many
	Quiet                  bool              // all keys are commented out in the shipped file
	Other                  map[string]string // words that other servers have for keys here, and what does the same
	Sections               map[string]string // what a section is for, if that is not plain
	Since, Haraka, Default string            // of a flat file, as a Row's; Since ("": the first) also of rows without
	Drop                   map[string]string // sections of Haraka's that have no effect here, and why
	Refuse                 map[string]string // sections that protect something and therefore stop the start, and why
	Hosts                  string            // why a section that is called like a host is refused; "": it is unknown
	Silent                 []string          // sections that other code reads and checks

	Value    Kind                                       // the first line
	Line     func(r *Reader, text string, no int) error // of a list, one by one
	Lines    func() []string                            // as Line would read them again
	Template *[]string                                  // all lines as they stand
	Secret   bool                                       // of a list whose Lines are Masked
	Reads    []string                                   // files beside File that Finish, or a check, looks into
	Printed  func() []Row                               // Rows as they are printed; nil: as they are
	Begin    func(*Reader)                              // before the rows are read; nil: nothing is to be done
	Finish   func(*Reader)                              // what rows cannot say; nil: nothing
}

// Declarer is what declares tables: the settings of a package, or of a plugin.
type Declarer interface{ Tables() []*Table }

// Flat reports whether the table is of a file that is no ini file.
func (t *Table) Flat() bool {
	return t.Value.active() || t.Line != nil || t.Template != nil
}

// secret reports whether the file may hold passwords.
func (t *Table) secret() bool {
	isSecret := func(r Row) bool { return r.Kind.secret }
	return t.Secret || slices.ContainsFunc(t.Rows, isSecret) || t.Many != nil && slices.ContainsFunc(t.Many.Rows, isSecret) ||
		slices.ContainsFunc(t.Free, func(f Free) bool { return f.Secret })
}

// hasSecret reports whether a secret of the table stands in f.
func (t *Table) hasSecret(f *grammar.File) bool {
	// A secret counts where it is set, in whatever section.
	rows := t.Rows
	if t.Many != nil {
		rows = slices.Concat(rows, t.Many.Rows)
	}
	return slices.ContainsFunc(f.Sections, func(s *grammar.Section) bool {
		return slices.ContainsFunc(rows, func(r Row) bool { return r.Kind.secret && s.Key(r.Key) != nil }) ||
			len(s.Keys) > 0 && slices.ContainsFunc(t.Free, func(f Free) bool { return f.Secret && f.Section == s.Name })
	})
}

// SecretFiles returns the files of tables that may hold passwords.
func SecretFiles(tables []*Table) []string {
	var files []string
	for _, t := range tables {
		if t.secret() && !slices.Contains(files, t.File) {
			files = append(files, t.File)
		}
	}
	return files
}

// setDefaults gives every variable its row's default.
func (t *Table) setDefaults() {
	if t.Default != "" {
		t.setDefault(t.File, t.Value, t.Default)
	}
	for i := range t.Rows {
		r := &t.Rows[i]
		// A row without a default leaves the variable at its zero value.
		if r.Default == "" || !r.Kind.active() {
			continue
		}
		t.setDefault(r.Key, r.Kind, r.Default)
	}
}

func (t *Table) setDefault(key string, kind Kind, value string) {
	if err := kind.Set([]string{value}); err != nil {
		panic("ini: " + t.File + ": default of " + key + ": " + err.Error())
	}
}

// file is all that the tables of one ini file say together.
type file struct {
	name         string
	rows         []Row
	free         []string
	many         *Many
	drop, refuse map[string]string
	hosts        string
}

// joinTables makes one of the tables of a file.
func joinTables(tables []*Table) *file {
	// Of what a file has once, such as its many sections, the last table wins.
	f := &file{name: tables[0].File, drop: map[string]string{}, refuse: map[string]string{}}
	for _, t := range tables {
		f.rows = append(f.rows, t.Rows...)
		f.free = append(f.free, t.Silent...)
		for _, free := range t.Free {
			f.free = append(f.free, free.Section)
		}
		for name, why := range t.Drop {
			f.drop[name] = why
		}
		for name, why := range t.Refuse {
			f.refuse[name] = why
		}
		if t.Many != nil {
			f.many = t.Many
		}
		if t.Hosts != "" {
			f.hosts = t.Hosts
		}
	}
	return f
}

// hasSection reports whether the section has rows.
func (f *file) hasSection(section string) bool {
	return section == "main" || slices.ContainsFunc(f.rows, func(r Row) bool { return r.In() == section })
}

// sections returns the names of all sections that have one.
func (f *file) sections() []string {
	// Sections that no row belongs to can be meant as well.
	names := SectionsOf(f.rows)
	names = append(names, f.free...)
	for _, sections := range []map[string]string{f.drop, f.refuse} {
		for name := range sections {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// SectionsOf returns the sections of rows, main first and then in order of
// appearance.
func SectionsOf(rows []Row) []string {
	names := []string{"main"}
	for i := range rows {
		if name := rows[i].In(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
