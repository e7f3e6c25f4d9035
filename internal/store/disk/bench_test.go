package disk

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"tarishi/internal/mail"
	"tarishi/internal/vfs"
)

// counting counts the syncs of files and directories.
type counting struct {
	vfs.FS
	syncs atomic.Int64
}

func (c *counting) Create(name string) (vfs.File, error) {
	f, err := c.FS.Create(name)
	return countingFile{f, c}, err
}

func (c *counting) SyncDir(name string) error {
	c.syncs.Add(1)
	return c.FS.SyncDir(name)
}

type countingFile struct {
	vfs.File
	c *counting
}

func (f countingFile) Sync() error {
	f.c.syncs.Add(1)
	return f.File.Sync()
}

// BenchmarkPut4KiB measures accepting: each message is settled at once, as one
// that is delivered.
func BenchmarkPut4KiB(b *testing.B) {
	for _, writers := range []int{1, 20, 100} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			fs := &counting{FS: vfs.OS{}}
			q := open(b, Options{Dir: b.TempDir(), FS: fs})
			content := mail.Memory{text(4096)}
			before := fs.syncs.Load()
			parallel(b, writers, func() {
				env := envelope(newID(), 1)
				if err := q.Put(env, content); err != nil {
					b.Error(err)
				}
				if err := q.Settle(env.ID, []int{0}); err != nil {
					b.Error(err)
				}
			})
			b.ReportMetric(float64(fs.syncs.Load()-before)/float64(b.N), "fsyncs/msg")
		})
	}
}

// BenchmarkLife is the whole life of a message that is delivered at once, without the
// disk: it is received, put, loaded, read and settled.
func BenchmarkLife(b *testing.B) {
	q := open(b, Options{Dir: b.TempDir(), NoSync: true})
	content := text(4096)
	b.ReportAllocs()
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	parallel(b, 20, func() {
		env := envelope(newID(), 1)
		env.Notes = nil
		body := q.NewBody()
		_, err := body.Write(content)
		must(b, err)
		c, err := body.Content()
		must(b, err)
		must(b, q.Put(env, c))
		body.Discard()
		_, c, err = q.Load(env.ID)
		must(b, err)
		r, err := c.Open()
		must(b, err)
		n, err := io.Copy(io.Discard, r)
		if err != nil || n != 4096 {
			b.Error(n, err)
		}
		must(b, r.Close())
		must(b, q.Settle(env.ID, []int{0}))
	})
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(used)/float64(b.N)/1000, "cpu-µs/msg")
}

// BenchmarkFilePerMessage4KiB is the baseline: a file and a sync for each
// message, removed when it is delivered.
func BenchmarkFilePerMessage4KiB(b *testing.B) {
	for _, writers := range []int{1, 20, 100} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			dir, content := b.TempDir(), text(4096)
			var n atomic.Int64
			parallel(b, writers, func() {
				name := filepath.Join(dir, fmt.Sprint(n.Add(1)))
				f, err := os.Create(name)
				if err == nil {
					_, err = f.Write(content)
				}
				if err == nil {
					err = unix.Fsync(int(f.Fd()))
				}
				if err != nil {
					b.Error(err)
				}
				f.Close()
				os.Remove(name)
			})
			b.ReportMetric(1, "fsyncs/msg")
		})
	}
}

// parallel runs work b.N times in all, in this many goroutines.
func parallel(b *testing.B, writers int, work func()) {
	var next atomic.Int64
	done := make(chan struct{})
	b.ResetTimer()
	for range writers {
		go func() {
			for next.Add(1) <= int64(b.N) {
				work()
			}
			done <- struct{}{}
		}()
	}
	for range writers {
		<-done
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
