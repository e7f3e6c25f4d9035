package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// OS is the real file system.
type OS struct{}

// Create implements FS.
func (OS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f}, nil
}

// Open implements FS.
func (OS) Open(name string) (File, error) {
	// O_NONBLOCK: a FIFO under that name must not stop us.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil { // a link and a socket cannot even be opened
		if info, e := os.Lstat(name); e == nil && !info.Mode().IsRegular() {
			err = &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("%w but %v", ErrNotRegular, info.Mode())}
		}
		return nil, err
	}

	// The check comes after the opening, on the descriptor: between two calls by name the file
	// could be exchanged.
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("%w but %v", ErrNotRegular, info.Mode())}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &osFile{File: f}, nil
}

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// Mkdir implements FS.
func (o OS) Mkdir(name string) error {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return nil
	}

	// Parents come first, each made durable on its own, so that a crash leaves no folder without a
	// durable path to it.
	parent := filepath.Dir(name)
	if parent != name {
		if err := o.Mkdir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(name, 0o700); err != nil {
		if info, e := os.Stat(name); e == nil && info.IsDir() {
			return nil // another process was faster
		}
		return err
	}
	return o.SyncDir(parent)
}

// SyncDir implements FS.
func (OS) SyncDir(name string) error {
	d, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// List implements FS.
func (OS) List(name string) ([]Entry, error) {
	list, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(list))
	for _, d := range list {
		entries = append(entries, Entry{Name: d.Name(), Dir: d.IsDir()})
	}
	return entries, nil
}

// Size implements FS.
func (OS) Size(name string) (int64, error) {
	var st unix.Stat_t
	if err := retryInterrupted(func() error { return unix.Lstat(name, &st) }); err != nil {
		return 0, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, nil
	}
	return st.Size, nil
}

// Barrier implements FS with syncfs, which reports failed writes since Linux 5.8
// and only where the file system takes part.
func (OS) Barrier(name string) (Barrier, error) {
	var st unix.Statfs_t
	if err := retryInterrupted(func() error { return unix.Statfs(name, &st) }); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}

	// The list holds the file systems with a syncfs that is known to report failed writes. Anywhere
	// else each file is synced by itself.
	switch int64(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
	default:
		return nil, errors.ErrUnsupported
	}

	// Older kernels return success from syncfs whatever happened.
	var u unix.Utsname
	var major, minor int
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); n != 2 || major < 5 || major == 5 && minor < 8 {
		return nil, errors.ErrUnsupported
	}
	d, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return barrier{d}, nil
}

type barrier struct{ *os.File }

func (b barrier) Sync() error {
	if err := retryInterrupted(func() error { return unix.Syncfs(int(b.Fd())) }); err != nil {
		return &fs.PathError{Op: "syncfs", Path: b.Name(), Err: err}
	}
	return nil
}

