// Package spool keeps waiting messages as files that a person and any mail tool
// can read. It knows no SMTP.
//
// Below its directory a message has two files, where XX are the first two
// characters of its ID (00 if those are no hexadecimal digits):
//
//	msg/XX/ID.eml   the content, exactly the bytes that will be sent
//	msg/XX/ID.json  envelope and the state of every recipient: type State
//	msg/XX/ID.new   a content that Accept has not made ID.eml yet
//	corrupt/        what could not be read, each with a NAME.reason file
//
// A file appears under its name only when its content is synced: it is written
// under a temporary name (NAME.NNN.tmp) in the same directory, synced and
// renamed. The names are durable after Sync, which syncs each directory that
// changed once. A Batch syncs many files with one sync of the file system, in the
// same order: contents, then names. Temporary files that a crash left are removed by Walk: they were never
// acknowledged.
//
// Files are made with O_EXCL, opened with O_NOFOLLOW and have mode 0600. A
// damaged file, or anything that is no file at all, is never deleted: see Quarantine. A
// file that lies in another folder than its own is brought home by Walk.
package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"tarishi/internal/mail"
	"tarishi/internal/vfs"
)

// Spool is an open spool. Its methods may be called from any goroutine; two
// calls for one message must not write or remove at the same time.
type Spool struct {
	fs   vfs.FS
	dir  string
	temp atomic.Uint64 // number in temporary names

	syncing sync.Mutex // before mu

	mu    sync.Mutex
	dirty map[string]bool // directories with names that are not durable
	made  map[string]bool // directories that exist
}

// Open returns the spool in dir and makes its directories.
func Open(f vfs.FS, dir string) (*Spool, error) {
	s := &Spool{fs: f, dir: dir, dirty: map[string]bool{}, made: map[string]bool{}}
	for _, d := range []string{s.messageDir(), s.corruptDir()} {
		if err := f.Mkdir(d); err != nil {
			return nil, err
		}
	}
	// The names of folders that an earlier process made may not be durable yet.
	if err := f.SyncDir(s.messageDir()); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Spool) messageDir() string { return filepath.Join(s.dir, "msg") }
func (s *Spool) corruptDir() string { return filepath.Join(s.dir, "corrupt") }

func folderOf(id mail.ID) string {
	const hex = "0123456789ABCDEFabcdef"
	if len(id) >= 2 && strings.Trim(string(id[:2]), hex) == "" {
		return strings.ToUpper(string(id[:2]))
	}
	return "00"
}

// The ends of a message's names.
const (
	extContent = ".eml"
	extNew     = ".new"
	extState   = ".json"
	extReason  = ".reason" // of a file in corrupt/
)

// Path returns the name of a message's content file.
func (s *Spool) Path(id mail.ID) string { return s.fileName(id, extContent) }

func (s *Spool) fileName(id mail.ID, ext string) string {
	return filepath.Join(s.messageDir(), folderOf(id), string(id)+ext)
}

// inFolder calls fn, which gives something a name in a directory of ours. A directory
// that does not exist, or no more, is made before. The spool's own is not: its
// removal takes the journal along, and a new one would be another queue.
func (s *Spool) inFolder(dir string, fn func() error) error {
	if err := s.prepareFolder(dir); err != nil {
		return err
	}
	err := fn()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	// Somebody removed the folder meanwhile. It is made again once; a second failure is returned.
	s.mu.Lock()
	delete(s.made, dir)
	s.mu.Unlock()
	if err := s.prepareFolder(dir); err != nil {
		return err
	}
	return fn()
}

func (s *Spool) prepareFolder(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made[dir] {
		return nil
	}

	// Mkdir would make missing parents too, and so begin a new spool in the wrong place.
	if _, err := s.fs.List(s.dir); err != nil {
		return err
	}
	if err := s.fs.Mkdir(dir); err != nil {
		return err
	}
	s.made[dir] = true
	return nil
}

func (s *Spool) markDirty(name string) {
	s.mu.Lock()
	s.dirty[filepath.Dir(name)] = true
	s.mu.Unlock()
}

