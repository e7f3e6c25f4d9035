// Package vfs is the seam between the queue and the file system: the few
// operations that a durable store needs, small enough for a twin in memory that
// fails or crashes at any of them.
//
// Two rules of the seam: no operation follows a symbolic link in the last
// element of a file's name, and nothing but SyncDir makes the created, renamed or
// removed name of a file durable. Files get mode 0600, directories 0700.
//
// Errors are those of package os; errors.Is finds fs.ErrNotExist, fs.ErrExist,
// fs.ErrPermission and syscall.ENOSPC in them.
package vfs

import (
	"errors"
	"fmt"
	"io"
)

// ErrNotRegular is the error of Open for a name that a folder, a link, a FIFO or
// a device has.
var ErrNotRegular = errors.New("not a regular file")

// FS is a file system. Its methods may be called from any goroutine.
type FS interface {
	// Create makes a new file to write and read. A name that exists is an error.
	Create(name string) (File, error)
	// Open opens a regular file to read. Anything else is ErrNotRegular; it is
	// never waited for.
	Open(name string) (File, error)
	// Rename moves a file over whatever has the new name.
	Rename(from, to string) error
	// Remove deletes a file.
	Remove(name string) error
	// Mkdir makes a directory and its parents, durably; one that exists is no
	// error.
	Mkdir(name string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	// List returns what a directory holds, sorted by name.
	List(name string) ([]Entry, error)
	// Size returns the length of a regular file in bytes, and -1 for anything
	// else that has the name.
	Size(name string) (int64, error)
	// Barrier returns a handle to make durable at once what many writes below
	// name leave behind; errors.ErrUnsupported where that cannot be relied on.
	Barrier(name string) (Barrier, error)
	// Free tells what may still be written below name.
	Free(name string) (Space, error)
	// Lock takes the lock file for this process until it is closed. A
	// *LockedError says that another one has it.
	Lock(name string) (Lock, error)
}

// Lock is a lock file that this process holds.
type Lock interface {
	io.Closer
	// Renew makes the file again if somebody removed it. It fails if the lock is not
	// held any more, since another folder has taken the place of the locked one.
	Renew() error
}

// File is an open file. Reads and writes at an offset may be concurrent.
type File interface {
	io.ReaderAt
	io.Writer // at the end of what Write wrote before
	io.Closer
	// WriteVec writes bufs one after the other from off on: all of them, or an
	// error and any part of them.
	WriteVec(bufs [][]byte, off int64) error
	// Reserve allocates blocks for size bytes, which then read as zeros. A file
	// system that cannot do so is no error.
	Reserve(size int64) error
	// Sync makes the content and the size durable. After an error nothing is
	// known of what was written since the last Sync, whatever a later one says.
	Sync() error
	// Size returns the length in bytes.
	Size() (int64, error)
}

// Barrier makes everything durable that was written to its file system since
// the Barrier was made: contents, sizes and names. After an error nothing is
// known of any of it.
type Barrier interface {
	Sync() error
	io.Closer
}

// Space is what a file system has, for bytes and for files (inodes). TotalFiles
// is 0 where the number of files has no limit.
type Space struct {
	Bytes, TotalBytes int64
	Files, TotalFiles int64
}

// Entry is one name in a directory.
type Entry struct {
	Name string
	Dir  bool
}

// LockedError says that another process holds a lock file. PID is 0 if it did
// not write one.
type LockedError struct {
	Name string
	PID  int
}

// Error implements error.
func (e *LockedError) Error() string {
	return e.Name + " is locked by another process" + e.Holder()
}

// Holder returns " (pid N)", or "" if the holder is not known.
func (e *LockedError) Holder() string {
	if e.PID == 0 {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", e.PID)
}

// NoSync returns f without durability: its Sync and SyncDir do nothing. It is
// for benchmarks.
func NoSync(f FS) FS { return unsynced{f} }

type unsynced struct{ FS }

func (u unsynced) SyncDir(string) error { return nil }

func (u unsynced) Barrier(string) (Barrier, error) { return noBarrier{}, nil }

type noBarrier struct{}

func (noBarrier) Sync() error  { return nil }
func (noBarrier) Close() error { return nil }

func (u unsynced) Create(name string) (File, error) {
	f, err := u.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

type unsyncedFile struct{ File }

func (unsyncedFile) Sync() error { return nil }
