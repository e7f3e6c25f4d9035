// Package space says how much of a file system must stay free, so that reports and
// records of what became of mail can always be written.
package space

import (
	"cmp"
	"fmt"
	"syscall"

	"tarishi/internal/vfs"
)

// floor is how many bytes must stay free unless Floor.MinFree says otherwise; on
// small file systems 1 %.
const floor = 256 << 20

// MustStayFree is the MinFree of a Floor without one.
func MustStayFree(total int64) int64 { return min(floor, total/100) }

// Floor is the space of a file system that no mail may take.
type Floor struct {
	FS  vfs.FS
	Dir string // on the file system
	// MinFree says how many of its total bytes must stay free; nil: 1 %, at most 256
	// MiB.
	MinFree func(total int64) int64
}

// Free asks the file system for its free space.
func (f Floor) Free() (vfs.Space, error) { return f.FS.Free(f.Dir) }

// Accepts returns an error if there is no room for a message of size bytes.
func (f Floor) Accepts(s vfs.Space, size int64) error {
	return cmp.Or(f.lackBytes(s, size, 1), f.lackInodes(s, 0, 1))
}

// Affords returns an error if so many bytes and inodes are not to be had without the
// second half of the floor. No bytes are always there.
func (f Floor) Affords(s vfs.Space, bytes, inodes int64) error {
	var err error
	if bytes > 0 {
		err = f.lackBytes(s, bytes, 2)
	}
	return cmp.Or(err, f.lackInodes(s, inodes, 2))
}

// CheckTight returns an error when the first half of the floor is used. The other is for
// reports and for records of what became of mail, without which the queue would never
// get shorter. The error wraps ENOSPC.
func (f Floor) CheckTight() error {
	s, err := f.Free()
	if err != nil {
		return nil // the next write will find out
	}
	if err := cmp.Or(f.lackBytes(s, 0, 2), f.lackInodes(s, 0, 2)); err != nil {
		return fmt.Errorf("%w: %w", syscall.ENOSPC, err)
	}
	return nil
}

// lackBytes compares the free bytes with the wanted ones and those that must stay free, or
// one of so many parts of that.
func (f Floor) lackBytes(s vfs.Space, want, part int64) error {
	keep := MustStayFree
	if f.MinFree != nil {
		keep = f.MinFree
	}
	return f.shortOf("bytes", s.Bytes, want, keep(s.TotalBytes)/part)
}

// lackInodes is lackBytes for inodes: one of a hundred must stay free.
func (f Floor) lackInodes(s vfs.Space, want, part int64) error {
	if s.TotalFiles == 0 { // no limit
		return nil
	}
	return f.shortOf("inodes", s.Files, want, s.TotalFiles/100/part)
}

func (f Floor) shortOf(unit string, free, want, keep int64) error {
	switch {
	case free-want >= keep:
		return nil
	case want == 0:
		return fmt.Errorf("%d %s are free below %s, and %d must stay free", free, unit, f.Dir, keep)
	}
	return fmt.Errorf("%d %s are free below %s, %d are wanted, and %d must stay free", free, unit, f.Dir, want, keep)
}
