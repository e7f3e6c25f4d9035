package disk

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/vfs/crashfs"
)

// heldOf returns the recipients that are pending, with a star if they are held.
func heldOf(t testing.TB, q *Store, id mail.ID) string {
	t.Helper()
	p, ok := q.Find(id)
	if !ok {
		return "gone"
	}
	text := ""
	for _, r := range p.Recipients {
		text += fmt.Sprint(r.Index)
		if r.Held {
			text += "*"
		}
	}
	return text
}

// TestHold holds and releases recipients, and looks after each step also at what
// is left of it after a power failure, after a start, and in files.
func TestHold(t *testing.T) {
	for name, between := range map[string]func(t *testing.T, q *Store, disk *crashfs.FS) (*Store, *crashfs.FS){
		"at once": func(_ *testing.T, q *Store, disk *crashfs.FS) (*Store, *crashfs.FS) { return q, disk },
		"power failure": func(t *testing.T, q *Store, disk *crashfs.FS) (*Store, *crashfs.FS) {
			disk = disk.Restart(crashfs.Nothing, nil)
			q.options.FS = disk
			return open(t, q.options), disk
		},
		"start": func(t *testing.T, q *Store, disk *crashfs.FS) (*Store, *crashfs.FS) {
			return reopen(t, q), disk
		},
		"spill": func(t *testing.T, q *Store, disk *crashfs.FS) (*Store, *crashfs.FS) {
			retireAll(t, q)
			return q, disk
		},
		"in files, start": func(t *testing.T, q *Store, disk *crashfs.FS) (*Store, *crashfs.FS) {
			if q.catalog.Shares() > 0 { // the first time
				retireAll(t, q)
			}
			return reopen(t, q), disk
		},
		"spill and start": func(t *testing.T, q *Store, disk *crashfs.FS) (*Store, *crashfs.FS) {
			retireAll(t, q)
			return reopen(t, q), disk
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := crashfs.New()
			q := open(t, Options{Dir: "/q", FS: disk, SegmentSize: 64 << 10})
			env := envelope(newID(), 4)
			put(t, q, env, text(100))
			for i, step := range []struct {
				do   func() error
				want string
			}{
				{func() error { return q.Hold(env.ID, []int{1, 3, 1}) }, "01*23*"},
				{func() error { return q.Hold(env.ID, []int{1}) }, "01*23*"},
				{func() error {
					return errors.Join(q.Defer(env.ID, []int{0, 1}, 3, time.Unix(5, 0), "451 x"), q.Sync())
				}, "01*23*"},
				{func() error { return q.Release(env.ID, []int{3}) }, "01*23"},
				{func() error { return errors.Join(q.Settle(env.ID, []int{0}), q.Sync()) }, "1*23"},
				{func() error { return q.Hold(env.ID, nil) }, "1*2*3*"},
				{func() error {
					return errors.Join(q.Defer(env.ID, []int{1, 2}, 3, time.Unix(5, 0), "451 x"), q.Sync())
				}, "1*2*3*"},
				{func() error { return q.Release(env.ID, []int{0, 2}) }, "1*23*"},
				{func() error { return q.Release(env.ID, []int{}) }, "1*23*"},
				{func() error { return errors.Join(q.Settle(env.ID, []int{3}), q.Sync()) }, "1*2"},
				{func() error { return q.Release(env.ID, nil) }, "12"},
				{func() error { return q.Hold(env.ID, nil) }, "1*2*"},
				{func() error { return errors.Join(q.Settle(env.ID, []int{1, 2}), q.Sync()) }, "gone"},
			} {
				must(t, step.do())
				q, disk = between(t, q, disk)
				if got := heldOf(t, q, env.ID); got != step.want {
					t.Fatalf("step %d: %s, want %s", i, got, step.want)
				}
				if p, ok := q.Find(env.ID); ok && i >= 2 {
					for _, r := range p.Recipients {
						if r.Index == 1 && (r.Attempts != 3 || r.Last != "451 x") {
							t.Fatalf("step %d: %+v", i, r)
						}
					}
				}
				seen := 0
				q.Walk(func(p mail.Pending) bool {
					for _, r := range p.Recipients {
						if r.Held {
							seen++
						}
					}
					return true
				})
				for _, c := range step.want {
					if c == '*' {
						seen--
					}
				}
				if seen != 0 {
					t.Errorf("step %d: Walk tells %d more", i, seen)
				}
			}
			for _, err := range []error{q.Hold(env.ID, nil), q.Release(env.ID, []int{0}), q.Hold(newID(), nil)} {
				if !errors.Is(err, store.ErrUnknown) {
					t.Error(err)
				}
			}
		})
	}
}

// TestHoldIsPassedOnByAdopt: who begins the work learns of it.
func TestHoldIsPassedOnByAdopt(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	env := envelope(newID(), 2)
	put(t, q, env, text(10))
	must(t, q.Hold(env.ID, []int{1}))
	if err := q.Hold(env.ID, []int{2}); err == nil || errors.Is(err, store.ErrUnknown) {
		t.Error(err)
	}
	q = reopen(t, q)
	q.Adopt(func(p mail.Pending) bool {
		if p.Recipients[0].Held || !p.Recipients[1].Held {
			t.Errorf("%+v", p)
		}
		return true
	})
	must(t, q.Remove(env.ID))
}

// TestHoldFailsWithTheJournal: what is acknowledged is durable.
func TestHoldFailsWithTheJournal(t *testing.T) {
	disk := crashfs.New()
	q := open(t, Options{Dir: "/q", FS: disk, SegmentSize: 64 << 10})
	env := envelope(newID(), 1)
	put(t, q, env, text(10))
	disk.FailAt(2, errors.New("broken")) // the sync: the record goes to another segment
	must(t, q.Hold(env.ID, nil))
	disk.CrashAt(2)
	if err := q.Release(env.ID, nil); err == nil {
		t.Error("it is acknowledged")
	}
	q.options.FS = disk.Restart(crashfs.Nothing, nil)
	q = open(t, q.options)
	if got := heldOf(t, q, env.ID); got != "0*" {
		t.Error(got)
	}
}
