package lease

import "tarishi/internal/mail"

// Notes is what a handler sees of notes. The methods are those of mail.Notes.
// Lists and maps that go in or come out are copies, unless the handler has no timeout.
type Notes struct {
	gate  *Gate
	notes *mail.Notes
}

// ViewNotes returns the view of notes that ends with gate.
func ViewNotes(gate *Gate, notes *mail.Notes) Notes { return Notes{gate, notes} }

// Get returns the value at a dotted path such as "queue.wants", or nil.
func (v Notes) Get(path string) any {
	return Look(v.gate, v.notes, func(n *mail.Notes) any {
		if v.gate == nil {
			return n.Get(path)
		}
		return mail.CopyNote(n.Get(path))
	})
}

// String returns the string at a dotted path, or "".
func (v Notes) String(path string) string {
	return Look(v.gate, v.notes, func(n *mail.Notes) string { return n.String(path) })
}

// Bool reports whether the value at a dotted path is true.
func (v Notes) Bool(path string) bool {
	return Look(v.gate, v.notes, func(n *mail.Notes) bool { return n.Bool(path) })
}

// Set stores a value at a dotted path and makes the maps on the way.
func (v Notes) Set(path string, value any) {
	// The handler may keep its value and change it when its time is over.
	if v.gate != nil {
		value = mail.CopyNote(value)
	}
	Touch(v.gate, v.notes, func(n *mail.Notes) {
		if *n == nil {
			*n = mail.Notes{}
		}
		n.Set(path, value)
	})
}

// Remove deletes the value at a dotted path, and the maps on the way that it leaves empty.
func (v Notes) Remove(path string) {
	Touch(v.gate, v.notes, func(n *mail.Notes) { n.Remove(path) })
}

// All returns all notes, which must not be changed.
func (v Notes) All() mail.Notes {
	return Look(v.gate, v.notes, func(n *mail.Notes) mail.Notes {
		if v.gate == nil {
			return *n
		}
		return n.Plain()
	})
}
