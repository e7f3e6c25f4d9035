package ini

import (
	"strings"

	"tarishi/internal/ini/grammar"
)

// applyOldPlaces reads the older places of a row, unless the file itself sets it. The
// first place that says something wins.
func (r *Reader) applyOldPlaces(file string, row *Row) {
	// What the newer file says wins, even if it says the default.
	set := r.File(file).Section(row.In()).Key(row.Key) != nil
	for _, where := range row.Was {
		k, p, ok := r.readOldPlace(where, row)
		if !ok {
			continue
		}
		note := p
		note.Warning = true
		target := row.Key
		if row.Section != "" {
			target = "[" + row.Section + "] " + row.Key
		}
		switch {
		case !row.Kind.active():
			note.Text, note.Warning = row.Note, row.Stops == nil || !row.Stops(k.Values)
		case set && !(row.Either && IsTrue(k.Values[0])):
			note.Text = "is not read: " + Place(file) + " sets " + target
		default:
			set = true
			note.Text = "is the old place of " + Place(file) + " " + target + ", still read"
			if p, ok := Assign(p, row.Kind, k); !ok {
				r.Add(p)
			}
		}
		r.Add(note)
	}
}

// readOldPlace returns what an older place of a row says, where that is, and whether it
// says anything.
func (r *Reader) readOldPlace(where string, row *Row) (*grammar.Key, Problem, bool) {
	name, section, key, inINI := SplitOld(where)
	p := Problem{File: Place(name)}
	if inINI {
		k := r.File(name).Section(section).Key(key)
		if k == nil {
			return nil, p, false
		}
		p.Line, p.Section, p.Key = k.Line, Shown(section), key
		return k, p, true
	}
	lines := r.Lines(name)
	if len(lines) == 0 {
		return nil, p, false
	}
	// Haraka reads one value from the first line of a flat file.
	if !row.Kind.list {
		lines = lines[:1]
	}
	k := &grammar.Key{Name: row.Key, Line: lines[0].No, Array: row.Kind.list}
	for _, line := range lines {
		k.Values, k.At = append(k.Values, line.Text), append(k.At, line.No)
	}
	p.Line = k.Line
	return k, p, true
}

// SplitOld takes an older place apart: FILE.ini:SECTION:KEY or a flat file.
func SplitOld(where string) (file, section, key string, inINI bool) {
	file, rest, inINI := strings.Cut(where, ":")
	section, key, _ = strings.Cut(rest, ":")
	if section == "" {
		section = "main"
	}
	return file, section, key, inINI
}
