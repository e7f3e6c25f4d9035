package mail

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Notes is what plugins remember along a connection or a transaction: a tree
// of JSON-like values with dotted paths, as Haraka's notes. The notes of a
// transaction are kept with its message in the queue, so their values must
// marshal to JSON. A nil Notes can be read, not written.
type Notes map[string]any

// DeliveryNotes is the key below which the queued notes of a message hold what
// is remembered of its deliveries. Plugins do not see it.
const DeliveryNotes = "outbound_deliveries"

// ImportedNotes is the key below which the notes of a message that was imported
// from Haraka's queue say which one it was.
const ImportedNotes = "haraka_queue"

// Get returns the value at a dotted path such as "queue.wants", or nil.
func (n Notes) Get(path string) any {
	var v any = n
	for key := range strings.SplitSeq(path, ".") {
		m, ok := asMap(v)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

// String returns the string at a dotted path, or "".
func (n Notes) String(path string) string {
	s, _ := n.Get(path).(string)
	return s
}

// Bool reports whether the value at a dotted path is true.
func (n Notes) Bool(path string) bool {
	b, _ := n.Get(path).(bool)
	return b
}

// Set stores v at a dotted path and makes the maps on the way. A value on the
// way that is no map is replaced.
func (n Notes) Set(path string, v any) {
	// A plugin that sets a.b must not fail because another one set a to a word.
	keys := strings.Split(path, ".")
	m := map[string]any(n)
	for _, key := range keys[:len(keys)-1] {
		next, ok := asMap(m[key])
		if !ok {
			next = map[string]any{}
			m[key] = next
		}
		m = next
	}
	m[keys[len(keys)-1]] = v
}

// Remove deletes the value at a dotted path, and the maps on the way that it leaves
// empty.
func (n Notes) Remove(path string) { removeAt(n, path) }

func removeAt(m map[string]any, path string) {
	key, rest, deep := strings.Cut(path, ".")
	if !deep {
		delete(m, key)
		return
	}
	if sub, ok := asMap(m[key]); ok {
		if removeAt(sub, rest); len(sub) == 0 {
			delete(m, key)
		}
	}
}

// Clone returns a copy with maps that are not shared; other values are.
func (n Notes) Clone() Notes {
	if n == nil {
		return nil
	}
	return Notes(cloneMap(n))
}

func cloneMap(m map[string]any) map[string]any {
	c := make(map[string]any, len(m))
	for k, v := range m {
		if sub, ok := asMap(v); ok {
			v = cloneMap(sub)
		}
		c[k] = v
	}
	return c
}

// Plain returns a copy that shares nothing with n. It has the values that JSON
// knows, and lists and maps of them. Others are left out: there is no general way to
// copy them.
func (n Notes) Plain() Notes {
	if n == nil {
		return nil
	}
	return Notes(plainMap(n))
}

func plainMap(m map[string]any) map[string]any {
	c := make(map[string]any, len(m))
	for k, v := range m {
		if v, ok := plainValue(v); ok {
			c[k] = v
		}
	}
	return c
}

func plainValue(v any) (any, bool) {
	// Scalars are immutable and can be shared. Containers are copied, so that a handler that kept
	// the old value cannot change the queued one.
	switch v := v.(type) {
	case nil, string, bool, float64, float32, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, json.Number, time.Time, time.Duration:
		return v, true
	case []string:
		return slices.Clone(v), true
	case []any:
		c := make([]any, 0, len(v))
		for _, x := range v {
			x, ok := plainValue(x)
			if !ok {
				return nil, false // it would not be the same list
			}
			c = append(c, x)
		}
		return c, true
	case Notes:
		return v.Plain(), true
	case map[string]any:
		if v == nil {
			return v, true
		}
		return plainMap(v), true
	}
	return nil, false
}

func asMap(v any) (map[string]any, bool) {
	switch m := v.(type) {
	case Notes:
		return m, m != nil
	case map[string]any:
		return m, m != nil
	}
	return nil, false
}

// CopyNote returns a copy of a note's value that shares nothing with it. A value that
// JSON does not know is returned as it is: there is no general way to copy it.
func CopyNote(v any) any {
	if c, ok := plainValue(v); ok {
		return c
	}
	return v
}
