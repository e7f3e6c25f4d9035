package message

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"

	"tarishi/internal/mail"
)

// lineBuffer is how much of a line is looked at, in bytes: delimiters are at most 74
// bytes long, and header lines that are longer come in pieces.
const lineBuffer = 32 << 10

// parser reads a content line by line and builds the tree. The stack has the parts
// that are open, outermost first; the last one is what the next line belongs to.
type parser struct {
	message *Message
	stack   []*frame
	root    *Part
	parts   int
	section []byte // the header section that is being read
	headers int64  // bytes of header sections so far
	offset  int64  // of the current line
	ending  int64  // length of the line end before it
}

// frame is an open part and how far it has been read.
type frame struct {
	part     *Part
	boundary string // of a multipart; "": it is none
	preset   string // media type of parts that name none
	state    state
}

// state is what the lines of the innermost open part are.
type state uint8

const (
	inHeader  state = iota // its header section
	inBody                 // the body of a leaf
	inBetween              // preamble or epilogue of a multipart: nobody's
)

// parseTree reads the tree of m.
func parseTree(m *Message) (*Part, error) {
	body, err := m.OpenBody()
	if err != nil {
		return nil, err
	}
	defer body.Close()

	// The header section of the message is known: reading begins behind it.
	p := &parser{message: m, offset: m.headerSize}
	p.root = &Part{Header: m.Header, message: m, start: m.headerSize, head: m.headerSize, body: m.headerSize}
	err = p.pushPart(&frame{part: p.root, preset: "text/plain", state: inHeader})
	if err == nil {
		err = p.enterBody()
	}
	if err == nil {
		err = p.readLines(bufio.NewReaderSize(body, lineBuffer))
	}

	// What is still open at the end of the message ends there: a message that
	// lacks its last delimiters was cut short, or hopes to be read as one part.
	end := min(p.offset, m.content.Size())
	for _, open := range p.stack {
		p.closePart(open, end)
	}
	return p.root, err
}

// closePart closes a part at an offset. One that ends in its header section has
// nothing else.
func (p *parser) closePart(f *frame, end int64) {
	if f.state == inHeader && f.part != p.root {
		f.part.Header, _, _ = mail.ParseHeader(p.section)
		f.part.describe(f.preset)
		f.part.body = end
		p.section = nil
	}
	f.part.end = max(end, f.part.body)
}

// readLines passes all lines to takePiece.
func (p *parser) readLines(r *bufio.Reader) error {
	fresh := true     // at the beginning of a line
	carriage := false // the last piece ended in a CR
	for {
		piece, err := r.ReadSlice('\n')
		if len(piece) > 0 {
			if bad := p.takePiece(piece, fresh); bad != nil {
				return bad
			}
			p.offset += int64(len(piece))
			fresh = err == nil
			p.ending = lineEnd(piece)
			if carriage && string(piece) == "\n" { // the buffer has cut the line end
				p.ending = 2
			}
			carriage = piece[len(piece)-1] == '\r'
		}

		// A line that is longer than the buffer goes on with the next piece.
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		default:
			return err
		}
	}
}

// lineEnd is the length of the line end of a piece of a line: 0, 1 or 2 bytes.
func lineEnd(piece []byte) int64 {
	switch {
	case bytes.HasSuffix(piece, []byte("\r\n")):
		return 2
	case bytes.HasSuffix(piece, []byte("\n")):
		return 1
	}
	return 0
}

