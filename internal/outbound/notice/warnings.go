package notice

import (
	"slices"

	"tarishi/internal/mail"
)

// Warnings remembers which recipients of messages with several deliveries senders
// were warned of, so that the later deliveries need not. It forgets the oldest first,
// and all at a restart: these may be warned of twice. The zero Warnings is empty,
// and not safe for concurrent use.
type Warnings struct {
	recipients map[mail.ID][]int
	order      []mail.ID
	n          int // recipients
}

// maxWarnings is how many recipients are remembered.
const maxWarnings = 100_000

// Claim returns those of a delivery's recipients, and of others, that the sender
// was not warned of; if there are any of the delivery's all of them count as warned
// of now.
func (w *Warnings) Claim(id mail.ID, own, others []int) (fresh, more []int) {
	known := func(i int) bool { return slices.Contains(w.recipients[id], i) }
	fresh = slices.DeleteFunc(slices.Clone(own), known)
	if len(fresh) == 0 {
		return nil, nil
	}
	more = slices.DeleteFunc(slices.Clone(others), known)
	if w.recipients == nil {
		w.recipients = map[mail.ID][]int{}
	}
	if w.recipients[id] == nil {
		w.order = append(w.order, id)
	}
	w.recipients[id] = slices.Concat(w.recipients[id], fresh, more)

	// The oldest messages were warned of long ago, or are gone.
	for w.n += len(fresh) + len(more); w.n > maxWarnings && len(w.order) > 1; {
		w.n -= len(w.recipients[w.order[0]])
		delete(w.recipients, w.order[0])
		w.order = w.order[1:]
	}
	return fresh, more
}

// Disclaim undoes Claim: the sender could not be warned.
func (w *Warnings) Disclaim(id mail.ID, recipients []int) {
	before := w.recipients[id]
	if before == nil {
		return
	}
	after := slices.DeleteFunc(slices.Clone(before), func(i int) bool { return slices.Contains(recipients, i) })
	w.recipients[id] = after
	w.n -= len(before) - len(after)
}
