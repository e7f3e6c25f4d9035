package result

import (
	"slices"

	"tarishi/internal/lease"
	"tarishi/internal/mail"
)

// View is what a handler sees of a Store. The name of a plugin is its name in
// config/plugins.
type View struct {
	gate  *lease.Gate
	state *Store
	id    string
}

// NewView returns the view of a Store that ends with a gate; id is that of the
// connection or the transaction.
func NewView(g *lease.Gate, s *Store, id string) View { return View{g, s, id} }

// ID is that of the connection or the transaction that the results are about.
func (v View) ID() string { return v.id }

// usualTexts is how many texts a list has room for at first: few plugins make one check.
const usualTexts = 4

// add appends to one of a plugin's lists.
func (v View) add(plugin string, list func(*Result) *[]string, text string) {
	lease.Touch(v.gate, v.state, func(s *Store) {
		to := list(s.For(plugin))
		if *to == nil {
			*to = make([]string, 0, usualTexts)
		}
		*to = append(*to, text)
	})
}

// Pass adds a check that was passed.
func (v View) Pass(plugin, text string) {
	v.add(plugin, func(r *Result) *[]string { return &r.Pass }, text)
}

// Fail adds a check that was failed.
func (v View) Fail(plugin, text string) {
	v.add(plugin, func(r *Result) *[]string { return &r.Fail }, text)
}

// Msg adds a remark.
func (v View) Msg(plugin, text string) {
	v.add(plugin, func(r *Result) *[]string { return &r.Msg }, text)
}

// Err adds a check that could not be made.
func (v View) Err(plugin, text string) {
	v.add(plugin, func(r *Result) *[]string { return &r.Err }, text)
}

// Skip adds a check that was left out.
func (v View) Skip(plugin, text string) {
	v.add(plugin, func(r *Result) *[]string { return &r.Skip }, text)
}

// Set gives a named value of a plugin.
func (v View) Set(plugin, name string, value any) {
	// A handler that is late must not share a list or a map with the store.
	if v.gate != nil {
		value = mail.CopyNote(value)
	}
	lease.Touch(v.gate, v.state, func(s *Store) { s.For(plugin).Set(name, value) })
}

// Value returns a named value of a plugin, or nil.
func (v View) Value(plugin, name string) any {
	return lease.Look(v.gate, v.state, func(s *Store) any {
		// The same holds for values on their way out.
		if v.gate != nil {
			return mail.CopyNote(s.Of(plugin).Value(name))
		}
		return s.Of(plugin).Value(name)
	})
}

// Texts returns a named value of a plugin that is a text or a list of texts, which must
// not be changed; nil if it is nothing like that.
func (v View) Texts(plugin, name string) []string {
	// Built-in plugins leave lists of texts, code in JavaScript lists of anything.
	switch value := v.Value(plugin, name).(type) {
	case string:
		return []string{value}
	case []string:
		return value
	case []any: // code in JavaScript has made it
		var texts []string
		for _, one := range value {
			if text, ok := one.(string); ok {
				texts = append(texts, text)
			}
		}
		return texts
	}
	return nil
}

// Has reports whether the plugin has any findings.
func (v View) Has(plugin string) bool {
	return lease.Look(v.gate, v.state, func(s *Store) bool { return s.Of(plugin) != nil })
}

// HasPassed reports whether the plugin has passed a check with this text.
func (v View) HasPassed(plugin, text string) bool {
	return lease.Look(v.gate, v.state, func(s *Store) bool {
		found := s.Of(plugin)
		return found != nil && slices.Contains(found.Pass, text)
	})
}

// Of returns a copy of the findings of a plugin; nil, which can be read: it has none.
func (v View) Of(plugin string) *Result {
	return lease.Look(v.gate, v.state, func(s *Store) *Result { return s.Of(plugin).Clone() })
}

// Line returns the findings of a plugin in one line.
func (v View) Line(plugin string, f Format) string {
	return lease.Look(v.gate, v.state, func(s *Store) string { return s.Of(plugin).Line(f) })
}
