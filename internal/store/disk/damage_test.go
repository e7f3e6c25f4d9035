package disk

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
	"tarishi/internal/vfs"
	"tarishi/internal/vfs/crashfs"
)

// TestOneBit flips every single bit of a message's two files, one after the
// other: no reader comes to the end of what was not accepted, the message goes to
// corrupt/, and the other one is served.
func TestOneBit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := open(t, Options{Dir: dir, NoSync: true, SegmentSize: 64 << 10})
	bad, good := envelope(newID(), 1), envelope(newID(), 1)
	body := text(40)
	put(t, q, bad, body)
	put(t, q, good, text(50))
	retireAll(t, q)
	must(t, q.Close())
	eml := q.spool.Path(bad.ID)
	doc := strings.TrimSuffix(eml, "eml") + "json"
	state, err := os.ReadFile(doc)
	must(t, err)
	for _, name := range []string{eml, doc} {
		whole, other, beside := body, doc, state
		if name == doc {
			whole, other, beside = state, eml, body
		}
		step := 1
		if testing.Short() || name != eml { // package spool tries every bit of a state
			step = 29
		}
		for i := 0; i < 8*len(whole); i += step {
			b := bytes.Clone(whole)
			b[i/8] ^= 1 << (i % 8)
			must(t, os.WriteFile(name, b, 0o600))
			must(t, os.WriteFile(other, beside, 0o600))
			core, logs := observer.New(zap.ErrorLevel)
			q.options.Log = zap.New(core)
			q = open(t, q.options)
			if _, c, err := q.Load(bad.ID); err == nil {
				r, err := c.Open()
				must(t, err)
				// As one who counts on Size, and never looks behind it.
				if _, err := io.ReadFull(r, make([]byte, c.Size())); err == nil {
					t.Fatalf("bit %d of %s: it is read to the end", i, filepath.Ext(name))
				}
				must(t, r.Close())
			}
			if _, _, err := q.Load(bad.ID); !errors.Is(err, store.ErrUnknown) {
				t.Fatalf("bit %d of %s: %v", i, filepath.Ext(name), err)
			}
			if logs.FilterField(zap.String("uuid", string(bad.ID))).Len() == 0 {
				t.Fatalf("bit %d of %s: nothing is said", i, filepath.Ext(name))
			}
			if s := q.Stat(); s.Messages != 1 {
				t.Fatalf("%+v", s)
			}
			same(t, q, good, text(50))
			if kept, _ := os.ReadFile(filepath.Join(dir, "corrupt", filepath.Base(name))); !bytes.Equal(kept, b) {
				t.Fatalf("bit %d of %s: in corrupt/ is %q", i, filepath.Ext(name), kept)
			}
			must(t, q.Close())
			must(t, os.RemoveAll(filepath.Join(dir, "corrupt")))
		}
	}
}

// TestDamagedWhileOpen damages a content wherever it is, after its message was
// loaded.
func TestDamagedWhileOpen(t *testing.T) {
	for name, place := range map[string]struct {
		size    int
		spilled bool
		kept    string // its name in corrupt/ ends so
	}{
		"small, in the journal": {100, false, ".record"},
		"small, in a file":      {100, true, ".eml"},
		"large, just accepted":  {9000, false, ".eml"},
		"large, long there":     {9000, true, ".eml"},
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, Options{Dir: t.TempDir(), LargeBody: 5000})
			env, other := envelope(newID(), 2), envelope(newID(), 2)
			put(t, q, env, text(place.size))
			put(t, q, other, text(place.size))
			file, off := q.spool.Path(env.ID), int64(place.size-2)
			if place.spilled {
				retireAll(t, q)
			} else if place.size < 5000 {
				e, err := q.catalog.Lookup(env.ID)
				must(t, err)
				file = filepath.Join(q.journalDir(), "00000001.log")
				off = int64(e.Loc.Offset+e.Loc.Length) - 2
			}
			_, c, err := q.Load(env.ID)
			must(t, err)
			if place.spilled { // so that nothing but the sums remembers it
				must(t, q.Defer(env.ID, []int{0}, 1, time.Now(), "451 x"))
				retireAll(t, q)
			}
			flip(t, file, off)
			for range 2 {
				r, err := c.Open()
				if err == nil {
					var b []byte
					b, err = io.ReadAll(r)
					if len(b) == place.size {
						t.Error("all of it is read")
					}
					r.Close()
				}
				if err == nil {
					t.Fatal("it is read to the end")
				}
			}
			if err := q.Defer(env.ID, []int{0}, 1, q.options.Now(), "x"); !errors.Is(err, store.ErrUnknown) {
				t.Error(err)
			}
			if s := q.Stat(); s != (store.Stat{Messages: 1, Recipients: 2, Bytes: int64(place.size)}) {
				t.Errorf("%+v", s)
			}
			if _, err := os.Stat(filepath.Join(q.options.Dir, "corrupt", string(env.ID)+place.kept+".reason")); err != nil {
				t.Error(err)
			}
			same(t, q, other, text(place.size))
		})
	}
}

