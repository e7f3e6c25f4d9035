package archive

import (
	"encoding/binary"
	"errors"
	"math"
	"unicode/utf16"
)

var errSevenZip = errors.New("not a good 7z header")

// directory is the header of a 7z archive.
type directory struct {
	packed  bool // the folder has the real header
	folders []*folder
	streams []stream
	names   []string
	empties []byte // a bit for each name of a file without a stream
}

// stream is a file in a folder.
type stream struct {
	folder    *folder
	off, size uint64
}

// empty reports whether a file or folder has no content.
func (d *directory) empty(i int) bool {
	return i/8 < len(d.empties) && d.empties[i/8]&(0x80>>(i%8)) != 0
}

// The properties in a header, by their numbers (7zFormat.txt).
const (
	propEnd           = 0x00
	propHeader        = 0x01
	propArchive       = 0x02
	propMainStreams   = 0x04
	propFiles         = 0x05
	propPack          = 0x06
	propUnpack        = 0x07
	propSubStreams    = 0x08
	propSize          = 0x09
	propCRC           = 0x0a
	propFolder        = 0x0b
	propUnpackSizes   = 0x0c
	propStreamNumbers = 0x0d
	propEmptyStream   = 0x0e
	propNames         = 0x11
	propEncodedHeader = 0x17
)

// parseSevenZip reads a header.
func parseSevenZip(text []byte) (*directory, error) {
	c := &cursor{rest: text}
	d := &directory{}
	switch c.byte() {
	case propEncodedHeader:
		d.packed = true
		c.streams(d)
		return d, c.err
	case propHeader:
	default:
		return nil, errSevenZip
	}

	// The header has at most one of each.
	for c.err == nil {
		switch c.byte() {
		case propArchive:
			for c.byte() != propEnd && c.err == nil {
				c.take(c.number())
			}
		case propMainStreams:
			c.streams(d)
		case propFiles:
			c.files(d)
		case propEnd:
			return d, c.err
		default:
			c.fail()
		}
	}
	return d, c.err
}

// cursor reads a header. After an error everything is 0, and err stays.
type cursor struct {
	rest []byte
	err  error
}

func (c *cursor) fail() {
	if c.err == nil {
		c.err = errSevenZip
	}
	c.rest = nil
}

// take returns the next n bytes; nil: there are not so many.
func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.rest)) {
		c.fail()
		return nil
	}
	text := c.rest[:n:n]
	c.rest = c.rest[n:]
	return text
}

