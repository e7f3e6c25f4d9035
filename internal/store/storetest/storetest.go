// Package storetest holds a store to the contract of package store: Run is the same
// suite for all of them. It tests the promises I1 to I7 and every method.
//
// Crashes are tested against a model: after each, the store must hold what the model
// had at some moment since the last operation that promises to be durable.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/store"
)

// Place is where a store under test keeps its messages. Open and Crash are needed.
type Place struct {
	// Open opens the store, or opens it again after Close or Crash.
	Open func() (store.Store, error)
	// Crash ends the process that has the store open, and the power: whatever was not
	// durable is gone. The store is not used any more.
	Crash func()

	// CrashAt has the crash come with the n-th write or sync from now on, and Crashed
	// reports whether it has; nil: there is no such moment within an operation.
	CrashAt func(n int)
	Crashed func() bool
	// Fail makes every write and sync fail until it is called with nil; nil: they
	// cannot fail.
	Fail func(err error)
	// Damage changes a bit of a large content while the store is closed; nil: nothing
	// can be damaged.
	Damage func(t *testing.T, id mail.ID)
}

// Run tests the store that open gives a new place for.
func Run(t *testing.T, open func(t *testing.T) *Place) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, p *Place)
	}{
		{"Put", testPut},
		{"Body", testBody},
		{"Settle", testSettle},
		{"Defer", testDefer},
		{"Notes", testNotes},
		{"Hold", testHold},
		{"Remove", testRemove},
		{"Walk", testWalk},
		{"Adopt", testAdopt},
		{"Path", testPath},
		{"Run", testRun},
		{"DurableWhenPutReturns", testDurable},
		{"FailedWrites", testFailure},
		{"ReportBeforeFailure", testReport},
		{"Damage", testDamage},
		{"OneDaemon", testOneDaemon},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}

	// The last two need a new place for each of their rounds.
	t.Run("Model", func(t *testing.T) { testModel(t, open) })
	t.Run("CrashAnywhere", func(t *testing.T) { testCrashAnywhere(t, open) })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// opened opens the store and closes it at the end of the test.
func (p *Place) opened(t *testing.T) store.Store {
	t.Helper()
	s, err := p.Open()
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// reopened is what another process finds after an orderly end.
func (p *Place) reopened(t *testing.T, s store.Store) store.Store {
	t.Helper()
	must(t, s.Close())
	return p.opened(t)
}

// crashed is what another process finds after a crash.
func (p *Place) crashed(t *testing.T) store.Store {
	t.Helper()
	p.Crash()
	return p.opened(t)
}

// envelope returns one with values that survive any store.
func envelope(recipients int) *mail.Envelope {
	env := &mail.Envelope{
		ID: mail.NewID(mail.NewConnectionID(), 1), From: mail.Address{Local: "a b", Domain: "example.org"},
		Received: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), UTF8: true, Return: "HDRS", EnvelopeID: "x\ny",
		Notes: mail.Notes{"queue": map[string]any{"wants": "outbound"}},
	}
	for i := range recipients {
		env.Recipients = append(env.Recipients, mail.Recipient{Address: mail.Address{Local: fmt.Sprintf("r%d", i), Domain: "example.com"}, Notify: mail.NotifyDelay})
	}
	return env
}

func text(n int) []byte {
	return bytes.Repeat([]byte("Subject: hello\r\n\r\n0123456789abcdef\r\n"), n/36+1)[:n]
}

func put(t *testing.T, s store.Store, env *mail.Envelope, content []byte) {
	t.Helper()
	must(t, s.Put(env, mail.Memory{content}))
}

// eventually repeats what a store may refuse for a moment after failures.
func eventually(t *testing.T, do func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	err := do()
	for err != nil && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
		err = do()
	}
	must(t, err)
}

