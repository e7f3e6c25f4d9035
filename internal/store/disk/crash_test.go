package disk

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/spill"
	"tarishi/internal/vfs/crashfs"
)

// account is what a scenario's client and its mail's recipients know.
type account struct {
	content map[mail.ID][]byte
	owed    map[mail.ID]map[int]bool // acknowledged recipients that nobody tried to settle
	held    map[mail.ID]map[int]bool // what Hold or Release acknowledged last, if no other call failed since

	notes   map[mail.ID]int // what SetNotes was called with last
	durable map[mail.ID]int // what it was when something durable came later, unless writing may fail
	faulty  bool
}

// note calls SetNotes with a greater number.
func (a *account) note(q *Store, id mail.ID) {
	a.notes[id]++
	_ = q.SetNotes(id, map[string]any{"deliveries.n": a.notes[id], fmt.Sprintf("deliveries.%d", a.notes[id]-1): nil, fmt.Sprintf("deliveries.%d", a.notes[id]): true})
}

// noted compares a message's notes with what SetNotes was told.
func (a *account) noted(t *testing.T, env *mail.Envelope) {
	t.Helper()
	n, _ := env.Notes.Get("deliveries.n").(float64)
	if int(n) > a.notes[env.ID] || int(n) < a.durable[env.ID] {
		t.Fatalf("notes of %s are the %v. of %d, and %d were durable", env.ID, n, a.notes[env.ID], a.durable[env.ID])
	}
	all, _ := env.Notes.Get("deliveries").(map[string]any)
	if n > 0 && !a.faulty && (len(all) != 2 || all[fmt.Sprint(n)] != true) || env.Notes.String("queue.wants") != "outbound" {
		t.Fatalf("%s has notes that it never had: %v", env.ID, env.Notes)
	}
}

// hold calls Hold or Release for a recipient, or for all.
func (a *account) hold(q *Store, id mail.ID, on bool, recipients []int) {
	call := q.Release
	if on {
		call = q.Hold
	}
	err := call(id, recipients)
	if err == nil && !a.faulty {
		maps.Copy(a.durable, a.notes)
	}
	for r := range a.owed[id] {
		if recipients != nil && !slices.Contains(recipients, r) {
			continue
		}
		delete(a.held[id], r)
		if err == nil {
			a.held[id][r] = on
		}
	}
}

var crashOptions = Options{Dir: "/queue", SegmentSize: 24 << 10, LargeBody: 5000}

// scenario does a little of everything. Errors are what the file system wants.
func scenario(fs *crashfs.FS, a *account, few int) *Store {
	o := crashOptions
	o.FS = fs
	var clock atomic.Int64 // seconds
	o.Now = func() time.Time { return time.Unix(clock.Add(10), 0) }
	now := o.Now()
	q, err := Open(o)
	if err != nil {
		return nil
	}
	q.spiller.Tune(func(o *spill.Options) { o.Few = few })
	q.spiller.Tune(func(o *spill.Options) { o.Limits = spill.Limits{Rest: 1, Busy: 1, Most: 3, Long: 2, Limit: 4} }) // so that Put has to make room
	var ids []mail.ID
	for i := range 14 {
		env := envelope(mail.ID(fmt.Sprintf("F47AC10B-58CC-4372-A567-0E02B2C3D479.%d", i+1)), 1+i%3)
		body := q.NewBody()
		content := text([]int{500, 3000, 7000, 20}[i%4])
		_, _ = body.Write(content)
		c, err := body.Content()
		if err == nil {
			if i%8 == 2 {
				c = mail.WithHead([]byte("X: y\r\n"), c, 0)
				content = append([]byte("X: y\r\n"), content...)
			}
			a.content[env.ID] = content
			if err = q.Put(env, c); err == nil {
				a.owed[env.ID], a.held[env.ID] = map[int]bool{}, map[int]bool{}
				for r := range env.Recipients {
					a.owed[env.ID][r] = true
				}
				ids = append(ids, env.ID)
			}
		}
		body.Discard()
		settle := func(id mail.ID, r int) {
			if a.owed[id][r] {
				delete(a.owed[id], r)
				_ = q.Settle(id, []int{r})
			}
		}
		if err == nil {
			_ = q.Defer(env.ID, []int{0}, 1, now, "450 later")
			a.note(q, env.ID)
			if i%2 == 0 {
				settle(env.ID, 0)
			}
			if i%3 != 0 {
				a.hold(q, env.ID, true, nil)
			}
		}
		if n := len(ids); n > 3 && i%3 == 0 {
			settle(ids[n-3], i%2)
			_, _ = q.Path(ids[n-2])
			_ = q.Defer(ids[n-2], []int{0}, 2, now, "450 later still")
			a.note(q, ids[n-2])
			a.hold(q, ids[n-2], i%2 == 0, []int{1})
			a.hold(q, ids[n-4], false, []int{0})
		}
		if i == 10 { // these are in files by now
			for _, id := range ids[:min(len(ids), 3)] {
				for r := range 3 {
					settle(id, r)
				}
			}
		}
		if i%4 == 3 {
			if i%8 == 7 {
				_ = q.journal.Roll()
				clock.Add(int64(spill.OldSegment / time.Second))
			}
			q.spiller.WorkOnce(noEnd{})
		}
	}
	return q
}

