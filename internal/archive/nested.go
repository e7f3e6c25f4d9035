package archive

import (
	"errors"
	"io"

	"tarishi/internal/mail"
)

// section is a part of a content, which can be read anywhere.
type section struct {
	from io.ReadSeekCloser
	off  int64
	size int64
}

var errSeek = errors.New("archive: the storage cannot be read anywhere")

// sectionOf ends a body and returns it as a section without a size.
func sectionOf(body Body) (*section, error) {
	c, err := body.Content()
	if err != nil {
		return nil, err
	}
	return openSection(c)
}

func openSection(c mail.Content) (*section, error) {
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	from, ok := r.(io.ReadSeekCloser)
	if !ok {
		_ = r.Close()
		return nil, errSeek
	}
	return &section{from: from}, nil
}

// ReadAt implements io.ReaderAt, for one goroutine at a time.
func (s *section) ReadAt(to []byte, off int64) (int, error) {
	if off < 0 || off >= s.size {
		return 0, io.EOF
	}
	if _, err := s.from.Seek(s.off+off, io.SeekStart); err != nil {
		return 0, err
	}
	whole := len(to)
	to = to[:min(int64(whole), s.size-off)]
	n, err := io.ReadFull(s.from, to)
	if err == nil && n < whole {
		err = io.EOF
	}
	return n, err
}

// stream returns a reader of the whole section.
func (s *section) stream() io.Reader { return io.NewSectionReader(s, 0, s.size) }

// open returns it as a file.
func (s *section) open() (io.ReadCloser, error) { return io.NopCloser(s.stream()), nil }

// nested are the archives within one that is being listed, behind each other in one
// Body: however many there are, they take one file.
type nested struct {
	newBody func() (Body, error)
	body    Body // nil: there are none
	size    int64
	pieces  []piece
}

// piece is where an archive of a path stands.
type piece struct {
	path string
	off  int64
	size int64
}

// add writes an archive.
func (n *nested) add(path string, from io.Reader) (err error) {
	if n.body == nil {
		if n.body, err = n.newBody(); err != nil {
			return err
		}
	}
	size, err := io.Copy(n.body, from)
	n.pieces = append(n.pieces, piece{path, n.size, size})
	n.size += size
	return err
}

// each calls visit for every archive.
func (n *nested) each(visit func(path string, s *section) error) error {
	if n.body == nil {
		return nil
	}
	whole, err := sectionOf(n.body)
	if err != nil {
		return err
	}
	defer whole.from.Close()
	for _, p := range n.pieces {
		if err := visit(p.path, &section{whole.from, p.off, p.size}); err != nil {
			return err
		}
	}
	return nil
}

func (n *nested) discard() {
	if n.body != nil {
		n.body.Discard()
	}
}
