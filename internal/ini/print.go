package ini

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Masked stands for a secret.
const Masked = "********"

// Print writes the values in force in the form of the files, each under a line
// "; config/NAME". Secrets are masked. Written back to files, it gives the same
// values, but for the secrets and for a text that ends in a backslash, which only
// an old flat file can hold.
func Print(w io.Writer, tables []*Table) {
	b := bufio.NewWriter(w)
	defer b.Flush()
	done := map[string]bool{}
	for _, t := range tables {
		if done[t.File] {
			continue
		}
		done[t.File] = true
		if t.Flat() {
			printFlat(b, t)
			continue
		}
		fmt.Fprintf(b, "\n; %s\n", Place(t.File))
		same := TablesOf(tables, t.File)
		// Tables of one file are printed as one file, at the place of the first.
		var rows []Row
		for _, one := range same {
			if one.Printed != nil {
				rows = append(rows, one.Printed()...)
			} else {
				rows = append(rows, one.Rows...)
			}
		}
		printRows(b, rows)
		for _, one := range same {
			printFree(b, one)
		}
	}
}

// printFlat writes a flat file, if there is anything in it.
func printFlat(b *bufio.Writer, t *Table) {
	// What reading nothing gives is left out.
	var lines []string
	switch {
	case t.Template != nil:
		lines = *t.Template
	case t.Line != nil:
		lines = t.Lines()
	default:
		lines = t.Value.Text()
	}
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "\n; %s\n", Place(t.File))
	for _, line := range lines {
		if t.Secret {
			line = Masked
		}
		fmt.Fprintln(b, line)
	}
}

// printRows writes the keys of every section, main's first and without a header.
func printRows(b *bufio.Writer, rows []Row) {
	printSection(b, "main", rows)
	for _, section := range SectionsOf(rows)[1:] {
		// A section without anything to say has no header.
		var keys strings.Builder
		printSection(&keys, section, rows)
		if keys.Len() > 0 {
			fmt.Fprintf(b, "\n[%s]\n%s", section, keys.String())
		}
	}
}

// printFree writes the sections of a table with free names or keys.
func printFree(b *bufio.Writer, t *Table) {
	for _, f := range t.Free {
		lines := f.Print()
		if len(lines) == 0 {
			continue
		}
		fmt.Fprintf(b, "\n[%s]\n", f.Section)
		for _, line := range lines {
			fmt.Fprintln(b, line)
		}
	}
	if t.Many == nil {
		return
	}
	for _, part := range t.Many.Sections() {
		fmt.Fprintf(b, "\n[%s]\n", part.Name)
		printSection(b, part.Name, Within(part.Name, part.Rows...))
	}
}

// printSection writes the keys of one section. Empty values are left out: reading
// nothing gives the same.
func printSection(w io.Writer, section string, rows []Row) {
	for i := range rows {
		row := &rows[i]
		if row.In() != section || !row.Documented() {
			continue
		}
		key := row.Key
		if row.Kind.list {
			key += "[]"
		}
		// A list has a line for each element.
		for _, value := range row.Kind.Text() {
			if value == "" {
				continue
			}
			if row.Kind.secret {
				value = Masked
			}
			fmt.Fprintln(w, key+"="+value)
		}
	}
}

// SortedKeys returns the keys of a map in order.
func SortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