func (c *cursor) byte() byte {
	if b := c.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

// number reads a number: the bits that are set at the top of the first byte count the bytes
// that follow.
func (c *cursor) number() uint64 {
	first := c.byte()
	var n uint64
	for i := range 8 {
		if first&(0x80>>i) == 0 {
			return n | uint64(first&(0x7f>>i))<<(8*i)
		}
		n |= uint64(c.byte()) << (8 * i)
	}
	return n
}

// count reads how many items follow, each at least a byte long.
func (c *cursor) count() int {
	n := c.number()
	if n > uint64(len(c.rest)) {
		c.fail()
		return 0
	}
	return int(n)
}

// expect fails unless a property follows.
func (c *cursor) expect(property byte) {
	if c.byte() != property {
		c.fail()
	}
}

// digests passes over the checksums of n streams, and returns which of them have one.
func (c *cursor) digests(n int) (defined []bool) {
	defined = make([]bool, n)
	var bits []byte
	all := c.byte() != 0
	if !all {
		bits = c.take((uint64(n) + 7) / 8)
	}
	for i := range defined {
		if defined[i] = all || i/8 < len(bits) && bits[i/8]&(0x80>>(i%8)) != 0; defined[i] {
			c.take(4)
		}
	}
	return defined
}

// streams reads where folders are, and the files in them.
func (c *cursor) streams(d *directory) {
	var position uint64
	var sizes []uint64
	for property := c.byte(); property != propEnd && c.err == nil; property = c.byte() {
		switch property {
		case propPack:
			position, sizes = c.packs()
		case propUnpack:
			c.folders(d)
		case propSubStreams:
			c.subStreams(d)
		default:
			c.fail()
		}
	}

	// Each folder has its packed streams behind those of the one before.
	at := position + sevenZipStart
	for _, f := range d.folders {
		f.off = at
		for i := range f.packs {
			if len(sizes) == 0 {
				c.fail()
				return
			}
			if i == 0 {
				f.size = sizes[0]
			}
			at += sizes[0]
			sizes = sizes[1:]
		}
	}
	if d.streams == nil {
		for _, f := range d.folders {
			d.streams = append(d.streams, stream{f, 0, f.unpacked})
		}
	}
}

// packs reads the position and the sizes of packed streams.
func (c *cursor) packs() (position uint64, sizes []uint64) {
	position = c.number()
	n := c.count()
	for property := c.byte(); property != propEnd && c.err == nil; property = c.byte() {
		switch property {
		case propSize:
			for range n {
				sizes = append(sizes, c.number())
			}
		case propCRC:
			c.digests(n)
		default:
			c.fail()
		}
	}
	return position, sizes
}

// folders reads how folders are packed.
func (c *cursor) folders(d *directory) {
	c.expect(propFolder)
	n := c.count()
	c.expect(0) // they stand here and not elsewhere
	for range n {
		if c.err != nil {
			return
		}
		d.folders = append(d.folders, c.folder())
	}
	c.expect(propUnpackSizes)
	for _, f := range d.folders {
		// The last coder has what the folder holds, where there are several in a row.
		for range f.coders {
			f.unpacked = c.number()
		}
		if f.unpacked > math.MaxInt64 {
			c.fail()
		}
	}
	property := c.byte()
	if property == propCRC {
		for i, summed := range c.digests(n) {
			d.folders[i].summed = summed
		}
		property = c.byte()
	}
	if property != propEnd {
		c.fail()
	}
}

// maxCoders is how many coders a folder may have, and each packed streams, as in 7-Zip.
const maxCoders = 32

// folder reads the coders of a folder.
func (c *cursor) folder() *folder {
	f := &folder{coders: c.count()}
	ins := 0
	for range min(f.coders, maxCoders) {
		flags := c.byte()
		f.method = string(c.take(uint64(flags & 15)))
		f.encrypted = f.encrypted || f.method == methodAES
		in, out := 1, 1
		if flags&0x10 != 0 {
			in, out = c.count(), c.count()
		}
		if flags&0x20 != 0 {
			f.properties = c.take(c.number())
		}
		if in > maxCoders || out != 1 {
			c.fail()
		}
		ins += in
	}
	if f.coders == 0 || f.coders > maxCoders || ins < f.coders {
		c.fail()
		return f
	}

	// How several coders are bound together does not matter: they are not run.
	if f.coders > 1 {
		f.method = ""
	}
	for range 2 * (f.coders - 1) {
		c.number()
	}
	if f.packs = ins + 1 - f.coders; f.packs > 1 {
		for range f.packs {
			c.number()
		}
	}
	return f
}

// subStreams reads which files are in which folder.
func (c *cursor) subStreams(d *directory) {
	counts := make([]int, len(d.folders))
	for i := range counts {
		counts[i] = 1
	}
	property := c.byte()
	if property == propStreamNumbers {
		for i := range counts {
			n := c.number()
			if n > uint64(len(c.rest))+1 {
				c.fail()
				return
			}
			counts[i] = int(n)
		}
		property = c.byte()
	}

	// The last file of each folder has what the others leave of it.
	d.streams = []stream{}
	unsummed := 0
	for i, f := range d.folders {
		var off uint64
		for j := range counts[i] {
			size := f.unpacked - off
			if j < counts[i]-1 && property == propSize {
				size = c.number()
			}
			if c.err != nil || j > 0 && property != propSize || size > f.unpacked-off {
				c.fail()
				return
			}
			d.streams = append(d.streams, stream{f, off, size})
			off += size
		}
		if counts[i] != 1 || !f.summed {
			unsummed += counts[i]
		}
	}
	if property == propSize {
		property = c.byte()
	}

	// A folder with one file may have that one's checksum itself.
	if property == propCRC {
		c.digests(unsummed)
		property = c.byte()
	}
	if property != propEnd {
		c.fail()
	}
}

// files reads the names.
func (c *cursor) files(d *directory) {
	n := c.count()
	for c.err == nil {
		property := c.number()
		if property == propEnd {
			return
		}
		in := &cursor{rest: c.take(c.number())}
		switch property {
		case propEmptyStream:
			d.empties = in.rest
		case propNames:
			in.expect(0)
			d.names = in.names(n)
		}
		if in.err != nil {
			c.fail()
		}
	}
}

// names reads n names in UTF-16, each with a zero behind.
func (c *cursor) names(n int) []string {
	var all []string
	var units []uint16
	for c.err == nil && len(all) < n {
		b := c.take(2)
		if len(b) < 2 {
			break
		}
		unit := binary.LittleEndian.Uint16(b)
		if unit != 0 {
			units = append(units, unit)
			continue
		}
		all = append(all, string(utf16.Decode(units)))
		units = units[:0]
	}
	return all
}
