package disk

import (
	"bytes"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/disk/spill"
	"tarishi/internal/vfs"
	"tarishi/internal/vfs/crashfs"
)

// sticky is a file system that does not remove, or not rename, some files.
type sticky struct {
	vfs.FS
	stuck atomic.Pointer[string] // part of their names
}

func (f *sticky) is(name string) bool {
	s := f.stuck.Load()
	return s != nil && *s != "" && strings.Contains(name, *s)
}

func (f *sticky) Remove(name string) error {
	if f.is(name) {
		return &os.PathError{Op: "remove", Path: name, Err: os.ErrPermission}
	}
	return f.FS.Remove(name)
}

func (f *sticky) Rename(from, to string) error {
	if f.is(from) {
		return &os.PathError{Op: "rename", Path: from, Err: os.ErrPermission}
	}
	return f.FS.Rename(from, to)
}

// TestFilesThatStay: a finished message whose files cannot be removed keeps
// neither the files of others nor the journal, and does not come back.
func TestFilesThatStay(t *testing.T) {
	disk := &sticky{FS: vfs.OS{}}
	now := time.Now()
	q := open(t, Options{Dir: t.TempDir(), FS: disk, SegmentSize: 64 << 10, Now: func() time.Time { return now }})
	stays, goes := envelope(newID(), 1), envelope(newID(), 1)
	put(t, q, stays, text(1000))
	put(t, q, goes, text(1000))
	retireAll(t, q)
	name := string(stays.ID)
	disk.stuck.Store(&name)
	must(t, q.Settle(stays.ID, []int{0}))
	must(t, q.Settle(goes.ID, []int{0}))
	must(t, q.Sync())
	segment := q.journal.Segments()[0].Number
	for range 3 {
		must(t, q.journal.Roll())
		now = now.Add(2 * spill.OldSegment)
		q.spiller.WorkOnce(t.Context())
	}
	if _, err := os.Stat(q.spool.Path(goes.ID)); !os.IsNotExist(err) {
		t.Error("files of another message stay:", err)
	}
	if s := q.journal.Segments(); len(s) > 0 && s[0].Number == segment {
		t.Error("the segment stays")
	}
	// Nothing of it is believed after a crash either.
	_ = q.Close() // it says that files stay
	q = open(t, q.options)
	if s := q.Stat(); s.Messages != 0 {
		t.Errorf("%+v", s)
	}
	name = ""
	q.spiller.WorkOnce(t.Context())
	if _, err := os.Stat(q.spool.Path(stays.ID)); !os.IsNotExist(err) {
		t.Error("files stay:", err)
	}
}

// TestFolderInTheWay is a folder, with something in it, under the name of a
// message's file when the message is finished.
func TestFolderInTheWay(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), SegmentSize: 64 << 10})
	env := envelope(newID(), 1)
	put(t, q, env, text(1000))
	retireAll(t, q)
	if _, _, err := q.Load(env.ID); err != nil {
		t.Fatal(err)
	}
	eml := q.spool.Path(env.ID)
	must(t, os.Remove(eml))
	must(t, os.MkdirAll(eml+"/x", 0o700))
	must(t, q.Settle(env.ID, []int{0}))
	q.spiller.WorkOnce(t.Context())
	if _, err := os.Stat(eml); !os.IsNotExist(err) {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(q.options.Dir, "corrupt", filepath.Base(eml), "x")); err != nil {
		t.Error(err)
	}
	if n := q.catalog.TrashSize(); n > 0 {
		t.Error("it is tried again:", n)
	}
}

// TestFolderInTheWayOfASpill is a folder where the files of a message in the
// journal belong: it does not keep the journal, nor the other messages in it.
func TestFolderInTheWayOfASpill(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), SegmentSize: 64 << 10})
	one, two := envelope(newID(), 1), envelope(newID(), 1)
	put(t, q, one, text(1000))
	put(t, q, two, text(1000))
	eml := q.spool.Path(one.ID)
	doc := strings.TrimSuffix(eml, "eml") + "json"
	must(t, os.MkdirAll(eml+"/x", 0o700))
	must(t, os.MkdirAll(doc+"/x", 0o700))
	must(t, q.journal.Roll())
	segment := q.journal.Segments()[0].Number
	retire(t, q, segment)
	if s := q.journal.Segments(); len(s) > 0 && s[0].Number == segment {
		t.Error("the segment stays")
	}
	q = reopen(t, q)
	same(t, q, one, text(1000))
	same(t, q, two, text(1000))
	for _, name := range []string{eml, doc} {
		if _, err := os.Stat(filepath.Join(q.options.Dir, "corrupt", filepath.Base(name), "x")); err != nil {
			t.Error(err)
		}
	}
}

