package authres

import "strings"

// Parse reads the results in the value of a field, without comments and reasons. Other
// text is left out. It is for fields of hosts that are trusted.
func Parse(value string) []Result {
	var all []Result
	for i, part := range splitUnquoted(dropComments(value), ";") {
		words := splitUnquoted(part, " \t\r\n")
		if i == 0 || len(words) == 0 { // the name of the host comes first
			continue
		}
		// A result is a method and a word; what else stands there, such as "none", is not one.
		method, v, ok := strings.Cut(words[0], "=")
		method, _, _ = strings.Cut(method, "/") // a version
		if !ok || method == "" {
			continue
		}
		r := Result{Method: strings.ToLower(method), Value: strings.ToLower(unquote(v))}
		// Only properties have a dot in their names: a reason is text that anybody may have made.
		for _, word := range words[1:] {
			name, v, ok := strings.Cut(word, "=")
			if ok && strings.Contains(name, ".") {
				r.Properties = append(r.Properties, Property{Name: strings.ToLower(name), Value: unquote(v)})
			}
		}
		all = append(all, r)
	}
	return all
}

// Property returns the value of a property; "": there is none.
func (r Result) Property(name string) string {
	for _, p := range r.Properties {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// dropComments returns s with a blank in the place of each comment. One that is never
// closed takes the rest with it.
func dropComments(s string) string {
	var b strings.Builder
	// Text in comments and quotes comes from anybody: it must not be taken for a result.
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && (quoted || depth > 0):
			if depth == 0 && i+1 < len(s) {
				b.WriteString(s[i : i+2])
			}
			i++
			continue
		case c == '"' && depth == 0:
			quoted = !quoted
		case c == '(' && !quoted:
			depth++
		case c == ')' && !quoted && depth > 0:
			if depth--; depth == 0 {
				c = ' '
			}
		}
		if depth == 0 {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// splitUnquoted splits s at separators outside of quotes. Empty parts are dropped, except
// between semicolons.
func splitUnquoted(s, separators string) []string {
	var parts []string
	start, quoted := 0, false
	// One step beyond the end closes the last part.
	for i := 0; i <= len(s); i++ {
		switch {
		case i < len(s) && s[i] == '\\' && quoted:
			i++
		case i < len(s) && s[i] == '"':
			quoted = !quoted
		case i == len(s), !quoted && strings.IndexByte(separators, s[i]) >= 0:
			if part := strings.Trim(s[start:min(i, len(s))], " \t\r\n"); part != "" || separators == ";" {
				parts = append(parts, part)
			}
			start = i + 1
		}
	}
	return parts
}

// unquote returns the text of a quoted string, or s itself.
func unquote(s string) string {
	if text, rest, ok := cutQuoted(s); strings.HasPrefix(s, `"`) && ok && rest == "" {
		return text
	}
	return s
}
