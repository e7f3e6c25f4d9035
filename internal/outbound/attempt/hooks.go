package attempt

import (
	"context"

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
		MX: a.res.Tried, ForceTLS: a.force.Load(), ReversePath: a.reversePath,
		Path: func() (string, error) { return queue.Path(id) },
	}

	// Handlers see a view, which is revoked when their time is over.
	d.Recipients = make([]mail.Recipient, len(recipients))
	for n, i := range recipients {
		d.Recipients[n] = a.env.Recipients[i]
	}

	// What handlers leave in notes, ForceTLS and ReversePath counts from here on.
	e.Point, e.Delivery = p, d.View()
	v := a.m.o.Chain.Run(ctx, p, &e)
	a.force.Store(d.ForceTLS)
	a.reversePath = d.ReversePath
	return v
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
