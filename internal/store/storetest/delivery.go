package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store"
)

func testSettle(t *testing.T, p *Place) {
	s := p.openStore(t)
	env, want := newEnvelope(3), sampleText(100)
	mustPut(t, s, env, want)
	noError(t, s.Settle(env.ID, []int{1}))
	noError(t, s.Settle(env.ID, []int{1}))
	if err := s.Settle(env.ID, []int{3}); err == nil || errors.Is(err, store.ErrUnknown) {
		t.Error("a recipient that there is not:", err)
	}
	wantMessage(t, s, env, want)

	// Find has the rest, Load all that was accepted.
	found, ok := s.Find(env.ID)
	if !ok || len(found.Recipients) != 2 || found.Recipients[0].Index != 0 || found.Recipients[1].Index != 2 ||
		found.ID != env.ID || found.From != env.From || !found.Received.Equal(env.Received) || found.Size != 100 || found.Recipients[1].Address != env.Recipients[2].Address {
		t.Errorf("%+v", found)
	}
	noError(t, s.Sync())
	s = p.openAfterCrash(t)
	if found, _ := s.Find(env.ID); len(found.Recipients) != 2 {
		t.Errorf("%+v", found)
	}

	// A reader that is open outlives the message.
	_, c, err := s.Load(env.ID)
	noError(t, err)
	r, err := c.Open()
	noError(t, err)
	defer r.Close()
	noError(t, s.Settle(env.ID, []int{0, 2}))
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, want) {
		t.Error("an open reader lost its content:", err)
	}
	_, err = c.Open()
	wantUnknown(t, "Open", err)
	_, _, err = s.Load(env.ID)
	wantUnknown(t, "Load", err)

	// Nothing can be done to a message that is gone.
	wantUnknown(t, "Settle", s.Settle(env.ID, []int{0}))
	wantUnknown(t, "Defer", s.Defer(env.ID, []int{0}, 1, time.Now(), "x"))
	wantUnknown(t, "SetNotes", s.SetNotes(env.ID, map[string]any{"x": 1}))
	wantUnknown(t, "Hold", s.Hold(env.ID, nil))
	wantUnknown(t, "Release", s.Release(env.ID, nil))
	wantUnknown(t, "Remove", s.Remove(env.ID))
	if _, ok := s.Find(env.ID); ok || s.Stat() != (store.Stat{}) {
		t.Errorf("%+v", s.Stat())
	}

	// A message that is gone stays so.
	if s = p.reopenStore(t, s); len(walkedIDs(s)) > 0 {
		t.Error("it came back")
	}
}

func testDefer(t *testing.T, p *Place) {
	s := p.openStore(t)
	env := newEnvelope(3)
	mustPut(t, s, env, sampleText(100))
	due := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	noError(t, s.Settle(env.ID, []int{1}))
	noError(t, s.Defer(env.ID, []int{0, 1}, 2, due, "451 later"))
	check := func() {
		t.Helper()
		found, _ := s.Find(env.ID)
		if len(found.Recipients) != 2 {
			t.Fatalf("%+v", found)
		}
		if r := found.Recipients[0]; r.Attempts != 2 || !r.Next.Equal(due) || r.Last != "451 later" {
			t.Errorf("%+v", r)
		}
		if r := found.Recipients[1]; r.Attempts != 0 || !r.Next.IsZero() || r.Last != "" {
			t.Errorf("%+v", r)
		}
	}

	// A settled recipient is not put off again, and one that was not named stays as it
	// was.
	check()
	s = p.reopenStore(t, s)
	check()

	// The zero time means at once.
	noError(t, s.Defer(env.ID, []int{0}, 3, time.Time{}, ""))
	if found, _ := s.Find(env.ID); !found.Recipients[0].Next.IsZero() || found.Recipients[0].Attempts != 3 {
		t.Errorf("%+v", found)
	}
}

