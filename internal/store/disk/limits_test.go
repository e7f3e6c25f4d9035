package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/spool"
	"tarishi/internal/vfs"
	"tarishi/internal/vfs/crashfs"
)

// tight is a file system with little space.
type tight struct {
	vfs.FS
	free  atomic.Int64
	files atomic.Int64
	calls atomic.Int64
}

func (f *tight) Free(string) (vfs.Space, error) {
	f.calls.Add(1)
	return vfs.Space{Bytes: f.free.Load(), TotalBytes: 1 << 40, Files: f.files.Load(), TotalFiles: 1000}, nil
}

func TestHealthFollowsTheSpace(t *testing.T) {
	fs := &tight{FS: crashfs.New()}
	now := time.Now()
	q := open(t, Options{Dir: "/q", FS: fs, SegmentSize: 64 << 10, Now: func() time.Time { return now }})
	fs.files.Store(10)
	fs.free.Store(256<<20 - 1)
	var r *reply.Reply
	for range 10 {
		if err := q.Healthy(); !errors.As(err, &r) || r.Code != 452 || r.Enhanced.String() != "4.3.1" {
			t.Fatal(err)
		}
	}
	if n := fs.calls.Load(); n != 1 {
		t.Errorf("%d looks at the file system in one second", n)
	}
	fs.free.Store(256<<20 + 1000)
	now = now.Add(time.Second)
	must(t, q.Healthy())
	must(t, q.Room(1000))
	if err := q.Room(1001); !errors.As(err, &r) || r.Code != 452 {
		t.Error("there is no room for 1001 bytes", err)
	}
	fs.files.Store(9)
	now = now.Add(time.Second)
	if err := q.Healthy(); !errors.As(err, &r) || r.Code != 452 {
		t.Error("inodes are short", err)
	}
}

func TestMinFree(t *testing.T) {
	fs := &tight{FS: crashfs.New()}
	fs.files.Store(1000)
	fs.free.Store(500)
	q := open(t, Options{Dir: "/q", FS: fs, SegmentSize: 64 << 10, MinFree: func(total int64) int64 { return total >> 31 }})
	if err := q.Healthy(); err == nil {
		t.Error("500 of 512 bytes")
	}
	q.health.checked = time.Time{}
	fs.free.Store(512)
	must(t, q.Healthy())
	for size, want := range map[int64]string{
		0:  "511 bytes are free below /q, and 512 must stay free",
		20: "511 bytes are free below /q, 20 are wanted, and 512 must stay free",
	} {
		fs.free.Store(511)
		q.health.checked = time.Time{}
		var r *reply.Reply
		if err := q.Room(size); !errors.As(err, &r) || r.Cause.Error() != want {
			t.Errorf("%d: %v", size, err)
		}
	}
}

// TestSpaceWhileAContentArrives: nobody has said how long it would be. It may use
// the first half of what is kept free, for it was welcome, and no more.
func TestSpaceWhileAContentArrives(t *testing.T) {
	fs := &tight{FS: crashfs.New()}
	fs.files.Store(1000)
	fs.free.Store(512)
	q := open(t, Options{Dir: "/q", FS: fs, LargeBody: 5000, MinFree: func(int64) int64 { return 512 }})
	b := q.NewBody()
	defer b.Discard()
	write := func() error {
		_, err := b.Write(text(lookAgain))
		return err
	}
	must(t, write())
	fs.free.Store(256)
	must(t, write())
	fs.free.Store(255)
	var r *reply.Reply
	if err := write(); !errors.As(err, &r) || r.Code != 452 {
		t.Error(err)
	}
}

// TestCloseWhileTheDiskIsFull says once what is wrong.
func TestCloseWhileTheDiskIsFull(t *testing.T) {
	fs := crashfs.New()
	q := open(t, Options{Dir: "/q", FS: fs, SegmentSize: 64 << 10})
	env := envelope(newID(), 2)
	put(t, q, env, text(10))
	fs.FailFrom(1, 1<<30, syscall.ENOSPC)
	must(t, q.Settle(env.ID, []int{0}))
	if err := q.Close(); !errors.Is(err, syscall.ENOSPC) || strings.Count(err.Error(), "no space") != 1 {
		t.Errorf("%v", err)
	}
}

func TestHealthFollowsTheJournal(t *testing.T) {
	fs := crashfs.New()
	now := time.Now()
	q := open(t, Options{Dir: "/q", FS: fs, SegmentSize: 64 << 10, Now: func() time.Time { return now }})
	put(t, q, envelope(newID(), 1), text(10))
	must(t, q.Healthy())
	for _, failure := range []error{syscall.ENOSPC, syscall.EIO} {
		want := 451
		if failure == syscall.ENOSPC {
			want = 452
		}
		fs.FailAt(1, failure)
		var r *reply.Reply
		env := envelope(newID(), 1)
		if err := q.Put(env, mail.Memory{text(10)}); !errors.As(err, &r) || r.Code != want {
			t.Fatal(err)
		}
		q.spiller.WorkOnce(t.Context())
		must(t, q.Healthy())
		must(t, q.Put(env, mail.Memory{text(10)})) // the ID is free again
	}
	if s := q.Stat(); s.Messages != 3 {
		t.Errorf("%+v", s)
	}
}

