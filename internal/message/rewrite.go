package message

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"

	"tarishi/internal/mail"
)

// Change says what becomes of a part when its message is rewritten.
type Change struct {
	// Drop takes the part out of its multipart. It is for parts of a multipart
	// only.
	Drop bool
	// Transform writes the new content of the part, without a transfer encoding,
	// after or while it reads the old one. It need not read to the end.
	Transform func(w io.Writer, old io.Reader) error
	// ContentType is the new value of the field Content-Type, with Transform; "":
	// it stays. Fields that named the old content, such as a file name in
	// Content-Disposition, are dropped with it.
	ContentType string
}

// ErrDrop is the error of a change that drops a part which no multipart holds.
var ErrDrop = errors.New("message: only a part of a multipart can be dropped")

// Rewrite writes the message to w with the changes that edit asks for: it is called
// for each leaf, in order, and returns nil where the part stays as it is. What is not
// changed keeps its bytes. The message is read once, and no part is held in memory:
// edit may look at a part before it decides, by opening it, which reads the content
// anew.
//
// A new content is encoded as the old one was, or as quoted-printable if that had no
// encoding. w gets the whole message; its header section is returned.
func (m *Message) Rewrite(w io.Writer, edit func(p *Part) (*Change, error)) (*mail.Header, error) {
	root, err := m.Root()
	if err != nil {
		return nil, err
	}
	changes, err := m.changes(edit)
	if err != nil {
		return nil, err
	}

	// The changes are known before the first byte is written: the header section
	// of a message without parts says how its body is encoded.
	header := m.Header
	if len(changes) == 1 && changes[0].part == root {
		header = changes[0].header()
	}
	if _, err := w.Write(header.Bytes()); err != nil {
		return nil, err
	}
	body, err := m.OpenBody()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	out := &rewriter{to: w, from: body, at: m.headerSize}
	for _, one := range changes {
		if err := out.applyChange(one, one.part == root); err != nil {
			return nil, err
		}
	}
	_, err = io.Copy(w, body)
	return header, err
}

// changes asks edit about all leaves.
func (m *Message) changes(edit func(p *Part) (*Change, error)) ([]change, error) {
	var all []change
	for leaf := range m.Leaves() {
		wanted, err := edit(leaf)
		if err != nil {
			return nil, err
		}
		if wanted == nil || !wanted.Drop && wanted.Transform == nil {
			continue
		}
		if wanted.Drop && leaf.start == leaf.head {
			return nil, ErrDrop
		}
		all = append(all, change{Change: wanted, part: leaf})
	}
	return all, nil
}

// change is a Change of a part.
type change struct {
	*Change
	part *Part
}

// encoding is the transfer encoding of the new content.
func (c change) encoding() string {
	if c.part.Encoding == encodingBase64 {
		return encodingBase64
	}
	return encodingQP
}

// header returns the header section of the part with the new content.
func (c change) header() *mail.Header {
	h, _, _ := mail.ParseHeader(c.part.Header.Bytes())
	if c.encoding() != c.part.Encoding {
		h.Remove("Content-Transfer-Encoding")
		h.Add("Content-Transfer-Encoding", c.encoding())
	}

	// The fields that described the old content would lie about the new one.
	if c.ContentType != "" {
		for _, name := range []string{"Content-Type", "Content-Disposition", "Content-Description", "Content-MD5"} {
			h.Remove(name)
		}
		h.Add("Content-Type", c.ContentType)
	}
	return h
}

// rewriter copies a message and replaces sections of it on the way.
type rewriter struct {
	to   io.Writer
	from io.Reader
	at   int64 // offset in the message
}

// copyTo passes on what stands before an offset.
func (r *rewriter) copyTo(offset int64) error {
	n, err := io.CopyN(r.to, r.from, offset-r.at)
	r.at += n
	if err != nil {
		return fmt.Errorf("message: copied up to byte %d of %d: %w", r.at, offset, err)
	}
	return nil
}

// discardTo drops what stands before an offset.
func (r *rewriter) discardTo(offset int64) error {
	n, err := io.CopyN(io.Discard, r.from, offset-r.at)
	r.at += n
	return err
}

// applyChange makes one change. whole says that the part is the message itself: its header has
// been written.
func (r *rewriter) applyChange(c change, whole bool) error {
	p := c.part

	// A part goes with its delimiter; the next one's stays.
	if c.Drop {
		if err := r.copyTo(p.start); err != nil {
			return err
		}
		return r.discardTo(p.end)
	}
	if !whole {
		if err := r.copyTo(p.head); err != nil {
			return err
		}
		if _, err := r.to.Write(c.header().Bytes()); err != nil {
			return err
		}
	}
	if err := r.discardTo(p.body); err != nil {
		return err
	}

	// The old content is read where the copy stands, so what the transformation
	// leaves unread of it has to be passed over afterwards.
	old := &io.LimitedReader{R: r.from, N: p.end - p.body}
	encoder := newEncoder(r.to, c.encoding())
	if err := c.Transform(encoder, p.decode(old)); err != nil {
		return err
	}
	if err := encoder.Close(); err != nil {
		return err
	}

	// Where no delimiter follows nothing brings the last line end.
	if whole && c.encoding() == encodingBase64 {
		if _, err := io.WriteString(r.to, "\r\n"); err != nil {
			return err
		}
	}
	r.at = p.end - old.N
	return r.discardTo(p.end)
}

// newEncoder returns a writer that puts a transfer encoding on. Close ends it and
// leaves w open.
func newEncoder(w io.Writer, encoding string) io.WriteCloser {
	if encoding == encodingBase64 {
		return base64.NewEncoder(base64.StdEncoding, &wrapped{to: w})
	}
	return quotedprintable.NewWriter(w)
}

// maxEncoded is how many characters of base64 stand on a line (RFC 2045 section
// 6.8).
const maxEncoded = 76

// wrapped breaks base64 into lines.
type wrapped struct {
	to   io.Writer
	used int // of the current line
}

// Write implements io.Writer.
func (l *wrapped) Write(text []byte) (int, error) {
	var lines bytes.Buffer
	for rest := text; len(rest) > 0; {
		if l.used == maxEncoded {
			lines.WriteString("\r\n")
			l.used = 0
		}
		n := min(maxEncoded-l.used, len(rest))
		lines.Write(rest[:n])
		l.used += n
		rest = rest[n:]
	}
	if _, err := l.to.Write(lines.Bytes()); err != nil {
		return 0, err
	}
	return len(text), nil
}