func testNotes(t *testing.T, p *Place) {
	s := p.openStore(t)
	env := newEnvelope(1)
	mustPut(t, s, env, sampleText(100))
	want := func(notes string) {
		t.Helper()
		got, _, err := s.Load(env.ID)
		noError(t, err)
		if text := fmt.Sprint(map[string]any(got.Notes)); text != notes {
			t.Errorf("%s, want %s", text, notes)
		}
	}
	noError(t, s.SetNotes(env.ID, map[string]any{"d.1": 7, "d.2": []string{"x"}}))
	want("map[d:map[1:7 2:[x]] queue:map[wants:outbound]]")

	// nil removes, and with it maps that are empty then.
	noError(t, s.SetNotes(env.ID, map[string]any{"d.2": nil, "queue.wants": nil, "never": nil}))
	want("map[d:map[1:7]]")

	// One value that cannot be kept means that none is.
	if err := s.SetNotes(env.ID, map[string]any{"d.1": 8, "bad": func() {}}); !errors.Is(err, store.ErrNotes) {
		t.Error(err)
	}
	want("map[d:map[1:7]]")
	s = p.reopenStore(t, s)
	want("map[d:map[1:7]]")
}

func testHold(t *testing.T, p *Place) {
	s := p.openStore(t)
	env := newEnvelope(3)
	mustPut(t, s, env, sampleText(100))
	want := func(held ...int) {
		t.Helper()
		var got []int
		found, _ := s.Find(env.ID)
		for _, r := range found.Recipients {
			if r.Held {
				got = append(got, r.Index)
			}
		}
		if !slices.Equal(got, held) {
			t.Errorf("%v are held, want %v", got, held)
		}
	}
	noError(t, s.Hold(env.ID, nil))
	s = p.openAfterCrash(t) // it was durable
	want(0, 1, 2)

	// Some are released, and that is durable as well.
	noError(t, s.Release(env.ID, []int{1}))
	s = p.openAfterCrash(t)
	want(0, 2)

	// A held recipient may be deferred and settled; neither releases it.
	noError(t, s.Defer(env.ID, []int{0}, 1, time.Time{}, "later"))
	want(0, 2)
	noError(t, s.Settle(env.ID, []int{2}))
	noError(t, s.Hold(env.ID, []int{0, 2}))
	want(0)
	noError(t, s.Release(env.ID, nil))
	want()
}

func testAdopt(t *testing.T, p *Place) {
	s := p.openStore(t)
	var all []mail.ID
	for range 4 {
		env := newEnvelope(1)
		mustPut(t, s, env, sampleText(10))
		noError(t, s.Permit(env.ID))
		all = append(all, env.ID)
	}

	// Messages that were put here need no adoption.
	if left := s.Adopt(func(p mail.Pending) bool { t.Error("it was put here:", p.ID); return true }); left != 0 {
		t.Errorf("%d are left", left)
	}

	// Another process adopts the rest of them, each once.
	s = p.reopenStore(t, s)
	s.Watch(nil)
	mustPut(t, s, newEnvelope(1), sampleText(10))
	noError(t, s.Settle(all[0], []int{0}))
	var got []mail.ID
	take := func(p mail.Pending) bool { got = append(got, p.ID); return len(got) != 2 }
	if left := s.Adopt(take); left != 1 {
		t.Errorf("%d are left, want 1", left)
	}
	if left := s.Adopt(take); left != 0 || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(all[1:]))) {
		t.Errorf("%d are left, %v were passed on, want %v", left, got, all[1:])
	}
	for _, id := range got {
		// What was adopted may be attempted.
		noError(t, s.Permit(id))
	}

	// Each is passed on once, however often it is asked for.
	if s.Adopt(take); len(got) != 3 {
		t.Error("passed on twice")
	}
}

func testPath(t *testing.T, p *Place) {
	s := p.openStore(t)
	env := newEnvelope(1)
	mustPut(t, s, env, sampleText(100))
	_, err := s.Path(newEnvelope(1).ID)
	wantUnknown(t, "Path", err)
	if name, err := s.Path(env.ID); err != nil || name == "" {
		t.Errorf("%q %v", name, err)
	}
	wantMessage(t, s, env, sampleText(100))
}
