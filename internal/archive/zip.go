package archive

import (
	"archive/zip"
	"compress/bzip2"
	"errors"
	"io"
	"math"
)

// How much of a zip archive is read to find its directory: what is searched for its end,
// and so much for each entry that may be in it.
const (
	zipSearch   = 128 << 10
	zipPerEntry = 1 << 10
)

// zipBzip2 is the method of that number (APPNOTE.TXT section 4.4.5).
const zipBzip2 = 12

// zipEncrypted is the bit among the flags of an entry (APPNOTE.TXT section 4.4.4).
const zipEncrypted = 1

// listZip lists a zip archive, which may have something in front. found is false if there
// is none.
func (w *Walker) listZip(f file, s *section, inner *nested) (found bool, err error) {
	// The directory is in memory as a whole, whatever number of entries it claims to have.
	in := &metered{from: s, left: zipSearch + zipPerEntry*int64(w.o.Entries-w.entries)}
	z, err := zip.NewReader(in, s.size)
	switch {
	case in.left < 0:
		return true, ErrEntries
	case errors.Is(err, zip.ErrFormat):
		return false, nil
	case err != nil && !errors.Is(err, zip.ErrInsecurePath):
		return true, w.failure(err)
	}
	in.left = math.MaxInt64
	z.RegisterDecompressor(zipBzip2, func(r io.Reader) io.ReadCloser { return io.NopCloser(bzip2.NewReader(r)) })

	// Names can be read, whatever was encrypted.
	for _, one := range z.File {
		if err := w.ctx.Err(); err != nil {
			return true, err
		}
		e := entry{name: one.Name, open: func() (io.Reader, error) { return one.Open() }}
		if one.Flags&zipEncrypted != 0 {
			w.Encrypted, e.open = true, nil
		}
		if err := w.add(f, e, inner); err != nil {
			return true, err
		}
	}
	return true, nil
}

// metered is a section with a limit on how much may be read.
type metered struct {
	from *section
	left int64 // bytes; below 0: more was asked for
}

// ReadAt implements io.ReaderAt.
func (m *metered) ReadAt(to []byte, off int64) (int, error) {
	if m.left -= int64(len(to)); m.left < 0 {
		return 0, io.ErrUnexpectedEOF
	}
	return m.from.ReadAt(to, off)
}
