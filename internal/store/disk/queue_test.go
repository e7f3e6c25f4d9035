package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/spill"
	"tarishi/internal/store/journal"
)

func open(t testing.TB, o Options) *Store {
	t.Helper()
	q, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func envelope(id mail.ID, recipients int) *mail.Envelope {
	env := &mail.Envelope{
		ID: id, From: mail.Address{Local: "a b", Domain: "example.org"},
		Received: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), UTF8: true, Return: "HDRS", EnvelopeID: "x\ny",
		Notes: mail.Notes{"queue": map[string]any{"wants": "outbound"}},
	}
	for i := range recipients {
		env.Recipients = append(env.Recipients, mail.Recipient{
			Address: mail.Address{Local: fmt.Sprintf("r%d", i), Domain: "example.com"}, Notify: mail.NotifyDelay, ORCPT: "rfc822;o@x",
		})
	}
	return env
}

func newID() mail.ID { return mail.NewID(mail.NewConnectionID(), 1+rand.IntN(9)) }

func text(n int) []byte {
	return bytes.Repeat([]byte("Subject: hello\r\n\r\n0123456789abcdef\r\n"), n/36+1)[:n]
}

func put(t testing.TB, q *Store, env *mail.Envelope, content []byte) {
	t.Helper()
	if err := q.Put(env, mail.Memory{content[:len(content)/2], content[len(content)/2:]}); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, c mail.Content) []byte {
	t.Helper()
	r, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != c.Size() {
		t.Fatalf("content has %d bytes and says %d", len(b), c.Size())
	}
	return b
}

// same fails unless the queue holds the message as it was put.
func same(t testing.TB, q *Store, env *mail.Envelope, content []byte) {
	t.Helper()
	got, c, err := q.Load(env.ID)
	if err != nil {
		t.Fatal(err)
	}
	a, b := *got, *env
	if fmt.Sprintf("%+v", a) != fmt.Sprintf("%+v", b) {
		t.Fatalf("envelope\n%+v\nwant\n%+v", a, b)
	}
	if !bytes.Equal(read(t, c), content) {
		t.Fatal("content differs")
	}
}

func pendings(q *Store) map[mail.ID]mail.Pending {
	m := map[mail.ID]mail.Pending{}
	q.Walk(func(p mail.Pending) bool { m[p.ID] = p; return true })
	return m
}

func reopen(t testing.TB, q *Store) *Store {
	t.Helper()
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, q.options)
}

func TestLifeOfAMessage(t *testing.T) {
	for _, size := range []int{0, 100, 5000, 300_000} {
		for _, spilled := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d bytes, spilled %v", size, spilled), func(t *testing.T) {
				q := open(t, Options{Dir: t.TempDir(), LargeBody: 100_000})
				env, content := envelope(newID(), 3), text(size)
				put(t, q, env, content)
				same(t, q, env, content)
				if spilled {
					path, err := q.Path(env.ID)
					if err != nil {
						t.Fatal(err)
					}
					if b, _ := os.ReadFile(path); !bytes.Equal(b, content) {
						t.Fatal("the file differs")
					}
				}
				due := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
				must(t, q.Settle(env.ID, []int{1}))
				must(t, q.Settle(env.ID, []int{1}))
				must(t, q.Defer(env.ID, []int{0, 1}, 2, due, "451 later"))
				check := func() {
					t.Helper()
					same(t, q, env, content)
					p := pendings(q)[env.ID]
					want := mail.NewPending(env, int64(size))
					want.Recipients = []mail.PendingRecipient{want.Recipients[0], want.Recipients[2]}
					want.Recipients[0].Attempts, want.Recipients[0].Next, want.Recipients[0].Last = 2, due, "451 later"
					if fmt.Sprint(p) != fmt.Sprint(want) {
						t.Fatalf("pending\n%+v\nwant\n%+v", p, want)
					}
					if s := q.Stat(); s != (store.Stat{Messages: 1, Recipients: 2, Bytes: int64(size)}) {
						t.Fatalf("%+v", s)
					}
				}
				check()
				for range 2 {
					q = reopen(t, q)
					check()
				}
				retireAll(t, q)
				check()
				q = reopen(t, q)
				check()
				must(t, q.Settle(env.ID, []int{0}))
				_, c, err := q.Load(env.ID)
				must(t, err)
				r, err := c.Open()
				must(t, err)
				must(t, q.Settle(env.ID, []int{2}))
				retireAll(t, q)
				if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, content) {
					t.Fatal("an open reader lost its content", err)
				}
				must(t, r.Close())
				if err := q.Settle(env.ID, []int{2}); !errors.Is(err, store.ErrUnknown) {
					t.Fatal(err)
				}
				if _, _, err := q.Load(env.ID); !errors.Is(err, store.ErrUnknown) {
					t.Fatal(err)
				}
				if _, err := c.Open(); !errors.Is(err, store.ErrUnknown) {
					t.Fatal(err)
				}
				q = reopen(t, q)
				if len(pendings(q)) != 0 || q.Stat() != (store.Stat{}) {
					t.Fatal("message came back")
				}
				if left := files2(t, q.options.Dir, "msg"); len(left) > 0 {
					t.Fatal("files stay:", left)
				}
				if left := files2(t, q.options.Dir, "corrupt"); len(left) > 0 {
					t.Fatal("corrupt:", left)
				}
			})
		}
	}
}

