package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/vfs"
)

// restored are the messages that Restore has brought back, sorted, and how many
// files stay.
func restored(t *testing.T, q *Store, dryRun bool) (ids []mail.ID, stay int) {
	t.Helper()
	all, err := q.Restore(t.Context(), dryRun)
	must(t, err)
	for _, r := range all {
		ids = append(ids, r.Messages...)
		if r.Err != nil {
			stay++
			t.Logf("%s: %v", r.Name, r.Err)
		}
	}
	slices.Sort(ids)
	return ids, stay
}

func sorted(all ...*mail.Envelope) (ids []mail.ID) {
	for _, env := range all {
		ids = append(ids, env.ID)
	}
	slices.Sort(ids)
	return ids
}

// pendingOf describes the recipients of a message that are left.
func pendingOf(t *testing.T, q *Store, env *mail.Envelope) (left []string) {
	t.Helper()
	p, _ := q.Find(env.ID)
	for _, r := range p.Recipients {
		left = append(left, fmt.Sprintf("%d %d %q %v", r.Index, r.Attempts, r.Last, r.Held))
	}
	return left
}

// TestRestoreSegment: a whole segment that stands in corrupt/ without its head, as
// an earlier program left it, comes back: what was delivered does not, neither
// then nor when the same file is there again.
func TestRestoreSegment(t *testing.T) {
	dir := t.TempDir()
	q := open(t, Options{Dir: dir, LargeBody: 5000})
	gone, some, kept, plain, large := envelope(newID(), 1), envelope(newID(), 4), envelope(newID(), 1), envelope(newID(), 1), envelope(newID(), 1)
	for _, env := range []*mail.Envelope{gone, some, kept, plain} {
		put(t, q, env, text(1000))
	}
	put(t, q, large, text(9000))
	must(t, q.Settle(gone.ID, []int{0}))
	must(t, q.Settle(some.ID, []int{0, 2}))
	must(t, q.Defer(some.ID, []int{1}, 3, time.Now().Add(time.Hour), "451 later"))
	must(t, q.Hold(kept.ID, nil))
	must(t, q.Close())
	segment, err := os.ReadFile(filepath.Join(dir, "journal/00000001.log"))
	must(t, err)
	must(t, os.Remove(filepath.Join(dir, "journal/00000001.log")))
	clear(segment[:4096])
	name := filepath.Join(dir, "corrupt", fmt.Sprintf("00000001.log@0+%d", len(segment)))
	must(t, os.WriteFile(name, segment, 0o600))
	must(t, os.WriteFile(name+".reason", nil, 0o600))

	q = open(t, q.options) // which moves the large content there, too
	want := sorted(some, kept, plain, large)
	if ids, stay := restored(t, q, true); !slices.Equal(ids, want) || stay != 0 {
		t.Fatalf("dry run: %q, want %q; %d stay", ids, want, stay)
	}
	if n := q.Stat().Messages; n != 0 {
		t.Errorf("after a dry run there are %d messages", n)
	}
	if ids, stay := restored(t, q, false); !slices.Equal(ids, want) || stay != 0 {
		t.Fatalf("%q, want %q; %d stay", ids, want, stay)
	}
	q = reopen(t, q)
	same(t, q, plain, text(1000))
	same(t, q, large, text(9000))
	if got := pendingOf(t, q, some); fmt.Sprint(got) != `[1 3 "451 later" false 3 0 "" false]` {
		t.Error(got)
	}
	if got := pendingOf(t, q, kept); fmt.Sprint(got) != `[0 0 "" true]` {
		t.Error(got)
	}
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is still there:", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "corrupt/recovered", filepath.Base(name))); len(b) != len(segment) {
		t.Error("the file is not in recovered/:", err)
	}

	// All is delivered, and somebody puts the file back.
	for _, env := range []*mail.Envelope{some, kept, plain, large} {
		must(t, q.Remove(env.ID))
	}
	must(t, os.WriteFile(name, segment, 0o600))
	q = reopen(t, q)
	if ids, stay := restored(t, q, false); len(ids) != 0 || stay != 0 {
		t.Errorf("%q come back again, %d stay", ids, stay)
	}
}

