package qfile

import (
	"bufio"
	"errors"
	"io"

	"tarishi/internal/mail"
)

const chunk = 64 << 10

// content is the message in a file, un-stuffed while it is read.
type content struct {
	file      io.ReaderAt
	off, size int64 // in the file
	unstuffed int64
}

// newContent returns the message from off to end. It reads all of it once to
// learn its size.
func newContent(r io.ReaderAt, off, end int64) (*content, error) {
	c := &content{file: r, off: off, size: end - off}

	// The size without the stuffed dots is needed before the message can be queued, and only
	// reading tells it.
	for u := c.newReader(); ; {
		line, err := u.unstuffedPiece()
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return nil, err
		}
		c.unstuffed += int64(len(line))
	}
}

func (c *content) newReader() *unstuffer {
	return &unstuffer{lines: lines{buffer: bufio.NewReaderSize(io.NewSectionReader(c.file, c.off, c.size), chunk)}}
}

// Size implements mail.Content.
func (c *content) Size() int64 { return c.unstuffed }

// Open implements mail.Content.
func (c *content) Open() (io.ReadCloser, error) { return c.newReader(), nil }

// lines yields lines, long ones in pieces.
type lines struct {
	buffer *bufio.Reader
	mid    bool // what comes next continues a line
}

// nextPiece returns the next piece, never empty, valid until the next call, and
// whether a line begins with it.
func (l *lines) nextPiece() (piece []byte, begins bool, err error) {
	piece, err = l.buffer.ReadSlice('\n')
	if len(piece) == 0 {
		return nil, false, err
	}
	begins, l.mid = !l.mid, piece[len(piece)-1] != '\n'
	return piece, begins, nil // an error comes again with the next call
}

// unstuffer reads a message without the dots that stuffing put in front of
// lines.
type unstuffer struct {
	lines
	rest []byte
}

func (u *unstuffer) unstuffedPiece() ([]byte, error) {
	piece, begins, err := u.nextPiece()
	if begins && piece[0] == '.' {
		// A dot alone was never stuffed. Haraka would end the message here; we
		// lose nothing and stuff it.
		switch string(piece[:min(len(piece), 4)]) {
		case ".", ".\n", ".\r\n":
		default:
			piece = piece[1:]
		}
	}
	return piece, err
}

// Read implements io.Reader.
func (u *unstuffer) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(u.rest) == 0 {
			// Bytes that were copied already are returned first. The error comes back with the next
			// call.
			if u.rest, err = u.unstuffedPiece(); err != nil {
				if n > 0 {
					err = nil // it comes again
				}
				return n, err
			}
		}
		k := copy(p[n:], u.rest)
		n, u.rest = n+k, u.rest[k:]
	}
	return n, nil
}

// Close implements io.Closer.
func (u *unstuffer) Close() error { return nil }

// writeStuffed writes c dot-stuffed. A last line without an end gets one, lest Haraka's
// final dot becomes a part of it.
func writeStuffed(w io.Writer, c mail.Content) error {
	r, err := c.Open()
	if err != nil {
		return err
	}
	defer r.Close()

	// The message goes line by line through fixed buffers: it may be larger than memory should be.
	out := bufio.NewWriterSize(w, chunk)
	l := lines{buffer: bufio.NewReaderSize(r, chunk)}
	for {
		piece, begins, err := l.nextPiece()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if begins && piece[0] == '.' {
			_ = out.WriteByte('.') // Flush tells
		}
		_, _ = out.Write(piece)
	}
	if l.mid {
		_, _ = out.WriteString("\r\n")
	}
	return out.Flush()
}