// TestUnaccepted holds the moments around the record of a large message.
func TestUnaccepted(t *testing.T) {
	const size = 9000
	begin := func(t *testing.T) (*Store, *crashfs.FS, *mail.Envelope) {
		disk := crashfs.New()
		q := open(t, Options{Dir: "/q", FS: disk, SegmentSize: 64 << 10, LargeBody: 5000})
		put(t, q, envelope(newID(), 1), text(10))
		return q, disk, envelope(newID(), 1)
	}
	restart := func(t *testing.T, q *Store, disk *crashfs.FS) (*Store, *observer.ObservedLogs) {
		core, logs := observer.New(zap.InfoLevel)
		q.options.FS, q.options.Log = disk.Restart(crashfs.All, nil), zap.New(core)
		return open(t, q.options), logs
	}
	content := mail.Memory{text(size)}
	t.Run("before", func(t *testing.T) {
		q, disk, env := begin(t)
		_, err := q.placeContent(env.ID, content)
		must(t, err)
		q, logs := restart(t, q, disk)
		if n, err := q.spool.ContentSize(env.ID); err == nil {
			t.Error("a file is left of", n)
		}
		if list, _ := q.fs.List("/q/corrupt"); len(list) > 0 {
			t.Error(list)
		}
		if logs.FilterField(zap.Int("unaccepted", 1)).Len() != 1 || logs.FilterLevelExact(zap.ErrorLevel).Len() > 0 {
			t.Error(logs.All())
		}
		if n := q.Stat().Messages; n != 1 {
			t.Error(n)
		}
	})
	t.Run("before, and the journal is damaged", func(t *testing.T) {
		q, disk, env := begin(t)
		_, err := q.placeContent(env.ID, content)
		must(t, err)
		_, err = q.journal.Append(journal.FirstKind+50, []byte("of a newer program"))
		must(t, err)
		q, _ = restart(t, q, disk)
		if n, err := q.fs.Size("/q/corrupt/" + string(env.ID) + ".new"); n != size || err != nil {
			t.Error(n, err)
		}
	})
	t.Run("after", func(t *testing.T) {
		q, disk, env := begin(t)
		sum, err := q.placeContent(env.ID, content)
		must(t, err)
		head, err := record.EncodeMessage(env, size, true)
		must(t, err)
		record.SealMessage(head, sum)
		_, err = q.journal.Append(record.KindMessage, head)
		must(t, err)
		q.options.FS = disk.Restart(crashfs.Nothing, nil)
		r, err := OpenReadOnly(q.options)
		must(t, err)
		same(t, r, env, text(size))
		must(t, r.Close())
		for range 2 {
			q = open(t, q.options)
			same(t, q, env, text(size))
			if n, err := q.fs.Size(q.spool.Path(env.ID)); n != size || err != nil {
				t.Error(n, err)
			}
			must(t, q.Close())
		}
	})
	t.Run("it cannot get its name", func(t *testing.T) {
		q, disk, env := begin(t)
		disk.FailAt(9, errors.New("broken")) // the rename
		if err := q.Put(env, content); err == nil {
			t.Error("it is acknowledged")
		}
		must(t, q.Put(env, content)) // the client tries again
		same(t, q, env, text(size))
		q, _ = restart(t, q, disk)
		same(t, q, env, text(size))
	})
}

// TestOlderState: a state of the first version, which has no checksums, is read
// and gets its own with the next change.
func TestOlderState(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	env := envelope(newID(), 2)
	put(t, q, env, text(100))
	retireAll(t, q)
	must(t, q.Close())
	name := strings.TrimSuffix(q.spool.Path(env.ID), "eml") + "json"
	doc, err := os.ReadFile(name)
	must(t, err)
	var old []string
	for line := range strings.Lines(string(doc)) {
		if !strings.Contains(line, "crc32c") {
			old = append(old, strings.Replace(line, `"version": 2`, `"version": 1`, 1))
		}
	}
	text1 := strings.TrimSuffix(strings.Join(old, ""), ",\n}\n") + "\n}\n"
	must(t, os.WriteFile(name, []byte(text1), 0o600))
	q = open(t, q.options)
	same(t, q, env, text(100))
	must(t, q.Settle(env.ID, []int{0}))
	retireAll(t, q)
	st, err := q.spool.LoadState(env.ID)
	must(t, err)
	if st.Version != 2 || st.Content != (spool.Sum{}) || st.Recipients[0].Status != spool.Settled {
		t.Errorf("%+v", st)
	}
}

