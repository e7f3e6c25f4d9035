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
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"tarishi/internal/vfs"
)

// ErrCrashed is what every operation returns from the crash on.
var ErrCrashed = errors.New("crashed")

const sector = 512

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

type dir struct {
	live    map[string]*inode
	durable map[string]*inode
	changes []change // since the last SyncDir
}

type change struct {
	name string
	file *inode // nil: the name went away
}

type inode struct {
	data    []byte // what reads see
	durable []byte
	writes  []write // since the last Sync
	lost    bool    // by a Barrier that failed: the next Sync says so
}

type write struct {
	off  int64
	data []byte
}

// New returns an empty file system.
func New() *FS { return &FS{dirs: map[string]*dir{"/": newDir()}} }

func newDir() *dir { return &dir{live: map[string]*inode{}, durable: map[string]*inode{}} }

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
	for _, name := range slices.Sorted(maps.Keys(f.dirs)) {
		next.dirs[name] = f.dirs[name].restart(s, rnd)
	}
	return next
}

func (d *dir) restart(s Survival, rnd *rand.Rand) *dir {
	names := maps.Clone(d.durable)
	n := len(d.changes)
	switch s {
	case Nothing:
		n = 0
	case Some:
		n = rnd.IntN(n + 1)
	}
	for _, c := range d.changes[:n] {
		if c.file == nil {
			delete(names, c.name)
		} else {
			names[c.name] = c.file
		}
	}
	next := newDir()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		data := names[name].restart(s, rnd)
		file := &inode{data: data, durable: slices.Clone(data)}
		next.live[name], next.durable[name] = file, file
	}
	return next
}

func (i *inode) restart(s Survival, rnd *rand.Rand) []byte {
	data := slices.Clone(i.durable)
	switch s {
	case All:
		for _, w := range i.writes {
			data = overwrite(data, w.off, w.data)
		}
	case Some:
		for _, w := range i.writes {
			for off, b := w.off, w.data; len(b) > 0; {
				n := min(len(b), sector-int(off%sector))
				if rnd.IntN(2) == 0 {
					data = overwrite(data, off, b[:n])
				}
				b, off = b[n:], off+int64(n)
			}
		}
	}
	return data
}

func overwrite(data []byte, off int64, b []byte) []byte {
	if end := off + int64(len(b)); end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[off:], b)
	return data
}

// step counts an operation. Caller holds f.mu.
func (f *FS) step(op, name string) error {
	if f.crashed {
		return ErrCrashed
	}
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

// at returns the directory of a name. Caller holds f.mu.
func (f *FS) at(op, name string) (*dir, string, error) {
	if f.crashed {
		return nil, "", ErrCrashed
	}
	d := f.dirs[filepath.Dir(name)]
	if d == nil {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
	}
	return d, filepath.Base(name), nil
}

func (d *dir) set(name string, file *inode) {
	if file == nil {
		delete(d.live, name)
	} else {
		d.live[name] = file
	}
	d.changes = append(d.changes, change{name, file})
}

// Create implements vfs.FS.
func (f *FS) Create(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, base, err := f.at("create", name)
	if err != nil {
		return nil, err
	}
	if d.live[base] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.EEXIST}
	}
	if err := f.step("create", name); err != nil {
		return nil, err
	}
	i := &inode{}
	d.set(base, i)
	return &file{fs: f, name: name, inode: i}, nil
}

// Open implements vfs.FS.
func (f *FS) Open(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, base, err := f.at("open", name)
	if err != nil {
		return nil, err
	}
	if f.dirs[name] != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: vfs.ErrNotRegular}
	}
	if d.live[base] == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	return &file{fs: f, name: name, inode: d.live[base]}, nil
}

// Rename implements vfs.FS.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, old, err := f.at("rename", from)
	if err != nil {
		return err
	}
	b, base, err := f.at("rename", to)
	if err != nil {
		return err
	}
	i := a.live[old]
	if i == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: syscall.ENOENT}
	}
	if err := f.step("rename", from); err != nil {
		return err
	}
	b.set(base, i)
	a.set(old, nil)
	return nil
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, base, err := f.at("remove", name)
	if err != nil {
		return err
	}
	if d.live[base] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOENT}
	}
	if err := f.step("remove", name); err != nil {
		return err
	}
	d.set(base, nil)
	return nil
}

// Mkdir implements vfs.FS.
func (f *FS) Mkdir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := name; f.dirs[p] == nil; p = filepath.Dir(p) {
		if err := f.step("mkdir", p); err != nil {
			return err
		}
		f.dirs[p] = newDir()
	}
	return nil
}

