package canon

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"tarishi/internal/mail"
)

// The errors of Scan about a message.
var (
	ErrLong    = fmt.Errorf("header section of more than %d bytes", maxHeader)
	ErrNoField = errors.New("no header field")
)

// maxHeader is how many bytes of header section are held.
const maxHeader = 1 << 20

// maxPiece is how many bytes of a message are read at a time.
const maxPiece = 32 << 10

var crlf = []byte("\r\n")

// Scan reads a message once. begin is called with its header section, and then body with
// its body, piece by piece. An error of begin ends it.
func Scan(c mail.Content, begin func(*Section) error, body func(p []byte)) error {
	r, err := c.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	s := &scanner{body: body, begin: func(head []byte) error {
		whole, err := splitSection(head)
		if err != nil {
			return err
		}
		return begin(whole)
	}}
	// io.Copy by itself would take 32 KiB for the smallest message. What writes itself needs
	// nothing at all.
	var piece []byte
	if _, itself := r.(io.WriterTo); !itself {
		piece = make([]byte, min(max(c.Size(), 1), maxPiece))
	}
	if _, err := io.CopyBuffer(s, r, piece); err != nil {
		return err
	}
	return s.finish()
}

// scanner is an io.Writer that takes a message apart: it holds the header section and
// passes the body on.
type scanner struct {
	// begin is called with the whole header section, without the empty line, and
	// returns the way of the body.
	begin func(head []byte) error
	body  func(p []byte)

	head []byte
	done bool // the header section is whole
}

// windowSize is how much of what was written is searched for the end of the header
// section at a time: a body that comes in the same piece is not copied.
const windowSize = 4 << 10

// Write implements io.Writer.
func (s *scanner) Write(p []byte) (int, error) {
	all := len(p)
	// Only windows are copied, so that a body in the same piece is not.
	for len(p) > 0 && !s.done {
		n := min(len(p), windowSize)
		from := max(0, len(s.head)-len("\n\r"))
		s.head = append(s.head, p[:n]...)

		// The empty line may begin in what came before.
		end, size := headerEnd(s.head, from)
		if max(end, len(s.head)-windowSize) > maxHeader {
			return 0, ErrLong
		}
		if end < 0 {
			p = p[n:]
			continue
		}
		p = p[n-(len(s.head)-size):]
		s.head, s.done = s.head[:end], true
		if err := s.begin(s.head); err != nil {
			return 0, err
		}
	}
	if len(p) > 0 {
		s.body(p)
	}
	return all, nil
}

// headerEnd finds the empty line behind the header section, and how many bytes both
// have; end is -1 if it has not come yet.
func headerEnd(b []byte, from int) (end, size int) {
	if bytes.HasPrefix(b, crlf) {
		return 0, len(crlf)
	}
	if i := bytes.Index(b[from:], []byte("\n\r\n")); i >= 0 {
		end = from + i + 1
		return end, end + len(crlf)
	}
	return -1, 0
}

// finish is called when all is written: a message may end with its header section.
func (s *scanner) finish() error {
	if s.done {
		return nil
	}
	if s.done = true; len(s.head) > maxHeader {
		return ErrLong
	}
	return s.begin(s.head)
}

// Section is a header section, ready to be picked from.
type Section struct {
	Fields [][]byte         // raw, with folds and line ends
	byName map[string][]int // places in Fields by name in lower case, top to bottom
}

// splitSection reads a header section. Lines that are no fields have no name.
func splitSection(head []byte) (*Section, error) {
	s := &Section{byName: map[string][]int{}}
	// Fields keep their bytes: the simple canonicalization needs them as they are.
	for len(head) > 0 {
		end := fieldEnd(head)
		field := head[:end]
		head = head[end:]
		if colon := bytes.IndexByte(field, ':'); colon > 0 {
			name := string(bytes.ToLower(bytes.TrimRight(field[:colon], " \t")))
			s.byName[name] = append(s.byName[name], len(s.Fields))
		}
		s.Fields = append(s.Fields, field)
	}
	if len(s.byName) == 0 {
		return nil, ErrNoField
	}
	return s, nil
}

// fieldEnd is where the first field of b ends, with its folds.
func fieldEnd(b []byte) int {
	at := 0
	for {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return len(b)
		}
		at += i + 1
		if at == len(b) || b[at] != ' ' && b[at] != '\t' {
			return at
		}
	}
}

// Find returns the places of the fields of a name, in lower case, top to bottom.
func (s *Section) Find(name string) []int { return s.byName[name] }

// Value returns a field's text behind the colon, as it stands.
func Value(field []byte) string {
	return string(field[bytes.IndexByte(field, ':')+1:])
}

// Pick returns, for each of names, the field that it stands for: the last one of that
// name, then the one above it, and so on (RFC 6376 section 5.4.2); names beyond the
// last field of theirs stand for nothing.
func (s *Section) Pick(names []string) [][]byte {
	picked := make([][]byte, 0, len(names))
	// A map, since both lists may be long: together they must not cost their product.
	used := make(map[string]int, len(names))
	for _, name := range names {
		places := s.byName[name]
		if n := used[name]; n < len(places) {
			picked = append(picked, s.Fields[places[len(places)-1-n]])
			used[name] = n + 1
		}
	}
	return picked
}