// TestRecordDamagedWhileOpen damages the record of a message in the journal and
// retires its segment, which finds no record of it any more. Nothing that is left
// of the message is deleted, and it lives on if only the frame is damaged.
func TestRecordDamagedWhileOpen(t *testing.T) {
	for name, place := range map[string]struct {
		size  int
		off   int64 // in the record
		lives bool
	}{
		"small, the frame":    {100, -8, true},
		"small, the envelope": {100, 100, false},
		"large, the frame":    {9000, -8, true},
		"large, the envelope": {9000, 100, false},
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, Options{Dir: t.TempDir(), LargeBody: 5000})
			env, other := envelope(newID(), 2), envelope(newID(), 2)
			put(t, q, env, text(place.size))
			put(t, q, other, text(place.size))
			at, err := q.catalog.Lookup(env.ID)
			must(t, err)
			flip(t, filepath.Join(q.journalDir(), "00000001.log"), int64(at.Loc.Offset)+place.off)
			retireAll(t, q)
			same(t, q, other, text(place.size))
			if s := q.journal.Segments(); len(s) > 0 && s[0].Number == at.Loc.Segment {
				t.Error("the segment stays")
			}
			q = reopen(t, q)
			if place.lives {
				same(t, q, env, text(place.size))
				return
			}
			if got := pendings(q); len(got) != 1 {
				t.Errorf("%+v", got)
			}
			kept := ".record"
			if place.size > 5000 {
				kept = ".eml"
			}
			for _, name := range []string{string(env.ID) + kept, string(env.ID) + kept + ".reason"} {
				if _, err := os.Stat(filepath.Join(q.options.Dir, "corrupt", name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// scratched is a file system that cannot read a range of the first segment.
type scratched struct {
	vfs.FS
	off, end atomic.Int64
}

func (f *scratched) wrap(name string, file vfs.File, err error) (vfs.File, error) {
	if err == nil && strings.HasSuffix(name, "00000001.log") {
		file = scratchedFile{file, f}
	}
	return file, err
}

func (f *scratched) Create(name string) (vfs.File, error) {
	file, err := f.FS.Create(name)
	return f.wrap(name, file, err)
}

func (f *scratched) Open(name string) (vfs.File, error) {
	file, err := f.FS.Open(name)
	return f.wrap(name, file, err)
}

type scratchedFile struct {
	vfs.File
	f *scratched
}

func (s scratchedFile) ReadAt(p []byte, off int64) (int, error) {
	if off < s.f.end.Load() && off+int64(len(p)) > s.f.off.Load() {
		return 0, syscall.EIO
	}
	return s.File.ReadAt(p, off)
}

// TestBlocksThatCannotBeRead: the disk does not give a part of a segment at the
// start. The other messages live on, the journal forgets the segment, and what
// could not be read is not deleted.
func TestBlocksThatCannotBeRead(t *testing.T) {
	disk := &scratched{FS: vfs.OS{}}
	q := open(t, Options{Dir: t.TempDir(), FS: disk, SegmentSize: 256 << 10})
	one, two := envelope(newID(), 1), envelope(newID(), 1)
	put(t, q, one, text(20000))
	put(t, q, two, text(20000))
	disk.off.Store(8192)
	disk.end.Store(8200)
	q = reopen(t, q)
	if got := pendings(q); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	segment, err := os.ReadFile(q.journal.Name(1))
	must(t, err)
	retireAll(t, q)
	if s := q.journal.Segments(); len(s) > 0 && s[0].Number == 1 {
		t.Error("the segment stays")
	}
	if kept, err := os.ReadFile(filepath.Join(q.options.Dir, "corrupt", "00000001.log")); err != nil || !bytes.Equal(kept, segment) {
		t.Error("the segment is not in corrupt/:", err)
	}
	same(t, q, two, text(20000))
}

// TestZeroedBlock zeroes each 4 KiB of a segment in turn, its head included, and
// opens the queue: only messages in that block are lost.
func TestZeroedBlock(t *testing.T) {
	const n, block = 30, 4096
	dir := t.TempDir()
	q := open(t, Options{Dir: dir, SegmentSize: 256 << 10, NoSync: true})
	var all []*mail.Envelope
	var at []journal.Location
	for i := range n {
		env := envelope(newID(), 1)
		put(t, q, env, text(300+80*i))
		e, err := q.catalog.Lookup(env.ID)
		must(t, err)
		all, at = append(all, env), append(at, e.Loc)
	}
	must(t, q.Close())
	name := filepath.Join(dir, "journal", "00000001.log")
	whole, err := os.ReadFile(name)
	must(t, err)
	for from := 0; from < int(at[n-1].Offset+at[n-1].Length); from += block {
		b := bytes.Clone(whole)
		clear(b[from : from+block])
		copied := filepath.Join(t.TempDir(), "queue")
		must(t, os.MkdirAll(filepath.Join(copied, "journal"), 0o700))
		must(t, os.WriteFile(filepath.Join(copied, "journal", "00000001.log"), b, 0o600))
		q := open(t, Options{Dir: copied, SegmentSize: 256 << 10, NoSync: true})
		want := map[mail.ID]bool{}
		for i, l := range at {
			if int(l.Offset+l.Length) <= from || int(l.Offset)-16 >= from+block {
				same(t, q, all[i], text(300+80*i))
				want[all[i].ID] = true
			}
		}
		if got := q.Stat().Messages; got != len(want) || from == 0 && got != n {
			t.Errorf("block at %d: %d messages, want %d", from, got, len(want))
		}
		must(t, q.Close())
	}
}
