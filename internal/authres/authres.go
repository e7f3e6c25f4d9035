// Package authres writes Authentication-Results fields and recognizes those that only a
// forger can have written (RFC 8601).
//
// A field begins with the name of the host, or of the organization, that made the checks
// (the authserv-id). Programs that read mail believe those with the name of a server that
// they trust: one that comes in with our own name is a lie.
package authres

import (
	"strings"
	"unicode/utf8"

	"tarishi/internal/mail"
)

// FieldName is the name of the field, OldName the one that a forged field gets, which is
// Haraka's.
const (
	FieldName = "Authentication-Results"
	OldName   = "Original-Authentication-Results"
)

// Result is what one check has found (RFC 8601 section 2.2). Its texts may be of anybody's
// making.
type Result struct {
	Method     string // "dkim", "spf", "dmarc", "auth", "arc"
	Value      string // "pass"
	Comment    string // for people; ""
	Reason     string // ""
	Properties []Property
}

// Property is what a result is about.
type Property struct {
	Name  string // "header.d", "smtp.mailfrom"
	Value string // "": it is left out
}

// String returns the result as it stands in a field.
func (r Result) String() string {
	// Words of ours stand as they are, those of others in quotes or cleaned.
	var b strings.Builder
	b.WriteString(r.Method + "=" + r.Value)
	if r.Comment != "" {
		b.WriteString(" (" + Comment(r.Comment) + ")")
	}
	if r.Reason != "" {
		b.WriteString(" reason=" + QuotedString(r.Reason))
	}
	for _, p := range r.Properties {
		if p.Value != "" {
			b.WriteString(" " + p.Name + "=" + Quote(p.Value))
		}
	}
	return b.String()
}

// Format returns the value of a field with results, each on a line, or "" if there are
// none.
func Format(id string, results []string) string {
	if len(results) == 0 {
		return ""
	}
	// A line each, as people and programs are used to it.
	return id + ";\r\n\t" + strings.Join(results, ";\r\n\t")
}

// maxValue is how many octets of a value are written: no name or address is longer.
const maxValue = 320

// Comment returns text for a comment (RFC 5322 section 3.2.2), without its brackets.
func Comment(text string) string { return escape(text, `()\`) }

// QuotedString returns text in quotes (RFC 5322 section 3.2.4).
func QuotedString(text string) string { return `"` + escape(text, `"\`) + `"` }

// Quote returns the value of a property: as it stands if it is a token, a domain or an
// address, else in quotes.
func Quote(s string) string {
	// Many programs do not expect quotes where none are needed.
	for i := 0; i < len(s); i++ {
		c := s[i]
		plain := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c >= utf8.RuneSelf || strings.IndexByte("!#$%&'*+-.^_`{|}~@", c) >= 0
		if !plain || i == maxValue {
			return QuotedString(s)
		}
	}
	return clean(s)
}

// escape cleans text and puts a backslash in front of some characters.
func escape(s, special string) string {
	s = clean(s)
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for _, c := range s {
		if strings.ContainsRune(special, c) {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// clean cuts text that is too long, and puts a question mark in the place of what cannot
// stand in a field.
func clean(s string) string {
	// A peer could otherwise make our field as long as it likes.
	if len(s) > maxValue {
		s = s[:maxValue]
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == utf8.RuneError || mail.IsHidden(c) {
			return '?'
		}
		return c
	}, s)
}

// ServiceID returns the authserv-id of a field's value in lower case; ok is false if there
// is none that could be read.
func ServiceID(value string) (id string, ok bool) {
	// Blanks and comments may stand everywhere, and forgers use that.
	rest, ok := skipComments(value)
	if !ok || rest == "" {
		return "", false
	}
	// The name is a token or in quotes: both spellings are the same name.
	if rest[0] == '"' {
		id, rest, ok = cutQuoted(rest)
		if !ok {
			return "", false
		}
	} else {
		end := strings.IndexAny(rest, " \t\r\n;(")
		if end < 0 {
			end = len(rest)
		}
		id, rest = rest[:end], rest[end:]
		if strings.ContainsAny(id, `=<>@,:"/\[]?)`) { // no token (RFC 2045 section 5.1)
			return "", false
		}
	}

	// Programs that read the name of a server drop characters that cannot be seen, or what stands
	// behind them.
	if strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c == utf8.RuneError || mail.IsHidden(c) }) {
		return "", false
	}

	// A version may follow, then the results.
	rest, ok = skipComments(rest)
	rest = strings.TrimLeft(rest, "0123456789")
	if ok {
		rest, ok = skipComments(rest)
	}
	if !ok || id == "" || rest != "" && rest[0] != ';' {
		return "", false
	}
	return mail.CanonicalDomain(id), true
}

// skipComments drops blanks and comments at the beginning of s.
func skipComments(s string) (rest string, ok bool) {
	// Comments nest, and have their own escapes.
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			i++
		case depth == 0 && strings.IndexByte(" \t\r\n", c) < 0:
			return s[i:], true
		}
	}
	return "", depth == 0
}

// cutQuoted reads a quoted string.
func cutQuoted(s string) (text, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		case '"':
			return b.String(), s[i+1:], true
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// IsForged reports whether a field that has come from outside claims to be ours: with
// our name, or with none that could be read, which others may read as ours.
func IsForged(value, own string) bool {
	// What we cannot read somebody else may read as our name.
	id, ok := ServiceID(value)
	return !ok || id == mail.CanonicalDomain(own)
}
