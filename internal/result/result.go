// Package result keeps what plugins find out about a connection or a transaction:
// Haraka's result store. Findings are kept by plugin: the texts of the checks that were
// passed, failed, skipped or not possible, remarks, and named values. Other plugins and
// code of the site read them, and the log shows them in one line for each plugin.
//
// Texts and names are an interface: a reader such as karma matches them as Haraka's
// plugins write them. A Store belongs to one goroutine at a time.
package result

import (
	"slices"
	"strconv"
	"strings"

	"tarishi/internal/mail"
)

// Store is the findings of all plugins. The zero value is empty and ready to use.
type Store struct{ all []finding }

// finding is what one plugin has found. A slice of them is smaller and quicker than a map:
// there are as many as there are plugins.
type finding struct {
	plugin string
	result *Result
}

// For returns the findings of a plugin to read and to add to; it makes them at
// the first call.
func (s *Store) For(plugin string) *Result {
	// There is a store for every connection and every message, and most plugins leave nothing.
	found := s.Of(plugin)
	if found == nil {
		found = &Result{}
		s.all = append(s.all, finding{plugin, found})
	}
	return found
}

// Of returns the findings of a plugin to read; nil: it has none.
func (s *Store) Of(plugin string) *Result {
	for _, f := range s.all {
		if f.plugin == plugin {
			return f.result
		}
	}
	return nil
}

// Result is one plugin's findings. A nil Result can be read, and has none.
type Result struct {
	Pass, Fail, Msg, Err, Skip []string

	values []named // in the order in which they were set first
}

type named struct {
	name  string
	value any
}

// Set gives a named value, in the place of an earlier one.
func (r *Result) Set(name string, value any) {
	// As in an object of JavaScript, a value keeps the place at which it was set first.
	if i := r.find(name); i >= 0 {
		r.values[i].value = value
		return
	}
	r.values = append(r.values, named{name, value})
}

// find returns the place of a named value; -1: there is none.
func (r *Result) find(name string) int {
	return slices.IndexFunc(r.values, func(v named) bool { return v.name == name })
}

// Value returns a named value, or nil.
func (r *Result) Value(name string) any {
	if r == nil {
		return nil
	}
	if i := r.find(name); i >= 0 {
		return r.values[i].value
	}
	return nil
}

// Values returns a copy of all named values. It shares nothing with r, as mail.CopyNote
// says.
func (r *Result) Values() map[string]any {
	if r == nil || len(r.values) == 0 {
		return nil
	}
	// Readers may keep the copy while the plugin changes the original.
	all := make(map[string]any, len(r.values))
	for _, v := range r.values {
		all[v.name] = mail.CopyNote(v.value)
	}
	return all
}

// Clone returns a copy that shares nothing with r but values that cannot be copied.
func (r *Result) Clone() *Result {
	if r == nil {
		return nil
	}
	values := slices.Clone(r.values)
	for i := range values {
		values[i].value = mail.CopyNote(values[i].value)
	}
	return &Result{
		Pass: slices.Clone(r.Pass), Fail: slices.Clone(r.Fail), Msg: slices.Clone(r.Msg), Err: slices.Clone(r.Err), Skip: slices.Clone(r.Skip),
		values: values,
	}
}

// list returns one of the lists by its name in results.ini.
func (r *Result) list(name string) []string {
	switch name {
	case "pass":
		return r.Pass
	case "fail":
		return r.Fail
	case "msg":
		return r.Msg
	case "err":
		return r.Err
	case "skip":
		return r.Skip
	}
	return nil
}

// usualOrder is that of the lists in a line.
var usualOrder = []string{"msg", "pass", "fail", "skip", "err"}

// Line returns the findings in one line, as Haraka collates them: the named values as
// "name: value", then the lists as "list:text, text". Maps, empty lists and values with
// a name that begins with an underscore are left out.
func (r *Result) Line(f Format) string {
	if r == nil {
		return ""
	}
	// Named values are the plugin's main findings, so they come first.
	var parts []string
	for _, v := range r.values {
		if v.name != "" && v.name[0] == '_' || slices.Contains(f.Hide, v.name) {
			continue
		}
		if text, ok := show(v.value); ok {
			parts = append(parts, v.name+": "+text)
		}
	}

	// A list that the order does not name is not shown, in Haraka neither.
	order := f.Order
	if len(order) == 0 {
		order = usualOrder
	}
	for _, name := range order {
		if texts := r.list(name); len(texts) > 0 && !slices.Contains(f.Hide, name) {
			parts = append(parts, name+":"+strings.Join(texts, ", "))
		}
	}
	return strings.Join(parts, ", ")
}

// show returns a value as JavaScript would write it into a text; ok is false for what a
// line does not show.
func show(value any) (text string, ok bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int:
		return strconv.Itoa(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	// JavaScript puts no blanks between the elements of a list.
	case []string:
		return strings.Join(v, ","), len(v) > 0
	case []any:
		var texts []string
		for _, one := range v {
			text, _ := show(one)
			texts = append(texts, text)
		}
		return strings.Join(texts, ","), len(v) > 0
	}
	return "", false
}
