package disk

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/store/disk/spill"
	"tarishi/internal/vfs"
	"tarishi/internal/vfs/crashfs"
)

// tiny is a file system of so many blocks and inodes.
type tiny struct {
	vfs.FS
	mu             sync.Mutex // a change at a time; it guards what follows
	blocks, inodes int64      // that are free
	total          vfs.Space
}

const block = 4096

func newTiny(blocks, inodes int64) *tiny {
	return &tiny{
		FS: crashfs.New(), blocks: blocks, inodes: inodes,
		total: vfs.Space{TotalBytes: blocks * block, TotalFiles: inodes},
	}
}

func blocksOf(size int64) int64 { return (size + block - 1) / block }

func (f *tiny) Free(string) (vfs.Space, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.total
	s.Bytes, s.Files = f.blocks*block, f.inodes
	return s, nil
}

func (f *tiny) Create(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.inodes == 0 {
		return nil, syscall.ENOSPC
	}
	file, err := f.FS.Create(name)
	if err == nil {
		f.inodes--
	}
	return &tinyFile{File: file, fs: f}, err
}

// replace calls fn, after which a file is gone if there was one.
func (f *tiny) replace(name string, fn func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	size, none := f.FS.Size(name)
	err := fn()
	if err == nil && none == nil {
		f.inodes++
		f.blocks += blocksOf(size)
	}
	return err
}

func (f *tiny) Remove(name string) error {
	return f.replace(name, func() error { return f.FS.Remove(name) })
}

func (f *tiny) Rename(from, to string) error {
	return f.replace(to, func() error { return f.FS.Rename(from, to) })
}

type tinyFile struct {
	vfs.File
	fs  *tiny
	end int64
}

// grow calls fn, which makes the file size bytes long, if there is room.
func (f *tinyFile) grow(size int64, fn func() error) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	have, err := f.Size()
	if err != nil {
		return err
	}
	more := max(0, blocksOf(size)-blocksOf(have))
	if more > f.fs.blocks {
		return syscall.ENOSPC
	}
	if err = fn(); err == nil {
		f.fs.blocks -= more
	}
	return err
}

func (f *tinyFile) Reserve(size int64) error {
	return f.grow(size, func() error { return f.File.Reserve(size) })
}

func (f *tinyFile) WriteVec(bufs [][]byte, off int64) error {
	return f.grow(off+mail.Memory(bufs).Size(), func() error { return f.File.WriteVec(bufs, off) })
}

func (f *tinyFile) Write(p []byte) (n int, err error) {
	err = f.grow(f.end+int64(len(p)), func() error {
		n, err = f.File.Write(p)
		return err
	})
	f.end += int64(n)
	return n, err
}

// TestReserve accepts mail until the disk has no room for more, and much later,
// when all of it would be in files if that could be, is rid of it, with a
// report for every tenth. There is room for the reports, which stay.
func TestReserve(t *testing.T) {
	const segment = 128 << 10
	for name, c := range map[string]struct {
		disk *tiny
		size int
	}{
		"few bytes":  {newTiny(600, 1<<20), 300},
		"few inodes": {newTiny(1<<20, 1200), 6000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Unix(1e9, 0)
			q := open(t, Options{
				Dir: "/q", FS: c.disk, SegmentSize: segment, LargeBody: 5000, Now: func() time.Time { return now },
				MinFree: func(total int64) int64 { return total / 8 },
			})
			pass := func(d time.Duration) {
				now = now.Add(d)
				q.spiller.WorkOnce(t.Context())
			}
			var ids []mail.ID
			for q.Room(int64(c.size)) == nil && len(ids) < 10_000 {
				env := envelope(newID(), 1)
				put(t, q, env, text(c.size))
				ids = append(ids, env.ID)
				now = now.Add(time.Second)
				if len(ids)%20 == 0 {
					q.spiller.WorkOnce(t.Context())
				}
			}
			for range 10 {
				pass(spill.OldSegment)
			}
			var r *reply.Reply
			if err := q.Healthy(); !errors.As(err, &r) || r.Code != 452 || !strings.Contains(r.Cause.Error(), "must stay free") {
				t.Errorf("%v", err)
			}
			space, _ := c.disk.Free("")
			if space.Bytes < space.TotalBytes/16-segment || space.Files < space.TotalFiles/200-3 { // a segment may have begun
				t.Errorf("%d messages, and %+v", len(ids), space)
			}
			must(t, q.journal.Roll()) // no room is left in a segment
			for i, id := range ids {
				if i%10 == 0 {
					report := envelope(newID(), 1)
					report.From = mail.Address{}
					if err := q.Put(report, mail.Memory{text(500)}); err != nil {
						space, _ = c.disk.Free("")
						t.Fatalf("report %d with %+v: %v", i/10, space, err)
					}
				}
				must(t, q.Settle(id, []int{0}))
				pass(time.Second)
			}
			pass(time.Minute)
			must(t, q.Healthy())
			if n := q.Stat().Messages; n != (len(ids)+9)/10 {
				t.Errorf("%d of %d are left", n, len(ids))
			}
			must(t, q.Close())
		})
	}
}

// TestSpaceComesBack: when even what is kept for reports is used up the journal
// still forgets what it can, if that gives back more than it takes.
func TestSpaceComesBack(t *testing.T) {
	for live := range 2 {
		now := time.Unix(1e9, 0)
		disk := newTiny(400, 1<<20)
		q := open(t, Options{
			Dir: "/q", FS: disk, SegmentSize: 128 << 10, Now: func() time.Time { return now },
			MinFree: func(total int64) int64 { return total / 2 },
		})
		for i := range 20 {
			env := envelope(newID(), 1)
			put(t, q, env, text(300))
			if i >= live {
				must(t, q.Settle(env.ID, []int{0}))
			}
		}
		must(t, q.journal.Roll())
		disk.mu.Lock()
		disk.blocks = 10
		disk.mu.Unlock()
		now = now.Add(2 * spill.OldSegment)
		q.spiller.WorkOnce(t.Context())
		if s, _ := disk.Free(""); s.Bytes < 30*block {
			t.Errorf("%d are live, %+v", live, s)
		}
		must(t, q.Close())
	}
}
