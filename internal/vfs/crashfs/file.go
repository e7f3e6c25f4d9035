package crashfs

import (
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"syscall"
)

// sector is the unit in bytes in which written data survives a crash.
const sector = 512

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

func (i *inode) afterCrash(s Survival, rnd *rand.Rand) []byte {
	data := slices.Clone(i.durable)
	switch s {
	case All:
		for _, w := range i.writes {
			data = overwrite(data, w.off, w.data)
		}
	case Some:
		for _, w := range i.writes {
			// Sectors survive one by one and in any order. That is less than most disks guarantee,
			// and all that a store may rely on.
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

func (i *inode) makeDurable() {
	for _, w := range i.writes {
		i.durable = overwrite(i.durable, w.off, w.data)
	}
	i.writes = nil
}

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

	// A write that fails has written something. Half is the worst case for a format: a head without
	// its tail.
	b := slices.Concat(bufs...)
	err := h.fs.countOperation("write", h.name)
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
	if err := h.fs.countOperation("reserve", h.name); err != nil {
		return err
	}

	// Reserved bytes read as zeros but are no data that a sync would have to keep.
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
	err := h.fs.countOperation("sync", h.name)

	// A failed barrier has lost the writes of this file. Its next sync must say so once, whatever
	// the disk does now.
	if err == nil && h.inode.lost {
		err = &fs.PathError{Op: "sync", Path: h.name, Err: syscall.EIO}
	}
	if h.fs.crashed {
		return err
	}
	if err == nil {
		h.inode.makeDurable()
	}

	// After a failed sync the writes count as lost for good. Nothing may sync them a second time
	// and be believed.
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
