package lease

import (
	"io"

	"tarishi/internal/mail"
)

// lentContent is a content behind a gate.
type lentContent struct {
	gate    *Gate
	content mail.Content
}

// Content returns c for the borrower behind a gate: it can be opened, and what was opened
// can be read, for as long as the gate is open.
func Content(g *Gate, c mail.Content) mail.Content {
	if g == nil || c == nil {
		return c
	}
	return lentContent{g, c}
}

// Size implements mail.Content.
func (c lentContent) Size() int64 { return c.content.Size() }

// Open implements mail.Content.
func (c lentContent) Open() (io.ReadCloser, error) {
	if !c.gate.acquire() {
		return nil, ErrRevoked
	}
	defer c.gate.release()
	// The borrower may seek where the owner could: a copy in memory for that is not needed.
	from, err := c.content.Open()
	if err != nil {
		return nil, err
	}
	r := &lentReader{gate: c.gate, from: from}
	if at, ok := from.(io.Seeker); ok {
		return &lentSeeker{r, at}, nil
	}
	return r, nil
}

// lentReader is a reader of a lentContent.
type lentReader struct {
	gate *Gate
	from io.ReadCloser
}

// maxRead is how much is read at a time, in bytes: a revocation waits for it.
const maxRead = 256 << 10

// Read implements io.Reader.
func (r *lentReader) Read(to []byte) (int, error) {
	if !r.gate.acquire() {
		return 0, ErrRevoked
	}
	defer r.gate.release()
	// A disk may be slow: the owner waits for one such piece at most.
	return r.from.Read(to[:min(len(to), maxRead)])
}

// Close implements io.Closer. It is allowed at any time.
func (r *lentReader) Close() error { return r.from.Close() }

// lentSeeker is a lentReader that can seek.
type lentSeeker struct {
	*lentReader
	at io.Seeker
}

// Seek implements io.Seeker.
func (s *lentSeeker) Seek(offset int64, whence int) (int64, error) {
	if !s.gate.acquire() {
		return 0, ErrRevoked
	}
	defer s.gate.release()
	return s.at.Seek(offset, whence)
}