// SyncDir implements vfs.FS.
func (f *FS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, _, err := f.at("sync", filepath.Join(name, "x"))
	if err == nil {
		err = f.step("sync", name)
	}
	if err != nil {
		return err
	}
	d.sync()
	return nil
}

func (d *dir) sync() {
	for _, c := range d.changes {
		if c.file == nil {
			delete(d.durable, c.name)
		} else {
			d.durable[c.name] = c.file
		}
	}
	d.changes = nil
}

func (i *inode) sync() {
	for _, w := range i.writes {
		i.durable = overwrite(i.durable, w.off, w.data)
	}
	i.writes = nil
}

// Barrier implements vfs.FS.
func (f *FS) Barrier(name string) (vfs.Barrier, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, _, err := f.at("barrier", filepath.Join(name, "x")); err != nil {
		return nil, err
	}
	return barrier{f}, nil
}

type barrier struct{ fs *FS }

func (b barrier) Close() error { return nil }

func (b barrier) Sync() error {
	f := b.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crashed {
		return ErrCrashed
	}
	err := f.step("sync", "everything")
	if f.crashed {
		return err
	}
	for _, d := range f.dirs {
		files := slices.Collect(maps.Values(d.live))
		for _, c := range d.changes {
			if c.file != nil {
				files = append(files, c.file)
			}
		}
		for _, i := range files {
			if err != nil {
				i.lost = i.lost || len(i.writes) > 0
				i.writes = nil
				continue
			}
			i.sync()
		}
		if err == nil {
			d.sync()
		}
	}
	return err
}

// List implements vfs.FS.
func (f *FS) List(name string) ([]vfs.Entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, _, err := f.at("list", filepath.Join(name, "x"))
	if err != nil {
		return nil, err
	}
	var list []vfs.Entry
	for base := range d.live {
		list = append(list, vfs.Entry{Name: base})
	}
	for p := range f.dirs {
		if p != name && filepath.Dir(p) == name {
			list = append(list, vfs.Entry{Name: filepath.Base(p), Dir: true})
		}
	}
	slices.SortFunc(list, func(a, b vfs.Entry) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Size implements vfs.FS.
func (f *FS) Size(name string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, base, err := f.at("lstat", name)
	if err != nil {
		return 0, err
	}
	if f.dirs[name] != nil {
		return -1, nil
	}
	i := d.live[base]
	if i == nil {
		return 0, &fs.PathError{Op: "lstat", Path: name, Err: syscall.ENOENT}
	}
	return int64(len(i.data)), nil
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

type file struct {
	fs    *FS
	name  string
	inode *inode
	end   int64 // where Write goes on
}

func (h *file) ReadAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.crashed {
		return 0, ErrCrashed
	}
	data := h.inode.data
	if off >= int64(len(data)) {
		return 0, io.EOF
	}
	n := copy(p, data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) Write(p []byte) (int, error) {
	if err := h.WriteVec([][]byte{p}, h.end); err != nil {
		return 0, err
	}
	h.end += int64(len(p))
	return len(p), nil
}

// WriteVec implements vfs.File. When it fails or crashes, half is written.
func (h *file) WriteVec(bufs [][]byte, off int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.crashed {
		return ErrCrashed
	}
	b := slices.Concat(bufs...)
	err := h.fs.step("write", h.name)
	if err != nil {
		b = b[:len(b)/2]
	}
	h.inode.data = overwrite(h.inode.data, off, b)
	h.inode.writes = append(h.inode.writes, write{off, b})
	return err
}

func (h *file) Reserve(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.step("reserve", h.name); err != nil {
		return err
	}
	if missing := size - int64(len(h.inode.data)); missing > 0 {
		h.inode.data = append(h.inode.data, make([]byte, missing)...)
	}
	return nil
}

func (h *file) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.crashed {
		return ErrCrashed
	}
	err := h.fs.step("sync", h.name)
	if err == nil && h.inode.lost {
		err = &fs.PathError{Op: "sync", Path: h.name, Err: syscall.EIO}
	}
	if h.fs.crashed {
		return err
	}
	if err == nil {
		h.inode.sync()
	}
	h.inode.writes, h.inode.lost = nil, false
	return err
}

func (h *file) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.crashed {
		return 0, ErrCrashed
	}
	return int64(len(h.inode.data)), nil
}

func (h *file) Close() error { return nil }
