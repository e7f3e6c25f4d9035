package dsn

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"unicode/utf8"

	"tarishi/internal/dsn/entity"
	"tarishi/internal/dsn/sevenbit"
	"tarishi/internal/mail"
)

// Bounds of the part of the original that is read.
const (
	maxSection = 64 << 10 // header section
	maxFull    = 1 << 20  // whole message
)

// returnedPart reads the original and makes the part that returns it: nil if there
// is none. If only the header is returned although the whole message was asked
// for, c.headerOnly says why.
func (c *composer) returnedPart() (*entity.Part, error) {
	if c.OriginalContent == nil {
		return nil, nil
	}

	// A whole message is promised for failures only, and only while it is small: a report may go to
	// a forged sender, and must not bring megabytes there.
	size := c.OriginalContent.Size()
	full := c.lead == Failed && (c.Original.Return == "FULL" || c.Original.Return == "" && c.Full)
	if full {
		switch {
		case size > maxFull:
			c.headerOnly = "it is larger than 1 MiB"
		case c.Original.RequireTLS:
			c.headerOnly = "it was sent with REQUIRETLS"
		}
	}

	// No more is read than can be returned.
	limit := int64(maxSection)
	if full && c.headerOnly == "" {
		limit = maxFull
	}
	b, err := readStart(c.OriginalContent, min(limit, size))
	if err != nil {
		return nil, err
	}

	// The fields of the original are of use whatever is returned.
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
	if full && c.headerOnly == "" {
		if p, ok := c.wholeMessage(b); ok {
			return &p, nil
		}
		c.headerOnly = "parts of it cannot be carried by every mail system"
	}
	p := c.headersPart()
	return &p, nil
}

// readStart returns the first n bytes of c.
func readStart(c mail.Content, n int64) ([]byte, error) {
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

// headersPart makes a text/rfc822-headers part, or message/global-headers in an
// SMTPUTF8 report (RFC 6522 section 4, RFC 6533 section 5).
func (c *composer) headersPart() entity.Part {
	eightBit := !mail.IsASCII(c.section)
	if c.utf8 && utf8.Valid(c.section) && sevenbit.IsLines(c.section) {
		p := entity.Part{Head: "Content-Type: message/global-headers\r\n", Body: [][]byte{c.section}, EightBit: eightBit}
		if eightBit {
			p.Head += "Content-Transfer-Encoding: 8bit\r\n"
		}
		return p
	}

	// Otherwise the section goes as text, in an encoding that any mail system carries.
	contentType := "text/rfc822-headers"
	if eightBit && utf8.Valid(c.section) {
		contentType += "; charset=utf-8"
	}
	return entity.Text(contentType, c.section)
}

// wholeMessage makes a message/rfc822 part, or message/global if the header is
// UTF-8. Only the latter may be encoded (RFC 2046 section 5.2.1, RFC 6532 section
// 3.7); of the former the leaves are, where any mail system must be able to carry
// it. ok is false where that cannot be done.
func (c *composer) wholeMessage(b []byte) (p entity.Part, ok bool) {
	if !c.utf8 && mail.IsASCII(c.section) {
		b, ok = sevenbit.Encode(b)
		return entity.Part{Head: "Content-Type: message/rfc822\r\n", Body: [][]byte{b}}, ok
	}
	if !c.utf8 && !utf8.Valid(c.section) {
		return entity.Part{}, false
	}

	// From here on the header may hold UTF-8, and message/global is the type that may carry it.
	p = entity.Part{Head: "Content-Type: message/global\r\n", Body: [][]byte{b}, EightBit: !mail.IsASCII(b)}
	switch {
	case p.EightBit && !c.utf8, !sevenbit.IsLines(b):
		p.Head += "Content-Transfer-Encoding: base64\r\n"
		p.Body, p.EightBit = [][]byte{sevenbit.Base64Lines(b)}, false
	case p.EightBit:
		p.Head += "Content-Transfer-Encoding: 8bit\r\n"
	}
	return p, true
}

// omissionText is the text that says that only the header is returned, and why; nil:
// there is nothing to say.
func (c *composer) omissionText() []string {
	if c.headerOnly == "" {
		return nil
	}
	return []string{"", "Only the header of your message is returned:", c.headerOnly + "."}
}
