package disk

import (
	"slices"

	"tarishi/internal/mail"
	"tarishi/internal/store/spool"
)

// maxRecent bounds what recent takes, in bytes of records.
const maxRecent = 8 << 20

// recent keeps the envelopes of messages that nobody has loaded yet: most are
// loaded once, right after they came, and reading them back costs much of what
// Load does. Store.mu guards it.
type recent struct {
	promises map[key]promised
	bytes    int
}

type promised struct {
	promise
	bytes int
}

// add keeps a copy of what was promised, whose record takes n bytes beside its
// content, if there is room. One with notes is left out: only the record knows
// what becomes of their values.
func (r *recent) add(k key, env *mail.Envelope, sum spool.Sum, n int) {
	if len(env.Notes) > 0 || r.bytes+n > maxRecent {
		return
	}
	c := *env
	c.Recipients = slices.Clone(env.Recipients)
	c.Received = env.Received.Round(0) // no monotonic reading, as from the record
	c.Notes = nil
	if env.Origin != nil {
		origin := *env.Origin
		c.Origin = &origin
	}
	r.promises[k] = promised{promise{&c, sum}, n}
	r.bytes += n
}

// take returns what add kept, once.
func (r *recent) take(k key) (promise, bool) {
	p, ok := r.promises[k]
	if ok {
		delete(r.promises, k)
		r.bytes -= p.bytes
	}
	return p.promise, ok
}