// refused fails unless err is a reply of class 4.
func refused(t *testing.T, what string, err error) {
	t.Helper()
	var r *reply.Reply
	if !errors.As(err, &r) || !r.Temporary() {
		t.Errorf("%s: %v, want a reply of class 4", what, err)
	}
}

// unknown fails unless err says that the message is not here.
func unknown(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, store.ErrUnknown) {
		t.Errorf("%s: %v, want ErrUnknown", what, err)
	}
}

// content reads a message to its end.
func content(s store.Store, id mail.ID) ([]byte, error) {
	_, c, err := s.Load(id)
	if err != nil {
		return nil, err
	}
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil && int64(len(b)) != c.Size() {
		err = fmt.Errorf("content has %d bytes and says %d", len(b), c.Size())
	}
	return b, err
}

// same fails unless the store has the message as it was put.
func same(t *testing.T, s store.Store, env *mail.Envelope, want []byte) {
	t.Helper()
	got, _, err := s.Load(env.ID)
	must(t, err)
	if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *env) {
		t.Fatalf("envelope\n%+v\nwant\n%+v", *got, *env)
	}
	if b, err := content(s, env.ID); err != nil || !bytes.Equal(b, want) {
		t.Fatalf("content differs: %v", err)
	}
}

// ids returns what Walk passes.
func ids(s store.Store) (all []mail.ID) {
	s.Walk(func(p mail.Pending) bool { all = append(all, p.ID); return true })
	return all
}

func testPut(t *testing.T, p *Place) {
	s := p.opened(t)
	must(t, s.Healthy())
	must(t, s.Room(1000))
	env, want := envelope(3), text(5000)

	// The caller may do with the envelope as it likes afterwards.
	given := *env
	given.Recipients = slices.Clone(env.Recipients)
	put(t, s, &given, want)
	given.Recipients[0].Address.Local = "changed by the caller"
	same(t, s, env, want)
	same(t, s, env, want) // the first Load changes nothing
	if n := s.Stat(); n != (store.Stat{Messages: 1, Recipients: 3, Bytes: 5000}) {
		t.Errorf("%+v", n)
	}

	// What makes no sense is refused, and leaves nothing behind.
	refused(t, "the same ID again", s.Put(env, mail.Memory{want}))
	refused(t, "no recipient", s.Put(envelope(0), mail.Memory{want}))
	invalid := envelope(1)
	invalid.ID = "no/id"
	refused(t, "an ID that is none", s.Put(invalid, mail.Memory{want}))
	refused(t, "a content that is shorter than it says", s.Put(envelope(1), liar{mail.Memory{want}}))

	// A message without a body is a message, too.
	empty := envelope(1)
	put(t, s, empty, nil)
	s = p.reopened(t, s)
	same(t, s, env, want)
	same(t, s, empty, nil)
	if n := len(ids(s)); n != 2 {
		t.Errorf("%d messages", n)
	}
}

// liar is a content that is shorter than it says.
type liar struct{ mail.Memory }

func (l liar) Size() int64 { return l.Memory.Size() + 1 }

func testBody(t *testing.T, p *Place) {
	s := p.opened(t)
	for _, size := range []int{0, 1, 5000, 300_000} {
		for _, early := range []bool{false, true} {
			want := text(size)
			b := s.NewBody()
			for part := range slices.Chunk(want, 3000) {
				if _, err := b.Write(part); err != nil {
					t.Fatal(err)
				}
				if early {
					must(t, b.Spill())
				}
			}

			// From here on nothing can be added.
			c, err := b.Content()
			must(t, err)
			_, err = b.Write([]byte("x"))
			refused(t, "Write after Content", err)
			env := envelope(1)
			must(t, s.Put(env, c))
			b.Discard()
			b.Discard()
			_, err = b.Write([]byte("x"))
			refused(t, "Write after Discard", err)
			if b.Held() != 0 {
				t.Errorf("%d bytes are held after Discard", b.Held())
			}

			// The message does not depend on the body any more.
			same(t, s, env, want)
			must(t, s.Settle(env.ID, []int{0}))
		}
	}
}

