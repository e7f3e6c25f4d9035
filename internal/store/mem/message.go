package mem

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"tarishi/internal/mail"
)

// message is one message and what became of its recipients so far.
type message struct {
	sequence   uint64
	env        *mail.Envelope
	notes      map[string]any // that SetNotes left, by dotted path; nil: removed
	content    mail.Memory
	recipients []recipient
	left       int // recipients that are not settled
}

type recipient struct {
	settled  bool
	held     bool
	attempts int
	next     time.Time
	last     string
}

// newMessage copies what a Put brings. The envelope goes through JSON, as in any
// other store.
func newMessage(env *mail.Envelope, c mail.Content) (*message, error) {
	if !env.ID.Valid() || len(env.Recipients) == 0 {
		return nil, fmt.Errorf("queue: message %q with %d recipients", env.ID, len(env.Recipients))
	}

	// JSON makes of notes what every store makes of them.
	b, err := json.Marshal(env)
	if err != nil {
		return nil, err
	}
	m := &message{env: &mail.Envelope{}, recipients: make([]recipient, len(env.Recipients)), left: len(env.Recipients)}
	if err := json.Unmarshal(b, m.env); err != nil {
		return nil, err
	}

	// The content is copied: it is the caller's again when Put returns.
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if int64(len(text)) != c.Size() {
		return nil, fmt.Errorf("queue: content has %d bytes and says %d", len(text), c.Size())
	}
	m.content = mail.Memory{text}
	return m, nil
}

// clone returns a copy that changes on its own.
func (m *message) clone() *message {
	c := *m
	c.recipients = slices.Clone(m.recipients)
	c.notes = maps.Clone(m.notes)
	return &c
}

// envelope returns a copy of the envelope with the notes as they are by now.
func (m *message) envelope() *mail.Envelope {
	env := *m.env
	env.Recipients = slices.Clone(m.env.Recipients)
	if m.env.Origin != nil {
		origin := *m.env.Origin
		env.Origin = &origin
	}

	// Callers change the envelope.
	env.Notes = m.env.Notes.Plain()
	for path, v := range m.notes {
		if v == nil {
			env.Notes.Remove(path)
			continue
		}
		if env.Notes == nil {
			env.Notes = mail.Notes{}
		}
		env.Notes.Set(path, v)
	}
	if len(env.Notes) == 0 {
		env.Notes = nil
	}
	return &env
}

// pending describes the recipients that are left.
func (m *message) pending() mail.Pending {
	p := mail.Pending{ID: m.env.ID, From: m.env.From, Received: m.env.Received, Size: m.content.Size()}
	for i, r := range m.recipients {
		if !r.settled {
			p.Recipients = append(p.Recipients, mail.PendingRecipient{
				Index: i, Address: m.env.Recipients[i].Address, Attempts: r.attempts, Next: r.next, Last: r.last, Held: r.held,
			})
		}
	}
	return p
}

// change is one record of a batch. To apply it again makes no difference.
type change struct {
	id mail.ID
	// put is a new message; of the others, all but removed change one.
	put     *message
	removed bool
	alter   func(m *message)
}

// applyTo changes the messages of a partition.
func (c change) applyTo(messages map[mail.ID]*message) {
	m := messages[c.id]
	switch {
	case c.put != nil:
		messages[c.id] = c.put.clone()
	case c.removed:
		delete(messages, c.id)
	case m != nil:
		// The last settled recipient takes the message with it. No separate record is needed for
		// that.
		if c.alter(m); m.left == 0 {
			delete(messages, c.id)
		}
	}
}

// markSettled returns what marks recipients as settled.
func markSettled(recipients []int) func(*message) {
	return func(m *message) {
		for _, i := range recipients {
			if !m.recipients[i].settled {
				m.recipients[i] = recipient{settled: true}
				m.left--
			}
		}
	}
}

// postpone returns what has recipients tried again later.
func postpone(recipients []int, attempts int, next time.Time, last string) func(*message) {
	if !next.IsZero() { // as precise as on any disk
		next = time.UnixMilli(next.UnixMilli()).UTC()
	}
	return func(m *message) {
		for _, i := range recipients {
			if r := &m.recipients[i]; !r.settled {
				r.attempts, r.next, r.last = attempts, next, last
			}
		}
	}
}

// setHeld returns what holds or releases recipients; nil: all.
func setHeld(recipients []int, on bool) func(*message) {
	return func(m *message) {
		for i := range m.recipients {
			if r := &m.recipients[i]; !r.settled && (recipients == nil || slices.Contains(recipients, i)) {
				r.held = on
			}
		}
	}
}

// setNotes returns what changes notes.
func setNotes(values map[string]any) func(*message) {
	return func(m *message) {
		// Changes are kept apart from the envelope: nil values among them remove notes that were
		// put with it.
		if m.notes == nil {
			m.notes = map[string]any{}
		}
		maps.Copy(m.notes, values)
	}
}
