// Package crashfs is a file system in memory that forgets what a real one may
// forget. It fails or crashes at a chosen operation, and Restart returns what a
// disk could hold after the crash.
//
// It is stricter than any real file system: data is safe only after Sync of its
// file, the name of a file only after SyncDir of its directory, and after a
// failed Sync what was not synced yet is lost for good though reads still see
// it. Written data survives in sectors of 512 bytes, in any order; the changes
// of one directory survive in their order.
package crashfs

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"tarishi/internal/vfs"
)

// ErrCrashed is what every operation returns from the crash on.
var ErrCrashed = errors.New("crashed")

// FS implements vfs.FS.
type FS struct {
	mu      sync.Mutex
	dirs    map[string]*dir
	ops     int
	failAt  int
	failTo  int // exclusive
	failure error
	crashAt int
	crashed bool
	locked  bool
}

// New returns an empty file system.
func New() *FS { return &FS{dirs: map[string]*dir{"/": newDir()}} }

// FailAt makes operation n from now on (from 1) fail with err. Only operations
// that change something count.
func (f *FS) FailAt(n int, err error) { f.FailFrom(n, 1, err) }

// FailFrom is FailAt for times operations in a row.
func (f *FS) FailFrom(n, times int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt, f.failTo, f.failure = f.ops+n, f.ops+n+times, err
}

// CrashAt makes operation n from now on, and all that follow, fail with
// ErrCrashed.
func (f *FS) CrashAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashAt = f.ops + n
}

// Ops returns how many operations have changed something.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Crashed reports whether the crash has come.
func (f *FS) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed
}

// Survival is what becomes of changes that were not synced.
type Survival int

// The kinds of Survival.
const (
	Nothing Survival = iota // the power failed, and nothing had been written back
	Some                    // the power failed, and a part had been
	All                     // only the process died
)

// Restart returns the file system as the next process finds it. f crashes now
// if it has not. rnd decides with Some.
func (f *FS) Restart(s Survival, rnd *rand.Rand) *FS {
	f.mu.Lock()
	f.crashed = true
	f.mu.Unlock()
	return f.Snapshot(s, rnd)
}

// Snapshot is Restart as if f had crashed now; f goes on.
func (f *FS) Snapshot(s Survival, rnd *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := &FS{dirs: map[string]*dir{}}

	// Directories go in sorted order, so that a seed of rnd gives the same disk each time.
	for _, name := range slices.Sorted(maps.Keys(f.dirs)) {
		next.dirs[name] = f.dirs[name].afterCrash(s, rnd)
	}
	return next
}

// countOperation counts an operation. Caller holds f.mu.
func (f *FS) countOperation(op, name string) error {
	if f.crashed {
		return ErrCrashed
	}

	// Each change counts once, whether it will succeed or not: a test can then fail or crash at
	// every number up to the total.
	f.ops++
	if f.crashAt > 0 && f.ops >= f.crashAt {
		f.crashed = true
		return ErrCrashed
	}
	if f.failAt <= f.ops && f.ops < f.failTo {
		return &fs.PathError{Op: op, Path: name, Err: f.failure}
	}
	return nil
}

// Free implements vfs.FS.
func (f *FS) Free(string) (vfs.Space, error) {
	return vfs.Space{Bytes: 1 << 40, TotalBytes: 1 << 41, Files: 1 << 20, TotalFiles: 1 << 21}, nil
}

// Lock implements vfs.FS.
func (f *FS) Lock(name string) (vfs.Lock, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crashed {
		return nil, ErrCrashed
	}

	// One lock for the whole file system is enough: a test runs one store on it.
	if f.locked {
		return nil, &vfs.LockedError{Name: name, PID: 1}
	}
	f.locked = true
	return unlock{f}, nil
}

type unlock struct{ fs *FS }

func (u unlock) Close() error {
	u.fs.mu.Lock()
	defer u.fs.mu.Unlock()
	u.fs.locked = false
	return nil
}

func (unlock) Renew() error { return nil }
