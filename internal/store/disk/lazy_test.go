package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/vfs"
)

// TestAdopt holds that each message that was there when the queue was opened
// is passed once, whatever moves meanwhile, and none that came later.
func TestAdopt(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), SegmentSize: 64 << 10})
	want := map[mail.ID]bool{}
	accept := func() mail.ID {
		env := envelope(newID(), 1)
		put(t, q, env, text(100))
		return env.ID
	}
	for i := range 60 {
		want[accept()] = true
		if i == 30 {
			retireAll(t, q)
		}
	}
	q = reopen(t, q)
	later := accept()
	seen := map[mail.ID]bool{}
	take := func(p mail.Pending) bool {
		if !want[p.ID] || seen[p.ID] || p.ID == later {
			t.Errorf("%s is passed", p.ID)
		}
		seen[p.ID] = true
		return len(seen)%25 != 0
	}
	if left := q.Adopt(take); left != 35 {
		t.Errorf("%d are left", left)
	}
	retireAll(t, q) // from the journal to the spool
	gone := 0
	for id := range want {
		if !seen[id] {
			must(t, q.Settle(id, []int{0}))
			seen[id], gone = true, gone+1
			break
		}
	}
	q.Adopt(take)
	if left := q.Adopt(take); left != 0 || len(seen) != len(want) {
		t.Errorf("%d of %d messages, %d left", len(seen), len(want), left)
	}
	if left := q.Adopt(take); left != 0 {
		t.Errorf("%d are left", left)
	}
	if got := pendings(q); len(got) != len(want)+1-gone {
		t.Errorf("Walk finds %d", len(got))
	}
}

// TestJournalWinsOverFiles changes messages in the spool, and lets the next run
// find that in the journal only.
func TestJournalWinsOverFiles(t *testing.T) {
	due := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, first := range map[string]func(q *Store, id mail.ID) error{
		"Find":   func(q *Store, id mail.ID) error { q.Find(id); return nil },
		"Load":   func(q *Store, id mail.ID) error { _, _, err := q.Load(id); return err },
		"Defer":  func(q *Store, id mail.ID) error { return q.Defer(id, []int{1}, 9, due, "x") },
		"Settle": func(q *Store, id mail.ID) error { return q.Settle(id, []int{1}) },
		"Path":   func(q *Store, id mail.ID) error { _, err := q.Path(id); return err },
		"Walk":   func(q *Store, _ mail.ID) error { pendings(q); return nil },
		"spill":  func(q *Store, _ mail.ID) error { retireAll(t, q); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, Options{Dir: t.TempDir()})
			env, gone := envelope(newID(), 4), envelope(newID(), 1)
			put(t, q, env, text(100))
			put(t, q, gone, text(100))
			must(t, q.Defer(env.ID, []int{0, 3}, 2, due, "451 old"))
			retireAll(t, q)
			q = reopen(t, q)
			must(t, q.Defer(env.ID, []int{0, 2}, 3, due, "451 new"))
			must(t, q.Settle(env.ID, []int{1}))
			must(t, q.Settle(gone.ID, []int{0}))
			for range 3 {
				q = reopen(t, q)
				must(t, first(q, env.ID))
				p, ok := q.Find(env.ID)
				if !ok || len(p.Recipients) != 3 {
					t.Fatalf("%+v", p)
				}
				for i, want := range []string{"0 3 451 new", "2 3 451 new", "3 2 451 old"} {
					r := p.Recipients[i]
					if got := fmt.Sprint(r.Index, " ", r.Attempts, " ", r.Last); got != want || !r.Next.Equal(due) {
						t.Errorf("recipient %s, want %s", got, want)
					}
				}
				if err := q.Settle(gone.ID, []int{0}); !errors.Is(err, store.ErrUnknown) {
					t.Error(err)
				}
				if s := q.Stat(); s != (store.Stat{Messages: 1, Recipients: 3, Bytes: 100}) {
					t.Errorf("%+v", s)
				}
				if left := files2(t, q.options.Dir, "corrupt"); len(left) > 0 {
					t.Error(left)
				}
			}
		})
	}
}

// TestJournalKeepsWhatFilesLose damages the files of a message whose record is
// still in the journal.
func TestJournalKeepsWhatFilesLose(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	env := envelope(newID(), 1)
	put(t, q, env, text(100))
	path, err := q.Path(env.ID)
	must(t, err)
	must(t, q.Close())
	must(t, os.WriteFile(strings.TrimSuffix(path, "eml")+"json", []byte("{"), 0o600))
	q = open(t, q.options)
	same(t, q, env, text(100))
	retireAll(t, q)
	q = reopen(t, q)
	same(t, q, env, text(100))
	if left := files2(t, q.options.Dir, "corrupt"); len(left) > 0 {
		t.Error(left)
	}
}