// TestArriving holds the moment between a record's sync and the return of Put:
// its segment must not be retired.
func TestArriving(t *testing.T) {
	q := open(t, Options{Dir: "/q", FS: crashfs.New(), SegmentSize: 64 << 10})
	env := envelope(newID(), 1)
	head, err := record.EncodeMessage(env, 10, false)
	must(t, err)
	record.SealMessage(head, spool.SumOf(text(10)))
	arrival, err := q.catalog.Arrive(env, 10, false)
	must(t, err)
	loc, err := q.journal.Append(record.KindMessage, head, text(10))
	must(t, err)
	must(t, q.journal.Roll())
	q.spiller.WorkOnce(t.Context())
	if len(q.journal.Segments()) != 1 {
		t.Fatal("the segment is gone")
	}
	if _, err := q.Path(env.ID); !errors.Is(err, store.ErrUnknown) {
		t.Fatal(err)
	}
	arrival.Accept(env, loc, spool.SumOf(text(10)), len(head), nil)
	same(t, q, env, text(10))
}

// TestLargeBodyStaysOutOfMemory sends 64 MiB through Body, Put, Load and a
// changed header.
func TestLargeBodyStaysOutOfMemory(t *testing.T) {
	const size = 64 << 20
	q := open(t, Options{Dir: t.TempDir(), NoSync: true})
	block := text(256 << 10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b := q.NewBody()
	defer b.Discard()
	for range size / len(block) {
		if _, err := b.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	c, err := b.Content()
	must(t, err)
	must(t, q.Put(envelope(newID(), 1), mail.WithHead([]byte("X: y\r\n"), c, 0)))
	env := envelope(newID(), 1)
	must(t, q.Put(env, c))
	_, loaded, err := q.Load(env.ID)
	must(t, err)
	r, err := loaded.Open()
	must(t, err)
	defer r.Close()
	if loaded.Size() != size {
		t.Errorf("%d bytes", loaded.Size())
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d bytes allocated for a body of %d", used, size)
	}
}

// quota is a file system that has room for so many segments at a time.
type quota struct {
	vfs.FS
	left atomic.Int64
}

func (f *quota) Create(name string) (vfs.File, error) {
	file, err := f.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return quotaFile{file, f}, nil
}

func (f *quota) Remove(name string) error {
	err := f.FS.Remove(name)
	if err == nil && filepath.Ext(name) == ".log" {
		f.left.Add(1)
	}
	return err
}

type quotaFile struct {
	vfs.File
	f *quota
}

func (q quotaFile) Reserve(size int64) error {
	if q.f.left.Add(-1) < 0 {
		return syscall.ENOSPC // the failed file is removed, which gives its place back
	}
	return q.File.Reserve(size)
}

// TestFullOfOurOwn fills the disk with segments that nothing needs any more: the
// queue gives their space back without being able to write.
func TestFullOfOurOwn(t *testing.T) {
	fs := &quota{FS: crashfs.New()}
	fs.left.Store(3)
	var hours atomic.Int64 // the journal's goroutine asks for the time too
	start := time.Now()
	clock := func() time.Time { return start.Add(time.Duration(hours.Load()) * time.Hour) }
	q := open(t, Options{Dir: "/q", FS: fs, SegmentSize: 64 << 10, Now: clock})
	fill := func() error {
		for range 200 {
			env := envelope(newID(), 1)
			if err := q.Put(env, mail.Memory{text(4 << 10)}); err != nil {
				return err
			}
			must(t, q.Settle(env.ID, []int{0}))
		}
		return nil
	}
	if err := fill(); err == nil {
		t.Fatal("the disk is never full")
	}
	for range 3 {
		hours.Add(1)
		q.spiller.WorkOnce(t.Context())
	}
	must(t, q.Healthy())
	put(t, q, envelope(newID(), 1), text(100))
}

// TestOddNames puts things of other kinds where the queue's own files belong.
func TestOddNames(t *testing.T) {
	dir := t.TempDir()
	q := open(t, Options{Dir: dir})
	env := envelope(newID(), 1)
	put(t, q, env, text(100))
	must(t, q.Close())
	for _, name := range []string{"probe.tmp/x", "probe.0.tmp/x"} {
		must(t, os.MkdirAll(filepath.Join(dir, "journal", name), 0o700))
	}
	for i := range 256 {
		name := filepath.Join(dir, "msg", fmt.Sprintf("%02X", i))
		if _, err := os.Lstat(name); err != nil {
			must(t, os.WriteFile(name, []byte("stray"), 0o600))
		}
	}
	q = open(t, Options{Dir: dir})
	same(t, q, env, text(100))
	name, err := q.Path(env.ID) // where a file stood in the way of the folder
	must(t, err)
	must(t, q.Close())
	must(t, os.WriteFile(strings.TrimSuffix(name, ".eml")+".json", []byte("{"), 0o600))
	q = open(t, Options{Dir: dir})
	same(t, q, env, text(100)) // its record still stands in the journal
	if strays, err := filepath.Glob(filepath.Join(dir, "corrupt", "msg.*.reason")); err != nil || len(strays) == 0 {
		t.Error("no stray file was moved", err)
	}
}
