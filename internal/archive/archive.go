// Package archive lists what archives hold, and the archives within them: zip, tar, rar
// and 7z, and what gzip, bzip2, xz and zstd have compressed.
//
// Archives come from anybody, so nothing in them is believed: a Walker bounds how deeply
// they stand in each other, how many entries they have and how many bytes are unpacked,
// while it unpacks. One decoder runs at a time, with at most maxDictionary bytes
// of memory for what it looks back to; an archive within another is written to a Body first.
// Formats are recognized by their content; names only say which files count as archives.
package archive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"tarishi/internal/mail"
)

// Limits bound what all archives of a Walker hold together.
type Limits struct {
	Depth   int   // of archives in each other: 1 opens none within another
	Entries int   // files and folders
	Bytes   int64 // that are unpacked
}

// The errors of archives beyond a limit.
var (
	ErrDepth   = errors.New("archive: archives are nested too deeply")
	ErrEntries = errors.New("archive: too many entries")
	ErrBytes   = errors.New("archive: too many bytes unpacked")
)

// ErrDamaged is wrapped by the error of an archive that is broken, or packed in a way that
// is not known.
var ErrDamaged = errors.New("archive: cannot be unpacked")

// maxDictionary is how far back a decoder may look, in bytes: the most that the usual
// levels of compression ask for.
const maxDictionary = 64 << 20

// maxNames bounds the bytes of all names together, which are kept.
const maxNames = 256 << 10

// Body takes an archive while it is unpacked from another.
type Body interface {
	io.Writer
	// Content ends the body. Its readers are io.Seekers.
	Content() (mail.Content, error)
	Discard()
}

// Options is what a Walker works with. All fields are needed.
type Options struct {
	Limits
	// IsArchive reports whether the name of a file is that of an archive.
	IsArchive func(name string) bool
	NewBody   func() (Body, error)
}

// Walker looks into archives, one after another. Its methods are for one goroutine.
type Walker struct {
	o Options

	// Names are the paths of all entries found: the name of the archive, a slash, and
	// the path in it; that of an archive in it has another path behind.
	Names []string
	// Encrypted reports whether an archive holds something that needs a password.
	Encrypted bool
	// Opaque are files with names of archives that are none of a known format.
	Opaque []string

	entries int
	names   int // bytes
	bytes   int64
	ctx     context.Context // of the Walk that runs
	stopped error           // why decoders get no more to read, whatever they make of it
}

// NewWalker returns a Walker.
func NewWalker(o Options) *Walker { return &Walker{o: o} }

// file is an archive that is looked into.
type file struct {
	path    string
	depth   int
	open    func() (io.ReadCloser, error)
	section *section // nil: it can only be read from its start on
}

// Walk looks into the archive of a name, which open opens. Beyond a limit the error is
// ErrDepth, ErrEntries or ErrBytes; if ctx ends it is that of ctx; for a broken
// archive it wraps ErrDamaged. Any other is of what was opened, or of a Body. What was found
// before counts.
func (w *Walker) Walk(ctx context.Context, name string, open func() (io.ReadCloser, error)) (err error) {
	// Decoders were written for good archives: a broken one must not end more than itself.
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: %s: %v", ErrDamaged, name, cause)
		}
	}()
	w.ctx, w.stopped = ctx, nil
	return w.walk(file{path: name, open: open})
}

// walk looks into an archive, and into those within it.
func (w *Walker) walk(f file) error {
	if f.depth >= w.o.Depth {
		return ErrDepth
	}
	inner := &nested{newBody: w.o.NewBody}
	defer inner.discard()
	if err := w.list(f, inner); err != nil {
		return err
	}
	return inner.each(func(path string, s *section) error {
		return w.walk(file{path: path, depth: f.depth + 1, open: s.open, section: s})
	})
}

// headSize is how many bytes tell what a file is: a tar archive says it in its first block.
const headSize = 512