// TestSleep holds that a message whose files say all costs no entry, and that
// the sums stay right.
func TestSleep(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	var ids []mail.ID
	for range 10 {
		env := envelope(newID(), 2)
		put(t, q, env, text(50))
		must(t, q.Settle(env.ID, []int{0}))
		ids = append(ids, env.ID)
	}
	asleep := func() int { return q.catalog.Usage().Shared }
	for range 2 {
		retireAll(t, q)
		pendings(q)
		if n, s := asleep(), q.Stat(); n != 10 || s != (store.Stat{Messages: 10, Recipients: 10, Bytes: 500}) {
			t.Fatalf("%d asleep, %+v", n, s)
		}
		_, _, err := q.Load(ids[0])
		must(t, err)
		must(t, q.Defer(ids[1], []int{1}, 1, time.Now(), "x"))
		if n := asleep(); n != 8 {
			t.Errorf("%d asleep", n)
		}
		q = reopen(t, q)
	}
	pendings(q)
	for i, id := range ids {
		if i%2 == 0 {
			must(t, q.Remove(id))
		} else {
			must(t, q.Settle(id, []int{1}))
		}
	}
	if s := q.Stat(); s != (store.Stat{}) {
		t.Errorf("%+v", s)
	}
}

// TestSumsAfterDamage damages the state files of messages, which the sums include
// or not yet: they do not when the messages are gone.
func TestSumsAfterDamage(t *testing.T) {
	for name, slept := range map[string]bool{"known": true, "not yet known": false} {
		t.Run(name, func(t *testing.T) {
			q := open(t, Options{Dir: t.TempDir()})
			good, bad := envelope(newID(), 2), envelope(newID(), 3)
			for _, env := range []*mail.Envelope{good, bad} {
				put(t, q, env, text(50))
				must(t, q.Settle(env.ID, []int{0}))
			}
			retireAll(t, q)
			if !slept {
				q = reopen(t, q)
			}
			must(t, os.WriteFile(strings.TrimSuffix(q.spool.Path(bad.ID), "eml")+"json", []byte("{}"), 0o600))
			if n := len(pendings(q)); n != 1 {
				t.Errorf("%d messages", n)
			}
			if s := q.Stat(); s != (store.Stat{Messages: 1, Recipients: 1, Bytes: 50}) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// tired is a file system in which state files cannot be opened for a while.
type tired struct {
	vfs.FS
	on atomic.Bool
}

func (f *tired) Open(name string) (vfs.File, error) {
	if f.on.Load() && filepath.Ext(name) == ".json" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EMFILE}
	}
	return f.FS.Open(name)
}

// TestStateThatCannotBeReadNow is kept for another time.
func TestStateThatCannotBeReadNow(t *testing.T) {
	disk := &tired{FS: vfs.OS{}}
	q := open(t, Options{Dir: t.TempDir(), FS: disk})
	env := envelope(newID(), 1)
	put(t, q, env, text(50))
	retireAll(t, q)
	q = reopen(t, q)
	disk.on.Store(true)
	if left := q.Adopt(func(mail.Pending) bool { t.Error("it is passed"); return true }); left != 1 {
		t.Errorf("%d are left", left)
	}
	if err := q.Settle(env.ID, []int{0}); !errors.Is(err, syscall.EMFILE) || errors.Is(err, store.ErrUnknown) {
		t.Error(err)
	}
	disk.on.Store(false)
	n := 0
	if left := q.Adopt(func(mail.Pending) bool { n++; return true }); left != 0 || n != 1 {
		t.Errorf("%d are passed, %d left", n, left)
	}
	same(t, q, env, text(50))
}

// TestWakeFromAllSides uses sleeping messages from many goroutines while they
// are spilled.
func TestWakeFromAllSides(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), SegmentSize: 64 << 10, NoSync: true})
	var ids []mail.ID
	for range 30 {
		env := envelope(newID(), 3)
		put(t, q, env, text(100))
		ids = append(ids, env.ID)
	}
	retireAll(t, q)
	q = reopen(t, q)
	var users, background sync.WaitGroup
	stop := make(chan struct{})
	background.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				must(t, q.journal.Roll())
				if s := q.journal.Segments(); len(s) > 0 && s[0].Done {
					retire(t, q, s[0].Number)
				}
			}
		}
	})
	for _, id := range ids {
		users.Go(func() { must(t, q.Defer(id, []int{1}, 5, time.Now().Add(time.Hour), "451 "+string(id))) })
		users.Go(func() { must(t, q.Settle(id, []int{0})) })
		users.Go(func() { q.Find(id) })
		users.Go(func() {
			_, c, err := q.Load(id)
			must(t, err)
			if n := len(read(t, c)); n != 100 {
				t.Errorf("%d bytes", n)
			}
		})
	}
	users.Add(1)
	go func() { defer users.Done(); pendings(q) }()
	users.Wait()
	close(stop)
	background.Wait()
	for range 2 {
		for id, p := range pendings(q) {
			if len(p.Recipients) != 2 || p.Recipients[0].Attempts != 5 || p.Recipients[0].Last != "451 "+string(id) {
				t.Errorf("%+v", p)
			}
		}
		if s := q.Stat(); s != (store.Stat{Messages: 30, Recipients: 60, Bytes: 3000}) {
			t.Errorf("%+v", s)
		}
		q = reopen(t, q)
	}
}
