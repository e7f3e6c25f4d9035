package mailq

import (
	"context"
	"errors"
	"io"

	"tarishi/internal/control"
	"tarishi/internal/control/filter"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
	"tarishi/internal/schedule"
)

// noteSuspensions adds the next probe to recipients that are due and wait for a
// suspended destination.
func noteSuspensions(m *view.Message, suspended map[string]schedule.Suspension) {
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if s, ok := suspended[r.Address.Host()]; ok && r.Status == view.Pending && r.Next.Before(s.Until) {
			r.Probe = s.Until.UTC()
		}
	}
}

// listMessages emits the selected messages, in no certain order, with the recipients that are
// pending; and, if nothing is asked of them, those that cannot be read.
func (l *Local) listMessages(ctx context.Context, a control.Arguments, emit func(*view.Message) error) error {
	f, err := filter.New(a, l.snapshot(a))
	if err != nil {
		return err
	}
	suspended := l.suspensions()
	show := func(p *mail.Pending) error {
		m := describeMessage(p)
		noteSuspensions(m, suspended)
		return emit(m)
	}

	// A few messages are looked up: that needs no walk through the queue.
	if len(f.IDs) > 0 {
		for _, id := range f.IDs {
			if p, ok := l.queue.Find(id); ok && f.Match(&p) {
				if err := show(&p); err != nil {
					return err
				}
			}
		}
		return nil
	}

	// The limit counts messages in the answer, readable or not.
	left := f.Limit
	pass := func(err error) error {
		if left--; err == nil && left == 0 {
			return errEnough
		}
		return err
	}
	err = l.walkQueue(ctx, func(p mail.Pending) error {
		if !f.Match(&p) {
			return nil
		}
		return pass(show(&p))
	})

	// Nothing is known of these but the ID: they cannot meet a condition.
	if err == nil && !f.Conditions() {
		l.queue.WalkUnreadable(func(id mail.ID, reason string) bool {
			if err = ctx.Err(); err == nil {
				err = pass(emit(&view.Message{ID: id, Recipients: []view.Recipient{}, Unreadable: reason}))
			}
			return err == nil
		})
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func describeMessage(p *mail.Pending) *view.Message {
	m := &view.Message{ID: p.ID, From: p.From, Received: p.Received, Size: p.Size, Recipients: make([]view.Recipient, len(p.Recipients))}
	for i, r := range p.Recipients {
		m.Recipients[i] = describeRecipient(r)
	}
	return m
}

func describeRecipient(r mail.PendingRecipient) view.Recipient {
	return view.Recipient{Index: r.Index, Address: r.Address, Status: view.Pending, Held: r.Held, Attempts: r.Attempts, Next: r.Next, Last: r.Last}
}

// showMessage returns one message with all its recipients and its header section.
func (l *Local) showMessage(_ context.Context, a control.Arguments) (*view.Message, error) {
	id := mail.ID(a.Text("id"))
	env, c, err := l.queue.Load(id)
	if err != nil {
		return nil, translateError(err)
	}
	p, ok := l.queue.Find(id)
	if !ok {
		return nil, control.ErrUnknown
	}
	m := &view.Message{
		ID: id, From: env.From, Received: env.Received, Size: c.Size(), Recipients: make([]view.Recipient, len(env.Recipients)),
		Body: env.Body, UTF8: env.UTF8, RequireTLS: env.RequireTLS, TLSOptional: env.TLSOptional, Return: env.Return, EnvelopeID: env.EnvelopeID,
	}

	// The envelope has all recipients, the queue only knows the pending ones.
	for i, r := range env.Recipients {
		m.Recipients[i] = view.Recipient{Index: i, Address: r.Address, Status: view.Settled}
	}
	for _, r := range p.Recipients {
		m.Recipients[r.Index] = describeRecipient(r)
	}
	for i, r := range env.Recipients {
		m.Recipients[i].Notify, m.Recipients[i].ORCPT = r.Notify, r.ORCPT
	}
	noteSuspensions(m, l.suspensions())
	section, err := mail.ReadHeader(c, maxHeader)
	if err != nil {
		return nil, translateError(err)
	}
	m.Header, m.HeaderCut = string(section.Bytes), section.Cut
	return m, nil
}

// openContent opens the message as RFC 5322 bytes and says how many there are.
func (l *Local) openContent(_ context.Context, a control.Arguments) (io.ReadCloser, int64, error) {
	_, c, err := l.queue.Load(mail.ID(a.Text("id")))
	if err != nil {
		return nil, 0, translateError(err)
	}
	r, err := c.Open()
	return r, c.Size(), translateError(err)
}
