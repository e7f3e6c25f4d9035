package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/disk/spill"
	"tarishi/internal/store/journal"
	"tarishi/internal/vfs"
	"tarishi/internal/vfs/crashfs"
)

var update = flag.Bool("update", false, "write what is seen to the files in testdata")

// recorder notes, in order, what is done to a file system below root.
type recorder struct {
	vfs.FS
	root  string
	names map[string]string // of messages, by ID

	mu    sync.Mutex
	lines []string
}

func (r *recorder) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.lines); n > 0 && strings.HasPrefix(line, "write ") && line == r.lines[n-1] {
		return // a content in pieces
	}
	r.lines = append(r.lines, line)
}

// say marks what the caller does.
func (r *recorder) say(format string, args ...any) { r.note("# "+format, args...) }

// await waits until something was done since the last mark that matches.
func (r *recorder) await(t *testing.T, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		for i := len(r.lines) - 1; i >= 0 && !strings.HasPrefix(r.lines[i], "# "); i-- {
			if re.MatchString(r.lines[i]) {
				r.mu.Unlock()
				return
			}
		}
		r.mu.Unlock()
	}
	t.Fatalf("never came: %s", pattern)
}

// text returns what was noted.
func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n") + "\n"
}

var temporary = regexp.MustCompile(`\.\d+\.tmp$`)

// short is a name below root without its random parts.
func (r *recorder) short(name string) string {
	rel, err := filepath.Rel(r.root, name)
	if err != nil {
		rel = name
	}
	rel = temporary.ReplaceAllString(rel, ".N.tmp")
	for id, as := range r.names {
		rel = strings.ReplaceAll(rel, id, as)
	}
	return rel
}

func (r *recorder) Create(name string) (vfs.File, error) {
	r.note("create %s", r.short(name))
	f, err := r.FS.Create(name)
	return &recorded{f, r, r.short(name)}, err
}

func (r *recorder) Rename(from, to string) error {
	r.note("rename %s to %s", r.short(from), r.short(to))
	return r.FS.Rename(from, to)
}

func (r *recorder) Remove(name string) error {
	err := r.FS.Remove(name)
	if !errors.Is(err, os.ErrNotExist) {
		r.note("remove %s", r.short(name))
	}
	return err
}

func (r *recorder) SyncDir(name string) error {
	r.note("sync %s/", r.short(name))
	return r.FS.SyncDir(name)
}

func (r *recorder) Barrier(name string) (vfs.Barrier, error) {
	b, err := r.FS.Barrier(name)
	return recordedBarrier{b, r}, err
}

type recordedBarrier struct {
	vfs.Barrier
	r *recorder
}

func (b recordedBarrier) Sync() error {
	b.r.note("sync the file system")
	return b.Barrier.Sync()
}

type recorded struct {
	vfs.File
	r    *recorder
	name string
}

func (f *recorded) Write(p []byte) (int, error) {
	f.r.note("write %s", f.name)
	return f.File.Write(p)
}

func (f *recorded) WriteVec(bufs [][]byte, off int64) error {
	f.r.note("write %s: %s", f.name, f.r.frames(bytes.Join(bufs, nil), off))
	return f.File.WriteVec(bufs, off)
}

func (f *recorded) Sync() error {
	f.r.note("sync %s", f.name)
	return f.File.Sync()
}

var kinds = map[journal.Kind]string{
	1: "Commit", 2: "Seal", record.KindMessage: "Message", record.KindSettled: "Settled", record.KindDeferred: "Deferred", record.KindDone: "Done",
	record.KindHeld: "Held", record.KindReleased: "Released", record.KindNotes: "Notes",
}

// frames says what is written at off of a segment.
func (r *recorder) frames(b []byte, off int64) string {
	if off == 0 {
		return "head"
	}
	var all []string
	for len(b) >= 16 {
		n := 16 + (int(binary.LittleEndian.Uint32(b[4:]))+7)&^7
		said := kinds[journal.Kind(b[0])]
		for id, as := range r.names {
			if i := bytes.Index(b[:min(n, len(b))], []byte(id)); i >= 0 && i < 48 {
				said += " " + as
			}
		}
		all, b = append(all, said), b[min(n, len(b)):]
	}
	return strings.Join(all, ", ")
}

