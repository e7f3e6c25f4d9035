package ini

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tarishi/internal/ini/edit"
)

// Problem is one complaint about the configuration. An error means that what
// the line says is not in force and the default is; a warning, that it is read
// but does not do what its writer may think.
type Problem struct {
	File    string // below the instance folder: "config/smtp.ini"
	Line    int    // from 1; 0: the file as a whole
	Section string // "": none, or main
	Key     string
	Text    string
	Nearest string // the known name that was probably meant, or ""
	Warning bool
}

// String returns "config/smtp.ini:12: key lisen: unknown, did you mean listen?".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		b.WriteString(":" + strconv.Itoa(p.Line))
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	switch {
	case p.Key != "" && p.Section != "":
		b.WriteString("[" + p.Section + "] key " + p.Key + ": ")
	case p.Key != "":
		b.WriteString("key " + p.Key + ": ")
	case p.Section != "":
		b.WriteString("section [" + p.Section + "]: ")
	}
	b.WriteString(p.Text)
	if p.Nearest != "" {
		b.WriteString(", did you mean " + p.Nearest + "?")
	}
	return b.String()
}

// Problems is a list of complaints, sorted by file and line.
type Problems []Problem

// Errors returns the problems that are no warnings.
func (p Problems) Errors() Problems {
	var errs Problems
	for _, one := range p {
		if !one.Warning {
			errs = append(errs, one)
		}
	}
	return errs
}

// MaxWarnings is how many warnings about one file are logged.
const MaxWarnings = 100

// Logged returns the problems without the warnings that come after MaxWarnings about the
// same file, but for a last one that counts them: a long list may have one in each line.
func (p Problems) Logged() Problems {
	var logged Problems
	warnings, last := map[string]int{}, map[string]int{}
	for _, one := range p {
		if one.Warning {
			if warnings[one.File]++; warnings[one.File] > MaxWarnings {
				continue
			}
			last[one.File] = len(logged)
		}
		logged = append(logged, one)
	}
	for file, n := range warnings {
		if more := n - MaxWarnings + 1; more > 1 {
			logged[last[file]] = Problem{File: file, Warning: true, Text: fmt.Sprintf("%d more warnings: tarishi check reports all", more)}
		}
	}
	return logged
}

// Sort puts the problems in the order of their files and lines.
func (p Problems) Sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
}

// Nearest returns the name in known that name was probably meant to be: the
// one with the fewest letters wrong, missing, added or swapped with their
// neighbour, without regard to case. It returns "" if none is close enough: one
// error is always forgiven, and one more for every three letters.
func Nearest(name string, known []string) string {
	// A name that differs too much would be a guess, not a help.
	best, bestDistance := "", len(name)/3+2
	for _, k := range known {
		if max(len(k)-len(name), len(name)-len(k)) >= bestDistance {
			continue
		}
		if d := edit.Distance(strings.ToLower(name), strings.ToLower(k)); d < bestDistance && d < max(len(k), 2) {
			best, bestDistance = k, d
		}
	}
	return best
}
