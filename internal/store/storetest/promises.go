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
	s := p.opened(t)
	sizes := []int{0, 100, 5000, 300_000}
	var all []*mail.Envelope
	for _, size := range sizes {
		env := envelope(2)
		put(t, s, env, text(size))
		all = append(all, env)
	}
	s = p.crashed(t)
	for i, size := range sizes {
		same(t, s, all[i], text(size))
	}
}

// testFailure is I4.
func testFailure(t *testing.T, p *Place) {
	if p.Fail == nil {
		t.Skip("writes cannot fail")
	}
	for _, failure := range []error{syscall.EIO, syscall.ENOSPC} {
		s := p.opened(t)
		before := envelope(2)
		put(t, s, before, text(100))
		// From here on nothing can be written: new mail is refused, and what is here
		// stays.
		p.Fail(failure)
		env := envelope(1)
		refused(t, "Put", s.Put(env, mail.Memory{text(100)}))
		refused(t, "Healthy", s.Healthy())
		if _, ok := s.Find(env.ID); ok {
			t.Error("a message is here that was refused")
		}
		if err := s.Settle(before.ID, []int{0}); err != nil {
			t.Error("a settlement is refused that can be written later:", err)
		}

		// When writes succeed again it is used as before, perhaps a moment later, and what
		// was recorded meanwhile is made up for.
		p.Fail(nil)
		eventually(t, func() error { return s.Put(env, mail.Memory{text(100)}) })
		must(t, s.Healthy())
		must(t, s.Sync())
		s = p.crashed(t)
		same(t, s, env, text(100))
		if found, _ := s.Find(before.ID); len(found.Recipients) != 1 {
			t.Errorf("%+v", found)
		}
		must(t, s.Close())
	}
}

// testReport is I5: whatever survives a crash, a failure is never settled without its
// report.
func testReport(t *testing.T, p *Place) {
	s := p.opened(t)
	env, report := envelope(1), envelope(1)
	put(t, s, env, text(100))
	put(t, s, report, text(100))
	must(t, s.Settle(env.ID, []int{0}))
	s = p.crashed(t)
	same(t, s, report, text(100))
}

// testDamage is I6.
func testDamage(t *testing.T, p *Place) {
	if p.Damage == nil {
		t.Skip("nothing can be damaged")
	}
	s := p.opened(t)
	bad, good := envelope(1), envelope(1)
	put(t, s, bad, text(20_000))
	put(t, s, good, text(20_000))
	must(t, s.Close())
	// The damage is done while nobody looks.
	p.Damage(t, bad.ID)
	s = p.opened(t)

	// Damage is found when it is read; a second start finds the same world.
	for range 2 {
		same(t, s, good, text(20_000))
		if b, err := content(s, bad.ID); err == nil {
			t.Errorf("damage is served, and equal: %v", bytes.Equal(b, text(20_000)))
		}
		s = p.reopened(t, s)
	}
}

// testOneDaemon is I7: a second store does not open, or has nothing to say.
func testOneDaemon(t *testing.T, p *Place) {
	s := p.opened(t)
	env := envelope(1)
	put(t, s, env, text(100))
	second, err := p.Open()
	if err == nil {
		defer second.Close()
		if len(ids(second)) > 0 {
			t.Error("both have the message")
		}
		refused(t, "Put", second.Put(envelope(1), mail.Memory{text(10)}))
		unknown(t, "Settle", second.Settle(env.ID, []int{0}))
	}
	same(t, s, env, text(100))
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
			must(t, err)
			m := newModel(seed)
			p.CrashAt(at)
			for range 40 {
				if !m.step(s) {
					break
				}
			}

			// When the steps are over before the crash comes, every moment has been tried.
			done := !p.Crashed()
			t.Run(fmt.Sprintf("seed %d, at %d", seed, at), func(t *testing.T) {
				// Then the power fails as well, and another process finds what is left.
				p.Crash()
				next, err := p.Open()
				must(t, err)
				defer next.Close()
				m.check(t, next)
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
			must(t, err)
			m := newModel(seed + 100)
			for range 30 {
				// Between two ends of the process a few things happen.
				for range m.random.IntN(12) {
					if !m.step(s) {
						t.Fatal(m.failed)
					}
				}
				s = m.restart(t, p, s)
			}
			must(t, s.Close())
		})
	}
}

// restart ends the process in one way or the other, or not at all.
func (m *model) restart(t *testing.T, p *Place, s store.Store) store.Store {
	t.Helper()
	switch m.random.IntN(3) {
	case 0:
		must(t, s.Close())
		m.barrier()
	case 1:
		p.Crash()
	default:
		m.checkNow(t, s)
		return s
	}
	s, err := p.Open()
	must(t, err)
	m.check(t, s)
	return s
}