// takePiece takes the next piece of the message, which begins a line if fresh is set.
func (p *parser) takePiece(piece []byte, fresh bool) error {
	if fresh && bytes.HasPrefix(piece, []byte("--")) {
		if level, last := p.delimiter(piece); level >= 0 {
			return p.beginPart(level, last, int64(len(piece)))
		}
	}
	top := p.stack[len(p.stack)-1]
	if top.state != inHeader {
		return nil
	}

	// The header section ends with an empty line, or before one that cannot stand
	// in it: what a mail reader shows as text is text here.
	empty := fresh && len(bytes.TrimRight(piece, "\r\n")) == 0
	first := len(p.section) == 0
	if fresh && !empty && (!mail.InHeader(piece) || first && (piece[0] == ' ' || piece[0] == '\t')) {
		top.part.body = p.offset
		return p.endHeader()
	}
	if p.headers += int64(len(piece)); p.headers > p.message.limits.Header {
		return ErrHeader
	}
	p.section = append(p.section, piece...)
	if !empty {
		return nil
	}
	top.part.body = p.offset + int64(len(piece))
	return p.endHeader()
}

// delimiter finds the open multipart that a delimiter line belongs to, the innermost
// one first; -1: the line is none. last says that it is the one behind the last part (RFC
// 2046 section 5.1.1).
func (p *parser) delimiter(line []byte) (level int, last bool) {
	text := bytes.TrimRight(line[2:], " \t\r\n")
	for level = len(p.stack) - 1; level >= 0; level-- {
		boundary := p.stack[level].boundary
		if boundary == "" || !bytes.HasPrefix(text, []byte(boundary)) {
			continue
		}
		switch string(text[len(boundary):]) {
		case "":
			return level, false
		case "--":
			return level, true
		}
	}
	return -1, false
}

// beginPart ends the parts inside of a multipart at its delimiter, of length bytes,
// and begins the next one, unless it is the last delimiter.
func (p *parser) beginPart(level int, last bool, length int64) error {
	// The line end before the delimiter belongs to it, unless it ends the header
	// section or the delimiter before.
	end := p.offset - p.ending
	for _, inner := range p.stack[level+1:] {
		end = max(end, inner.part.body)
	}
	for _, inner := range p.stack[level+1:] {
		p.closePart(inner, end)
	}
	outer := p.stack[level]
	p.stack = p.stack[:level+1]

	// Behind the last delimiter comes the epilogue, where the boundary means
	// nothing any more.
	if last {
		outer.boundary = ""
		return nil
	}
	preset := "text/plain"
	if outer.part.Type == "multipart/digest" {
		preset = "message/rfc822"
	}
	next := &Part{message: p.message, start: end, head: p.offset + length, body: p.offset + length}
	outer.part.Parts = append(outer.part.Parts, next)
	return p.pushPart(&frame{part: next, preset: preset, state: inHeader})
}

// pushPart puts a part on the stack, within the limits.
func (p *parser) pushPart(f *frame) error {
	if p.parts++; p.parts > p.message.limits.Parts {
		return ErrParts
	}
	if len(p.stack) > p.message.limits.Depth {
		return ErrDepth
	}
	p.section = nil
	p.stack = append(p.stack, f)
	return nil
}

// endHeader is called when the header section of the innermost part is complete.
func (p *parser) endHeader() error {
	top := p.stack[len(p.stack)-1]
	top.part.Header, _, _ = mail.ParseHeader(p.section)
	p.section = nil
	return p.enterBody()
}

// enterBody begins the body of the innermost part, by what its header says.
func (p *parser) enterBody() error {
	top := p.stack[len(p.stack)-1]
	part := top.part
	part.describe(top.preset)

	// A multipart without a boundary is a leaf, and so is an encoded message, which
	// RFC 2046 section 5.2.1 does not allow: it is read by decoding it first.
	plain := part.Encoding != encodingBase64 && part.Encoding != encodingQP
	switch boundary := strings.TrimRight(part.Params["boundary"], " \t"); {
	case part.IsMultipart() && boundary != "":
		top.boundary, top.state = boundary, inBetween
	case part.Type == "message/rfc822" && plain:
		top.state = inBetween
		inner := &Part{message: p.message, start: part.body, head: part.body, body: part.body}
		part.Parts = []*Part{inner}
		return p.pushPart(&frame{part: inner, preset: "text/plain", state: inHeader})
	default:
		top.state = inBody
	}
	return nil
}