// Sync makes all names durable that were written or removed before.
func (s *Spool) Sync() error {
	s.syncing.Lock() // a call that finds nothing to do has waited for the one that does it
	defer s.syncing.Unlock()

	// Changes from here on are for the next call.
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = map[string]bool{}
	s.mu.Unlock()
	var errs []error
	for dir := range dirty {
		// A folder that fails is tried again, the others are not kept from it.
		err := s.fs.SyncDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // one that was removed is missed once
			s.mu.Lock()
			s.dirty[dir] = true
			s.mu.Unlock()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// syncWith is Sync with one sync of the file system.
func (s *Spool) syncWith(b vfs.Barrier) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = map[string]bool{}
	s.mu.Unlock()
	if len(dirty) == 0 {
		return nil
	}

	// One barrier covers all folders. If it fails, all of them are dirty again, as nothing is known
	// of any.
	err := b.Sync()
	if err != nil {
		s.mu.Lock()
		maps.Copy(s.dirty, dirty)
		s.mu.Unlock()
	}
	return err
}

// SyncContent is Sync for the directory of one message.
func (s *Spool) SyncContent(id mail.ID) error {
	return s.fs.SyncDir(filepath.Dir(s.Path(id)))
}

// Temp makes a file for a content that has no ID yet. Place gives it one.
func (s *Spool) Temp() (f vfs.File, name string, err error) {
	return s.createTemp(filepath.Join(s.messageDir(), "body"))
}

func (s *Spool) createTemp(base string) (f vfs.File, name string, err error) {
	for {
		name = fmt.Sprintf("%s.%d.tmp", base, s.temp.Add(1))
		f, err = s.createFile(name)
		if !errors.Is(err, fs.ErrExist) { // of a process that died
			return f, name, err
		}
	}
}

func (s *Spool) createFile(name string) (f vfs.File, err error) {
	err = s.inFolder(filepath.Dir(name), func() (err error) {
		f, err = s.fs.Create(name)
		return err
	})
	return f, err
}

func (s *Spool) moveFile(from, to string) error {
	return s.inFolder(filepath.Dir(to), func() error { return s.fs.Rename(from, to) })
}

// Drop removes a file that Temp made and Place did not take.
func (s *Spool) Drop(temp string) error { return s.fs.Remove(temp) }

// Place makes the file that Temp made, which must be synced, the content of a
// message that is about to be accepted. Sync makes it durable.
func (s *Spool) Place(id mail.ID, temp string) error {
	return s.rename(temp, s.fileName(id, extNew))
}

// Accept gives a content its final name: somebody has promised to keep it. As
// long as it has the other one it was never acknowledged. Sync makes it durable.
func (s *Spool) Accept(id mail.ID) error { return s.rename(s.fileName(id, extNew), s.Path(id)) }

// rename gives a file its name. A folder that has it goes to corrupt/: one such
// name must not keep a whole batch from its place.
func (s *Spool) rename(from, to string) error {
	err := s.moveFile(from, to)
	if err != nil {
		if n, e := s.fs.Size(to); e == nil && n < 0 {
			if err = s.setAside(to, filepath.Base(to), "it has the name of a message's file, and is none"); err == nil {
				err = s.moveFile(from, to)
			}
		}
	}
	if err != nil {
		return err
	}
	s.markDirty(to)
	return nil
}

// WriteContent writes the content of a message that is about to be accepted, as
// Place does, and returns its checksum. A content that is not as long as it says
// is an error. Sync makes it durable.
func (s *Spool) WriteContent(id mail.ID, c mail.Content) (Sum, error) {
	temp, sum, err := s.writeContent(id, c, true)
	if err != nil {
		return Sum{}, err
	}
	return sum, s.rename(temp, s.fileName(id, extNew))
}

func (s *Spool) writeContent(id mail.ID, c mail.Content, sync bool) (temp string, sum Sum, err error) {
	r, err := c.Open()
	if err != nil {
		return "", Sum{}, err
	}
	temp, sum, err = s.writeTemp(id, extContent, r, c.Size(), sync)
	return temp, sum, errors.Join(err, r.Close())
}

// writeTemp writes a temporary file of a message.
func (s *Spool) writeTemp(id mail.ID, ext string, r io.Reader, size int64, sync bool) (temp string, sum Sum, err error) {
	f, temp, err := s.createTemp(s.fileName(id, ext))
	if err != nil {
		return "", Sum{}, err
	}
	var summer Summer
	n, err := io.Copy(io.MultiWriter(f, &summer), r)

	// A content that lies about its size would be cut, or run over, when it is sent.
	if err == nil && n != size {
		err = fmt.Errorf("spool: content of %s has %d bytes and says %d", id, n, size)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = s.fs.Remove(temp)
	}
	return temp, summer.Sum(), err
}

// OpenContent opens a message's content, also before Accept. An error that wraps
// ErrDamaged says that something else has its name.
func (s *Spool) OpenContent(id mail.ID) (vfs.File, error) {
	f, err := s.openFile(s.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return s.openFile(s.fileName(id, extNew))
	}
	return f, err
}

// sumOfFile reads a file.
func (s *Spool) sumOfFile(name string) (Sum, error) {
	f, err := s.openFile(name)
	if err != nil {
		return Sum{}, err
	}
	defer f.Close()
	var summer Summer
	_, err = io.Copy(&summer, io.NewSectionReader(f, 0, math.MaxInt64))
	return summer.Sum(), err
}

// openFile opens a regular file.
func (s *Spool) openFile(name string) (vfs.File, error) {
	f, err := s.fs.Open(name)
	if errors.Is(err, vfs.ErrNotRegular) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return f, err
}

// LoadState reads a message's state. An error that wraps ErrDamaged says that it
// will never be read, one that wraps ErrVersion that a newer program wrote it.
func (s *Spool) LoadState(id mail.ID) (*State, error) {
	f, err := s.openFile(s.fileName(id, extState))
	if err != nil {
		return nil, err
	}
	defer f.Close()

	// No file of ours is as long as to fill the memory.
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > maxState {
		return nil, fmt.Errorf("%w: %d bytes long", ErrDamaged, size)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, err
	}
	return DecodeState(id, b)
}

// ContentSize returns the length of a message's content in bytes, also before
// Accept, and -1 if it is no regular file.
func (s *Spool) ContentSize(id mail.ID) (int64, error) {
	n, err := s.fs.Size(s.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return s.fs.Size(s.fileName(id, extNew))
	}
	return n, err
}

// Remove deletes a message's files. Files that do not exist are no error; what
// is no file and cannot be deleted goes to corrupt/. Sync makes it durable.
func (s *Spool) Remove(id mail.ID) error {
	for _, ext := range []string{extState, extContent, extNew} {
		name := s.fileName(id, ext)
		err := s.fs.Remove(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			// A folder with something in it, say: it is in the way, and not ours to
			// delete.
			if n, e := s.fs.Size(name); e != nil || n >= 0 {
				return err
			}
			if e := s.setAside(name, string(id)+ext, "it has the name of a finished message's file, and is none"); e != nil {
				return errors.Join(err, e)
			}
		}
		s.markDirty(name)
	}
	return nil
}
