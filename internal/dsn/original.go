package dsn

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"unicode/utf8"

	"tarishi/internal/mail"
)

// Bounds of what is read of the original.
const (
	maxSection = 64 << 10 // header section
	maxFull    = 1 << 20  // whole message
)

// returned reads the original and makes the part that returns it: nil if there
// is none.
func (c *composer) returned() (*part, error) {
	if c.OriginalContent == nil {
		return nil, nil
	}
	size := c.OriginalContent.Size()
	full := c.Original.Return == "FULL" && c.lead == Failed && size <= maxFull && !c.Original.RequireTLS
	limit := int64(maxSection)
	if full {
		limit = maxFull
	}
	b, err := read(c.OriginalContent, min(limit, size))
	if err != nil {
		return nil, err
	}
	head := b[:min(len(b), maxSection)]
	if len(head) == maxSection { // cut: whole lines only
		head = head[:bytes.LastIndexByte(head, '\n')+1]
	}
	header, n, complete := mail.ParseHeader(head)
	c.original, c.section = header, head[:n]
	if header.Changed() && (complete || n < len(head)) { // a mailbox line would end the section for others
		c.section = header.Bytes()
		b = slices.Concat(c.section, b[n:])
		complete = true
	}
	if complete {
		c.section = bytes.TrimSuffix(bytes.TrimSuffix(c.section, []byte("\n")), []byte("\r"))
	}
	var p part
	if full {
		p = c.wholeMessage(b)
	} else {
		p = c.headers()
	}
	return &p, nil
}

// read returns the first n bytes of c.
func read(c mail.Content, n int64) ([]byte, error) {
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // shorter than its Size
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// headers makes a text/rfc822-headers part, or message/global-headers in an
// SMTPUTF8 report (RFC 6522 section 4, RFC 6533 section 5).
func (c *composer) headers() part {
	eightBit := !isASCII(c.section)
	if c.utf8 && utf8.Valid(c.section) && isLines(c.section) {
		p := part{head: "Content-Type: message/global-headers\r\n", body: [][]byte{c.section}, eightBit: eightBit}
		if eightBit {
			p.head += "Content-Transfer-Encoding: 8bit\r\n"
		}
		return p
	}
	contentType := "text/rfc822-headers"
	if eightBit && utf8.Valid(c.section) {
		contentType += "; charset=utf-8"
	}
	return textPart(contentType, c.section)
}

// wholeMessage makes a message/rfc822 part, or message/global if the header is
// not ASCII. Only the latter may be encoded (RFC 2046 section 5.2.1, RFC 6532
// section 3.7), and is where the way back may not know SMTPUTF8.
func (c *composer) wholeMessage(b []byte) part {
	p := part{head: "Content-Type: message/rfc822\r\n", body: [][]byte{b}, eightBit: !isASCII(b)}
	if c.utf8 || !isASCII(c.section) && utf8.Valid(c.section) {
		p.head = "Content-Type: message/global\r\n"
		if p.eightBit && !c.utf8 {
			p.head += "Content-Transfer-Encoding: base64\r\n"
			p.body, p.eightBit = [][]byte{base64Lines(b)}, false
		}
	}
	if p.eightBit {
		p.head += "Content-Transfer-Encoding: 8bit\r\n"
	}
	return p
}
