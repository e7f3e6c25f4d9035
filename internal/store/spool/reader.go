package spool

import (
	"io"
	"sync"
)

// Reader reads a part of a file. It can seek and, for what reads without a buffer of
// its own, implements nothing else.
type Reader struct {
	io.SectionReader
	close func()
}

// NewReader returns a Reader of n bytes from off. Its first Close calls done.
func NewReader(r io.ReaderAt, off, n int64, done func()) *Reader {
	return &Reader{*io.NewSectionReader(r, off, n), sync.OnceFunc(done)}
}

// Close implements io.Closer. It may be called again.
func (r *Reader) Close() error {
	r.close()
	return nil
}
