package archive

import (
	"bytes"
	"compress/bzip2"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

const (
	sevenZipSignature = "7z\xbc\xaf\x27\x1c"
	sevenZipStart     = 32 // bytes before the first packed stream
)

// errSevenZipMethod is the error of what was packed by other methods, or by several.
var errSevenZipMethod = errors.New("packed by a method that is not known")

// errPassword is the error of a folder that was encrypted.
var errPassword = errors.New("a password is needed")

// listSevenZip lists a 7z archive (7zFormat.txt of the LZMA SDK).
func (w *Walker) listSevenZip(f file, s *section, inner *nested) error {
	// The start says where the header is. It is bounded as that of a zip archive is.
	start := make([]byte, sevenZipStart)
	if _, err := io.ReadFull(s.stream(), start); err != nil {
		return w.failure(unexpected(err))
	}
	off, size := binary.LittleEndian.Uint64(start[12:]), binary.LittleEndian.Uint64(start[20:])
	if size == 0 {
		return nil
	}
	if off > uint64(s.size) || size > uint64(s.size) || sevenZipStart+off+size > uint64(s.size) {
		return w.failure(io.ErrUnexpectedEOF)
	}
	most := uint64(zipSearch + zipPerEntry*(w.o.Entries-w.entries))
	if size > most {
		return ErrEntries
	}
	header := make([]byte, size)
	if _, err := s.ReadAt(header, int64(sevenZipStart+off)); err != nil && !errors.Is(err, io.EOF) {
		return w.failure(err)
	}

	// Most headers are packed themselves.
	dir, err := parseSevenZip(header)
	for layers := 0; err == nil && dir.packed; layers++ {
		if layers == 4 || len(dir.folders) != 1 {
			return w.failure(errSevenZip)
		}
		if dir.folders[0].unpacked > most {
			return ErrEntries
		}
		var r io.Reader
		if r, err = dir.folders[0].open(s); err == nil {
			header, err = io.ReadAll(&counted{w: w, from: io.LimitReader(r, int64(dir.folders[0].unpacked))})
		}
		if errors.Is(err, errPassword) {
			w.Encrypted = true
			return nil
		}
		if err == nil {
			dir, err = parseSevenZip(header)
		}
	}
	if err != nil {
		return w.failure(err)
	}
	return w.addSevenZip(f, s, dir, inner)
}

// addSevenZip adds the entries of a directory.
func (w *Walker) addSevenZip(f file, s *section, dir *directory, inner *nested) error {
	if len(dir.names) > w.o.Entries-w.entries {
		return ErrEntries
	}
	// Files stand behind each other in folders, which can be unpacked from their start only.
	u := &unpacker{w: w, from: s}
	next := 0
	for i, name := range dir.names {
		e := entry{name: name}
		if !dir.empty(i) && next < len(dir.streams) {
			stream := dir.streams[next]
			next++
			if stream.folder.encrypted {
				w.Encrypted = true
			} else {
				e.open = func() (io.Reader, error) { return u.open(stream) }
			}
		}
		if err := w.add(f, e, inner); err != nil {
			return err
		}
	}
	return nil
}

// unpacker reads files of a 7z archive, in their order.
type unpacker struct {
	w      *Walker
	from   *section
	folder *folder
	plain  io.Reader // that folder, unpacked
	at     uint64
}

// open returns a file.
func (u *unpacker) open(s stream) (io.Reader, error) {
	if u.folder != s.folder || u.at > s.off {
		plain, err := s.folder.open(u.from)
		if err != nil {
			return nil, err
		}
		u.folder, u.plain, u.at = s.folder, plain, 0
	}
	// What stands before it has to be unpacked too, so that it counts.
	if _, err := io.CopyN(io.Discard, &counted{w: u.w, from: u.plain}, int64(s.off-u.at)); err != nil {
		return nil, unexpected(err)
	}
	u.at = s.off + s.size
	return io.LimitReader(u.plain, int64(s.size)), nil
}

// folder is a stream of files that were packed together.
type folder struct {
	method     string // of the one coder; "": there are several
	properties []byte
	encrypted  bool

	summed bool // it has a checksum

	off, size uint64 // of its first packed stream in the archive
	packs     int    // packed streams
	coders    int
	unpacked  uint64 // bytes of all files
}

// The methods, by their numbers.
const (
	methodCopy    = "\x00"
	methodLZMA    = "\x03\x01\x01"
	methodLZMA2   = "\x21"
	methodDeflate = "\x04\x01\x08"
	methodBzip2   = "\x04\x02\x02"
	methodAES     = "\x06\xf1\x07\x01"
)

// open returns a reader of the folder, unpacked.
func (f *folder) open(s *section) (io.Reader, error) {
	if f.encrypted {
		return nil, errPassword
	}
	if f.off > uint64(s.size) || f.size > uint64(s.size) {
		return nil, io.ErrUnexpectedEOF
	}
	in := io.NewSectionReader(s, int64(f.off), int64(f.size))
	switch f.method {
	case methodCopy:
		return in, nil
	case methodLZMA:
		if len(f.properties) != 5 {
			return nil, errSevenZip
		}
		// A file of the decoder's own begins with properties and size.
		head := binary.LittleEndian.AppendUint64(bytes.Clone(f.properties), f.unpacked)
		return lzma.ReaderConfig{DictCap: maxDictionary}.NewReader(io.MultiReader(bytes.NewReader(head), in))
	case methodLZMA2:
		if len(f.properties) != 1 {
			return nil, errSevenZip
		}
		return newLZMA2(in, f.properties[0])
	case methodDeflate:
		return flate.NewReader(in), nil
	case methodBzip2:
		return bzip2.NewReader(in), nil
	}
	return nil, fmt.Errorf("%w: %x", errSevenZipMethod, f.method)
}
