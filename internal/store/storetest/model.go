package storetest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store"
)

// model is what a store should hold. Its messages are lines of text, one for each
// recipient, so that two moments are easily compared.
type model struct {
	random  *rand.Rand
	now     state
	moments []state // that a crash may leave: those since the last barrier, and now
	sizes   map[mail.ID]int
	failed  error // of the last operation
}

// state is all messages at a moment.
type state map[mail.ID]message

type message struct {
	recipients []string // "" is settled
	notes      int
}

func newModel(seed uint64) *model {
	m := &model{random: rand.New(rand.NewPCG(seed, 7)), now: state{}, sizes: map[mail.ID]int{}}
	m.markDurable()
	return m
}

func (s state) clone() state {
	c := maps.Clone(s)
	for id, msg := range c {
		msg.recipients = slices.Clone(msg.recipients)
		c[id] = msg
	}
	return c
}

// String is the same for two states that are.
func (s state) String() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "%s notes %d %q\n", id, s[id].notes, s[id].recipients)
	}
	return b.String()
}

// markDurable notes that everything up to now is durable.
func (m *model) markDurable() { m.moments = []state{m.now.clone()} }

// randomStep does something at random, to the store and to the model. It returns false
// if the store failed, which it may do as part of a crash: then nobody knows whether
// the step was made.
func (m *model) randomStep(s store.Store) bool {
	known := slices.Sorted(maps.Keys(m.now))
	var id mail.ID
	if len(known) > 0 {
		id = known[m.random.IntN(len(known))]
	}

	// The model changes a copy, so that both moments are known if the store fails.
	next := m.now.clone()
	msg := next[id]
	durable, err := false, error(nil)
	kind := m.random.IntN(12)

	// What promises to be durable is a barrier: a crash cannot undo what came before.
	switch {
	case id == "" || kind < 3:
		durable, err = true, m.putMessage(s, next)
	case kind == 3:
		durable, err = true, s.Remove(id)
		delete(next, id)
	case kind == 4:
		durable, err = true, s.Sync()
	case kind == 5:
		durable, err = true, s.Hold(id, nil)
		msg.eachPending(func(r string) string { return strings.TrimSuffix(r, " held") + " held" })
	case kind == 6:
		durable, err = true, s.Release(id, nil)
		msg.eachPending(func(r string) string { return strings.TrimSuffix(r, " held") })
	case kind == 7:
		msg.notes++
		err = s.SetNotes(id, map[string]any{"model.n": msg.notes})
		next[id] = msg
	case kind < 10:
		err = m.postpone(s, id, msg)
	default:
		i := m.random.IntN(len(msg.recipients))
		err = s.Settle(id, []int{i})
		if msg.recipients[i] = ""; strings.Join(msg.recipients, "") == "" {
			delete(next, id)
		}
	}

	// The moment after the step is possible even if it failed.
	m.failed = err
	m.moments = append(m.moments, next)
	if err != nil {
		return false
	}
	if m.now = next; durable {
		m.markDurable()
	}
	return true
}

func (m *model) putMessage(s store.Store, next state) error {
	env := newEnvelope(1 + m.random.IntN(3))
	size := []int{0, 10, 700, 6000, 20_000}[m.random.IntN(5)]
	m.sizes[env.ID] = size
	msg := message{recipients: make([]string, len(env.Recipients))}
	msg.recipients = slices.Repeat([]string{"0 tries"}, len(env.Recipients))
	next[env.ID] = msg
	b := s.NewBody()
	defer b.Discard()
	if _, err := b.Write(sampleText(size)); err != nil {
		return err
	}
	c, err := b.Content()
	if err != nil {
		return err
	}
	return s.Put(env, c)
}

// postpone defers a recipient, which keeps its hold.
func (m *model) postpone(s store.Store, id mail.ID, msg message) error {
	i, tries := m.random.IntN(len(msg.recipients)), 0
	_, _ = fmt.Sscan(msg.recipients[i], &tries)
	tries += m.random.IntN(2)
	err := s.Defer(id, []int{i}, tries, time.Unix(int64(tries), 0), "451 later")
	if old := msg.recipients[i]; old != "" {
		msg.recipients[i] = fmt.Sprintf("%d tries", tries)
		if strings.HasSuffix(old, " held") {
			msg.recipients[i] += " held"
		}
	}
	return err
}

// eachPending changes the recipients that are not settled.
func (msg message) eachPending(fn func(string) string) {
	for i, r := range msg.recipients {
		if r != "" {
			msg.recipients[i] = fn(r)
		}
	}
}

// readState returns what a store holds.
func (m *model) readState(t *testing.T, s store.Store) state {
	t.Helper()
	got := state{}
	s.Walk(func(p mail.Pending) bool {
		env, _, err := s.Load(p.ID)
		noError(t, err)
		// Settled recipients are those that are in the envelope and not pending.
		msg := message{recipients: make([]string, len(env.Recipients))}
		for _, r := range p.Recipients {
			msg.recipients[r.Index] = fmt.Sprintf("%d tries", r.Attempts)
			if r.Held {
				msg.recipients[r.Index] += " held"
			}
		}

		// Notes are numbers that count up, so that an old one is noticed.
		n, _ := env.Notes.Get("model.n").(float64)
		msg.notes = int(n)
		got[p.ID] = msg
		if b, err := readContent(s, p.ID); err != nil || !bytes.Equal(b, sampleText(m.sizes[p.ID])) {
			t.Fatalf("content of %s differs: %v", p.ID, err)
		}
		return true
	})
	return got
}

// checkRestart compares what a store holds after a restart with the moments that it may
// hold, and goes on from there.
func (m *model) checkRestart(t *testing.T, s store.Store) {
	t.Helper()
	got := m.readState(t, s)
	if !slices.ContainsFunc(m.moments, func(one state) bool { return one.String() == got.String() }) {
		t.Fatalf("found\n%s\nwhich was at none of %d moments, the last of them\n%s", got, len(m.moments), m.moments[len(m.moments)-1])
	}
	m.now = got
	m.markDurable()
}

// checkNow compares a store that is open with the model.
func (m *model) checkNow(t *testing.T, s store.Store) {
	t.Helper()
	if got := m.readState(t, s); got.String() != m.now.String() {
		t.Fatalf("found\n%s\nwant\n%s", got, m.now)
	}
	want := store.Stat{Messages: len(m.now)}
	for id, msg := range m.now {
		want.Bytes += int64(m.sizes[id])
		msg.eachPending(func(r string) string { want.Recipients++; return r })
	}
	if got := s.Stat(); got.Messages != want.Messages || got.Recipients > want.Recipients || got.Bytes > want.Bytes {
		t.Fatalf("%+v, want %+v", got, want)
	}
}