// check opens the queue that fs holds and compares, twice, as recovery changes
// nothing that a second one needs. Then it settles all of it.
func (a *account) check(t *testing.T, fs *crashfs.FS) {
	t.Helper()
	o := crashOptions
	var clock atomic.Int64
	o.FS, o.Now = fs, func() time.Time { return time.Unix(clock.Add(10), 0) }
	for again := range 2 {
		q, err := Open(o)
		if err != nil {
			t.Fatal("does not open:", err)
		}
		a.holds(t, q)
		list, err := fs.List("/queue/corrupt")
		must(t, err)
		for _, e := range list { // what was cut short, but never a message that was accepted
			id, _, unaccepted := strings.Cut(e.Name, ".new")
			settled := strings.HasPrefix(e.Name, "settled") // what recover must not send again, beside it
			if !settled && !strings.Contains(e.Name, ".log@") && (!unaccepted || a.owed[mail.ID(id)] != nil) {
				t.Errorf("corrupt/ holds %s", e.Name)
			}
		}
		if again == 1 {
			finishAll(t, q, fs)
		} else if err := q.Close(); err != nil {
			t.Fatal("does not close:", err)
		}
	}
}

func (a *account) holds(t *testing.T, q *Store) {
	t.Helper()
	got := pendings(q)
	for id, owed := range a.owed {
		left := map[int]bool{}
		for _, r := range got[id].Recipients {
			left[r.Index] = true
			if want, sure := a.held[id][r.Index]; sure && owed[r.Index] && r.Held != want {
				t.Fatalf("recipient %d of %s: held %v, want %v", r.Index, id, r.Held, want)
			}
		}
		for r := range owed {
			if !left[r] {
				t.Fatalf("recipient %d of %s was accepted and is lost", r, id)
			}
		}
	}
	for id := range got {
		env, c, err := q.Load(id)
		if err != nil {
			t.Fatal(err)
		}
		a.noted(t, env)
		r, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(b, a.content[id]) {
			t.Fatalf("content of %s differs: %v", id, err)
		}
		r.Close()
	}
}

// noEnd is a context that never ends; the scenario has no test to take one from.
type noEnd struct{}

func (noEnd) Deadline() (time.Time, bool) { return time.Time{}, false }
func (noEnd) Done() <-chan struct{}       { return nil }
func (noEnd) Err() error                  { return nil }
func (noEnd) Value(any) any               { return nil }

func newAccount() *account {
	return &account{content: map[mail.ID][]byte{}, owed: map[mail.ID]map[int]bool{}, held: map[mail.ID]map[int]bool{}, notes: map[mail.ID]int{}, durable: map[mail.ID]int{}}
}

// TestCrash stops the scenario at every operation of the file system, with
// files that are synced one by one and together.
func TestCrash(t *testing.T) {
	for _, few := range []int{0, spill.FewFiles} {
		t.Run(fmt.Sprintf("few %d", few), func(t *testing.T) {
			t.Parallel()
			crashAnywhere(t, few)
		})
	}
}

// stride is how far apart the operations are that a test stops or fails at: where
// all must be tried they are, but by the race detector, which looks for something
// else and takes ten times as long.
func stride(every int) int {
	switch {
	case testing.Short():
		return 7 * every
	case racing:
		return 3 * every
	}
	return every
}

func crashAnywhere(t *testing.T, few int) {
	for i := 1; ; i += stride(1) {
		fs, a := crashfs.New(), newAccount()
		fs.CrashAt(i)
		q := scenario(fs, a, few)
		done := !fs.Crashed()
		for _, s := range []crashfs.Survival{crashfs.Nothing, crashfs.Some, crashfs.Some, crashfs.All} {
			next := fs.Restart(s, rand.New(rand.NewPCG(uint64(i), uint64(s))))
			t.Run(fmt.Sprintf("at %d, survives %d", i, s), func(t *testing.T) { a.check(t, next) })
		}
		if q != nil {
			q.Close()
		}
		if done {
			t.Logf("%d operations", i-1)
			return
		}
		if t.Failed() {
			return
		}
	}
}

// TestFail makes every operation of the file system fail, alone or with those that
// follow. What is promised then holds, when the power goes away and when it stays.
func TestFail(t *testing.T) {
	for _, times := range []int{1, 2, 9} {
		for _, few := range []int{0, spill.FewFiles} {
			t.Run(fmt.Sprintf("%d times, few %d", times, few), func(t *testing.T) {
				t.Parallel()
				failAnywhere(t, times, few)
			})
		}
	}
}

func failAnywhere(t *testing.T, times, few int) {
	step := stride(1)
	if times > 1 {
		step = stride(3)
	}
	for i := 1; ; i += step {
		failure := []error{syscall.EIO, syscall.ENOSPC}[i/step%2]
		fs, a := crashfs.New(), newAccount()
		fs.FailFrom(i, times, failure)
		a.faulty = true
		q := scenario(fs, a, few)
		done := fs.Ops() < i
		t.Run(fmt.Sprintf("at %d, %v", i, failure), func(t *testing.T) {
			if q == nil {
				return // the folder could not be made
			}
			a.holds(t, q)
			a.check(t, fs.Snapshot(crashfs.Nothing, nil))
			finishAll(t, q, fs)
		})
		if done || t.Failed() {
			return
		}
	}
}

// finishAll settles all that is in a queue in which something failed, and lets the
// journal forget it. No message comes back, whatever the failure left behind.
func finishAll(t *testing.T, q *Store, fs *crashfs.FS) {
	t.Helper()
	for id, p := range pendings(q) {
		for _, r := range p.Recipients {
			must(t, q.Settle(id, []int{r.Index}))
		}
	}
	for range 12 { // more than the pauses after a failure and the segments there are
		_ = q.journal.Roll() // the last failures may only come now
		q.spiller.WorkOnce(noEnd{})
	}
	must(t, q.Close())
	o := crashOptions
	o.FS = fs.Restart(crashfs.All, nil)
	q, err := Open(o)
	must(t, err)
	defer q.Close()
	for id := range pendings(q) {
		t.Errorf("%s was delivered and comes back", id)
	}
}
