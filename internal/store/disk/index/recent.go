package index

import (
	"slices"

	"tarishi/internal/mail"
	"tarishi/internal/store/spool"
)

const (
	// maxRecent bounds what Recent takes, in bytes of records.
	maxRecent = 8 << 20
	// maxContent is up to how many bytes contents are kept too. Deliveries hold what
	// they load until they have sent it, so that it must not be much.
	maxContent = 16 << 10
)

// Promise is what was said about a message when it was accepted.
type Promise struct {
	Envelope *mail.Envelope
	Sum      spool.Sum   // of the content
	Content  mail.Memory // nil: it is to be read
}

// Recent keeps the envelopes, and small contents, of messages that nobody has loaded
// yet: most are loaded once, right after they came, and reading them back costs much of
// what Load does.
type Recent struct {
	kept  map[Key]kept
	bytes int
}

type kept struct {
	Promise
	bytes int
}

// AddPromise keeps a copy of a promise, with a record of n bytes beside the
// content, if there is room. One with notes is left out: only the record knows what
// becomes of their values.
func (r *Recent) AddPromise(k Key, env *mail.Envelope, sum spool.Sum, n int, content mail.Memory) {
	if len(env.Notes) > 0 || r.bytes+n > maxRecent {
		return
	}

	// Chunks count as a whole, used or not.
	held := 0
	for _, part := range content {
		held += cap(part)
	}
	if held > maxContent || r.bytes+n+held > maxRecent {
		content = nil
	} else {
		n += held
	}

	// The caller may change its envelope as soon as Put returns.
	c := *env
	c.Recipients = slices.Clone(env.Recipients)
	c.Received = env.Received.Round(0) // no monotonic reading, as from the record
	c.Notes = nil
	if env.Origin != nil {
		origin := *env.Origin
		c.Origin = &origin
	}
	r.kept[k] = kept{Promise{Envelope: &c, Sum: sum, Content: content}, n}
	r.bytes += n
}

// TakePromise returns what Add kept, once.
func (r *Recent) TakePromise(k Key) (Promise, bool) {
	p, ok := r.kept[k]
	if ok {
		delete(r.kept, k)
		r.bytes -= p.bytes
	}
	return p.Promise, ok
}
