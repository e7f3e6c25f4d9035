package server

import (
	"context"

	"tarishi/internal/hook"
	"tarishi/internal/intake"
	"tarishi/internal/mail"
	"tarishi/internal/outbound"
	"tarishi/internal/reply"
	"tarishi/internal/session"
	"tarishi/internal/store"
)

// received is what session wants of intake and queue together.
type received struct {
	*intake.Intake
	queue store.Store
}

func (r received) NewBody() session.Body { return r.queue.NewBody() }

// late breaks the construction cycle: forward and plugins are built before queue and
// outbound, and use them. Recipients that a backend deferred go into the queue, a DSN
// reports those that it refused, and plugins submit messages. New sets its fields before
// anything runs.
type late struct {
	queue    store.Store
	outbound *outbound.Outbound
}

// Requeue implements forward.Requeuer.
func (l *late) Requeue(_ context.Context, env *mail.Envelope, c mail.Content, why []*reply.Reply) error {
	if err := l.queue.Put(env, c); err != nil {
		return err
	}
	if p := mail.NewPending(env, c.Size()); why == nil {
		l.outbound.Enqueue(p)
	} else {
		l.outbound.EnqueueDeferred(p, why)
	}
	return nil
}

// Report implements forward.Reporter.
func (l *late) Report(_ context.Context, env *mail.Envelope, c mail.Content, failed []hook.RecipientResult) error {
	return l.outbound.Report(env, c, failed)
}

// Confirm implements forward.Reporter.
func (l *late) Confirm(_ context.Context, env *mail.Envelope, c mail.Content, action string, taken []hook.RecipientResult) error {
	return l.outbound.Confirm(env, c, action, taken)
}

// Submit implements plugin.Submitter.
func (l *late) Submit(ctx context.Context, m hook.Submission) (mail.ID, error) {
	return l.outbound.Submit(ctx, m)
}
