package manual

import (
	"cmp"
	"fmt"
	"strings"

	"tarishi/internal/ini"
)

// first is the version that brought what has no other.
const first = "0.1.0"

// Reference returns the part of the documentation about the files of tables, in
// Markdown: every key in one form, with meaning, kind, default, version, and the
// name that Haraka has for it.
func Reference(tables []*ini.Table) string {
	var b strings.Builder
	done := map[string]bool{}
	for _, t := range tables {
		if done[t.File] {
			continue
		}
		done[t.File] = true

		// Several packages may read one file. Readers look for the file, so its tables share one
		// chapter.
		fmt.Fprintf(&b, "\n## %s\n", t.File)
		same := ini.TablesOf(tables, t.File)
		for _, one := range same {
			writeParagraphs(&b, one.Doc)
		}
		if t.Flat() {
			writeForm(&b, t.Default, kindWords(t), "", t.Since, t.Haraka, nil)
			continue
		}
		writeRows(&b, same)
		for _, one := range same {
			writeFree(&b, one, rowsOf(same))
		}
		writeIdle(&b, same)
	}
	return b.String()
}

// kindWords says what stands in a flat file.
func kindWords(t *ini.Table) string {
	switch {
	case t.Template != nil:
		return "a text, every line as it stands"
	case t.Line != nil:
		return "one entry on each line; a line that begins with # or ; is a comment"
	}
	return t.Value.Words() + ", in the first line"
}

// writeRows writes the keys of one file, section by section.
func writeRows(b *strings.Builder, same []*ini.Table) {
	rows := rowsOf(same)
	for _, section := range ini.SectionsOf(rows) {
		head := section != "main"
		for i := range rows {
			row := &rows[i]
			if row.In() != section || !row.Documented() {
				continue
			}

			// A heading appears only with the first key below it: sections of Haraka's without keys
			// here have none.
			if head {
				head = false
				fmt.Fprintf(b, "\n### [%s]\n", section)
				for _, t := range same {
					writeParagraphs(b, t.Sections[section])
				}
			}
			writeKey(b, row, section)
		}
		if hasKeys(rows, section) {
			for _, f := range freeKeys(same, section) {
				writeParagraphs(b, f.Doc)
				writeExample(b, f)
			}
		}
	}
}

// writeExample writes the lines that free keys may be like.
func writeExample(b *strings.Builder, f ini.Free) {
	if f.Example != "" {
		fmt.Fprintf(b, "\n```\n[%s]\n%s\n```\n", f.Section, strings.TrimSuffix(f.Example, "\n"))
	}
}

// writeKey writes one key.
func writeKey(b *strings.Builder, r *ini.Row, section string) {
	name := r.Key
	if section != "main" {
		name = "[" + section + "] " + name
	}
	fmt.Fprintf(b, "\n#### `%s`\n", name)
	writeParagraphs(b, r.Doc)
	writeForm(b, r.Default, r.Kind.Words(), r.Example, r.Since, r.Haraka, r.Was)
}

// writeFree writes the sections that have free keys alone, and those with free names. rows
// are all of the file.
func writeFree(b *strings.Builder, t *ini.Table, rows []ini.Row) {
	for _, f := range t.Free {
		if hasKeys(rows, f.Section) {
			continue
		}
		fmt.Fprintf(b, "\n### [%s]\n", f.Section)
		writeParagraphs(b, f.Doc)
		writeExample(b, f)
	}
	if t.Many == nil {
		return
	}
	fmt.Fprintf(b, "\n### %s\n", t.Many.Title)
	writeParagraphs(b, t.Many.Doc)
	for i := range t.Many.Rows {
		if row := t.Many.Rows[i]; row.Documented() && row.Doc != "" {
			row.Since = cmp.Or(row.Since, t.Since)
			writeKey(b, &row, "…")
		}
	}
}

// writeForm writes what every key has a line for.
func writeForm(b *strings.Builder, value, kind, example, since, haraka string, was []string) {
	parts := []string{"Kind: " + kind}

	// Every key shows the same facts in the same order, even where there is nothing to say, so that
	// pages can be scanned.
	if value != "" {
		parts = append(parts, "default: `"+value+"`")
	} else {
		parts = append(parts, "default: none")
	}
	if example != "" {
		parts = append(parts, "example: `"+strings.ReplaceAll(example, "|", `\|`)+"`")
	}
	if since == "" {
		since = first
	}
	parts = append(parts, "since "+since)
	switch haraka {
	case "":
		parts = append(parts, "Haraka: the same name")
	case ini.None:
		parts = append(parts, "Haraka: none")
	default:
		parts = append(parts, "Haraka: `"+haraka+"`")
	}

	// Older places are listed so that a name from an old file can be found on the page.
	var old []string
	for _, where := range was {
		if name, section, key, inINI := ini.SplitOld(where); inINI {
			where = strings.TrimPrefix("["+section+"] "+key, "[main] ") + "` of `" + name
		}
		old = append(old, "`"+where+"`")
	}
	if len(old) > 0 {
		parts = append(parts, "also read from "+strings.Join(old, ", "))
	}
	b.WriteString("\n" + strings.Join(parts, " · ") + "\n")
}

// writeIdle lists the keys and sections of Haraka's that have no effect.
func writeIdle(b *strings.Builder, same []*ini.Table) {
	var lines []string
	rows := rowsOf(same)
	for i := range rows {
		if row := &rows[i]; row.Kind.IsZero() && row.Note != "" {
			name := row.Key
			if section := ini.Shown(row.In()); section != "" {
				name = "[" + section + "] " + name
			}
			lines = append(lines, fmt.Sprintf("| `%s` | %s |", name, row.Note))
		}
	}

	// Whole sections can be without effect too, and belong in the same table.
	for _, t := range same {
		for _, sections := range []map[string]string{t.Drop, t.Refuse} {
			for _, name := range ini.SortedKeys(sections) {
				lines = append(lines, fmt.Sprintf("| `[%s]` | %s |", name, sections[name]))
			}
		}
	}
	if len(lines) > 0 {
		b.WriteString("\nHaraka's words that do nothing here; what *cannot be honoured* stops the start:\n\n| word | |\n|---|---|\n" + strings.Join(lines, "\n") + "\n")
	}
}

// writeParagraphs writes a text with its line breaks made anew.
func writeParagraphs(b *strings.Builder, text string) {
	if text == "" {
		return
	}
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		b.WriteString("\n" + strings.Join(wrapText(paragraph, 118), "\n") + "\n")
	}
}