// list adds the entries of an archive to Names, and the archives among them to inner.
func (w *Walker) list(f file, inner *nested) error {
	from, err := f.open()
	if err != nil {
		return err
	}
	defer from.Close()
	in := bufio.NewReaderSize(&guarded{w: w, from: from}, 8<<10)
	head, err := in.Peek(headSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return w.failure(err)
	}

	// A zip archive may have anything in front, and programs that go by the name find it
	// nevertheless.
	k := kindOf(head)
	if k == isUnknown || k != isZip && strings.EqualFold(path.Ext(f.path), ".zip") {
		s, release, err := w.placed(f, in)
		if err != nil {
			return err
		}
		defer release()
		if found, err := w.listZip(f, s, inner); found || err != nil {
			return err
		}
		f.section = s
		in = bufio.NewReaderSize(&guarded{w: w, from: s.stream()}, 8<<10)
	}
	switch k {
	case isTar:
		return w.listTar(f, in, inner)
	case isRar:
		return w.listRar(f, in, inner)
	case isZip, isSevenZip:
		return w.listPlaced(f, k, in, inner)
	case isUnknown:
		w.Opaque = append(w.Opaque, f.path)
		return nil
	}
	return w.listCompressed(f, k, in, inner)
}

// listPlaced lists an archive with its directory at the end.
func (w *Walker) listPlaced(f file, k kind, in io.Reader, inner *nested) error {
	s, release, err := w.placed(f, in)
	if err != nil {
		return err
	}
	defer release()
	if k == isSevenZip {
		return w.listSevenZip(f, s, inner)
	}
	found, err := w.listZip(f, s, inner)
	if err == nil && !found {
		err = fmt.Errorf("%w: %s has no directory", ErrDamaged, f.path)
	}
	return err
}

// placed returns a file as one that can be read anywhere. release is due at the end.
func (w *Walker) placed(f file, in io.Reader) (s *section, release func(), err error) {
	if f.section != nil {
		return f.section, func() {}, nil
	}
	// What comes with the message is not counted: it is no larger than that.
	body, err := w.o.NewBody()
	if err != nil {
		return nil, nil, err
	}
	size, err := io.Copy(body, in)
	if err == nil {
		s, err = sectionOf(body)
	}
	if err != nil {
		body.Discard()
		return nil, nil, err
	}
	s.size = size
	return s, func() {
		_ = s.from.Close()
		body.Discard()
	}, nil
}

// entry is what an archive says of a file or folder.
type entry struct {
	name      string
	isArchive bool // whatever its name
	// open returns the content; nil: it cannot be had.
	open func() (io.Reader, error)
}

// add takes an entry of an archive. What counts as an archive goes to inner.
func (w *Walker) add(f file, e entry, inner *nested) error {
	// The limits come first: an entry may take next to nothing of the archive.
	w.entries++
	at := f.path + "/" + e.name
	w.names += len(at)
	if w.entries > w.o.Entries || w.names > maxNames {
		return ErrEntries
	}
	w.Names = append(w.Names, at)
	if e.open == nil || strings.HasSuffix(e.name, "/") || !e.isArchive && !w.o.IsArchive(e.name) {
		return nil
	}
	if f.depth+1 >= w.o.Depth {
		return ErrDepth
	}

	// Failures of the decoder are the archive's, those of writing are ours.
	r, err := e.open()
	if err != nil {
		return w.failure(err)
	}
	return inner.add(at, &counted{w: w, from: r})
}

// failure returns the error of an archive that a decoder has given up with err.
func (w *Walker) failure(err error) error {
	switch {
	case w.stopped != nil:
		return w.stopped
	case errors.Is(err, ErrDamaged):
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// guarded is what a decoder reads from. It ends with the context of the Walk.
type guarded struct {
	w    *Walker
	from io.Reader
}

// Read implements io.Reader.
func (g *guarded) Read(to []byte) (int, error) {
	if err := g.w.ctx.Err(); err != nil {
		g.w.stopped = err
		return 0, err
	}
	n, err := g.from.Read(to)
	if err != nil && !errors.Is(err, io.EOF) {
		g.w.stopped = err
	}
	return n, err
}

// counted is what a decoder has unpacked, within the limit and the time. Its errors are
// those of Walk.
type counted struct {
	w    *Walker
	from io.Reader
}

// Read implements io.Reader.
func (c *counted) Read(to []byte) (int, error) {
	if err := c.w.ctx.Err(); err != nil {
		c.w.stopped = err
		return 0, err
	}
	n, err := c.from.Read(to)
	if c.w.bytes += int64(n); c.w.bytes > c.w.o.Bytes {
		c.w.stopped = ErrBytes
		return 0, ErrBytes
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = c.w.failure(err)
	}
	return n, err
}
