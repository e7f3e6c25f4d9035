package attempt

import (
	"context"
	"sync/atomic"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
)

// hasHook reports whether p has a handler.
func (a *Attempt) hasHook(p hook.Point) bool { return a.m.o.Chain != nil && a.m.o.Chain.Has(p) }

// runHook runs the handlers of p, if it has any, with an event about some
// recipients.
func (a *Attempt) runHook(ctx context.Context, p hook.Point, e hook.Event, recipients []int) hook.Verdict {
	if !a.hasHook(p) {
		return hook.Proceed()
	}
	return a.runHandlers(ctx, p, e, recipients)
}

// runHandlers is apart from runHook because its Event lives on the heap.
func (a *Attempt) runHandlers(ctx context.Context, p hook.Point, e hook.Event, recipients []int) hook.Verdict {
	queue, id := a.m.o.Queue, a.unit.ID()
	d := &hook.Delivery{
		Envelope: a.env, Domain: a.unit.Domain(), Attempts: a.failures(p, e), Notes: a.notes, Content: a.content,
		MX: a.res.Tried, ForceTLS: new(atomic.Bool),
		Path: func() (string, error) { return queue.Path(id) },
	}

	// Handlers get copies: one that is late must not see what becomes of them.
	d.ForceTLS.Store(a.force.Load())
	d.Recipients = make([]mail.Recipient, len(recipients))
	for n, i := range recipients {
		d.Recipients[n] = a.env.Recipients[i]
	}

	// What handlers leave in notes and ForceTLS counts from here on.
	e.Point, e.Delivery = p, d
	v := a.m.o.Chain.Run(ctx, p, &e)
	if v.Fresh != nil {
		d = v.Fresh.Delivery
		a.replaceNotes(d)
	}
	a.force.Store(d.ForceTLS.Load())
	return v
}

// replaceNotes leaves all notes to a handler that was late, and goes on with the copies
// that the chain made before it ran.
func (a *Attempt) replaceNotes(d *hook.Delivery) {
	if a.notes = d.Notes; a.notes == nil {
		a.notes = mail.Notes{}
	}
	if a.env.Notes = d.Envelope.Notes; a.env.Notes == nil {
		a.env.Notes = mail.Notes{}
	}
	a.was.Notes = a.notes
	if a.was.Message != nil {
		a.was.Message = a.env.Notes
	}
}

// failures is Haraka's num_failures: it counts the deferral that hook deferred is
// about, and the one too many that hook bounce is about.
func (a *Attempt) failures(p hook.Point, e hook.Event) int {
	if p == hook.OnDeferred || p == hook.OnBounce && len(e.Deferred) > 0 && !a.unit.Expired() {
		return a.deferrals()
	}
	return a.unit.Attempts()
}

// deferrals counts those of the delivery with the one of this attempt.
func (a *Attempt) deferrals() int {
	if a.free {
		return a.unit.Attempts()
	}
	return a.unit.Attempts() + 1
}
