package conf

import "strings"

// listLine is one entry of a list file and where it stands.
type listLine struct {
	text string
	line int
}

// parseList returns the lines of a list file without blank lines and those
// whose first character is ; or #. Nothing else is a comment.
func parseList(data []byte) []listLine {
	var list []listLine
	for i, line := range splitLines(data) {
		line = strings.TrimFunc(line, isBlank)
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		list = append(list, listLine{line, i + 1})
	}
	return list
}

// parseData returns every line of a template as it stands.
func parseData(data []byte) []string {
	lines := splitLines(data)
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}
