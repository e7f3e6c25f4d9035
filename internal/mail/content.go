package mail

import (
	"bytes"
	"errors"
	"io"
)

// Content is a message as RFC 5322 bytes: CRLF line ends, not dot-stuffed, no
// final dot. It is immutable and may be opened any number of times, also
// concurrently.
type Content interface {
	// Size is the length in bytes of what Open yields.
	Size() int64
	// Open returns a new reader from the first byte. An error is temporary.
	Open() (io.ReadCloser, error)
}

// Memory is a Content held as slices, in order. The slices must not change.
type Memory [][]byte

// Size implements Content.
func (m Memory) Size() int64 {
	var n int64
	for _, b := range m {
		n += int64(len(b))
	}
	return n
}

// Open implements Content. The reader is also an io.WriterTo and an io.Seeker.
func (m Memory) Open() (io.ReadCloser, error) {
	return &memoryReader{all: m, rest: m}, nil
}

type memoryReader struct {
	all  Memory
	rest Memory
	off  int // in rest[0]
}

var errSeek = errors.New("mail: no such position in a content")

// Seek implements io.Seeker: a part of a message is found without reading what stands
// before it.
func (r *memoryReader) Seek(offset int64, whence int) (int64, error) {
	size := r.all.Size()
	switch whence {
	case io.SeekCurrent:
		offset += size - r.rest.Size() + int64(r.off)
	case io.SeekEnd:
		offset += size
	}
	if offset < 0 || offset > size {
		return 0, errSeek
	}

	// Slices are few, so a walk from the start costs less than an index of their offsets.
	r.rest = r.all
	at := offset
	for len(r.rest) > 0 && at >= int64(len(r.rest[0])) {
		at -= int64(len(r.rest[0]))
		r.rest = r.rest[1:]
	}
	r.off = int(at)
	return offset, nil
}

func (r *memoryReader) Read(p []byte) (int, error) {
	for len(r.rest) > 0 && r.off == len(r.rest[0]) {
		r.rest, r.off = r.rest[1:], 0
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest[0][r.off:])
	r.off += n
	return n, nil
}

func (r *memoryReader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for len(r.rest) > 0 {
		n, err := w.Write(r.rest[0][r.off:])
		total += int64(n)
		r.off += n
		if err != nil {
			return total, err
		}
		r.rest, r.off = r.rest[1:], 0
	}
	return total, nil
}

func (r *memoryReader) Close() error { return nil }

// WithHead returns a Content that is head followed by c without its first skip
// bytes: how a message gets a changed header without a copy of its body.
func WithHead(head []byte, c Content, skip int64) Content {
	// In memory, the pieces of the body are shared slice by slice and no reader has to skip
	// anything.
	if m, ok := c.(Memory); ok {
		joined := make(Memory, 0, len(m)+1)
		joined = append(joined, head)
		for _, b := range m {
			cut := min(skip, int64(len(b)))
			skip -= cut
			if b = b[cut:]; len(b) > 0 {
				joined = append(joined, b)
			}
		}
		return joined
	}
	return &headed{head: head, body: c, skip: skip}
}

type headed struct {
	head []byte
	body Content
	skip int64
}

func (h *headed) Size() int64 { return int64(len(h.head)) + h.body.Size() - h.skip }

func (h *headed) Open() (io.ReadCloser, error) {
	r, err := h.body.Open()
	if err != nil {
		return nil, err
	}

	// The old head is skipped without being read where the body can seek, as files can.
	if s, ok := r.(io.Seeker); ok {
		_, err = s.Seek(h.skip, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, r, h.skip)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(h.head), r), r}, nil
}
