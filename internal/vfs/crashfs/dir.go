package crashfs

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"tarishi/internal/vfs"
)

type dir struct {
	live    map[string]*inode
	durable map[string]*inode
	changes []change // since the last SyncDir
}

type change struct {
	name string
	file *inode // nil: the name went away
}

func newDir() *dir { return &dir{live: map[string]*inode{}, durable: map[string]*inode{}} }

func (d *dir) afterCrash(s Survival, rnd *rand.Rand) *dir {
	names := maps.Clone(d.durable)

	// A journalling file system replays the changes of a directory in order. What survives is
	// therefore a prefix of them, never a selection.
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

	// Files that survive have one content from here on: a disk after a crash has no unwritten part.
	next := newDir()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		data := names[name].afterCrash(s, rnd)
		file := &inode{data: data, durable: slices.Clone(data)}
		next.live[name], next.durable[name] = file, file
	}
	return next
}

// directoryOf returns the directory of a name. Caller holds f.mu.
func (f *FS) directoryOf(op, name string) (*dir, string, error) {
	if f.crashed {
		return nil, "", ErrCrashed
	}
	d := f.dirs[filepath.Dir(name)]
	if d == nil {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
	}
	return d, filepath.Base(name), nil
}

func (d *dir) setEntry(name string, file *inode) {
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
	d, base, err := f.directoryOf("create", name)
	if err != nil {
		return nil, err
	}
	if d.live[base] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.EEXIST}
	}
	if err := f.countOperation("create", name); err != nil {
		return nil, err
	}
	i := &inode{}
	d.setEntry(base, i)
	return &file{fs: f, name: name, inode: i}, nil
}

// Open implements vfs.FS.
func (f *FS) Open(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, base, err := f.directoryOf("open", name)
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
	a, old, err := f.directoryOf("rename", from)
	if err != nil {
		return err
	}
	b, base, err := f.directoryOf("rename", to)
	if err != nil {
		return err
	}
	i := a.live[old]
	if i == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: syscall.ENOENT}
	}
	if err := f.countOperation("rename", from); err != nil {
		return err
	}

	// The new name comes before the old one goes. Within one directory a prefix of these changes
	// can hold both names, never none; two directories survive independently.
	b.setEntry(base, i)
	a.setEntry(old, nil)
	return nil
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, base, err := f.directoryOf("remove", name)
	if err != nil {
		return err
	}
	if d.live[base] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOENT}
	}
	if err := f.countOperation("remove", name); err != nil {
		return err
	}
	d.setEntry(base, nil)
	return nil
}

// Mkdir implements vfs.FS.
func (f *FS) Mkdir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()

	// Directories are durable at once, as the interface promises.
	for p := name; f.dirs[p] == nil; p = filepath.Dir(p) {
		if err := f.countOperation("mkdir", p); err != nil {
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
	d, _, err := f.directoryOf("sync", filepath.Join(name, "x"))
	if err == nil {
		err = f.countOperation("sync", name)
	}
	if err != nil {
		return err
	}
	d.makeDurable()
	return nil
}

func (d *dir) makeDurable() {
	for _, c := range d.changes {
		if c.file == nil {
			delete(d.durable, c.name)
		} else {
			d.durable[c.name] = c.file
		}
	}
	d.changes = nil
}

// Barrier implements vfs.FS.
func (f *FS) Barrier(name string) (vfs.Barrier, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, _, err := f.directoryOf("barrier", filepath.Join(name, "x")); err != nil {
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
	err := f.countOperation("sync", "everything")
	if f.crashed {
		return err
	}

	// A barrier covers files that still have a name, and those that lost it since the last SyncDir
	// but may get it back after a crash.
	for _, d := range f.dirs {
		files := slices.Collect(maps.Values(d.live))
		for _, c := range d.changes {
			if c.file != nil {
				files = append(files, c.file)
			}
		}
		for _, i := range files {
			// The writes are lost although reads still see them, and each file reports that once,
			// as Linux does.
			if err != nil {
				i.lost = i.lost || len(i.writes) > 0
				i.writes = nil
				continue
			}
			i.makeDurable()
		}
		if err == nil {
			d.makeDurable()
		}
	}
	return err
}

// List implements vfs.FS.
func (f *FS) List(name string) ([]vfs.Entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, _, err := f.directoryOf("list", filepath.Join(name, "x"))
	if err != nil {
		return nil, err
	}
	var list []vfs.Entry
	for base := range d.live {
		list = append(list, vfs.Entry{Name: base})
	}

	// Directories are kept by their full paths, so the children of one have to be searched for.
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
	d, base, err := f.directoryOf("lstat", name)
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
