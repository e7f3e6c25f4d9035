package storetest

import (
	"slices"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/store"
)

func testPut(t *testing.T, p *Place) {
	s := p.openStore(t)
	noError(t, s.Healthy())
	noError(t, s.Room(1000))
	env, want := newEnvelope(3), sampleText(5000)

	// The caller may do with the envelope as it likes afterwards.
	given := *env
	given.Recipients = slices.Clone(env.Recipients)
	mustPut(t, s, &given, want)
	given.Recipients[0].Address.Local = "changed by the caller"
	wantMessage(t, s, env, want)
	wantMessage(t, s, env, want) // the first Load changes nothing
	if n := s.Stat(); n != (store.Stat{Messages: 1, Recipients: 3, Bytes: 5000}) {
		t.Errorf("%+v", n)
	}

	// What makes no sense is refused, and leaves nothing behind.
	wantRefused(t, "the same ID again", s.Put(env, mail.Memory{want}))
	wantRefused(t, "no recipient", s.Put(newEnvelope(0), mail.Memory{want}))
	invalid := newEnvelope(1)
	invalid.ID = "no/id"
	wantRefused(t, "an ID that is none", s.Put(invalid, mail.Memory{want}))
	wantRefused(t, "a content that is shorter than it says", s.Put(newEnvelope(1), liar{mail.Memory{want}}))

	// A message without a body is a message, too.
	empty := newEnvelope(1)
	mustPut(t, s, empty, nil)
	s = p.reopenStore(t, s)
	wantMessage(t, s, env, want)
	wantMessage(t, s, empty, nil)
	if n := len(walkedIDs(s)); n != 2 {
		t.Errorf("%d messages", n)
	}
}

// liar is a content that is shorter than it says.
type liar struct{ mail.Memory }

func (l liar) Size() int64 { return l.Memory.Size() + 1 }

func testBody(t *testing.T, p *Place) {
	s := p.openStore(t)
	for _, size := range []int{0, 1, 5000, 300_000} {
		for _, early := range []bool{false, true} {
			want := sampleText(size)
			b := s.NewBody()
			for part := range slices.Chunk(want, 3000) {
				if _, err := b.Write(part); err != nil {
					t.Fatal(err)
				}
				if early {
					noError(t, b.Spill())
				}
			}

			// From here on nothing can be added.
			c, err := b.Content()
			noError(t, err)
			_, err = b.Write([]byte("x"))
			wantRefused(t, "Write after Content", err)
			env := newEnvelope(1)
			noError(t, s.Put(env, c))
			b.Discard()
			b.Discard()
			_, err = b.Write([]byte("x"))
			wantRefused(t, "Write after Discard", err)
			if b.Held() != 0 {
				t.Errorf("%d bytes are held after Discard", b.Held())
			}

			// The message does not depend on the body any more.
			wantMessage(t, s, env, want)
			noError(t, s.Settle(env.ID, []int{0}))
		}
	}
}