// TestNeverNamed: a large content could not be given its name after a crash, and
// its message was spilled all the same. It is served for ever.
func TestNeverNamed(t *testing.T) {
	inner := crashfs.New()
	disk := &sticky{FS: inner}
	q := open(t, Options{Dir: "/q", FS: disk, SegmentSize: 64 << 10, LargeBody: 5000})
	env, content := envelope(newID(), 1), text(9000)
	sum, err := q.placeContent(env.ID, mail.Memory{content})
	must(t, err)
	head, err := record.EncodeMessage(env, int64(len(content)), true)
	must(t, err)
	record.SealMessage(head, sum)
	_, err = q.journal.Append(record.KindMessage, head)
	must(t, err)
	name := string(env.ID) + ".new"
	disk.stuck.Store(&name)
	disk.FS = inner.Restart(crashfs.All, nil) // the power failed before it had its name
	for range 3 {
		q = open(t, q.options)
		same(t, q, env, content)
		retireAll(t, q)
		same(t, q, env, content)
		must(t, q.Close())
	}
	name = ""
	q = open(t, q.options)
	same(t, q, env, content)
	if _, err := q.fs.Size(q.spool.Path(env.ID)); err != nil {
		t.Error("it still has no name:", err)
	}
	if list, _ := q.fs.List("/q/corrupt"); len(list) > 0 {
		t.Error(list)
	}
}

// TestOneBitOfARecord flips bits of a message's record behind the queue's back:
// no other envelope is ever loaded.
func TestOneBitOfARecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := open(t, Options{Dir: dir, NoSync: true, SegmentSize: 64 << 10})
	env := envelope(newID(), 2)
	put(t, q, env, nil)
	at, err := q.catalog.Lookup(env.ID)
	must(t, err)
	must(t, q.Close())
	name := filepath.Join(dir, "journal", "00000001.log")
	whole, err := os.ReadFile(name)
	must(t, err)
	step := 3 // every byte
	if testing.Short() {
		step = 7
	}
	for i := 0; i < 8*int(at.Loc.Length); i += step {
		must(t, os.WriteFile(name, whole, 0o600))
		q = open(t, q.options)
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		must(t, err)
		off := int64(at.Loc.Offset) + int64(i/8)
		_, err = f.WriteAt([]byte{whole[off] ^ 1<<(i%8)}, off)
		must(t, err)
		must(t, f.Close())
		if got, _, err := q.Load(env.ID); !errors.Is(err, store.ErrUnknown) {
			t.Fatalf("bit %d: %+v, %v", i, got, err)
		}
		if q.Stat().Messages != 0 {
			t.Fatalf("bit %d: it is still there", i)
		}
		kept, err := os.ReadFile(filepath.Join(dir, "corrupt", string(env.ID)+".record"))
		if want := whole[at.Loc.Offset:][:at.Loc.Length]; err != nil || len(kept) != len(want) || bytes.Equal(kept, want) {
			t.Fatalf("bit %d: in corrupt/ is %q, %v", i, kept, err)
		}
		must(t, q.Close())
		must(t, os.RemoveAll(filepath.Join(dir, "corrupt")))
	}
}

// TestRecordWithoutChecksums is one of an earlier program.
func TestRecordWithoutChecksums(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), NoSync: true})
	env, content := envelope(newID(), 2), text(100)
	head, err := record.EncodeMessage(env, int64(len(content)), false)
	must(t, err)
	_, err = q.journal.Append(record.KindMessage, head[:len(head)-record.SealSize], content)
	must(t, err)
	q = reopen(t, q)
	same(t, q, env, content)
}

// TestFoldersGoAway removes the empty folders of the spool, as those do who clean
// up, after the queue has used them: they are made again, and no message takes
// harm.
func TestFoldersGoAway(t *testing.T) {
	for _, few := range []int{0, spill.FewFiles} {
		q := open(t, Options{Dir: t.TempDir(), SegmentSize: 64 << 10, LargeBody: 5000})
		q.spiller.Tune(func(o *spill.Options) { o.Few = few })
		for _, name := range []string{"", "msg", "corrupt"} {
			env := envelope(newID(), 1)
			big := envelope(mail.ID(string(env.ID)+"9"), 1)
			put(t, q, env, text(1000))
			put(t, q, big, text(9000))
			retireAll(t, q)
			for _, e := range []*mail.Envelope{env, big} {
				must(t, q.Settle(e.ID, []int{0}))
			}
			q.spiller.WorkOnce(t.Context())
			again := envelope(env.ID, 1)
			put(t, q, again, text(1000))
			must(t, os.RemoveAll(filepath.Join(q.options.Dir, "msg", string(env.ID[:2]))))
			if name != "" {
				must(t, os.RemoveAll(filepath.Join(q.options.Dir, name)))
			}
			q.spiller.WorkOnce(t.Context())
			must(t, q.Put(envelope(big.ID, 1), mail.Memory{text(9000)}))
			must(t, os.RemoveAll(filepath.Join(q.options.Dir, "corrupt")))
			must(t, q.journal.Roll())
			for _, s := range q.journal.Segments() {
				if !s.Done {
					continue
				}
				must(t, q.spiller.Exclusive(func() error {
					err := q.spiller.Retire(t.Context(), s.Number)
					if err != nil { // what was removed is missed once
						err = q.spiller.Retire(t.Context(), s.Number)
					}
					return err
				}))
			}
			q = reopen(t, q)
			same(t, q, again, text(1000))
			same(t, q, envelope(big.ID, 1), text(9000))
			for id := range pendings(q) {
				must(t, q.Settle(id, []int{0}))
			}
		}
	}
}