// retireAll ends the current segment and retires all.
func retireAll(t testing.TB, q *Store) {
	t.Helper()
	for range 2 {
		for _, s := range q.journal.Segments() {
			if s.Done {
				retire(t, q, s.Number)
			}
		}
		must(t, q.spiller.Exclusive(q.catalog.EmptyTrash))
		must(t, q.journal.Roll())
	}
}

// retire retires a segment.
func retire(t testing.TB, q *Store, segment uint32) {
	t.Helper()
	must(t, q.spiller.Exclusive(func() error { return q.spiller.Retire(t.Context(), segment) }))
}

// calm works as if no mail had come for a while.
func calm(t testing.TB, q *Store) {
	t.Helper()
	q.spiller.Tune(func(*spill.Options) {})
	q.spiller.WorkOnce(t.Context())
}

// unlimited lets the journal grow.
func unlimited(o *spill.Options) {
	o.Limits = spill.Limits{Rest: 1e9, Busy: 1e9, Most: 1e9, Long: 1e9, Limit: 1e9}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func files2(t testing.TB, parts ...string) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(filepath.Join(parts...), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, p)
		}
		return err
	}))
	return names
}

func TestLock(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	_, err := Open(Options{Dir: q.options.Dir})
	want := fmt.Sprintf("spool %s is in use by another tarishi (pid %d)", q.options.Dir, os.Getpid())
	if err == nil || err.Error() != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	reopen(t, q)
}

func TestImpossibleFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, dir := range []string{file, filepath.Join(file, "queue"), "/proc/nowhere/queue"} {
		if _, err := Open(Options{Dir: dir}); err == nil || !strings.HasPrefix(err.Error(), "cannot use the spool folder "+dir+": ") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestPutErrors(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	good := newID()
	put(t, q, envelope(good, 1), text(10))
	notes := envelope(newID(), 1)
	notes.Notes["f"] = func() {}
	long := envelope(newID(), 1)
	long.Recipients[0].Address.Local = strings.Repeat(`"`, 600) // quoted, it is too long to be read
	for name, env := range map[string]*mail.Envelope{
		"address": long,
		"again":   envelope(good, 1), "no recipients": envelope(newID(), 0), "bad id": envelope("../x", 1), "notes": notes,
	} {
		var r *reply.Reply
		if err := q.Put(env, mail.Memory{text(10)}); !errors.As(err, &r) || r.Code != 451 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int64{9, 11} {
		if err := q.Put(envelope(newID(), 1), liar{mail.Memory{text(10)}, n}); err == nil {
			t.Errorf("content of 10 bytes that says %d was taken", n)
		}
	}
	if s := q.Stat(); s != (store.Stat{Messages: 1, Recipients: 1, Bytes: 10}) {
		t.Errorf("%+v", s)
	}
	must(t, q.Close())
	var r *reply.Reply
	if err := q.Put(envelope(newID(), 1), mail.Memory{text(10)}); !errors.As(err, &r) || r.Code != 451 {
		t.Error(err)
	}
}

type liar struct {
	mail.Content
	size int64
}

func (l liar) Size() int64 { return l.size }

func TestOddIDs(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	ids := []mail.ID{
		"A", "A.1", "00000000-0000-0000-0000-000000000000.1", "f47ac10b-58cc-4372-a567-0e02b2c3d479.1",
		"F47AC10B-58CC-4372-A567-0E02B2C3D479.01", "F47AC10B-58CC-4372-A567-0E02B2C3D479.1", "F47AC10B-58CC-4372-A567-0E02B2C3D479.4294967295",
	}
	for _, id := range ids {
		put(t, q, envelope(id, 1), text(20))
	}
	retireAll(t, q)
	q = reopen(t, q)
	got := pendings(q)
	for _, id := range ids {
		if _, ok := got[id]; !ok {
			t.Errorf("%s is lost", id)
		}
		must(t, q.Settle(id, []int{0}))
	}
	if s := q.Stat(); s != (store.Stat{}) || q.catalog.Usage().Odd != 0 {
		t.Errorf("%+v", s)
	}
}

func TestSpiltMemoryIsUsedAgain(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), LargeBody: 1 << 20})
	first, second := q.NewBody(), q.NewBody()
	defer first.Discard()
	defer second.Discard()
	content, other := text(700_000), text(600_000)
	_, err := first.Write(content)
	must(t, err)
	must(t, first.Spill())
	_, err = second.Write(other)
	must(t, err)
	_, err = first.Write(content) // behind what was spilt
	must(t, err)
	for b, want := range map[store.Body][]byte{first: append(content[:len(content):len(content)], content...), second: other} {
		c, err := b.Content()
		must(t, err)
		if !bytes.Equal(read(t, c), want) {
			t.Error("content differs")
		}
	}
}

func TestBody(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), LargeBody: 50_000})
	for _, size := range []int{0, 1, 8192, 49_999, 50_000, 50_001, 400_000} {
		for how := range 4 {
			changed, early := how&1 == 1, how&2 == 2
			b := q.NewBody()
			content := text(size)
			for rest := content; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(9000))
				if early && len(rest) < size {
					if held := b.Held(); held > 0 && held < int64(size-len(rest)) {
						t.Fatalf("%d bytes held of %d", held, size-len(rest))
					}
					must(t, b.Spill())
					if b.Held() != 0 {
						t.Fatalf("%d bytes held after Spill", b.Held())
					}
				}
				if k, err := b.Write(rest[:n]); k != n || err != nil {
					t.Fatal(k, err)
				}
				rest = rest[n:]
			}
			c, err := b.Content()
			must(t, err)
			if !bytes.Equal(read(t, c), content) {
				t.Fatal("content differs")
			}
			want := content
			if changed {
				skip := min(16, size)
				c = mail.WithHead([]byte("X: y\r\n"), c, int64(skip))
				want = append([]byte("X: y\r\n"), content[skip:]...)
			}
			env := envelope(newID(), 1)
			must(t, q.Put(env, c))
			if !bytes.Equal(read(t, c), want) {
				t.Fatal("content is gone after Put")
			}
			again := envelope(newID(), 1)
			must(t, q.Put(again, c))
			b.Discard()
			b.Discard()
			if _, err := b.Write([]byte("x")); err == nil {
				t.Fatal("write after Discard")
			}
			same(t, q, env, want)
			same(t, q, again, want)
			q = reopen(t, q)
			same(t, q, env, want)
			must(t, q.Settle(again.ID, []int{0}))
			must(t, q.Settle(env.ID, []int{0}))
		}
	}
	b := q.NewBody()
	_, err := b.Write(text(60_000))
	must(t, err)
	must(t, q.catalog.EmptyTrash())
	if left := files2(t, q.options.Dir, "msg"); len(left) != 1 {
		t.Fatal("want one temporary file:", left)
	}
	b.Discard()
	if left := files2(t, q.options.Dir, "msg"); len(left) != 0 {
		t.Fatal("files stay:", left)
	}
}

