// Package canon takes messages apart for signatures: the header section, its
// fields by name, the canonical forms of fields and bodies (RFC 6376 section 3.4), and
// the tag lists in which signatures and keys are written (section 3.2).
//
// A message is read once, in pieces. Nothing of it is held but the header section, of at
// most 1 MiB, and all work is linear in its size.
package canon

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"slices"
)

// Algorithm is how much a message may be changed on its way without a signature of it
// becoming invalid (RFC 6376 section 3.4).
type Algorithm uint8

// The two canonicalizations.
const (
	Simple  Algorithm = iota // nothing, but for empty lines at the end of the body
	Relaxed                  // also blanks
)

// String returns the word of c=.
func (c Algorithm) String() string {
	if c == Relaxed {
		return "relaxed"
	}
	return "simple"
}

var errAlgorithm = errors.New(`neither "simple" nor "relaxed"`)

// ParseAlgorithm reads the word of c=.
func ParseAlgorithm(s string) (Algorithm, error) {
	switch s {
	case "simple":
		return Simple, nil
	case "relaxed":
		return Relaxed, nil
	}
	return 0, fmt.Errorf("%q: %w", s, errAlgorithm)
}

// AppendField adds a canonical header field to b.
func (c Algorithm) AppendField(b, field []byte) []byte {
	if c == Simple {
		return append(b, field...)
	}
	// Names compare without regard to case.
	name, text, _ := bytes.Cut(field, []byte(":"))
	for _, x := range bytes.TrimRight(name, " \t") {
		if 'A' <= x && x <= 'Z' {
			x += 'a' - 'A'
		}
		b = append(b, x)
	}

	// Blanks become one, and those at the edges none. A fold counts as a blank.
	b = append(b, ':')
	begun, gap := false, false
	for _, x := range text {
		if isBlank(x) || x == '\r' || x == '\n' {
			gap = true
			continue
		}
		if gap && begun {
			b = append(b, ' ')
		}
		begun, gap = true, false
		b = append(b, x)
	}
	return append(b, '\r', '\n')
}

