package wire

import (
	"bytes"
	"io"
)

// DotWriter writes a message as it goes on the wire behind DATA (RFC 5321
// section 4.5.2): dot-stuffed, every line ended by CRLF, and at the end the
// final dot. It is the only way by which a message leaves, and no bare CR or LF
// passes it: a bare LF, a bare CR and a run of CRs in front of an LF each become
// one CRLF. Where the content is split over Writes makes no difference.
//
// Clean lines are passed on in spans as long as possible; long spans are not
// copied.
//
// For BDAT (RFC 3030) it is plain: the line ends are mended too, but
// there are no dots to add.
type DotWriter struct {
	w     io.Writer
	buf   []byte // cap is fixed
	plain bool
	err   error // the first of w; sticky
	begun bool  // something has been written to w
	mid   bool  // in the middle of a line
	crs   int   // CRs held back: their meaning depends on the next byte
}

// NewDotWriter returns a DotWriter that collects size bytes before they are written. For
// BDAT it is plain.
func NewDotWriter(size int, plain bool) *DotWriter {
	return &DotWriter{buf: make([]byte, 0, size), plain: plain}
}

// Begun reports whether something has been written to w.
func (d *DotWriter) Begun() bool { return d.begun }

// Reset prepares d for another message to w.
func (d *DotWriter) Reset(w io.Writer) {
	d.w, d.buf, d.err, d.begun, d.mid, d.crs = w, d.buf[:0], nil, false, false, 0
}

// lastPart is how much of a long span is kept back when plain, so that there is
// something to send as the last chunk.
const lastPart = 512

// Write implements io.Writer; n is len(p) unless the underlying writer failed.
func (d *DotWriter) Write(p []byte) (n int, err error) {
	n = len(p)
	if d.crs > 0 {
		p = d.release(p)
	}
	start, pos := 0, 0 // p[start:pos] are clean lines
	for pos < len(p) && d.err == nil {
		// A line that ends in CRLF and has no other CR is clean; all others are mended
		// piece by piece.
		i := bytes.IndexByte(p[pos:], '\n')
		if i < 1 || bytes.IndexByte(p[pos:pos+i], '\r') != i-1 {
			d.collect(p[start:pos])
			if i < 0 {
				d.writeTail(p[pos:])
				return n, d.err
			}
			d.writeRough(bytes.TrimRight(p[pos:pos+i], "\r"))
			d.endLine()
			pos += i + 1
			start = pos
			continue
		}

		// The span is interrupted only where a dot has to be doubled.
		if p[pos] == '.' && !d.mid && !d.plain {
			d.collect(p[start:pos])
			d.collect(dot)
			start = pos
		}
		d.mid = false
		pos += i + 1
	}
	d.collect(p[start:pos])
	return n, d.err
}

var (
	dot  = []byte(".")
	crlf = []byte("\r\n")
)

// release decides what the CRs held back were, now that more has come.
func (d *DotWriter) release(p []byte) []byte {
	for len(p) > 0 && p[0] == '\r' {
		d.crs++
		p = p[1:]
	}
	if len(p) == 0 {
		return p
	}
	if p[0] == '\n' {
		d.crs = 1
		p = p[1:]
	}
	for ; d.crs > 0; d.crs-- {
		d.endLine()
	}
	return p
}

// writeTail takes the last bytes of a Write, in which there is no LF.
func (d *DotWriter) writeTail(p []byte) {
	text := bytes.TrimRight(p, "\r")
	d.crs = len(p) - len(text)
	d.writeRough(text)
}

// writeRough writes text without LF, so that all CRs are bare.
func (d *DotWriter) writeRough(text []byte) {
	for {
		i := bytes.IndexByte(text, '\r')
		if i < 0 {
			d.writeText(text)
			return
		}
		d.writeText(text[:i])
		d.endLine()
		text = text[i+1:]
	}
}

// writeText writes a piece of one line.
func (d *DotWriter) writeText(p []byte) {
	if len(p) == 0 {
		return
	}
	if p[0] == '.' && !d.mid && !d.plain {
		d.collect(dot)
	}
	d.collect(p)
	d.mid = true
}

// endLine ends a line.
func (d *DotWriter) endLine() {
	d.collect(crlf)
	d.mid = false
}

// collect collects p, or passes it on when it is long.
func (d *DotWriter) collect(p []byte) {
	for len(p) > 0 && d.err == nil {
		if len(d.buf) == 0 && len(p) >= cap(d.buf) {
			if !d.plain {
				d.passOn(p)
				return
			}
			if n := len(p) - lastPart; n > 0 {
				d.passOn(p[:n])
				p = p[n:]
			}
		}
		n := min(len(p), cap(d.buf)-len(d.buf))
		d.buf = append(d.buf, p[:n]...)
		if p = p[n:]; len(d.buf) == cap(d.buf) {
			d.passOn(d.buf)
			d.buf = d.buf[:0]
		}
	}
}

// passOn writes p.
func (d *DotWriter) passOn(p []byte) {
	d.begun = true
	_, d.err = d.w.Write(p)
}

// Rest ends the last line and returns what was collected and not written.
func (d *DotWriter) Rest() ([]byte, error) {
	for ; d.crs > 0; d.crs-- {
		d.endLine()
	}
	if d.mid {
		d.endLine()
	}
	return d.buf, d.err
}

// Finish ends the last line, adds the final dot and writes what was collected.
// dotted is false when it is certain that the peer cannot have seen the dot.
func (d *DotWriter) Finish() (dotted bool, err error) {
	d.Rest()
	if len(d.buf)+3 > cap(d.buf) && d.err == nil { // the dot stays in one piece
		d.passOn(d.buf)
		d.buf = d.buf[:0]
	}
	if d.err != nil {
		return false, d.err
	}
	d.buf = append(d.buf, ".\r\n"...)
	n, err := d.w.Write(d.buf)
	// A peer that takes a bare dot for the end has it with the last but two.
	dotted = n > len(d.buf)-3
	d.buf = d.buf[:0]
	return dotted, err
}
