package disk

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/vfs/crashfs"
)

func TestRemove(t *testing.T) {
	for _, size := range []int{100, 9000} {
		for _, spilled := range []bool{false, true} {
			disk := crashfs.New()
			q := open(t, Options{Dir: "/q", FS: disk, SegmentSize: 64 << 10, LargeBody: 5000})
			env := envelope(newID(), 3)
			put(t, q, env, text(size))
			if spilled {
				retireAll(t, q)
				q = reopen(t, q)
			}
			must(t, q.Remove(env.ID))
			if err := q.Remove(env.ID); !errors.Is(err, store.ErrUnknown) {
				t.Fatal(err)
			}
			if _, ok := q.Find(env.ID); ok || q.Stat() != (store.Stat{}) {
				t.Fatalf("%+v", q.Stat())
			}
			q.options.FS = disk.Restart(crashfs.Nothing, nil)
			q = open(t, q.options)
			if n := len(pendings(q)); n != 0 {
				t.Errorf("spilled %v: %d messages come back after a power failure", spilled, n)
			}
			if list, _ := q.fs.List("/q/corrupt"); len(list) > 0 {
				t.Errorf("corrupt/ holds %v", list)
			}
		}
	}
}

func TestSyncMakesDeferralsDurable(t *testing.T) {
	disk := crashfs.New()
	q := open(t, Options{Dir: "/q", FS: disk, SegmentSize: 64 << 10})
	env := envelope(newID(), 1)
	put(t, q, env, text(10))
	must(t, q.Defer(env.ID, []int{0}, 7, time.Time{}, "451 later"))
	must(t, q.Sync())
	cut := open(t, Options{Dir: "/q", FS: disk.Restart(crashfs.Nothing, nil), SegmentSize: 64 << 10})
	if p, ok := cut.Find(env.ID); !ok || p.Recipients[0].Attempts != 7 {
		t.Errorf("%+v", p)
	}
}

func TestFind(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	env := envelope(newID(), 2)
	put(t, q, env, text(10))
	must(t, q.Settle(env.ID, []int{0}))
	for range 2 {
		p, ok := q.Find(env.ID)
		if !ok || p.ID != env.ID || p.Size != 10 || len(p.Recipients) != 1 || p.Recipients[0].Index != 1 {
			t.Fatalf("%+v %v", p, ok)
		}
		retireAll(t, q)
		q = reopen(t, q)
	}
	if _, ok := q.Find(newID()); ok {
		t.Error("a message that was never there is found")
	}
}

func TestReadOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	if _, err := OpenReadOnly(Options{Dir: dir}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	must(t, os.Mkdir(dir, 0o700))
	empty, err := OpenReadOnly(Options{Dir: dir})
	must(t, err)
	if len(pendings(empty)) != 0 || len(files2(t, dir)) != 0 {
		t.Fatal("an empty folder was changed")
	}
	must(t, empty.Close())

	q := open(t, Options{Dir: dir, SegmentSize: 64 << 10})
	a, b, broken := envelope(newID(), 1), envelope(newID(), 2), envelope(newID(), 1)
	put(t, q, a, text(100))
	put(t, q, broken, text(100))
	retireAll(t, q)
	put(t, q, b, text(100))
	must(t, q.Settle(b.ID, []int{1}))
	must(t, os.Truncate(q.spool.Path(broken.ID), 20))
	must(t, q.Close())
	before := snapshot(t, dir)

	r, err := OpenReadOnly(q.options)
	must(t, err)
	same(t, r, a, text(100))
	if got := pendings(r); len(got) != 2 || len(got[b.ID].Recipients) != 1 {
		t.Errorf("%+v", got)
	}
	_, pathErr := r.Path(a.ID)
	for name, err := range map[string]error{
		"Put":    r.Put(envelope(newID(), 1), mail.Memory{text(10)}),
		"Settle": r.Settle(a.ID, []int{0}),
		"Defer":  r.Defer(a.ID, []int{0}, 1, time.Time{}, ""),
		"Remove": r.Remove(a.ID),
		"Sync":   r.Sync(),
		"Path":   pathErr,
	} {
		if !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	must(t, r.Run(ended))
	must(t, r.Close())
	if after := snapshot(t, dir); !maps.Equal(before, after) {
		t.Error("the folder changed")
	}
}

// snapshot returns every file below dir with its content.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range files2(t, dir) {
		b, err := os.ReadFile(name)
		must(t, err)
		all[name] = string(b)
	}
	return all
}
