package disk

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/index"
)

func notesOf(t testing.TB, q *Store, id mail.ID) string {
	t.Helper()
	env, _, err := q.Load(id)
	must(t, err)
	return fmt.Sprint(map[string]any(env.Notes))
}

// TestNotes changes notes in every place a message can be, and starts anew after
// each change.
func TestNotes(t *testing.T) {
	for _, size := range []int{100, 20_000} { // the latter has a file at once
		for _, spill := range []string{"never", "first", "between", "last", "always"} {
			for _, again := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d bytes, spilled %s, restarts %v", size, spill, again), func(t *testing.T) {
					q := open(t, Options{Dir: t.TempDir(), LargeBody: 10_000})
					env, other := envelope(newID(), 2), envelope(newID(), 1)
					env.Notes = mail.Notes{"kept": "k"}
					put(t, q, env, text(size))
					put(t, q, other, text(size))
					step := func(now string) {
						if spill == now || spill == "always" {
							retireAll(t, q)
						}
						if again {
							q = reopen(t, q)
						}
					}
					want := func(notes string) {
						t.Helper()
						if got := notesOf(t, q, env.ID); got != notes {
							t.Errorf("%s, want %s", got, notes)
						}
					}
					step("first")
					must(t, q.SetNotes(env.ID, map[string]any{"d.1": map[string]any{"n": 1}, "d.2": "two"}))
					want("map[d:map[1:map[n:1] 2:two] kept:k]")
					step("between")
					want("map[d:map[1:map[n:1] 2:two] kept:k]")
					must(t, q.SetNotes(env.ID, map[string]any{"d.1": 7, "d.2": nil, "d.3": nil}))
					want("map[d:map[1:7] kept:k]")
					must(t, q.Settle(env.ID, []int{0}))
					step("last")
					want("map[d:map[1:7] kept:k]")
					must(t, q.SetNotes(env.ID, map[string]any{"d.1": nil}))
					step("")
					want("map[kept:k]")
					if got := notesOf(t, q, other.ID); strings.Contains(got, "kept") {
						t.Error("they are another message's too:", got)
					}
					retireAll(t, q)
					want("map[kept:k]")
					if u := q.catalog.Usage(); u.Noted > 0 || u.NoteBytes != 0 {
						t.Error("memory holds what is in files")
					}
					must(t, q.SetNotes(env.ID, map[string]any{"x": 1}))
					must(t, q.Settle(env.ID, []int{1}))
					if u := q.catalog.Usage(); u.Noted > 0 || u.NoteBytes != 0 {
						t.Error("memory holds what is gone")
					}
					if err := q.SetNotes(env.ID, map[string]any{"x": 1}); !errors.Is(err, store.ErrUnknown) {
						t.Error(err)
					}
				})
			}
		}
	}
}

// TestNotesOfNewMail: an envelope that memory keeps for its first Load has them.
func TestNotesOfNewMail(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	env := envelope(newID(), 1)
	env.Notes = nil
	put(t, q, env, text(100))
	if q.catalog.Usage().Recent != 1 {
		t.Fatal("it is not kept")
	}
	must(t, q.SetNotes(env.ID, map[string]any{"n": 1}))
	for range 2 {
		if got := notesOf(t, q, env.ID); got != "map[n:1]" {
			t.Error(got)
		}
	}
}

// TestNotesWhileSpilling: what changes while the files are written is not lost.
func TestNotesWhileSpilling(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	env := envelope(newID(), 1)
	put(t, q, env, text(100))
	done := make(chan error)
	go func() {
		for i := range 2000 {
			if err := q.SetNotes(env.ID, map[string]any{"n": i}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for last := -1.0; ; {
		retireAll(t, q)
		loaded, _, err := q.Load(env.ID)
		must(t, err)
		if n, ok := loaded.Notes.Get("n").(float64); ok {
			if n < last {
				t.Fatalf("%v after %v", n, last)
			}
			last = n
		}
		select {
		case err := <-done:
			must(t, err)
			for range 2 {
				if got := notesOf(t, q, env.ID); !strings.Contains(got, "n:1999") {
					t.Error(got)
				}
				retireAll(t, q)
				q = reopen(t, q)
			}
			return
		default:
		}
	}
}

func TestNotesAreBounded(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	env := envelope(newID(), 1)
	put(t, q, env, text(100))
	before := notesOf(t, q, env.ID)
	for name, v := range map[string]any{"no JSON": func() {}, "too much": strings.Repeat("x", (64 << 10))} {
		if err := q.SetNotes(env.ID, map[string]any{"a": 1, "v": v}); !errors.Is(err, store.ErrNotes) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := notesOf(t, q, env.ID); got != before {
		t.Error("changed by what fails:", got)
	}
	// However much is added, files stay readable and memory small.
	refused := 0
	for i := range 40 {
		err := q.SetNotes(env.ID, map[string]any{fmt.Sprint(i): strings.Repeat("x", (64<<10)-100)})
		if errors.Is(err, store.ErrNotes) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
		if i == 30 {
			if refused == 0 {
				t.Error("no bound")
			}
			q = reopen(t, q)
			retireAll(t, q)
		}
	}
	retireAll(t, q)
	q = reopen(t, q)
	if got := len(notesOf(t, q, env.ID)); got > index.MaxNotes || got < index.MaxNotes/2 {
		t.Errorf("%d bytes", got)
	}
	must(t, q.Close())
	look, err := OpenReadOnly(q.options)
	must(t, err)
	defer look.Close()
	if err := look.SetNotes(env.ID, nil); !errors.Is(err, store.ErrReadOnly) {
		t.Error(err)
	}
}