// Free implements FS.
func (OS) Free(name string) (Space, error) {
	var st unix.Statfs_t
	if err := retryInterrupted(func() error { return unix.Statfs(name, &st) }); err != nil {
		return Space{}, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	return Space{
		Bytes: int64(st.Bavail) * st.Bsize, TotalBytes: int64(st.Blocks) * st.Bsize,
		Files: int64(st.Ffree), TotalFiles: int64(st.Files),
	}, nil
}

// Lock implements FS with flock, so that a process that dies leaves no lock. The
// folder is locked too, where that can be done: removing the file does
// not open the door to a second process.
func (OS) Lock(name string) (Lock, error) {
	dir, err := os.OpenFile(filepath.Dir(name), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == nil && errors.Is(tryLock(dir), unix.EWOULDBLOCK) {
		dir.Close()
		return nil, &LockedError{Name: name, PID: readHolder(name)}
	}

	// A folder that cannot be opened or locked, as on some network file systems, still leaves the
	// lock of the file.
	file, err := lockFile(name)
	if err != nil {
		dir.Close() // nil is no harm
		return nil, err
	}
	return &locks{name, file, dir}, nil
}

type locks struct {
	name      string
	file, dir *os.File
}

func (l *locks) Close() error {
	err := l.file.Close()
	l.dir.Close() // nil is no harm
	return err
}

// Renew makes sure that the lock's file is there: one that was removed is made
// again, as the lock on its folder was held all the time. It fails if another
// folder has the name by now.
func (l *locks) Renew() error {
	folder, err := os.Stat(filepath.Dir(l.name))
	if err != nil {
		return err
	}
	if l.dir == nil {
		return fmt.Errorf("%s: its folder could not be locked", l.name)
	}

	// A folder that was moved away has taken the queue with it. A lock file in its successor would
	// guard the wrong files.
	if mine, err := l.dir.Stat(); err != nil || !os.SameFile(folder, mine) {
		return errors.Join(fmt.Errorf("%s is another folder than the one that is locked", filepath.Dir(l.name)), err)
	}
	if there, err := os.Lstat(l.name); err == nil {
		if mine, err := l.file.Stat(); err == nil && os.SameFile(there, mine) {
			return nil
		}
	}

	// The lock on the folder was held all the time, so no other process can be ahead of us.
	file, err := lockFile(l.name)
	if err != nil {
		return err
	}
	l.file.Close()
	l.file = file
	return nil
}

// Holder returns the id of the process that holds a lock file, 0 if none does. It
// does not touch the lock: to try it could keep another process from taking it.
func (OS) Holder(name string) (pid int) {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	// The number of the device may be another one there than for stat.
	held, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}

	// The number of the inode is enough together with the pid in the file; both would have to
	// coincide by chance.
	for line := range strings.Lines(string(held)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], fmt.Sprintf(":%d", st.Ino)) {
			continue
		}
		if pid = readHolder(name); pid > 0 && syscall.Kill(pid, 0) != syscall.ESRCH {
			return pid
		}
	}
	return 0
}

// readHolder returns the process id in a lock file, 0 if there is none.
func readHolder(name string) int {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	var b [32]byte
	n, _ := f.ReadAt(b[:], 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	return pid
}

func tryLock(f *os.File) error {
	return retryInterrupted(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
}

func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = tryLock(f)
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, &LockedError{Name: name, PID: readHolder(name)}
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		// The process id only serves the message of another process: a full disk
		// must not keep the daemon from starting.
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = nil
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil
}

type osFile struct{ *os.File }

// maxVec is the kernel's limit of slices in one write (IOV_MAX).
const maxVec = 1024

// WriteVec implements File.
func (f *osFile) WriteVec(bufs [][]byte, off int64) error {
	vec := make([][]byte, 0, min(len(bufs), maxVec))
	for len(bufs) > 0 {
		// The kernel takes a bounded number of slices and may write only a part of them. The loop
		// goes on where it stopped.
		vec = append(vec[:0], bufs[:min(len(bufs), maxVec)]...)
		bufs = bufs[len(vec):]
		for len(vec) > 0 {
			n, err := unix.Pwritev(int(f.Fd()), vec, off)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err == nil && n == 0 && totalSize(vec) > 0 {
				err = io.ErrShortWrite
			}
			if err != nil {
				return &fs.PathError{Op: "write", Path: f.Name(), Err: err}
			}
			off += int64(n)
			vec = dropWritten(vec, n)
		}
	}
	return nil
}

func totalSize(vec [][]byte) (n int) {
	for _, b := range vec {
		n += len(b)
	}
	return n
}

// dropWritten drops the first n bytes of vec, and empty slices.
func dropWritten(vec [][]byte, n int) [][]byte {
	for len(vec) > 0 && n >= len(vec[0]) {
		n -= len(vec[0])
		vec = vec[1:]
	}
	if n > 0 {
		vec[0] = vec[0][n:]
	}
	return vec
}

// Reserve implements File.
func (f *osFile) Reserve(size int64) error {
	err := retryInterrupted(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	if err == nil || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return &fs.PathError{Op: "fallocate", Path: f.Name(), Err: err}
}

// Sync implements File.
func (f *osFile) Sync() error {
	if err := retryInterrupted(func() error { return unix.Fdatasync(int(f.Fd())) }); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

// Size implements File.
func (f *osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func retryInterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
