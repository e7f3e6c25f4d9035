package index

import (
	"encoding/json"
	"fmt"
	"maps"

	"tarishi/internal/mail"
)

// Bounds of what Notes keeps, in bytes of JSON.
const (
	MaxNotes = 1 << 20  // of all notes of a message to which some were added
	maxNoted = 64 << 20 // of all messages together, as long as they are not in files
)

// Notes is what became of messages' notes since their records, or their state files,
// were written. They are of messages in the journal, or stale.
type Notes struct {
	of    map[Key]*Noted
	bytes int
}

// Noted is the same of one message: values by dotted path; null: removed. It does not
// change. A nil Noted says nothing.
type Noted struct {
	values map[string]json.RawMessage
	bytes  int
}

// NewNoted returns changes of notes.
func NewNoted(values map[string]json.RawMessage) *Noted { return (*Noted)(nil).withLater(values) }

// JSONBytes is how many bytes of paths and JSON there are.
func (n *Noted) JSONBytes() int { return n.bytes }

// withLater returns n and what came later.
func (n *Noted) withLater(later map[string]json.RawMessage) *Noted {
	all := &Noted{values: make(map[string]json.RawMessage, len(later))}
	if n != nil {
		maps.Copy(all.values, n.values)
	}
	maps.Copy(all.values, later)
	for path, v := range all.values {
		all.bytes += len(path) + len(v)
	}
	return all
}

// AmendEnvelope changes an envelope's notes.
func (n *Noted) AmendEnvelope(env *mail.Envelope) {
	if n == nil {
		return
	}

	// Values are JSON, so that a reader gets the same types from memory as from a file.
	for path, raw := range n.values {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil || v == nil { // it was JSON: it is null
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
}

// NotedOf returns the changes of a message's notes.
func (n *Notes) NotedOf(k Key) *Noted { return n.of[k] }

// IsEmpty reports whether nothing is noted of any message.
func (n *Notes) IsEmpty() bool { return len(n.of) == 0 }

// AddNotes notes changes of a message's notes, if they are not too many.
func (n *Notes) AddNotes(k Key, values map[string]json.RawMessage) error {
	old := n.of[k]
	all := old.withLater(values)
	more := all.bytes
	if old != nil {
		more -= old.bytes
	}

	// Both bounds are checked before anything changes, so that a refused call leaves no trace.
	switch {
	case all.bytes > MaxNotes:
		return fmt.Errorf("the message has %d bytes, more than %d", all.bytes, MaxNotes)
	case more > 0 && n.bytes+more > maxNoted:
		return fmt.Errorf("all messages have %d bytes in memory, more than %d", n.bytes+more, maxNoted)
	}
	n.of[k] = all
	n.bytes += more
	return nil
}

// DropNotes is for a message that is gone, or has a file that says it all.
func (n *Notes) DropNotes(k Key) {
	if old := n.of[k]; old != nil {
		n.bytes -= old.bytes
		delete(n.of, k)
	}
}