func TestRetireBoundsTheDisk(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), SegmentSize: 64 << 10})
	var keep []*mail.Envelope
	for i := range 400 {
		env := envelope(newID(), 1)
		put(t, q, env, text(2000))
		if i%40 == 0 {
			keep = append(keep, env)
			must(t, q.Defer(env.ID, []int{0}, 1, time.Time{}, "450 x"))
			continue
		}
		must(t, q.Settle(env.ID, []int{0}))
		if i%50 == 0 {
			q.spiller.WorkOnce(t.Context())
		}
	}
	calm(t, q)
	if n := len(q.journal.Segments()); n > 3 {
		t.Errorf("%d segments stay", n)
	}
	if n := len(files2(t, q.options.Dir, "journal")); n > 3 {
		t.Errorf("%d segment files stay", n)
	}
	q = reopen(t, q)
	if n := len(pendings(q)); n != len(keep) {
		t.Errorf("%d messages, want %d", n, len(keep))
	}
	for _, env := range keep {
		same(t, q, env, text(2000))
		if p := pendings(q)[env.ID]; p.Recipients[0].Attempts != 1 || p.Recipients[0].Last != "450 x" {
			t.Errorf("%+v", p)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), SegmentSize: 256 << 10, LargeBody: 20_000, NoSync: true})
	stop := make(chan struct{})
	var background, wg sync.WaitGroup
	background.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				q.spiller.WorkOnce(t.Context())
				q.Walk(func(p mail.Pending) bool { return len(p.Recipients) > 0 })
				q.Stat()
				_ = q.Healthy()
			}
		}
	})
	var mu sync.Mutex
	kept := map[mail.ID][]byte{}
	for range 8 {
		wg.Go(func() {
			for i := range 40 {
				env, content := envelope(newID(), 2), text(rand.IntN(25_000))
				put(t, q, env, content)
				must(t, q.Settle(env.ID, []int{i % 2}))
				must(t, q.Defer(env.ID, []int{1 - i%2}, 1+i, time.Now(), "450 later"))
				_, c, err := q.Load(env.ID)
				must(t, err)
				if !bytes.Equal(read(t, c), content) {
					t.Error("content differs")
				}
				if i%7 == 0 {
					if _, err := q.Path(env.ID); err != nil {
						t.Error(err)
					}
				}
				if i%4 == 0 {
					mu.Lock()
					kept[env.ID] = content
					mu.Unlock()
					continue
				}
				must(t, q.Settle(env.ID, []int{1 - i%2}))
			}
		})
	}
	wg.Wait()
	close(stop)
	background.Wait()
	for range 2 {
		got := pendings(q)
		if len(got) != len(kept) {
			t.Fatalf("%d messages, want %d", len(got), len(kept))
		}
		for id, content := range kept {
			_, c, err := q.Load(id)
			must(t, err)
			if !bytes.Equal(read(t, c), content) || len(got[id].Recipients) != 1 || got[id].Recipients[0].Last != "450 later" {
				t.Fatalf("%+v", got[id])
			}
		}
		q = reopen(t, q)
	}
}

// TestCopiedUnderLoad reopens copies of the folder that were taken under load:
// what a kill leaves behind. Retirement waits while a copy is made, because a
// copy is not one moment; TestCrash has the other moments.
func TestCopiedUnderLoad(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), SegmentSize: 64 << 10, LargeBody: 6000})
	var mu sync.Mutex
	acknowledged, settling := map[mail.ID]bool{}, map[mail.ID]bool{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 60 {
				env := envelope(newID(), 1)
				put(t, q, env, text(rand.IntN(8000)))
				mu.Lock()
				acknowledged[env.ID] = true
				settle := rand.IntN(3) > 0
				settling[env.ID] = settle
				mu.Unlock()
				if settle {
					must(t, q.Settle(env.ID, []int{0}))
				}
			}
		})
	}
	for range 6 {
		q.spiller.WorkOnce(t.Context())
		mu.Lock()
		before := slices.Collect(maps.Keys(acknowledged))
		mu.Unlock()
		dir := t.TempDir()
		must(t, q.spiller.Exclusive(func() error {
			for _, part := range []string{"msg", "journal"} { // the journal may refer to files only
				copyFolder(t, filepath.Join(q.options.Dir, part), filepath.Join(dir, part))
			}
			return nil
		}))
		c := open(t, Options{Dir: dir, LargeBody: 6000})
		got := pendings(c)
		mu.Lock()
		for _, id := range before {
			if _, ok := got[id]; !ok && !settling[id] {
				t.Errorf("acknowledged message %s is lost", id)
			}
		}
		mu.Unlock()
		for id := range got {
			if _, content, err := c.Load(id); err != nil {
				t.Error(err)
			} else {
				read(t, content)
			}
		}
		must(t, c.Close())
	}
	wg.Wait()
}

