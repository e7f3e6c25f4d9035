package spool

import (
	"io"
	"sync/atomic"
)

// Reader reads a part of a file. It can seek and, for what reads without a buffer of
// its own, implements nothing else.
type Reader struct {
	io.SectionReader
	end    io.Closer
	closed atomic.Bool
}

// NewReader returns a Reader of n bytes from off. Its first Close closes end.
func NewReader(r io.ReaderAt, off, n int64, end io.Closer) *Reader {
	return &Reader{SectionReader: *io.NewSectionReader(r, off, n), end: end}
}

// Close implements io.Closer. It may be called again.
func (r *Reader) Close() error {
	if !r.closed.Swap(true) {
		return r.end.Close()
	}
	return nil
}
