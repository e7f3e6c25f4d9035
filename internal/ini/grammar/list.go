package grammar

import "strings"

// Line is one entry of a list file and where it stands.
type Line struct {
	Text string
	No   int // from 1
}

// ParseList returns the lines of a list file without blank lines and those
// that begin with ; or #. Nothing else is a comment.
func ParseList(data []byte) []Line {
	var list []Line
	for i, line := range splitLines(data) {
		line = strings.TrimFunc(line, IsBlank)
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		list = append(list, Line{Text: line, No: i + 1})
	}
	return list
}

// ParseText returns every line of a template as it stands.
func ParseText(data []byte) []string {
	lines := splitLines(data)
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}
