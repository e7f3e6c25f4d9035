package journal

import (
	"encoding/binary"
	"hash/crc32"

	"tarishi/internal/store/journal/window"
)

// Kind is what a frame is. Kinds from FirstKind on belong to the caller.
type Kind uint8

// The journal's own kinds. Zero is space that was never written.
const (
	kindUnwritten Kind = iota
	kindCommit         // ends a batch: what stands before it was written whole
	kindSeal           // ends a segment

	FirstKind Kind = 16
)

const (
	frameHeader = 16
	align       = window.Align

	// MaxRecord is the largest payload of one record in bytes.
	MaxRecord = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frameSize is what a payload of n bytes occupies.
func frameSize(n int64) int64 { return frameHeader + (n+align-1)&^(align-1) }

// mark is what the salt of a segment adds to the checksum of each frame's header.
type mark uint32

func markOf(salt uint64) mark {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], salt)
	return mark(crc32.Checksum(b[:], castagnoli))
}

// putFrame writes a frame's header into b. The salt and the offset are part of
// its checksum, so that bytes which look like a frame inside a message, or which
// an older file left on the disk, are never taken for one.
//
// s is memory for what the checksum is computed of: its address leaves the stack.
func putFrame(b []byte, m mark, off int64, k Kind, n, sum uint32, s *seed) {
	b[0], b[1], b[2], b[3] = byte(k), 0, 0, 0
	binary.LittleEndian.PutUint32(b[4:], n)
	binary.LittleEndian.PutUint32(b[8:], sum)
	binary.LittleEndian.PutUint32(b[12:], headerSum(b, m, off, s))
}

type frame struct {
	kind   Kind
	length uint32 // bytes of payload
	sum    uint32 // CRC-32C of the payload
}

// parseFrame reads a frame's header; ok is false for anything that putFrame did
// not write at this offset of this segment.
func parseFrame(b []byte, m mark, off int64, s *seed) (f frame, ok bool) {
	if b[0] == byte(kindUnwritten) || binary.LittleEndian.Uint32(b[12:]) != headerSum(b, m, off, s) {
		return frame{}, false
	}
	f = frame{Kind(b[0]), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])}
	return f, f.length <= MaxRecord
}

// headerSum is the CRC-32C of salt, offset, and the first 12 bytes of a header.
func headerSum(b []byte, m mark, off int64, s *seed) uint32 {
	s.set(b, off)
	return crc32.Update(uint32(m), castagnoli, s[:])
}

// seed is the offset of a frame and the part of its header that has a checksum.
type seed [20]byte

func (s *seed) set(b []byte, off int64) {
	binary.LittleEndian.PutUint64(s[:], uint64(off))
	copy(s[8:], b[:12])
}

// guessFrame reads what may be a frame's header though its segment's mark is not
// known, and returns the mark with which it would be one.
func guessFrame(b []byte, off int64) (f frame, m mark, ok bool) {
	f = frame{Kind(b[0]), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])}
	own := f.kind == kindCommit || f.kind == kindSeal
	if !own && f.kind < FirstKind || own && (f.length != 0 || f.sum != 0) || b[1]|b[2]|b[3] != 0 || f.length > MaxRecord {
		return frame{}, 0, false
	}
	var s seed
	s.set(b, off)
	return f, mark(unwind(binary.LittleEndian.Uint32(b[12:]), s[:])), true
}

// unwind is the inverse of crc32.Update: it returns the checksum that p
// continues to sum.
func unwind(sum uint32, p []byte) uint32 {
	c := ^sum
	for i := len(p) - 1; i >= 0; i-- {
		at := byTop[c>>24]
		c = (c^castagnoli[at])<<8 | uint32(at^p[i])
	}
	return ^c
}

// byTop finds the entry of the checksum's table by its upper byte, which differs
// in all of them.
var byTop = func() (index [256]byte) {
	for i, v := range castagnoli {
		index[v>>24] = byte(i)
	}
	return index
}()

// The head of a segment is one page with two copies of its fields, far enough
// apart that one bad sector does not take both.
const (
	headSize   = 4096
	headCopy   = 2048
	headFields = 40
	version    = 1
)

var magic = [8]byte{'T', 'A', 'R', 'I', 'S', 'H', 'I', 'J'}

func putHead(number uint32, salt uint64, created int64) []byte {
	page := make([]byte, headSize)
	copy(page, magic[:])
	binary.LittleEndian.PutUint32(page[8:], version)
	binary.LittleEndian.PutUint32(page[12:], number)
	binary.LittleEndian.PutUint64(page[16:], salt)
	binary.LittleEndian.PutUint64(page[24:], uint64(created))
	binary.LittleEndian.PutUint32(page[36:], crc32.Checksum(page[:36], castagnoli))
	copy(page[headCopy:], page[:headFields])
	return page
}

type head struct {
	version uint32
	number  uint32
	salt    uint64
	created int64 // Unix nanoseconds
}

func parseHead(page []byte) (head, bool) {
	for _, at := range []int{0, headCopy} {
		b := page[at : at+headFields]
		if [8]byte(b) != magic || binary.LittleEndian.Uint32(b[36:]) != crc32.Checksum(b[:36], castagnoli) {
			continue
		}
		return head{
			version: binary.LittleEndian.Uint32(b[8:]),
			number:  binary.LittleEndian.Uint32(b[12:]),
			salt:    binary.LittleEndian.Uint64(b[16:]),
			created: int64(binary.LittleEndian.Uint64(b[24:])),
		}, true
	}
	return head{}, false
}