func testSettle(t *testing.T, p *Place) {
	s := p.opened(t)
	env, want := envelope(3), text(100)
	put(t, s, env, want)
	must(t, s.Settle(env.ID, []int{1}))
	must(t, s.Settle(env.ID, []int{1}))
	if err := s.Settle(env.ID, []int{3}); err == nil || errors.Is(err, store.ErrUnknown) {
		t.Error("a recipient that there is not:", err)
	}
	same(t, s, env, want)

	// Find has the rest, Load all that was accepted.
	found, ok := s.Find(env.ID)
	if !ok || len(found.Recipients) != 2 || found.Recipients[0].Index != 0 || found.Recipients[1].Index != 2 ||
		found.ID != env.ID || found.From != env.From || !found.Received.Equal(env.Received) || found.Size != 100 || found.Recipients[1].Address != env.Recipients[2].Address {
		t.Errorf("%+v", found)
	}
	must(t, s.Sync())
	s = p.crashed(t)
	if found, _ := s.Find(env.ID); len(found.Recipients) != 2 {
		t.Errorf("%+v", found)
	}

	// A reader that is open outlives the message.
	_, c, err := s.Load(env.ID)
	must(t, err)
	r, err := c.Open()
	must(t, err)
	defer r.Close()
	must(t, s.Settle(env.ID, []int{0, 2}))
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, want) {
		t.Error("an open reader lost its content:", err)
	}
	_, err = c.Open()
	unknown(t, "Open", err)
	_, _, err = s.Load(env.ID)
	unknown(t, "Load", err)

	// Nothing can be done to a message that is gone.
	unknown(t, "Settle", s.Settle(env.ID, []int{0}))
	unknown(t, "Defer", s.Defer(env.ID, []int{0}, 1, time.Now(), "x"))
	unknown(t, "SetNotes", s.SetNotes(env.ID, map[string]any{"x": 1}))
	unknown(t, "Hold", s.Hold(env.ID, nil))
	unknown(t, "Release", s.Release(env.ID, nil))
	unknown(t, "Remove", s.Remove(env.ID))
	if _, ok := s.Find(env.ID); ok || s.Stat() != (store.Stat{}) {
		t.Errorf("%+v", s.Stat())
	}

	// A message that is gone stays so.
	if s = p.reopened(t, s); len(ids(s)) > 0 {
		t.Error("it came back")
	}
}

func testDefer(t *testing.T, p *Place) {
	s := p.opened(t)
	env := envelope(3)
	put(t, s, env, text(100))
	due := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	must(t, s.Settle(env.ID, []int{1}))
	must(t, s.Defer(env.ID, []int{0, 1}, 2, due, "451 later"))
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
	s = p.reopened(t, s)
	check()

	// The zero time means at once.
	must(t, s.Defer(env.ID, []int{0}, 3, time.Time{}, ""))
	if found, _ := s.Find(env.ID); !found.Recipients[0].Next.IsZero() || found.Recipients[0].Attempts != 3 {
		t.Errorf("%+v", found)
	}
}

func testNotes(t *testing.T, p *Place) {
	s := p.opened(t)
	env := envelope(1)
	put(t, s, env, text(100))
	want := func(notes string) {
		t.Helper()
		got, _, err := s.Load(env.ID)
		must(t, err)
		if text := fmt.Sprint(map[string]any(got.Notes)); text != notes {
			t.Errorf("%s, want %s", text, notes)
		}
	}
	must(t, s.SetNotes(env.ID, map[string]any{"d.1": 7, "d.2": []string{"x"}}))
	want("map[d:map[1:7 2:[x]] queue:map[wants:outbound]]")

	// nil removes, and with it maps that are empty then.
	must(t, s.SetNotes(env.ID, map[string]any{"d.2": nil, "queue.wants": nil, "never": nil}))
	want("map[d:map[1:7]]")

	// One value that cannot be kept means that none is.
	if err := s.SetNotes(env.ID, map[string]any{"d.1": 8, "bad": func() {}}); !errors.Is(err, store.ErrNotes) {
		t.Error(err)
	}
	want("map[d:map[1:7]]")
	s = p.reopened(t, s)
	want("map[d:map[1:7]]")
}

