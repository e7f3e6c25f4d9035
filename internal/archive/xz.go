package archive

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

const xzSignature = "\xfd7zXZ\x00"

var (
	errXZ         = errors.New("not a good xz file")
	errXZFilter   = errors.New("filters other than LZMA2 are not known")
	errDictionary = fmt.Errorf("more than %d bytes of memory are needed", maxDictionary)
)

// xzReader unpacks xz files (The .xz File Format, version 1.2.0): the frame around LZMA2.
// It exists since the reader that comes with the decoder gives a file as much memory as
// that asks for. Checksums are not looked at.
type xzReader struct {
	in    *bufio.Reader
	check int       // bytes of the checksum behind each block
	block io.Reader // the block that is being read; nil: none is
	taken tally     // of that
}

// tally counts the bytes read.
type tally struct {
	from *bufio.Reader
	n    int64
}

// Read implements io.Reader.
func (t *tally) Read(to []byte) (int, error) {
	n, err := t.from.Read(to)
	t.n += int64(n)
	return n, err
}

// Read implements io.Reader.
func (x *xzReader) Read(to []byte) (int, error) {
	// A block may be empty, and so may a stream.
	for {
		if x.block == nil {
			if err := x.nextBlock(); err != nil {
				return 0, err
			}
		}
		n, err := x.block.Read(to)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		x.block = nil
		behind := int((4-x.taken.n%4)%4) + x.check
		if _, err := x.in.Discard(behind); err != nil {
			return n, unexpected(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// checkSizes are the lengths of the checksums by their type, in bytes.
var checkSizes = [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}

// nextBlock goes on to the next block, in the next stream if need be. At the end of the
// file it returns io.EOF.
func (x *xzReader) nextBlock() error {
	for {
		// A stream begins with its signature, and a block with the size of its header.
		if head, _ := x.in.Peek(len(xzSignature)); string(head) == xzSignature {
			header := make([]byte, 12)
			if _, err := io.ReadFull(x.in, header); err != nil {
				return unexpected(err)
			}
			x.check = checkSizes[header[7]&15]
		}
		size, err := x.in.ReadByte()
		if err != nil {
			return unexpected(err)
		}
		if size != 0 {
			return x.beginBlock(4 * int(size))
		}

		// Behind the last block comes the index, and behind that maybe another stream.
		if err := x.skipIndex(); err != nil {
			return err
		}
		for {
			padding, err := x.in.Peek(4)
			if len(padding) == 0 {
				return io.EOF
			}
			if string(padding) != "\x00\x00\x00\x00" {
				if head, _ := x.in.Peek(len(xzSignature)); string(head) == xzSignature {
					break
				}
				return unexpected(errors.Join(errXZ, err))
			}
			_, _ = x.in.Discard(4)
		}
	}
}

// beginBlock reads the header of a block, without its first byte, of size bytes before its
// checksum (section 3.1).
func (x *xzReader) beginBlock(size int) error {
	header := make([]byte, size+3)
	if _, err := io.ReadFull(x.in, header); err != nil {
		return unexpected(err)
	}
	in := bytes.NewReader(header[:size-1])
	flags, err := in.ReadByte()
	if err != nil {
		return unexpected(err)
	}
	if flags&3 != 0 {
		return errXZFilter
	}

	// Sizes may be left out; what counts is the filter and how much memory it wants.
	for _, has := range []byte{0x40, 0x80} {
		if flags&has != 0 {
			if _, err := binary.ReadUvarint(in); err != nil {
				return unexpected(err)
			}
		}
	}
	var filter [3]byte
	if _, err := io.ReadFull(in, filter[:]); err != nil {
		return unexpected(err)
	}
	if filter[0] != 0x21 || filter[1] != 1 {
		return errXZFilter
	}
	x.taken = tally{from: x.in}
	x.block, err = newLZMA2(&x.taken, filter[2])
	return err
}

// newLZMA2 returns a reader of LZMA2 with the size of its dictionary, encoded as xz and
// 7z have it.
func newLZMA2(in io.Reader, size byte) (io.Reader, error) {
	capacity, err := lzma.DecodeDictCap(size)
	if err != nil {
		return nil, err
	}
	if capacity > maxDictionary {
		return nil, errDictionary
	}
	return lzma.Reader2Config{DictCap: max(int(capacity), lzma.MinDictCap)}.NewReader2(in)
}

// skipIndex reads what follows the first byte of an index, and the footer of the stream
// (sections 4 and 2.1.2).
func (x *xzReader) skipIndex() error {
	n := int64(1)
	number := func() (uint64, error) {
		v, err := binary.ReadUvarint(countingBytes{x.in, &n})
		return v, unexpected(err)
	}
	records, err := number()
	if err != nil {
		return err
	}
	for range records {
		for range 2 {
			if _, err := number(); err != nil {
				return err
			}
		}
	}
	const checksum, footer = 4, 12
	_, err = x.in.Discard(int((4-n%4)%4) + checksum + footer)
	return unexpected(err)
}

// countingBytes counts the bytes that are read.
type countingBytes struct {
	from io.ByteReader
	n    *int64
}

// ReadByte implements io.ByteReader.
func (c countingBytes) ReadByte() (byte, error) {
	b, err := c.from.ReadByte()
	if err == nil {
		*c.n++
	}
	return b, err
}

// unexpected returns the error of a file that ends too early.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
