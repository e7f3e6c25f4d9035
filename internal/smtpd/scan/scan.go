// Package scan looks through the content of a message as it arrives (RFC 5321 section
// 4.1.1.4): for its end, for the dots that were stuffed, and for a bare CR or LF.
package scan

import (
	"bytes"
	"errors"
	"io"
)

// ErrBare is a CR without LF or an LF without CR in a message. No two servers
// agree on their meaning, so they can hide a second message (RFC 5321 sections
// 2.3.8 and 4.1.1.4).
var ErrBare = errors.New("bare CR or LF in a message")

// Scanner looks through content as it arrives, in pieces of any size. The result does
// not depend on how the content is cut. It works on whole lines and
// passes on slices of its input.
type Scanner struct {
	Dots bool // DATA: transparency and the final dot (RFC 5321 section 4.5.2); not in BDAT
	mid  bool // within a line
	cr   bool // the last byte was CR
}

// Scan passes the content in b to w, without the dots that were stuffed. n is
// how many bytes of b it used: all, or those up to the final dot's line end
// (done), or all but up to two that cannot be judged before the next one comes
// and have to be shown again with it. err is ErrBare, or w's.
func (s *Scanner) Scan(b []byte, w io.Writer) (n int, done bool, err error) {
	from := 0 // b[from:n] is not written yet
	write := func(to int) error {
		if from == to {
			return nil
		}
		_, err := w.Write(b[from:to])
		return err
	}
	for n < len(b) {
		// A CR needs its LF, perhaps in the next piece.
		if s.cr {
			if b[n] != '\n' {
				return n, false, ErrBare
			}
			s.cr, s.mid = false, false
			n++
			continue
		}

		// A dot begins a line: it is the end, or one of two, or cannot be judged yet.
		if !s.mid && s.Dots && b[n] == '.' {
			switch rest := b[n:]; {
			case len(rest) == 1 || len(rest) == 2 && rest[1] == '\r':
				return n, false, write(n)
			case rest[1] == '\r' && rest[2] == '\n':
				return n + 3, true, write(n)
			}
			if err := write(n); err != nil {
				return n, false, err
			}
			s.mid = true
			n++
			from = n
			continue
		}

		// The rest of the line is taken in one span.
		s.mid = true
		line := b[n:]
		end := bytes.IndexByte(line, '\r')
		if end >= 0 {
			line = line[:end]
		}
		if bytes.IndexByte(line, '\n') >= 0 {
			return n, false, ErrBare
		}
		n += len(line)
		if end >= 0 {
			s.cr = true
			n++
		}
	}
	return n, false, write(n)
}

// Finish is called at the end of content that ends by its length.
func (s *Scanner) Finish() error {
	if s.cr {
		return ErrBare
	}
	return nil
}
