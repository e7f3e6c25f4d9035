package hook

import (
	"slices"

	"tarishi/internal/lease"
	"tarishi/internal/mail"
)

// Results is what plugins found out, by plugin, for other plugins to read: the
// lists pass, fail, msg, err and skip, and named values.
type Results struct{ by map[string]*Result }

// Result is one plugin's findings.
type Result struct {
	Pass, Fail, Msg, Err, Skip []string
	Values                     map[string]any
}

// NewResults returns an empty store.
func NewResults() *Results { return &Results{by: map[string]*Result{}} }

// For returns the findings of a plugin to read and to add to; it makes them at
// the first call.
func (r *Results) For(plugin string) *Result {
	res := r.by[plugin]
	if res == nil {
		res = &Result{Values: map[string]any{}}
		r.by[plugin] = res
	}
	return res
}

// Has reports whether the plugin has any findings.
func (r *Results) Has(plugin string) bool { return r.by[plugin] != nil }

// ResultsView is what a handler sees of results. The name of a plugin is its name in
// config/plugins.
type ResultsView struct {
	gate  *lease.Gate
	state *Results
}

// add appends to one of a plugin's lists.
func (v ResultsView) add(plugin string, list func(*Result) *[]string, text string) {
	lease.Touch(v.gate, v.state, func(r *Results) {
		to := list(r.For(plugin))
		*to = append(*to, text)
	})
}

// Pass adds a check that was passed.
func (v ResultsView) Pass(plugin, text string) {
	v.add(plugin, func(r *Result) *[]string { return &r.Pass }, text)
}

// Fail adds a check that was failed.
func (v ResultsView) Fail(plugin, text string) {
	v.add(plugin, func(r *Result) *[]string { return &r.Fail }, text)
}

// Msg adds a remark.
func (v ResultsView) Msg(plugin, text string) {
	v.add(plugin, func(r *Result) *[]string { return &r.Msg }, text)
}

// Err adds a check that could not be made.
func (v ResultsView) Err(plugin, text string) {
	v.add(plugin, func(r *Result) *[]string { return &r.Err }, text)
}

// Skip adds a check that was left out.
func (v ResultsView) Skip(plugin, text string) {
	v.add(plugin, func(r *Result) *[]string { return &r.Skip }, text)
}

// Set gives a named value of a plugin.
func (v ResultsView) Set(plugin, name string, value any) {
	if v.gate != nil {
		value = mail.CopyNote(value)
	}
	lease.Touch(v.gate, v.state, func(r *Results) { r.For(plugin).Values[name] = value })
}

// Value returns a named value of a plugin, or nil.
func (v ResultsView) Value(plugin, name string) any {
	return lease.Look(v.gate, v.state, func(r *Results) any {
		// For would make an entry, and a look must not.
		if !r.Has(plugin) {
			return nil
		}
		if v.gate != nil {
			return mail.CopyNote(r.For(plugin).Values[name])
		}
		return r.For(plugin).Values[name]
	})
}

// Has reports whether the plugin has any findings.
func (v ResultsView) Has(plugin string) bool {
	return lease.Look(v.gate, v.state, func(r *Results) bool { return r.Has(plugin) })
}

// Of returns a copy of the findings of a plugin.
func (v ResultsView) Of(plugin string) Result {
	return lease.Look(v.gate, v.state, func(r *Results) Result {
		if !r.Has(plugin) {
			return Result{}
		}
		// The lists are copied too: the owner goes on appending to its own.
		found := *r.For(plugin)
		for _, list := range []*[]string{&found.Pass, &found.Fail, &found.Msg, &found.Err, &found.Skip} {
			*list = slices.Clone(*list)
		}
		found.Values = mail.Notes(found.Values).Plain()
		return found
	})
}
