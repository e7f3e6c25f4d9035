package syntax

import (
	"strings"
	"unicode/utf8"

	"tarishi/internal/mail"
)

// A reply line may hold 512 octets with code and line end (RFC 5321 section
// 4.5.3.1.5), and more lines than this help nobody.
const (
	maxReplyLine  = 480
	maxReplyLines = 20
)

// Clean makes text fit for a reply: plugins put into it what clients sent.
// Lines are separated by "\n".
func Clean(text string) string {
	if isPlain(text) {
		return text
	}
	// Every line is cut and cleaned by itself: a line end that gets through would begin
	// another reply.
	lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	if len(lines) > maxReplyLines {
		lines = lines[:maxReplyLines]
	}
	for i, line := range lines {
		line = strings.Map(func(r rune) rune {
			if r == utf8.RuneError || mail.IsHidden(r) {
				return '?'
			}
			return r
		}, strings.TrimRight(line, "\r"))
		if len(line) > maxReplyLine {
			line = strings.ToValidUTF8(line[:maxReplyLine], "")
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}

// isPlain reports whether s is graphic ASCII and blanks, and one line of a reply.
func isPlain(s string) bool {
	if len(s) > maxReplyLine {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Word makes s fit for a trace field or a name in a reply: visible ASCII
// without what structures a header field, at most 255 octets.
func Word(s string) string {
	if len(s) > 255 {
		s = s[:255]
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune(`()<>"\;,`, r) {
			return '?'
		}
		return r
	}, s)
}
