package manual

import (
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
		fmt.Fprintf(&b, "\n## %s\n", t.File)
		same := ini.TablesOf(tables, t.File)
		for _, one := range same {
			paragraphs(&b, one.Doc)
		}
		if t.Flat() {
			form(&b, t.Default, kindWords(t), "", t.Since, t.Haraka, nil)
			continue
		}
		referenceRows(&b, same)
		for _, one := range same {
			referenceFree(&b, one)
		}
		idle(&b, same)
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

// referenceRows writes the keys of one file, section by section.
func referenceRows(b *strings.Builder, same []*ini.Table) {
	rows := rowsOf(same)
	for _, section := range ini.SectionsOf(rows) {
		head := section != "main"
		for i := range rows {
			row := &rows[i]
			if row.In() != section || !row.Documented() {
				continue
			}
			if head {
				head = false
				fmt.Fprintf(b, "\n### [%s]\n", section)
				for _, t := range same {
					paragraphs(b, t.Sections[section])
				}
			}
			reference(b, row, section)
		}
	}
}

// reference writes one key.
func reference(b *strings.Builder, r *ini.Row, section string) {
	name := r.Key
	if section != "main" {
		name = "[" + section + "] " + name
	}
	fmt.Fprintf(b, "\n#### `%s`\n", name)
	paragraphs(b, r.Doc)
	form(b, r.Default, r.Kind.Words(), r.Example, r.Since, r.Haraka, r.Was)
}

// referenceFree writes the sections with free names or keys.
func referenceFree(b *strings.Builder, t *ini.Table) {
	for _, f := range t.Free {
		fmt.Fprintf(b, "\n### [%s]\n", f.Section)
		paragraphs(b, f.Doc)
		if f.Example != "" {
			fmt.Fprintf(b, "\n```\n[%s]\n%s\n```\n", f.Section, strings.TrimSuffix(f.Example, "\n"))
		}
	}
	if t.Many == nil {
		return
	}
	fmt.Fprintf(b, "\n### %s\n", t.Many.Title)
	paragraphs(b, t.Many.Doc)
	for i := range t.Many.Rows {
		if row := &t.Many.Rows[i]; row.Documented() && row.Doc != "" {
			reference(b, row, "…")
		}
	}
}

// form writes what every key has a line for.
func form(b *strings.Builder, value, kind, example, since, haraka string, was []string) {
	parts := []string{"Kind: " + kind}
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

// idle lists the keys and sections of Haraka's that have no effect.
func idle(b *strings.Builder, same []*ini.Table) {
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

// paragraphs writes a text with its line breaks made anew.
func paragraphs(b *strings.Builder, text string) {
	if text == "" {
		return
	}
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		b.WriteString("\n" + strings.Join(wrap(paragraph, 118), "\n") + "\n")
	}
}
