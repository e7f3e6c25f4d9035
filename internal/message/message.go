// Package message reads the structure of a message: its MIME tree, what the parts
// say of themselves, and their decoded content; and it writes a message anew with
// some of its parts changed.
//
// A Message is built on a mail.Content and holds the header sections of its parts,
// never their bodies: they are read from the content each time that they are
// opened, and a changed message is streamed from the content to its writer.
//
// Messages come from anybody, so nothing here trusts them. Malformed ones are read as
// most mail readers do, since a filter has to find everything that those show. The tree
// is bounded in depth, parts and bytes of header (Limits).
package message

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"tarishi/internal/mail"
)

// Limits bound the tree that a message may have. The zero value is DefaultLimits.
type Limits struct {
	Depth  int   // of multiparts and enclosed messages in each other
	Parts  int   // in all
	Header int64 // bytes of the header sections of all parts together
}

// DefaultLimits are Haraka's for depth and parts (mailparser.max_mime_depth,
// max.mime_parts).
var DefaultLimits = Limits{Depth: 100, Parts: 1000, Header: 1 << 20}

// The errors of a message that goes beyond a limit.
var (
	ErrDepth  = errors.New("message: parts are nested too deeply")
	ErrParts  = errors.New("message: too many MIME parts")
	ErrHeader = errors.New("message: the header sections of the parts are too big")
)

// Message is a message with its structure. It may be used from
// several goroutines, but Header is read by some of its methods: it must not be
// changed meanwhile.
type Message struct {
	Header *mail.Header

	content    mail.Content
	headerSize int64 // bytes of content that the header section takes
	limits     Limits

	once sync.Once
	root *Part
	err  error
}

// New returns the message of a content and its header section, which is headerSize bytes
// long with the empty line. The header may differ from those bytes.
func New(header *mail.Header, content mail.Content, headerSize int64, limits Limits) *Message {
	if limits == (Limits{}) {
		limits = DefaultLimits
	}
	return &Message{Header: header, content: content, headerSize: headerSize, limits: limits}
}

// Size is how many bytes the content has behind the header section.
func (m *Message) Size() int64 { return m.content.Size() - m.headerSize }

// Root returns the outermost part, which the header of the message describes. The
// first call reads the whole content. If that goes beyond a limit the error is one
// of ErrDepth, ErrParts and ErrHeader, and the part has what was found before; any
// other error is of the content.
func (m *Message) Root() (*Part, error) {
	m.once.Do(func() {
		m.root, m.err = parseTree(m)
	})
	return m.root, m.err
}

// Leaves yields the parts that have a body and no parts of their own, in their order
// in the message. It yields nothing of a content that cannot be read: see Root.
func (m *Message) Leaves() iter.Seq[*Part] {
	return func(yield func(*Part) bool) {
		if root, _ := m.Root(); root != nil {
			root.leaves(yield)
		}
	}
}

// OpenBody returns the body as it stands in the message, without the header section.
func (m *Message) OpenBody() (io.ReadCloser, error) {
	return m.section(m.headerSize, m.content.Size())
}

// section opens the content from one offset to another.
func (m *Message) section(from, to int64) (io.ReadCloser, error) {
	r, err := m.content.Open()
	if err != nil {
		return nil, err
	}
	if err := skipBytes(r, from); err != nil {
		r.Close()
		return nil, fmt.Errorf("message: content ends before byte %d: %w", from, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(r, to-from), r}, nil
}

// skipBytes passes over the first n bytes of a reader that has just been opened.
func skipBytes(r io.Reader, n int64) error {
	if s, ok := r.(io.Seeker); ok {
		_, err := s.Seek(n, io.SeekStart)
		return err
	}
	_, err := io.CopyN(io.Discard, r, n)
	return err
}
