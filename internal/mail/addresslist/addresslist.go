// Package addresslist reads fields with lists of addresses, such as From (RFC 5322 section
// 3.4), in linear time.
package addresslist

import (
	"fmt"
	"strings"

	"tarishi/internal/mail"
)

// Parse reads the value of an address field, as generously as programs that show it to people: display names may hold
// anything, groups count as their members, and what holds no address is passed over. An
// address without angle brackets counts too, and two where one should be are two. A
// malformed address, or brackets, quotes or comments that are never closed, are errors
// that wrap mail.ErrAddress.
func Parse(value string) ([]mail.Address, error) {
	l := list{text: value}
	for l.at < len(l.text) {
		if err := l.take(); err != nil {
			return nil, err
		}
	}
	if err := l.endMailbox(); err != nil {
		return nil, err
	}
	return l.found, nil
}

// list is a list while it is read.
type list struct {
	text     string
	at       int
	words    []byte // of the mailbox so far, outside of brackets, without comments
	brackets bool   // the mailbox had an address in brackets: words are its name
	found    []mail.Address
}

// take reads the next character, or the whole quoted string, comment or address that it
// opens.
func (l *list) take() error {
	switch c := l.text[l.at]; c {
	case '(':
		l.words = append(l.words, ' ')
		return l.skipComment()
	case '"', '[':
		closing := byte('"')
		if c == '[' {
			closing = ']'
		}
		part, err := l.cut(closing)
		l.words = append(l.words, part...)
		return err
	case '<':
		part, err := l.cut('>')
		if err != nil {
			return err
		}
		l.brackets = true
		return l.add(part[1 : len(part)-1])
	case ',', ';':
		l.at++
		return l.endMailbox()
	case ':': // what came was the name of a group
		l.words = l.words[:0]
	default:
		l.words = append(l.words, c)
	}
	l.at++
	return nil
}

// cut returns the text up to a closing character, with both ends. Quoted strings within
// brackets may hold that too.
func (l *list) cut(closing byte) (string, error) {
	// Quotes protect what would close an address.
	start, quoted := l.at, false
	for l.at++; l.at < len(l.text); l.at++ {
		switch c := l.text[l.at]; {
		case c == '\\':
			l.at++
		case c == '"' && closing == '>':
			quoted = !quoted
		case c == closing && !quoted:
			l.at++
			return l.text[start:l.at], nil
		}
	}
	return "", fmt.Errorf("%w: %q is never closed", mail.ErrAddress, l.text[start])
}

// skipComment reads over a comment, which may hold others.
func (l *list) skipComment() error {
	depth := 0
	for ; l.at < len(l.text); l.at++ {
		switch l.text[l.at] {
		case '\\':
			l.at++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				l.at++
				return nil
			}
		}
	}
	return fmt.Errorf("%w: a comment is never closed", mail.ErrAddress)
}

// endMailbox adds the addresses of a mailbox that has none in brackets.
func (l *list) endMailbox() error {
	// A display name in front of brackets may look like an address.
	words := string(l.words)
	l.words = l.words[:0]
	if l.brackets || !strings.Contains(words, "@") {
		l.brackets = false
		return nil
	}
	for _, word := range splitWords(words) {
		if strings.Contains(word, "@") {
			if err := l.add(word); err != nil {
				return err
			}
		}
	}
	return nil
}

// splitWords splits text at blanks, but not within quotes, nor where a blank stands
// beside a dot or an at sign (RFC 5322 section 4.4).
func splitWords(text string) []string {
	var words []string
	var word []byte
	quoted, gap := false, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		if !quoted && (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
			gap = true
			continue
		}
		glued := len(word) > 0 && (word[len(word)-1] == '.' || word[len(word)-1] == '@') || c == '.' || c == '@'
		if gap && len(word) > 0 && !glued {
			words, word = append(words, string(word)), nil
		}
		gap = false
		if c == '"' {
			quoted = !quoted
		}
		word = append(word, c)
		if c == '\\' && quoted && i+1 < len(text) {
			i++
			word = append(word, text[i])
		}
	}
	return append(words, string(word))
}

func (l *list) add(text string) error {
	a, err := mail.ParseAddress(strings.Trim(text, " \t\r\n"))
	if err == nil && !a.IsNull() {
		l.found = append(l.found, a)
	}
	return err
}
