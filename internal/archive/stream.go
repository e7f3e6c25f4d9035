package archive

import (
	"archive/tar"
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/nwaples/rardecode/v2"
)

// listTar lists a tar archive.
func (w *Walker) listTar(f file, in io.Reader, inner *nested) error {
	t := tar.NewReader(in)
	for {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, tar.ErrInsecurePath):
			return w.failure(err)
		}
		if err := w.add(f, entry{name: h.Name, open: func() (io.Reader, error) { return t, nil }}, inner); err != nil {
			return err
		}
	}
}

// listRar lists a rar archive of version 1.5 to 5.
func (w *Walker) listRar(f file, in io.Reader, inner *nested) error {
	r, err := rardecode.NewReader(in, rardecode.MaxDictionarySize(maxDictionary), rardecode.SkipCheck)
	for err == nil {
		var h *rardecode.FileHeader
		if h, err = r.Next(); err != nil {
			break
		}
		e := entry{name: h.Name, open: func() (io.Reader, error) { return r, nil }}
		if h.Encrypted {
			w.Encrypted, e.open = true, nil
		}
		if err := w.add(f, e, inner); err != nil {
			return err
		}
	}

	// Of several volumes each is looked at for itself.
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, rardecode.ErrMultiVolume):
		return nil
	case errors.Is(err, rardecode.ErrArchiveEncrypted), errors.Is(err, rardecode.ErrArchivedFileEncrypted):
		w.Encrypted = true
		return nil
	}
	return w.failure(err)
}

// listCompressed lists a compressed tar archive, or the one file that was compressed.
func (w *Walker) listCompressed(f file, k kind, in *bufio.Reader, inner *nested) error {
	r, err := decompress(k, in)
	if err != nil {
		return w.failure(err)
	}
	defer r.Close()
	plain := bufio.NewReaderSize(&counted{w: w, from: r}, 8<<10)
	head, err := plain.Peek(headSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return w.failure(err)
	}
	if isTarHeader(head) {
		return w.listTar(f, plain, inner)
	}

	// The file has the name that gzip has kept, or that of the archive without its last
	// part. One that is an archive of another kind is looked into, whatever its name.
	if len(head) == 0 {
		return nil
	}
	name := strings.TrimSuffix(path.Base(f.path), path.Ext(f.path))
	if z, ok := r.(*gzip.Reader); ok && z.Name != "" {
		name = z.Name
	}
	return w.add(f, entry{name: name, isArchive: kindOf(head) != isUnknown, open: func() (io.Reader, error) { return plain, nil }}, inner)
}

// decompress returns a reader of what was compressed in a format.
func decompress(k kind, in *bufio.Reader) (io.ReadCloser, error) {
	switch k {
	case isGzip:
		return gzip.NewReader(in)
	case isBzip2:
		return io.NopCloser(bzip2.NewReader(in)), nil
	case isXZ:
		return io.NopCloser(&xzReader{in: in}), nil
	default:
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
}
