package disk

import (
	"encoding/json"
	"fmt"
	"maps"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store"
)

// Bounds of what SetNotes keeps, in bytes of JSON.
const (
	maxSet   = 64 << 10 // of one call
	maxNotes = 1 << 20  // of all notes of a message to which SetNotes added some
	maxNoted = 64 << 20 // of all messages together, as long as they are not in files
)

// noted is what became of a message's notes since its record, or its state file,
// was written: values by dotted path; null: removed. It does not change.
type noted struct {
	values map[string]json.RawMessage
	bytes  int
}

// with returns n and what came later.
func (n *noted) with(later map[string]json.RawMessage) *noted {
	all := &noted{values: make(map[string]json.RawMessage, len(later))}
	if n != nil {
		maps.Copy(all.values, n.values)
	}
	maps.Copy(all.values, later)
	for path, v := range all.values {
		all.bytes += len(path) + len(v)
	}
	return all
}

// amend changes an envelope's notes.
func (n *noted) amend(env *mail.Envelope) {
	if n == nil {
		return
	}
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

// SetNotes changes a message's notes, as Load returns them: values by dotted
// path, whose JSON is kept; nil removes. No path may lie within another one that
// was ever set. It does not wait for the disk: losing it loses notes, no mail. An
// error that wraps ErrNotes says that nothing was changed, and why.
func (q *Store) SetNotes(id mail.ID, values map[string]any) error {
	c := change{id: id, notes: make(map[string]json.RawMessage, len(values))}
	for path, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("%w: %s: note %s: %w", store.ErrNotes, id, path, err)
		}
		c.notes[path] = b
	}
	if n := (*noted)(nil).with(c.notes).bytes; n > maxSet {
		return fmt.Errorf("%w: %s: %d bytes at once, more than %d", store.ErrNotes, id, n, maxSet)
	}
	k, e, err := q.claim(id, nil)
	if err != nil {
		return err
	}
	defer q.mu.Unlock()
	if err := q.index.amend(k, c.notes); err != nil {
		return fmt.Errorf("%w: %s: %w", store.ErrNotes, id, err)
	}
	e.flags |= stale
	return q.journal.Enqueue(kindNotes, encodeChange(kindNotes, c))
}

// amend notes changes of a message's notes, if they are not too many.
func (x *index) amend(k key, values map[string]json.RawMessage) error {
	old := x.notes[k]
	n := old.with(values)
	more := n.bytes
	if old != nil {
		more -= old.bytes
	}
	switch {
	case n.bytes > maxNotes:
		return fmt.Errorf("the message has %d bytes, more than %d", n.bytes, maxNotes)
	case more > 0 && x.noteBytes+more > maxNoted:
		return fmt.Errorf("all messages have %d bytes in memory, more than %d", x.noteBytes+more, maxNoted)
	}
	x.notes[k] = n
	x.noteBytes += more
	return nil
}

// dropNotes is for a message that is gone, or whose file says it all.
func (x *index) dropNotes(k key) {
	if n := x.notes[k]; n != nil {
		x.noteBytes -= n.bytes
		delete(x.notes, k)
	}
}

// noted returns what neither a message's record nor its state file says of its
// notes. Who reads one of these asks before looking where it is: once a file has
// the notes they are not here any more.
func (q *Store) noted(id mail.ID) *noted {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.index.notes) == 0 {
		return nil
	}
	k, _ := q.index.key(id)
	return q.index.notes[k]
}

// amendFile is amend for what goes into a file, which must not become larger
// than what is read back.
func (q *Store) amendFile(env *mail.Envelope, n *noted) {
	if n == nil {
		return
	}
	before := env.Notes.Clone()
	n.amend(env)
	if b, err := json.Marshal(env.Notes); err != nil || len(b) > maxNotes {
		q.log.Error("queue: notes of a message are too large, the latest are dropped", zap.String("uuid", string(env.ID)), zap.Int("bytes", len(b)), zap.Error(err))
		env.Notes = before
	}
}
