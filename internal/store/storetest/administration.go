package storetest

import (
	"context"
	"slices"
	"testing"

	"tarishi/internal/mail"
)

func testRemove(t *testing.T, p *Place) {
	s := p.openStore(t)
	env := newEnvelope(2)
	mustPut(t, s, env, sampleText(3000))
	noError(t, s.Hold(env.ID, nil))
	noError(t, s.Remove(env.ID))
	s = p.openAfterCrash(t)
	if len(walkedIDs(s)) > 0 {
		t.Error("it came back")
	}
	mustPut(t, s, env, sampleText(10)) // the ID is free again
	wantMessage(t, s, env, sampleText(10))
}

func testWalk(t *testing.T, p *Place) {
	s := p.openStore(t)
	var all []mail.ID
	for range 5 {
		env := newEnvelope(1)
		mustPut(t, s, env, sampleText(10))
		all = append(all, env.ID)
	}
	if got := walkedIDs(s); !slices.Equal(got, all) {
		t.Errorf("%v, want %v", got, all)
	}

	// fn may have seen enough.
	n := 0
	s.Walk(func(mail.Pending) bool { n++; return n < 2 })
	if n != 2 {
		t.Errorf("%d messages were passed after the end", n-2)
	}
	s.WalkUnreadable(func(id mail.ID, reason string) bool { t.Error(id, reason); return true })
	noError(t, s.Unreadable().Err())
}

func testRun(t *testing.T, p *Place) {
	s := p.openStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	env := newEnvelope(1)
	mustPut(t, s, env, sampleText(100))
	wantMessage(t, s, env, sampleText(100))
	cancel()
	noError(t, <-ended)
	noError(t, s.Close())
	if err := s.Close(); err != nil {
		t.Error("closed twice:", err)
	}
}
