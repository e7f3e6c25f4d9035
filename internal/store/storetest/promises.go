package storetest

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/store"
)

// testDurable is I1.
func testDurable(t *testing.T, p *Place) {
	s := p.openStore(t)
	sizes := []int{0, 100, 5000, 300_000}
	var all []*mail.Envelope
	for _, size := range sizes {
		env := newEnvelope(2)
		mustPut(t, s, env, sampleText(size))
		all = append(all, env)
	}
	s = p.openAfterCrash(t)
	for i, size := range sizes {
		wantMessage(t, s, all[i], sampleText(size))
	}
}

// testFailure is I4.
func testFailure(t *testing.T, p *Place) {
	if p.Fail == nil {
		t.Skip("writes cannot fail")
	}
	for _, failure := range []error{syscall.EIO, syscall.ENOSPC} {
		s := p.openStore(t)
		before := newEnvelope(2)
		mustPut(t, s, before, sampleText(100))
		// From here on nothing can be written: new mail is refused, and mail that is here
		// stays.
		p.Fail(failure)
		env := newEnvelope(1)
		wantRefused(t, "Put", s.Put(env, mail.Memory{sampleText(100)}))
		wantRefused(t, "Healthy", s.Healthy())
		if _, ok := s.Find(env.ID); ok {
			t.Error("a message is here that was refused")
		}
		if err := s.Settle(before.ID, []int{0}); err != nil {
			t.Error("a settlement is refused that can be written later:", err)
		}

		// When writes succeed again it is used as before, perhaps a moment later, and what
		// was recorded meanwhile is made up for.
		p.Fail(nil)
		eventually(t, func() error { return s.Put(env, mail.Memory{sampleText(100)}) })
		noError(t, s.Healthy())
		noError(t, s.Sync())
		s = p.openAfterCrash(t)
		wantMessage(t, s, env, sampleText(100))
		if found, _ := s.Find(before.ID); len(found.Recipients) != 1 {
			t.Errorf("%+v", found)
		}
		noError(t, s.Close())
	}
}

// testReport is I5: whatever survives a crash, a failure is never settled without its
// report.
func testReport(t *testing.T, p *Place) {
	s := p.openStore(t)
	env, report := newEnvelope(1), newEnvelope(1)
	mustPut(t, s, env, sampleText(100))
	mustPut(t, s, report, sampleText(100))
	noError(t, s.Settle(env.ID, []int{0}))
	s = p.openAfterCrash(t)
	wantMessage(t, s, report, sampleText(100))
}

// testDamage is I6.
func testDamage(t *testing.T, p *Place) {
	if p.Damage == nil {
		t.Skip("nothing can be damaged")
	}
	s := p.openStore(t)
	bad, good := newEnvelope(1), newEnvelope(1)
	mustPut(t, s, bad, sampleText(20_000))
	mustPut(t, s, good, sampleText(20_000))
	noError(t, s.Close())
	// The damage is done while nobody looks.
	p.Damage(t, bad.ID)
	s = p.openStore(t)

	// Damage is found when it is read; a second start finds the same world.
	for range 2 {
		wantMessage(t, s, good, sampleText(20_000))
		if b, err := readContent(s, bad.ID); err == nil {
			t.Errorf("damage is served, and equal: %v", bytes.Equal(b, sampleText(20_000)))
		}
		s = p.reopenStore(t, s)
	}
}

// testOneDaemon is I7: a second store does not open, or has nothing to say.
func testOneDaemon(t *testing.T, p *Place) {
	s := p.openStore(t)
	env := newEnvelope(1)
	mustPut(t, s, env, sampleText(100))
	second, err := p.Open()
	if err == nil {
		defer second.Close()
		if len(walkedIDs(second)) > 0 {
			t.Error("both have the message")
		}
		wantRefused(t, "Put", second.Put(newEnvelope(1), mail.Memory{sampleText(10)}))
		wantUnknown(t, "Settle", second.Settle(env.ID, []int{0}))
	}
	wantMessage(t, s, env, sampleText(100))
}

// testCrashAnywhere is I1 to I3 with a crash at each write and sync.
func testCrashAnywhere(t *testing.T, open func(t *testing.T) *Place) {
	if p := open(t); p.CrashAt == nil {
		t.Skip("there is no moment within an operation")
	}
	for seed := range uint64(3) {
		for at := 1; ; at += stride() {
			p := open(t)
			s, err := p.Open()
			noError(t, err)
			m := newModel(seed)
			p.CrashAt(at)
			for range 40 {
				if !m.randomStep(s) {
					break
				}
			}

			// When the steps are over before the crash comes, every moment has been tried.
			done := !p.Crashed()
			t.Run(fmt.Sprintf("seed %d, at %d", seed, at), func(t *testing.T) {
				// Then the power fails as well, and another process finds the remains.
				p.Crash()
				next, err := p.Open()
				noError(t, err)
				defer next.Close()
				m.checkRestart(t, next)
			})
			if _ = s.Close(); done || t.Failed() {
				break
			}
		}
	}
}

// stride is how far apart the moments are at which a crash is tried.
func stride() int {
	if testing.Short() {
		return 7
	}
	return 1
}

// testModel compares the store with the model, with orderly ends and crashes between
// operations.
func testModel(t *testing.T, open func(t *testing.T) *Place) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := open(t)
			s, err := p.Open()
			noError(t, err)
			m := newModel(seed + 100)
			for range 30 {
				// Between two ends of the process a few things happen.
				for range m.random.IntN(12) {
					if !m.randomStep(s) {
						t.Fatal(m.failed)
					}
				}
				s = m.restart(t, p, s)
			}
			noError(t, s.Close())
		})
	}
}

// restart ends the process in one way or the other, or not at all.
func (m *model) restart(t *testing.T, p *Place, s store.Store) store.Store {
	t.Helper()
	switch m.random.IntN(3) {
	case 0:
		noError(t, s.Close())
		m.markDurable()
	case 1:
		p.Crash()
	default:
		m.checkNow(t, s)
		return s
	}
	s, err := p.Open()
	noError(t, err)
	m.checkRestart(t, s)
	return s
}
