package dsn

import (
	"bytes"
	"crypto/rand"
	"mime/quotedprintable"
	"strings"

	"tarishi/internal/dsn/sevenbit"
)

// part is a MIME entity: header lines, and a body in pieces.
type part struct {
	head     string // "Name: value\r\n"…, without the empty line
	body     [][]byte
	eightBit bool // the body has bytes above 127
}

// newMultipart joins parts under a boundary that occurs in none of them.
func newMultipart(subtype, params, preamble string, parts []part) part {
	boundary := newBoundary()
	for occurs(boundary, parts) {
		boundary = newBoundary()
	}
	p := part{head: "Content-Type: multipart/" + subtype + ";\r\n"}
	if params != "" {
		p.head += "\t" + params + ";\r\n"
	}
	p.head += "\tboundary=\"" + boundary + "\"\r\n"
	lead := preamble + "\r\n--" + boundary + "\r\n"
	if preamble == "" {
		lead = "--" + boundary + "\r\n"
	}
	for _, sub := range parts {
		p.body = append(append(p.body, []byte(lead+sub.head+"\r\n")), sub.body...)
		p.eightBit = p.eightBit || sub.eightBit
		lead = "\r\n--" + boundary + "\r\n"
	}
	p.body = append(p.body, []byte("\r\n--"+boundary+"--\r\n"))
	if p.eightBit {
		p.head += "Content-Transfer-Encoding: 8bit\r\n"
	}
	return p
}

// newBoundary returns one with "=_", which no quoted-printable or base64 body
// can hold (RFC 2045 section 6.7).
func newBoundary() string { return "=_" + rand.Text() }

func occurs(boundary string, parts []part) bool {
	for _, p := range parts {
		for _, b := range p.body {
			if bytes.Contains(b, []byte(boundary)) {
				return true
			}
		}
	}
	return false
}

// textPart makes a part of lines ended by CRLF, encoded if it must be.
func textPart(contentType string, body []byte) part {
	p := part{head: "Content-Type: " + contentType + "\r\n"}
	if sevenbit.IsPlain(body) {
		p.body = [][]byte{body}
		return p
	}
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	w.Write(body)
	w.Close()
	p.head += "Content-Transfer-Encoding: quoted-printable\r\n"
	p.body = [][]byte{b.Bytes()}
	return p
}

// foldAt is where header lines are folded if they can be, and hardFold where
// they are even within a word.
const (
	foldAt   = 76
	hardFold = 900
)

var manyBlanks = strings.Repeat(" ", 64)

// fold returns one header field, folded at blanks where both sides have text.
// value must have no line breaks.
func fold(name, value string) string {
	value = strings.TrimSpace(value)
	if strings.Contains(value, manyBlanks) { // could make a line of blanks only
		value = strings.Join(strings.Fields(value), " ")
	}
	var b strings.Builder
	b.Grow(len(name) + len(value) + 16)
	b.WriteString(name + ": ")
	width := len(name) + 2
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
	for i := 1; i < len(s)-1 && i <= hardFold; i++ {
		if s[i] != ' ' || s[i-1] == ' ' || s[i+1] == ' ' {
			continue
		}
		if i > room && index > 0 {
			break
		}
		index, blanks = i, 1
	}
	if index > 0 || len(s) <= hardFold {
		return index, blanks
	}
	index = hardFold
	for index > 0 && s[index]&0xc0 == 0x80 { // not within a rune
		index--
	}
	return index, 0
}