// TestRestorePair: a state and a content that match come back, without the
// recipients that only the journal knew to be settled.
func TestRestorePair(t *testing.T) {
	dir := t.TempDir()
	q := open(t, Options{Dir: dir})
	env, other := envelope(newID(), 3), envelope(newID(), 1)
	put(t, q, env, text(500))
	put(t, q, other, text(500))
	must(t, q.Settle(env.ID, []int{0}))
	must(t, q.Defer(env.ID, []int{2}, 2, time.Now(), "450 x"))
	retireAll(t, q)
	must(t, q.Settle(env.ID, []int{1}))
	must(t, q.Close())
	eml := q.spool.Path(env.ID)
	away := filepath.Join(t.TempDir(), "away")
	must(t, os.Rename(eml, away))
	q = open(t, q.options)
	if ids, stay := restored(t, q, false); len(ids) != 0 || stay != 1 {
		t.Errorf("%q, %d stay", ids, stay)
	}
	must(t, os.Rename(away, filepath.Join(dir, "corrupt", filepath.Base(eml))))
	q = reopen(t, q)
	if ids, stay := restored(t, q, false); !slices.Equal(ids, sorted(env)) || stay != 0 {
		t.Errorf("%q, %d stay", ids, stay)
	}
	q = reopen(t, q)
	same(t, q, env, text(500))
	if got := pendingOf(t, q, env); fmt.Sprint(got) != `[2 2 "450 x" false]` {
		t.Error(got)
	}
}

// TestRestoreBlocks: a segment of which the disk did not give all, and gives it
// now: only messages that were missing come back, and of these no recipient that
// was settled before.
func TestRestoreBlocks(t *testing.T) {
	disk := &scratched{FS: vfs.OS{}}
	q := open(t, Options{Dir: t.TempDir(), FS: disk, SegmentSize: 256 << 10})
	one, two, three := envelope(newID(), 2), envelope(newID(), 1), envelope(newID(), 1)
	put(t, q, one, text(20000))
	put(t, q, two, text(20000))
	put(t, q, three, text(20000))
	must(t, q.journal.Roll())
	must(t, q.Settle(one.ID, []int{0})) // in another segment
	disk.off.Store(8192)
	disk.end.Store(8200)
	q = reopen(t, q)
	retireAll(t, q)
	must(t, q.Settle(two.ID, []int{0})) // delivered
	retireAll(t, q)
	disk.end.Store(0)
	q = reopen(t, q)
	if ids, _ := restored(t, q, false); !slices.Equal(ids, sorted(one)) {
		t.Errorf("%q", ids)
	}
	q = reopen(t, q)
	same(t, q, one, text(20000))
	same(t, q, three, text(20000))
	if got := pendingOf(t, q, one); len(got) != 1 || got[0][0] != '1' {
		t.Error(got)
	}
	if ids, _ := restored(t, q, false); len(ids) != 0 {
		t.Errorf("again %q", ids)
	}
}

// TestRestoreRecord: a record whose large content is found again.
func TestRestoreRecord(t *testing.T) {
	dir := t.TempDir()
	q := open(t, Options{Dir: dir, LargeBody: 5000})
	env := envelope(newID(), 2)
	put(t, q, env, text(9000))
	must(t, q.Settle(env.ID, []int{1}))
	must(t, q.Close())
	eml := q.spool.Path(env.ID)
	away := filepath.Join(t.TempDir(), "away")
	must(t, os.Rename(eml, away))
	q = open(t, q.options)
	if n := q.Stat().Messages; n != 0 {
		t.Fatal(n)
	}
	must(t, os.Rename(away, filepath.Join(dir, "corrupt", filepath.Base(eml))))
	if ids, stay := restored(t, q, false); !slices.Equal(ids, sorted(env)) || stay != 0 {
		t.Errorf("%q, %d stay", ids, stay)
	}
	same(t, q, env, text(9000))
	if got := pendingOf(t, q, env); len(got) != 1 || got[0][0] != '0' {
		t.Error(got)
	}
	if list, _ := os.ReadDir(filepath.Join(dir, "corrupt")); len(list) == 0 {
		t.Error("nothing is left, not even what is settled")
	}
}

// TestRestoreUnreadableList: a list of settled recipients that cannot be read stops
// it, as those would be delivered again.
func TestRestoreUnreadableList(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	must(t, os.WriteFile(filepath.Join(q.options.Dir, "corrupt/settled"), []byte(string(newID())+" x\n"), 0o600))
	if _, err := q.Restore(t.Context(), true); !errors.Is(err, record.ErrMalformed) {
		t.Error(err)
	}
}