func testHold(t *testing.T, p *Place) {
	s := p.opened(t)
	env := envelope(3)
	put(t, s, env, text(100))
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
	must(t, s.Hold(env.ID, nil))
	s = p.crashed(t) // it was durable
	want(0, 1, 2)

	// Some are released, and that is durable as well.
	must(t, s.Release(env.ID, []int{1}))
	s = p.crashed(t)
	want(0, 2)

	// A held recipient may be deferred and settled; neither releases it.
	must(t, s.Defer(env.ID, []int{0}, 1, time.Time{}, "later"))
	want(0, 2)
	must(t, s.Settle(env.ID, []int{2}))
	must(t, s.Hold(env.ID, []int{0, 2}))
	want(0)
	must(t, s.Release(env.ID, nil))
	want()
}

func testRemove(t *testing.T, p *Place) {
	s := p.opened(t)
	env := envelope(2)
	put(t, s, env, text(3000))
	must(t, s.Hold(env.ID, nil))
	must(t, s.Remove(env.ID))
	s = p.crashed(t)
	if len(ids(s)) > 0 {
		t.Error("it came back")
	}
	put(t, s, env, text(10)) // the ID is free again
	same(t, s, env, text(10))
}

func testWalk(t *testing.T, p *Place) {
	s := p.opened(t)
	var all []mail.ID
	for range 5 {
		env := envelope(1)
		put(t, s, env, text(10))
		all = append(all, env.ID)
	}
	if got := ids(s); !slices.Equal(got, all) {
		t.Errorf("%v, want %v", got, all)
	}

	// fn may have seen enough.
	n := 0
	s.Walk(func(mail.Pending) bool { n++; return n < 2 })
	if n != 2 {
		t.Errorf("%d messages were passed after the end", n-2)
	}
	s.WalkUnreadable(func(id mail.ID, reason string) bool { t.Error(id, reason); return true })
	must(t, s.Unreadable().Err())
}

func testAdopt(t *testing.T, p *Place) {
	s := p.opened(t)
	var all []mail.ID
	for range 4 {
		env := envelope(1)
		put(t, s, env, text(10))
		must(t, s.Permit(env.ID))
		all = append(all, env.ID)
	}

	// Messages that were put here need no adoption.
	if left := s.Adopt(func(p mail.Pending) bool { t.Error("it was put here:", p.ID); return true }); left != 0 {
		t.Errorf("%d are left", left)
	}

	// Another process adopts the rest of them, each once.
	s = p.reopened(t, s)
	s.Watch(nil)
	put(t, s, envelope(1), text(10))
	must(t, s.Settle(all[0], []int{0}))
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
		must(t, s.Permit(id))
	}

	// Each is passed on once, however often it is asked for.
	if s.Adopt(take); len(got) != 3 {
		t.Error("passed on twice")
	}
}

func testPath(t *testing.T, p *Place) {
	s := p.opened(t)
	env := envelope(1)
	put(t, s, env, text(100))
	_, err := s.Path(envelope(1).ID)
	unknown(t, "Path", err)
	if name, err := s.Path(env.ID); err != nil || name == "" {
		t.Errorf("%q %v", name, err)
	}
	same(t, s, env, text(100))
}

func testRun(t *testing.T, p *Place) {
	s := p.opened(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	env := envelope(1)
	put(t, s, env, text(100))
	same(t, s, env, text(100))
	cancel()
	must(t, <-ended)
	must(t, s.Close())
	if err := s.Close(); err != nil {
		t.Error("closed twice:", err)
	}
}