// TestJournalGoesAway removes the journal while the queue is open. What comes
// later is in a file that has a name, or refused; what came before is not lost as
// long as the queue is open.
func TestJournalGoesAway(t *testing.T) {
	for name, folder := range map[string]bool{"segment": false, "folder": true} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			q := open(t, Options{Dir: t.TempDir(), SegmentSize: 64 << 10, Now: func() time.Time { return now }})
			before, later := envelope(newID(), 1), envelope(newID(), 1)
			put(t, q, before, text(1000))
			must(t, q.Healthy())
			must(t, os.RemoveAll(q.journalDir()))
			if !folder {
				must(t, os.Mkdir(q.journalDir(), 0o700))
			}
			now = now.Add(time.Second)
			err := q.Healthy()
			if err == nil {
				err = q.Put(later, mail.Memory{text(1000)})
			}
			if err != nil {
				t.Error(err)
			}
			same(t, q, before, text(1000))
			q.spiller.WorkOnce(t.Context()) // moves what came before at once
			q = reopen(t, q)
			same(t, q, before, text(1000))
			same(t, q, later, text(1000))
		})
	}
}

// TestQueueGoesAway removes or moves everything, the lock included, while the queue is
// open: it goes on by itself as soon as its folder is there, and never in another.
func TestQueueGoesAway(t *testing.T) {
	var passed atomic.Int64 // seconds
	began := time.Now()
	dir := filepath.Join(t.TempDir(), "queue")
	q := open(t, Options{Dir: dir, SegmentSize: 64 << 10, Now: func() time.Time { return began.Add(time.Duration(passed.Load()) * time.Second) }})
	works := func(want bool) {
		t.Helper()
		for range 4 {
			passed.Add(1)
			q.spiller.WorkOnce(t.Context())
		}
		err := q.Healthy()
		if err == nil {
			err = q.Put(envelope(newID(), 1), mail.Memory{text(1000)})
		}
		if want != (err == nil) {
			t.Error(err)
		}
	}
	works(true)
	list, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range list {
		must(t, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	works(true)
	if _, err := Open(Options{Dir: dir}); err == nil {
		t.Error("another one has opened it")
	}
	must(t, os.Rename(dir, dir+".away"))
	works(false)
	must(t, os.Mkdir(dir, 0o700)) // another queue's
	works(false)
	must(t, os.Remove(dir))
	must(t, os.Rename(dir+".away", dir))
	works(true)
	n := q.Stat().Messages
	q = reopen(t, q)
	if got := q.Stat().Messages; got != n {
		t.Errorf("%d messages, want %d", got, n)
	}
}

// closed is a file system that does not open some files.
type closed struct {
	vfs.FS
	name string // part of their names
}

func (f closed) Open(name string) (vfs.File, error) {
	if strings.Contains(name, f.name) {
		return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrPermission}
	}
	return f.FS.Open(name)
}

// TestSegmentForAnotherDay: a start cannot open a segment. What may belong to its
// messages stays where it is until one can.
func TestSegmentForAnotherDay(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), SegmentSize: 64 << 10, LargeBody: 5000})
	small, large := envelope(newID(), 1), envelope(newID(), 1)
	put(t, q, small, text(100))
	put(t, q, large, text(9000))
	must(t, q.Close())
	q.options.FS = closed{vfs.OS{}, "00000001.log"}
	logged, seen := observer.New(zap.ErrorLevel)
	q.options.Log = zap.New(logged)
	q = open(t, q.options)
	if n := q.Stat().Messages; n != 0 {
		t.Error(n)
	}
	// It is not damaged: whoever reads the log knows what to do.
	if list, err := os.ReadDir(filepath.Join(q.options.Dir, "corrupt")); err != nil || len(list) > 0 {
		t.Error(list, err)
	}
	who, err := user.Current()
	must(t, err)
	lines := seen.FilterMessageSnippet("until a start can read it").All()
	if len(lines) != 1 || lines[0].ContextMap()["name"] != q.journal.Name(1) || lines[0].ContextMap()["user"] != who.Username {
		t.Errorf("%+v", seen.All())
	}
	q.options.Log = nil
	later := envelope(newID(), 1)
	put(t, q, later, text(9000))
	must(t, q.Settle(later.ID, []int{0}))
	q.spiller.WorkOnce(t.Context())
	must(t, q.Close())
	q.options.FS = vfs.OS{}
	q = open(t, q.options)
	same(t, q, small, text(100))
	same(t, q, large, text(9000))
	if n := q.Stat().Messages; n != 2 {
		t.Error(n)
	}
}
