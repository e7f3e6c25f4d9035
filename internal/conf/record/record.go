// Package record remembers what the files of a folder held when they were read, so that two
// readings can be compared without a look at the files.
package record

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
)

// Digest stands for the contents of files.
type Digest [sha256.Size]byte

// Folder is a folder that remembers the files that were read in it.
type Folder struct {
	fs.FS
	Read Files
}

// Of returns a Folder of which nothing was read.
func Of(files fs.FS) *Folder { return &Folder{files, Files{}} }

// ReadFile implements fs.ReadFileFS.
func (f *Folder) ReadFile(name string) ([]byte, error) {
	data, err := fs.ReadFile(f.FS, name)
	f.Read[name] = Content{}
	if err == nil {
		f.Read[name] = inspect(data)
	}
	return data, err
}

// Stat implements fs.StatFS: nothing is opened, for a pipe would wait for its other end.
func (f *Folder) Stat(name string) (fs.FileInfo, error) { return fs.Stat(f.FS, name) }

// Lstat implements fs.ReadLinkFS.
func (f *Folder) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(f.FS, name) }

// ReadLink implements fs.ReadLinkFS.
func (f *Folder) ReadLink(name string) (string, error) { return fs.ReadLink(f.FS, name) }

// Content is what a file held; zero: it could not be read.
type Content struct {
	sum    Digest
	blank  bool // nothing stands in it
	silent bool // nothing but comments
}

// inspect returns what is remembered of a file.
func inspect(data []byte) Content {
	c := Content{sum: sha256.Sum256(data), blank: len(bytes.TrimSpace(data)) == 0, silent: true}
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && line[0] != ';' {
			c.silent = false
			break
		}
	}
	return c
}

// WasRead reports whether there was anything to read.
func (c Content) WasRead() bool { return c != (Content{}) }

// SaysSomething reports whether the file held more than comments.
func (c Content) SaysSomething() bool { return c.WasRead() && !c.silent }

// Files are the files that were looked for, by their names.
type Files map[string]Content

// Digest returns the digest of all files, and of the names of some that count by being
// there.
func (f Files) Digest(others []string) Digest {
	digest := sha256.New()

	// In a certain order: the map has none.
	for _, name := range slices.Sorted(maps.Keys(f)) {
		one := f[name]
		io.WriteString(digest, name+"\x00")
		digest.Write(one.sum[:])
	}
	for _, name := range others {
		io.WriteString(digest, name+"\x00")
	}
	return Digest(digest.Sum(nil))
}

// Vanished returns the files, sorted, that were there before and are not, though they were
// looked for.
func (f Files) Vanished(before Files) []string {
	return before.filter(func(name string, was Content) bool {
		now, wanted := f[name]
		return wanted && !now.WasRead() && was.WasRead()
	})
}

// Emptied returns the files, sorted, that said something before and are empty, without a
// comment even. A program that fails, or a full disk, leaves such files behind.
func (f Files) Emptied(before Files) []string {
	return before.filter(func(name string, was Content) bool { return f[name].blank && was.SaysSomething() })
}

// Removed returns the files, sorted, that were there before, are not looked for any more, and
// do not exist in folder.
func (f Files) Removed(before Files, folder fs.FS) []string {
	return before.filter(func(name string, was Content) bool {
		if _, wanted := f[name]; wanted || !was.WasRead() {
			return false
		}
		_, err := fs.Lstat(folder, name)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// filter returns the names, sorted, of some files.
func (f Files) filter(wanted func(name string, c Content) bool) (names []string) {
	for name, c := range f {
		if wanted(name, c) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