// TestOrderOfSyncs compares the order of writes and syncs with files in
// testdata: what is on stable storage before Put returns, before the journal
// forgets, and before a file goes.
func TestOrderOfSyncs(t *testing.T) {
	const one, two = mail.ID("F47AC10B-58CC-4372-A567-0E02B2C3D479.1"), mail.ID("0E02B2C3-58CC-4372-A567-F47AC10BD479.1")
	var now time.Time
	begin := func(t *testing.T) (*Store, *recorder) {
		now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		r := &recorder{FS: crashfs.New(), root: "/queue", names: map[string]string{string(one): "ONE", string(two): "TWO"}}
		q := open(t, Options{Dir: "/queue", SegmentSize: 64 << 10, LargeBody: 5000, FS: r, Now: func() time.Time { return now }})
		r.lines = nil
		return q, r
	}
	accept := func(t *testing.T, q *Store, r *recorder, id mail.ID, size int) {
		b := q.NewBody()
		defer b.Discard()
		for rest := text(size); len(rest) > 0; rest = rest[min(1000, len(rest)):] {
			_, err := b.Write(rest[:min(1000, len(rest))])
			must(t, err)
		}
		c, err := b.Content()
		must(t, err)
		r.say("Put %s", r.names[string(id)])
		must(t, q.Put(envelope(id, 2), c))
		r.say("nil: it is accepted")
	}
	// retire takes the segments away that are done.
	retire := func(t *testing.T, q *Store, r *recorder) {
		r.say("the segment is full, and old")
		must(t, q.journal.Roll())
		r.say("work in the background")
		now = now.Add(2 * spill.OldSegment)
		q.spiller.WorkOnce(t.Context())
	}
	for name, run := range map[string]func(t *testing.T, q *Store, r *recorder){
		"accept-small": func(t *testing.T, q *Store, r *recorder) {
			accept(t, q, r, one, 1000)
			accept(t, q, r, two, 1000)
		},
		"accept-large": func(t *testing.T, q *Store, r *recorder) {
			r.say("the content arrives")
			accept(t, q, r, one, 20000)
		},
		"spill": func(t *testing.T, q *Store, r *recorder) {
			accept(t, q, r, one, 1000)
			accept(t, q, r, two, 1000)
			r.say("Defer ONE, Settle a recipient of TWO")
			must(t, q.Defer(one, []int{0, 1}, 1, now, "450 later"))
			r.await(t, "Deferred ONE")
			must(t, q.Settle(two, []int{0}))
			r.await(t, "Settled TWO")
			// One at a time, so that the order is always the same.
			r.say("spill ONE")
			_, err := q.Path(one)
			must(t, err)
			r.say("spill TWO")
			_, err = q.Path(two)
			must(t, err)
			retire(t, q, r)
		},
		"spill-many": func(t *testing.T, q *Store, r *recorder) {
			accept(t, q, r, one, 1000)
			q.spiller.Tune(func(o *spill.Options) { o.Few = 0 }) // as for many messages
			retire(t, q, r)
		},
		"dsn": func(t *testing.T, q *Store, r *recorder) {
			accept(t, q, r, one, 1000)
			r.say("ONE has failed, TWO is its report")
			accept(t, q, r, two, 1000)
			r.say("Settle ONE")
			must(t, q.Settle(one, []int{0, 1}))
			r.await(t, "Done ONE")
			r.say("work in the background")
			q.spiller.WorkOnce(t.Context())
		},
		"remove-small": func(t *testing.T, q *Store, r *recorder) {
			accept(t, q, r, one, 1000)
			r.say("Settle")
			must(t, q.Settle(one, []int{0, 1}))
			r.await(t, "Done ONE")
			retire(t, q, r)
		},
		"remove-large": func(t *testing.T, q *Store, r *recorder) {
			accept(t, q, r, one, 20000)
			r.say("Settle")
			must(t, q.Settle(one, []int{0, 1}))
			r.await(t, "Done ONE")
			retire(t, q, r)
		},
		"remove-spilled": func(t *testing.T, q *Store, r *recorder) {
			accept(t, q, r, one, 1000)
			_, err := q.Path(one)
			must(t, err)
			retire(t, q, r)
			r.say("Settle")
			must(t, q.Settle(one, []int{0, 1}))
			r.await(t, "Done ONE")
			r.say("work in the background")
			q.spiller.WorkOnce(t.Context())
		},
		"hold": func(t *testing.T, q *Store, r *recorder) {
			accept(t, q, r, one, 1000)
			r.say("Hold")
			must(t, q.Hold(one, nil))
			r.say("nil: it is held")
			r.say("Release a recipient")
			must(t, q.Release(one, []int{1}))
			r.say("nil: it is released")
		},
		"notes": func(t *testing.T, q *Store, r *recorder) {
			accept(t, q, r, one, 1000)
			r.say("SetNotes")
			must(t, q.SetNotes(one, map[string]any{"n": 1}))
			r.await(t, "Notes ONE")
			retire(t, q, r)
			r.say("SetNotes")
			must(t, q.SetNotes(one, map[string]any{"n": 2}))
			r.await(t, "Notes ONE")
			retire(t, q, r)
		},
		"close": func(t *testing.T, q *Store, r *recorder) {
			accept(t, q, r, one, 1000)
			r.say("Defer")
			must(t, q.Defer(one, []int{0, 1}, 1, now, "450 later"))
			r.await(t, "Deferred ONE")
			r.say("Close")
			must(t, q.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			q, r := begin(t)
			run(t, q, r)
			compare(t, filepath.Join("testdata", "order-"+name+".txt"), r.text())
		})
	}
}

// compare fails unless got is what stands in a file; with -update it is written
// there.
func compare(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, []byte(got), 0o644))
		return
	}
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	want, err := io.ReadAll(f)
	must(t, err)
	if got != string(want) {
		t.Errorf("%s: seen\n%s\nwant\n%s", name, got, want)
	}
}

// TestFoldersAreDurable: the names of the folders are synced by every start, as who
// made them may have died before.
func TestFoldersAreDurable(t *testing.T) {
	r := &recorder{FS: crashfs.New(), root: "/spool/queue"}
	for range 2 {
		r.lines = nil
		q := open(t, Options{Dir: "/spool/queue", FS: r})
		for _, want := range []string{"sync msg/\n", "sync ./\n", "sync ../\n"} {
			if !strings.Contains(r.text(), want) {
				t.Errorf("%q is missing in\n%s", want, r.text())
			}
		}
		must(t, q.Close())
	}
}
