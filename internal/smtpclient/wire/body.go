package wire

import (
	"fmt"
	"io"
	"sync"

	"tarishi/internal/mail"
)

// How many bytes of a message are collected before they are written, and sent in one
// chunk of BDAT.
const (
	bodyBuffer  = 32 << 10
	chunkBuffer = 256 << 10
)

// Body copies one message through its DotWriter.
type Body struct {
	DotWriter
	read []byte // made when needed
}

// bodies and chunkBodies save the allocation of buffers; they hold no state.
var (
	bodies      = sync.Pool{New: func() any { return &Body{DotWriter: *NewDotWriter(bodyBuffer, false)} }}
	chunkBodies = sync.Pool{New: func() any { return &Body{DotWriter: *NewDotWriter(chunkBuffer, true)} }}
)

// NewBody returns what copies a message to w, for BDAT in chunks. Release must be called
// at its end.
func NewBody(w io.Writer, chunked bool) *Body {
	pool := &bodies
	if chunked {
		pool = &chunkBodies
	}
	b := pool.Get().(*Body)
	b.Reset(w)
	return b
}

// Release gives b back.
func (b *Body) Release() {
	b.Reset(nil)
	if b.plain {
		chunkBodies.Put(b)
	} else {
		bodies.Put(b)
	}
}

// Copy writes the content, which r reads unless it is in memory. local is an error in
// reading it, or that it has not the size it should have; err is one of the connection.
func (b *Body) Copy(content mail.Content, r io.Reader) (local, err error) {
	var size int64
	if m, ok := content.(mail.Memory); ok {
		for _, p := range m {
			if _, err := b.Write(p); err != nil {
				return nil, err
			}
			size += int64(len(p))
		}
		return mismatch(size, content), nil
	}
	if b.read == nil {
		b.read = make([]byte, bodyBuffer)
	}
	for {
		n, failed := r.Read(b.read)
		size += int64(n)
		if _, err := b.Write(b.read[:n]); err != nil {
			return nil, err
		}
		if failed == io.EOF {
			return mismatch(size, content), nil
		}
		if failed != nil {
			return failed, nil
		}
	}
}

// mismatch is the error of a content that has not the size it should have.
func mismatch(size int64, content mail.Content) error {
	if size == content.Size() {
		return nil
	}
	return fmt.Errorf("content has %d bytes instead of %d", size, content.Size())
}
