package hook

import (
	"tarishi/internal/lease"
	"tarishi/internal/mail"
)

// ErrRevoked is the error of what a handler does with its views when its time is over.
var ErrRevoked = lease.ErrRevoked

// HeaderView is what a handler sees of a header section. The methods are those of
// mail.Header; at points before data_post there is no field, and from queue_ok on changes
// have no effect.
type HeaderView struct {
	gate *lease.Gate
	tx   *Transaction
}

// header calls read with the header section, if there is one that may be seen.
func header[Value any](v HeaderView, read func(*mail.Header) Value) Value {
	return lease.Look(v.gate, v.tx, func(t *Transaction) (value Value) {
		if t.Header == nil {
			return value
		}
		return read(t.Header)
	})
}

// change calls do with the header section, if there is one that may be changed.
func (v HeaderView) change(do func(*mail.Header)) {
	lease.Touch(v.gate, v.tx, func(t *Transaction) {
		if t.Header != nil && !t.frozen {
			do(t.Header)
		}
	})
}

// Get returns the value of the first field of that name, unfolded; "": there is none.
func (v HeaderView) Get(name string) string {
	return header(v, func(h *mail.Header) string { return h.Get(name) })
}

// All returns the values of every field of that name, top to bottom.
func (v HeaderView) All(name string) []string {
	return header(v, func(h *mail.Header) []string { return h.All(name) })
}

// Count returns how many fields have that name.
func (v HeaderView) Count(name string) int {
	return header(v, func(h *mail.Header) int { return h.Count(name) })
}

// Has reports whether there is a field of that name.
func (v HeaderView) Has(name string) bool { return v.Count(name) > 0 }

// Len returns the number of fields.
func (v HeaderView) Len() int { return header(v, (*mail.Header).Len) }

// Bytes returns the section with its closing empty line.
func (v HeaderView) Bytes() []byte { return header(v, (*mail.Header).Bytes) }

// Add puts a field at the end of the section.
func (v HeaderView) Add(name, value string) {
	v.change(func(h *mail.Header) { h.Add(name, value) })
}

// AddLeading puts a field in front of all others.
func (v HeaderView) AddLeading(name, value string) {
	v.change(func(h *mail.Header) { h.AddLeading(name, value) })
}

// Remove takes away every field of that name.
func (v HeaderView) Remove(name string) { v.change(func(h *mail.Header) { h.Remove(name) }) }

// Rename gives every field called from the name to and moves it to the end.
func (v HeaderView) Rename(from, to string) {
	v.change(func(h *mail.Header) { h.Rename(from, to) })
}