// Signed returns what a signature in a header field is made of: the canonical forms of the
// fields that it covers, and that of the signature's field without the value of b=, which
// stands at blank, and without a line end (RFC 6376 section 3.7).
func (c Algorithm) Signed(fields [][]byte, own []byte, blank [2]int) []byte {
	size := len(own)
	for _, f := range fields {
		size += len(f)
	}
	b := make([]byte, 0, size)
	for _, f := range fields {
		b = c.AppendField(b, f)
	}
	b = c.AppendField(b, slices.Concat(own[:blank[0]], own[blank[1]:]))
	return bytes.TrimSuffix(b, crlf)
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// BodyHash hashes a canonical body. It takes its lines with CRLF, in pieces of any
// size, and holds nothing of them back but what may be the end of the body.
type BodyHash struct {
	relaxed bool
	sum     hash.Hash

	lines  int    // empty lines, or the end of a line and empty ones, that are held back
	cr     bool   // a CR is held back: it may be one of them
	gap    bool   // relaxed: so are blanks of the line
	begun  bool   // something was hashed
	middle bool   // of the line something has come
	out    []byte // canonical text that is not hashed yet
}

func NewBodyHash(c Algorithm, sum hash.Hash) *BodyHash {
	return &BodyHash{relaxed: c == Relaxed, sum: sum}
}

// Add takes the next piece of the body.
func (h *BodyHash) Add(p []byte) {
	// The CR of the piece before belongs to a line end, or is text after all.
	if h.cr && len(p) > 0 {
		h.cr = false
		if p[0] == '\n' {
			p = p[1:]
			h.endLine()
		} else {
			h.addText(crlf[:1])
		}
	}

	// A CR at the end of a piece waits for the next.
	if n := len(p); n > 0 && p[n-1] == '\r' {
		defer func() { h.cr = true }()
		p = p[:n-1]
	}
	h.addText(p)
}

func (h *BodyHash) addText(p []byte) {
	if h.relaxed {
		h.addRelaxed(p)
	} else {
		h.addSimple(p)
	}
}

// Finish returns the hash.
func (h *BodyHash) Finish() []byte {
	if h.cr {
		h.cr = false
		h.addText(crlf[:1])
	}

	// The last line has an end, whether it came or not. A body of nothing is one
	// empty line to simple, and nothing to relaxed (RFC 6376 sections 3.4.3, 3.4.4).
	if h.begun || !h.relaxed {
		h.write(crlf)
	}
	h.sum.Write(h.out)
	return h.sum.Sum(nil)
}

// addSimple hashes all of p but the line ends behind its last text.
func (h *BodyHash) addSimple(p []byte) {
	// Line ends at the end of a piece may be the end of the body, which counts as one.
	end := len(p)
	for end >= 2 && p[end-2] == '\r' && p[end-1] == '\n' {
		end -= 2
	}
	if end > 0 {
		h.put(p[:end])
	}
	h.lines += (len(p) - end) / 2
}

// addRelaxed hashes lines as they stand where nothing is to be changed in them,
// several together, and the others piece by piece.
func (h *BodyHash) addRelaxed(p []byte) {
	plain := 0 // where the lines begin that are not hashed yet
	for at := 0; at < len(p); {
		i := bytes.IndexByte(p[at:], '\n')
		line := p[at:]
		if i >= 0 {
			line = p[at : at+i+1]
		}
		// Most lines of most mail are canonical already: they are hashed where they stand.
		if !h.middle && !h.gap && isPlain(line) {
			at += len(line)
			continue
		}

		// What came before this line goes first, but for its last line end.
		h.putLines(p[plain:at])
		h.squeeze(line)
		at += len(line)
		plain = at
	}
	h.putLines(p[plain:])
}

// isPlain reports whether a line is whole, holds something, and is canonical.
func isPlain(line []byte) bool {
	n := len(line)
	return n > 2 && line[n-1] == '\n' && line[n-2] == '\r' && !isBlank(line[n-3]) &&
		bytes.IndexByte(line, '\t') < 0 && !bytes.Contains(line, []byte("  "))
}

// putLines hashes whole lines.
func (h *BodyHash) putLines(lines []byte) {
	if len(lines) > 0 {
		h.put(lines[:len(lines)-2])
		h.endLine()
	}
}

// squeeze hashes a line, or a part of one, with its blanks made one.
func (h *BodyHash) squeeze(line []byte) {
	ended := bytes.HasSuffix(line, crlf)
	if ended {
		line = line[:len(line)-2]
	}
	// Blanks are held back: at the end of the line they count as nothing.
	h.middle = len(line) > 0 || h.middle
	for len(line) > 0 {
		n := 0
		for n < len(line) && isBlank(line[n]) {
			n++
		}
		h.gap = h.gap || n > 0
		line = line[n:]
		for n = 0; n < len(line) && !isBlank(line[n]); {
			n++
		}
		if n > 0 && h.gap {
			h.gap = false
			h.put(oneBlank)
		}
		if n > 0 {
			h.put(line[:n])
		}
		line = line[n:]
	}
	if ended {
		h.endLine()
	}
}

// endLine holds a line end back. Blanks in front of it count as nothing.
func (h *BodyHash) endLine() {
	h.lines++
	h.gap, h.middle = false, false
}

var oneBlank = []byte(" ")

// manyLines are the line ends that are hashed at a time.
var manyLines = bytes.Repeat(crlf, 512)

// put hashes text, and what was held back in front of it.
func (h *BodyHash) put(text []byte) {
	// A body may begin or go on with any number of empty lines: they take no memory.
	for h.lines > 0 {
		n := min(h.lines, len(manyLines)/2)
		h.write(manyLines[:2*n])
		h.lines -= n
	}
	h.write(text)
	h.begun = true
}

// outSize is how much is hashed at a time, at least, in bytes.
const outSize = 2 << 10

// write hashes p, small pieces together: a hash has a price for each.
func (h *BodyHash) write(p []byte) {
	if len(h.out)+len(p) > outSize {
		h.sum.Write(h.out)
		h.out = h.out[:0]
	}
	if len(p) > outSize/2 {
		h.sum.Write(h.out)
		h.out = h.out[:0]
		h.sum.Write(p)
		return
	}
	h.out = append(h.out, p...)
}
