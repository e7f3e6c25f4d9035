// Package manual makes of the tables of package ini what users read: the files that
// a new instance begins with, the reference of the settings, and the list of them.
package manual

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"tarishi/internal/ini"
)

// column is where the comments of a shipped file end.
const column = 82

// Ship returns the file with which a new instance begins: every key with its
// meaning and its default, or commented out where the default is nothing.
func Ship(tables []*ini.Table, file string) []byte {
	var b strings.Builder
	same := ini.TablesOf(tables, file)
	for _, t := range same {
		if t.Doc != "" {
			writeComment(&b, t.Doc)
			b.WriteString("\n")
		}
	}

	// Keys above the first header are those of main, so its rows come first and without one.
	rows, quiet := rowsOf(same), same[0].Quiet
	shipRows(&b, "main", rows, quiet)
	for _, section := range ini.SectionsOf(rows)[1:] {
		if !hasKeys(rows, section) {
			continue
		}

		// Sections with free names have no rows to list, but an example, commented out.
		for _, t := range same {
			writeComment(&b, t.Sections[section])
		}
		fmt.Fprintf(&b, "%s[%s]\n", commentMark(quiet), section)
		shipRows(&b, section, rows, quiet)
		for _, f := range freeKeys(same, section) {
			writeComment(&b, f.Doc)
			shipExample(&b, f)
		}
	}
	for _, t := range same {
		shipFree(&b, t, rows)
	}
	return []byte(strings.TrimRight(b.String(), "\n") + "\n")
}

// rowsOf are the rows of the tables of one file.
func rowsOf(same []*ini.Table) []ini.Row {
	var rows []ini.Row
	for _, t := range same {
		for _, row := range t.Rows {
			row.Since = cmp.Or(row.Since, t.Since)
			rows = append(rows, row)
		}
	}
	return rows
}

// commentMark is what stands before a line that is commented out.
func commentMark(out bool) string {
	if out {
		return ";"
	}
	return ""
}

// shipRows writes the keys of one section, each with a blank line behind it.
func shipRows(b *strings.Builder, section string, rows []ini.Row, quiet bool) {
	for i := range rows {
		row := &rows[i]
		if row.In() != section || !row.Documented() {
			continue
		}
		writeComment(b, row.Doc)
		key := row.Key
		if row.Kind.IsList() {
			key += "[]"
		}
		if row.Default != "" {
			fmt.Fprintf(b, "%s%s=%s\n", commentMark(quiet), row.Key, row.Default)
		}

		// An example is always commented out, and so is a key without a default: an empty value
		// would not mean "not set" for each kind.
		if row.Example != "" || row.Default == "" {
			fmt.Fprintf(b, ";%s=%s\n", key, row.Example)
		}
		b.WriteString("\n")
	}
}

// hasKeys reports whether users are shown keys of a section.
func hasKeys(rows []ini.Row, section string) bool {
	return slices.ContainsFunc(rows, func(r ini.Row) bool { return r.In() == section && r.Documented() })
}

// freeKeys are the free keys of a section, which may have others.
func freeKeys(same []*ini.Table, section string) (free []ini.Free) {
	for _, t := range same {
		for _, f := range t.Free {
			if f.Section == section {
				free = append(free, f)
			}
		}
	}
	return free
}

// shipExample writes the lines that free keys may be like.
func shipExample(b *strings.Builder, f ini.Free) {
	for line := range strings.Lines(f.Example) {
		b.WriteString(";" + strings.TrimSuffix(line, "\n") + "\n")
	}
	b.WriteString("\n")
}

// shipFree writes the sections of a table that have free keys alone, and those with free
// names. rows are all of the file.
func shipFree(b *strings.Builder, t *ini.Table, rows []ini.Row) {
	for _, f := range t.Free {
		if hasKeys(rows, f.Section) {
			continue
		}
		writeComment(b, f.Doc)
		fmt.Fprintf(b, "[%s]\n", f.Section)
		shipExample(b, f)
	}
	if t.Many == nil {
		return
	}
	writeComment(b, t.Many.Doc)
	b.WriteString(";\n")
	for line := range strings.Lines(t.Many.Example) {
		b.WriteString(";" + strings.TrimSuffix(line, "\n") + "\n")
	}
	for i := range t.Many.Rows {
		if row := &t.Many.Rows[i]; row.Documented() && row.Doc != "" {
			writeComment(b, row.Doc)
			fmt.Fprintf(b, ";%s=%s\n", row.Key, row.Example)
		}
	}
}

// writeComment writes a text as comments, its paragraphs with an empty one between. A
// line that begins with a blank stays as it is.
func writeComment(b *strings.Builder, text string) {
	if text == "" {
		return
	}
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString(";\n")
		}
		for _, line := range wrapText(paragraph, column-2) {
			b.WriteString("; " + line + "\n")
		}
	}
}

// wrapText breaks a paragraph into lines of at most width characters. Lines that begin
// with a blank are kept apart.
func wrapText(text string, width int) []string {
	var lines []string
	current := ""

	// Lines with a leading blank are examples or tables, and would be spoiled by wrapping.
	flush := func() {
		if current != "" {
			lines = append(lines, current)
		}
		current = ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, " ") {
			flush()
			lines = append(lines, strings.TrimPrefix(line, " "))
			continue
		}
		for word := range strings.FieldsSeq(line) {
			if current != "" && utf8.RuneCountInString(current)+1+utf8.RuneCountInString(word) > width {
				flush()
			}
			current = strings.TrimSpace(current + " " + word)
		}
	}
	flush()
	return lines
}

// Setting is one key that there is. A shell completes keys and values from it.
type Setting struct {
	File, Section, Key string // Section is "" for main, "*" for each of many
	Default            string
	Values             []string // if they are few
	Doc                string   // the first sentence
}

// Settings returns every key that tables declare, in their order.
func Settings(tables []*ini.Table) []Setting {
	var all []Setting
	add := func(file, section string, row *ini.Row) {
		if !row.Documented() {
			return
		}

		// Completion menus have room for one sentence.
		doc, _, _ := strings.Cut(strings.Join(strings.Fields(row.Doc), " "), ". ")
		all = append(all, Setting{
			File: file, Section: section, Key: row.Key, Default: row.Default, Values: row.Kind.Choices(), Doc: strings.TrimSuffix(doc, "."),
		})
	}
	for _, t := range tables {
		for i := range t.Rows {
			add(t.File, ini.Shown(t.Rows[i].In()), &t.Rows[i])
		}
		if t.Many != nil {
			for i := range t.Many.Rows {
				add(t.File, "*", &t.Many.Rows[i])
			}
		}
	}
	return all
}
