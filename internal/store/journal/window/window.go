// Package window reads large files from end to end, though parts of them may be
// unreadable or space that was never written.
package window

import (
	"bytes"
	"encoding/binary"
	"io"
)

// Window reads a file in large pieces. A block that cannot be read becomes
// 0xFF bytes, which are no frame.
type Window struct {
	file io.ReaderAt
	size int64
	buf  []byte
	off  int64

	unreadable bool // there was such a block
}

// New returns a Window on a file of size bytes.
func New(file io.ReaderAt, size int64) *Window { return &Window{file: file, size: size} }

// Size is the length of the file in bytes.
func (w *Window) Size() int64 { return w.size }

// Unreadable reports whether there was a block that could not be read.
func (w *Window) Unreadable() bool { return w.unreadable }

// Align is what offsets are a multiple of that SkipZeros returns.
const Align = 8

const (
	windowSize = 1 << 20
	blockSize  = 4096
)

// BytesAt returns the n bytes at off, which must lie in the file, until the next
// call.
func (w *Window) BytesAt(off, n int64) []byte {
	if off < w.off || off+n > w.off+int64(len(w.buf)) {
		want := min(max(n, windowSize), w.size-off)
		if int64(cap(w.buf)) < want {
			w.buf = make([]byte, want)
		}
		w.buf, w.off = w.buf[:want], off
		w.fillFrom(w.buf, off)
	}
	return w.buf[off-w.off:][:n]
}

func (w *Window) fillFrom(p []byte, off int64) {
	if n, err := w.file.ReadAt(p, off); n == len(p) || err == nil {
		return
	}

	// Block by block, so that one that cannot be read costs no other.
	for len(p) > 0 {
		b := p[:min(len(p), blockSize-int(off%blockSize))]
		if n, _ := w.file.ReadAt(b, off); n < len(b) {
			w.unreadable = true
			for i := range b {
				b[i] = 0xFF
			}
		}
		p, off = p[len(b):], off+int64(len(b))
	}
}

// ReadAt implements io.ReaderAt for what Damage passes on.
func (w *Window) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), w.size-off))
	w.fillFrom(p[:n], off)
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// SkipZeros returns the first aligned offset from off on where a word is not
// zero, or limit.
func (w *Window) SkipZeros(off, limit int64) int64 {
	for off+Align <= limit {
		b := w.BytesAt(off, min(int64(len(zeros)), limit-off))
		if len(b) == len(zeros) && bytes.Equal(b, zeros[:]) {
			off += int64(len(zeros))
			continue
		}

		// A word that is not zero may be the start of a frame.
		for len(b) >= Align {
			if binary.LittleEndian.Uint64(b) != 0 {
				return off
			}
			b, off = b[Align:], off+Align
		}
		if len(b) > 0 {
			break
		}
	}
	return limit
}

// LastByteIn returns the end of the last byte in [from, to) that is not zero,
// or from.
func (w *Window) LastByteIn(from, to int64) int64 {
	for to > from {
		// The search runs backwards, since unwritten space is at the end of a segment and may be
		// most of it.
		n := min(windowSize, to-from)
		b := w.BytesAt(to-n, n)
		for len(b) > 0 {
			last := b[max(0, len(b)-len(zeros)):]
			if !bytes.Equal(last, zeros[:len(last)]) {
				rest := bytes.TrimRight(last, "\x00")
				return to - n + int64(len(b)-len(last)+len(rest))
			}
			b = b[:len(b)-len(last)]
		}
		to -= n
	}
	return from
}

// zeros is what space that was never written is compared with: much faster than
// byte by byte.
var zeros [64 << 10]byte

// LastByte returns the end of the last byte from an offset on that is not zero, or the
// offset.
func (w *Window) LastByte(from int64) int64 { return w.LastByteIn(from, w.size) }
