// Package entity builds MIME entities (RFC 2045): header fields folded to a fit width,
// text parts, and multiparts with a boundary that none of their parts holds.
package entity

import (
	"bytes"
	"crypto/rand"
	"mime/quotedprintable"
	"strings"

	"tarishi/internal/dsn/sevenbit"
)

// Part is a MIME entity: header lines, and a body in pieces.
type Part struct {
	Head     string // "Name: value\r\n"…, without the empty line
	Body     [][]byte
	EightBit bool // the body has bytes above 127
}

// Multipart joins parts under a boundary that occurs in none of them. params are further
// parameters of Content-Type, or "".
func Multipart(subtype, params, preamble string, parts []Part) Part {
	// A random boundary hardly ever occurs in a part, but a sender guessing one must not be able
	// to forge a part.
	boundary := newBoundary()
	for occursIn(boundary, parts) {
		boundary = newBoundary()
	}
	p := Part{Head: "Content-Type: multipart/" + subtype + ";\r\n"}
	if params != "" {
		p.Head += "\t" + params + ";\r\n"
	}
	p.Head += "\tboundary=\"" + boundary + "\"\r\n"

	// The line end before a delimiter belongs to the delimiter (RFC 2046 section 5.1.1), so only a
	// preamble needs one for the first.
	lead := preamble + "\r\n--" + boundary + "\r\n"
	if preamble == "" {
		lead = "--" + boundary + "\r\n"
	}
	for _, sub := range parts {
		p.Body = append(append(p.Body, []byte(lead+sub.Head+"\r\n")), sub.Body...)
		p.EightBit = p.EightBit || sub.EightBit
		lead = "\r\n--" + boundary + "\r\n"
	}
	p.Body = append(p.Body, []byte("\r\n--"+boundary+"--\r\n"))

	// A multipart must declare 8bit if one of its parts does (RFC 2045 section 6.4).
	if p.EightBit {
		p.Head += "Content-Transfer-Encoding: 8bit\r\n"
	}
	return p
}

// newBoundary returns one with "=_", which no quoted-printable or base64 body
// can hold (RFC 2045 section 6.7).
func newBoundary() string { return "=_" + rand.Text() }

func occursIn(boundary string, parts []Part) bool {
	for _, p := range parts {
		for _, b := range p.Body {
			if bytes.Contains(b, []byte(boundary)) {
				return true
			}
		}
	}
	return false
}

// Text makes a part of lines ended by CRLF, encoded if it must be.
func Text(contentType string, body []byte) Part {
	p := Part{Head: "Content-Type: " + contentType + "\r\n"}
	if sevenbit.IsPlain(body) {
		p.Body = [][]byte{body}
		return p
	}

	// Quoted-printable keeps mostly ASCII text readable in the source of the message.
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	w.Write(body)
	w.Close()
	p.Head += "Content-Transfer-Encoding: quoted-printable\r\n"
	p.Body = [][]byte{b.Bytes()}
	return p
}

// foldAt is where header lines are folded if they can be, and hardFold where
// they are even within a word.
const (
	foldAt   = 76
	hardFold = 900
)

var manyBlanks = strings.Repeat(" ", 64)

// Fold returns one header field, folded at blanks where both sides have text.
// value must have no line breaks.
func Fold(name, value string) string {
	value = strings.TrimSpace(value)
	if strings.Contains(value, manyBlanks) { // could make a line of blanks only
		value = strings.Join(strings.Fields(value), " ")
	}
	var b strings.Builder
	b.Grow(len(name) + len(value) + 16)
	b.WriteString(name + ": ")
	width := len(name) + 2

	// A field is folded only where it helps: a line without a fitting blank stays long, and 998
	// octets are what RFC 5322 section 2.1.1 allows.
	for width+len(value) > foldAt {
		i, skip := foldPoint(value, foldAt-width)
		if i == 0 {
			break
		}
		b.WriteString(value[:i] + "\r\n")
		if skip == 0 {
			b.WriteByte(' ') // within a word: the blank is ours
		}
		value, width = value[i:], 0
	}
	b.WriteString(value + "\r\n")
	return b.String()
}

// foldPoint returns where to fold s: before its last single blank within room
// bytes, else before its first one, else within a word that is too long for a
// line (blanks is 0 then). An index of 0 means nowhere.
func foldPoint(s string, room int) (index, blanks int) {
	// A run of blanks is never split. Half of it would end one line or begin the next, where
	// software strips it.
	for i := 1; i < len(s)-1 && i <= hardFold; i++ {
		if s[i] != ' ' || s[i-1] == ' ' || s[i+1] == ' ' {
			continue
		}
		if i > room && index > 0 {
			break
		}
		index, blanks = i, 1
	}

	// No usable blank. A word within the hard limit is left whole.
	if index > 0 || len(s) <= hardFold {
		return index, blanks
	}
	index = hardFold
	for index > 0 && s[index]&0xc0 == 0x80 { // not within a rune
		index--
	}
	return index, 0
}