// copyFolder copies a folder in use; files that go away are left out.
func copyFolder(t testing.TB, from, to string) {
	t.Helper()
	must(t, filepath.WalkDir(from, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		rel, _ := filepath.Rel(from, p)
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return nil
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	}))
}

func TestDamagedFiles(t *testing.T) {
	type files struct{ eml, json string }
	for name, damage := range map[string]func(t *testing.T, f files){
		"json cut":      func(t *testing.T, f files) { must(t, os.Truncate(f.json, 20)) },
		"json empty":    func(t *testing.T, f files) { must(t, os.Truncate(f.json, 0)) },
		"json a folder": func(t *testing.T, f files) { must(t, os.Remove(f.json)); must(t, os.Mkdir(f.json, 0o700)) },
		"json gone":     func(t *testing.T, f files) { must(t, os.Remove(f.json)) },
		"eml cut":       func(t *testing.T, f files) { must(t, os.Truncate(f.eml, 20)) },
		"eml gone":      func(t *testing.T, f files) { must(t, os.Remove(f.eml)) },
		"eml a link":    func(t *testing.T, f files) { must(t, os.Remove(f.eml)); must(t, os.Symlink("/etc/passwd", f.eml)) },
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, Options{Dir: t.TempDir()})
			bad, good := envelope(newID(), 1), envelope(newID(), 2)
			put(t, q, bad, text(100))
			put(t, q, good, text(100))
			retireAll(t, q)
			must(t, q.Close())
			eml := q.spool.Path(bad.ID)
			damage(t, files{eml, strings.TrimSuffix(eml, ".eml") + ".json"})
			q = open(t, q.options)
			got := pendings(q)
			if _, ok := got[good.ID]; !ok || len(got) != 1 {
				t.Errorf("%+v", got)
			}
			same(t, q, good, text(100))
			if left := files2(t, q.options.Dir, "corrupt"); len(left) == 0 || !slices.ContainsFunc(left, func(s string) bool { return strings.HasSuffix(s, ".reason") }) {
				t.Error("nothing is in corrupt/:", left)
			}
		})
	}
}

func TestDamagedJournal(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		dir := t.TempDir()
		q := open(t, Options{Dir: dir, SegmentSize: 64 << 10})
		var ids []mail.ID
		for range 5 {
			env := envelope(newID(), 1)
			put(t, q, env, text(300))
			ids = append(ids, env.ID)
		}
		at := place(t, q, ids[2])
		if sealed {
			must(t, q.journal.Roll())
		}
		copied := t.TempDir()
		must(t, os.CopyFS(copied, os.DirFS(dir)))
		must(t, q.Close())
		name := filepath.Join(copied, "journal", fmt.Sprintf("%08d.log", at.Segment))
		flip(t, name, int64(at.Offset)+100)
		for range 2 {
			q = open(t, Options{Dir: copied})
			got := pendings(q)
			for i, id := range ids {
				if _, ok := got[id]; ok == (i == 2) {
					t.Errorf("sealed %v: message %d found: %v", sealed, i, ok)
				}
			}
			if left := files2(t, copied, "corrupt"); len(left) != 2 {
				t.Error("corrupt/ holds", left)
			}
			must(t, q.Close())
		}
		// Damage that comes while the queue is open.
		q = open(t, Options{Dir: copied})
		flip(t, name, int64(at.Offset)+100) // whole again, so that only the next counts
		other := place(t, q, ids[3])
		flip(t, name, int64(other.Offset)+int64(other.Length)-3)
		retireAll(t, q)
		if got := pendings(q); len(got) != 3 {
			t.Errorf("%d messages, want 3", len(got))
		}
		must(t, q.Close())
	}
}

// place returns where a message's record is.
func place(t testing.TB, q *Store, id mail.ID) journal.Location {
	t.Helper()
	e, err := q.catalog.Lookup(id)
	must(t, err)
	return e.Loc
}

func flip(t testing.TB, name string, off int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	must(t, err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b[:], off)
	must(t, err)
}
