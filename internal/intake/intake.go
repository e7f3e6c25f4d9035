// Package intake takes responsibility for a message: it runs the hooks queue
// or queue_outbound, and a relaying client's message that no plugin took goes
// into the outbound queue. Its positive reply is the server's promise: it is
// given only after a plugin said OK or the queue holds the message durably. What the queue
// gets is signed, behind all hooks.
package intake

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/reply"
)

// Queue is where accepted messages wait. Put returns nil only when the message
// is durable.
type Queue interface {
	Put(env *mail.Envelope, c mail.Content) error
	Room(size int64) error
}

// Dispatcher takes every message that Put accepted.
type Dispatcher interface {
	Enqueue(p mail.Pending)
}

// Chain runs hooks.
type Chain interface {
	Run(ctx context.Context, p hook.Point, e *hook.Event) hook.Verdict
}

// Seal signs messages. Its fields are put in front of a message, whose other bytes are
// final; none: it is not signed. An error is temporary.
type Seal interface {
	Seal(ctx context.Context, m hook.Outgoing) (fields []byte, err error)
}

// Options is what an Intake works with. All fields but ReceivedHeader and Seal are
// needed.
type Options struct {
	Me             string // our hostname, for Message-Id
	ReceivedHeader string // text of the Received field of queued mail; "" or "disabled": none
	Queue          Queue
	Dispatcher     Dispatcher
	Chain          Chain
	Seal           Seal // nil: nothing is signed
	Mail           *maillog.Log
	Log            *zap.Logger
	Now            func() time.Time
}

// Intake decides what becomes of a received message. It holds nothing but its Options, so
// that each generation of settings and hooks has one.
type Intake struct{ o Options }

// New returns an Intake.
func New(o Options) *Intake { return &Intake{o: o} }

// Room returns nil, or the reply that MAIL gets when a message of size bytes
// cannot be accepted.
func (in *Intake) Room(size int64) error { return in.o.Queue.Room(size) }

// Accept settles what becomes of the message of t, after data_post. A positive
// reply means that someone took responsibility for it. The verdict is that of the
// hooks: a refusal may ask the session to close the connection behind the reply.
func (in *Intake) Accept(ctx context.Context, c *hook.Connection, t *hook.Transaction) (*reply.Reply, hook.Verdict) {
	// Who accepts mail for recipients that stand for nobody promises to drop it.
	if len(t.Recipients) == 0 && t.Dropped > 0 {
		in.o.Log.Info("message dropped: no recipient is left", zap.String("uuid", string(t.ID)), zap.Int("dropped", t.Dropped))
		return in.answer(t.ID, hook.Verdict{}, 250, "2.0.0", "Message Queued"), hook.Verdict{}
	}

	// Haraka's plugins register at one of the two points, by the direction that they serve.
	point := hook.OnQueue
	if t.Relaying {
		point = hook.OnQueueOutbound
	}
	v := in.o.Chain.Run(ctx, point, &hook.Event{Point: point, Conn: c.View(), Tx: t.View()})

	// A plugin's answer is final. Without one only mail of clients that may relay goes on, and
	// never is any accepted that nobody has taken.
	switch {
	case v.Code == hook.OK:
		t.Freeze()
		return in.answer(t.ID, v, 250, "2.0.0", "Message Queued"), v
	case v.Code == hook.Deny || v.Code == hook.DenyDisconnect:
		return in.answer(t.ID, v, 550, "5.7.1", "Message denied"), v
	case v.Code == hook.DenySoft || v.Code == hook.DenySoftDisconnect:
		return in.answer(t.ID, v, 450, "4.7.1", "Message denied temporarily"), v
	case t.Relaying:
		return in.outbound(ctx, c, t)
	}
	return in.answer(t.ID, v, 451, "4.3.5", "No queue plugin took the message, please try again later"), hook.Verdict{}
}

// answer makes the final reply: the verdict's own or the default, with the
// transaction's id behind it, as Haraka writes it.
func (in *Intake) answer(id mail.ID, v hook.Verdict, code int, enhanced, text string) *reply.Reply {
	r := reply.New(code, enhanced, text)
	if v.Text != "" {
		r.Text = v.Text
	}
	// A whole reply counts only if it says what the verdict says: a refusal that reads like a
	// promise would lose mail.
	if v.Reply != nil && v.Reply.Code/100 == code/100 {
		r = v.Reply
	}
	withID := *r
	withID.Text = fmt.Sprintf("%s (%s)", r.Text, id)
	return &withID
}

// outbound puts the message into the queue.
func (in *Intake) outbound(ctx context.Context, c *hook.Connection, t *hook.Transaction) (*reply.Reply, hook.Verdict) {
	id := t.ID
	// Plugins see the header section as it will be sent.
	t.Header.Complete(id, in.o.Me, in.o.ReceivedHeader, in.o.Now())
	in.o.Chain.Run(ctx, hook.OnPreSendTransEmail, &hook.Event{Point: hook.OnPreSendTransEmail, Conn: c.View(), Tx: t.View()})

	// The signature is the last change. Without one that is due the message must not leave.
	t.Freeze()
	content, err := in.seal(ctx, t)
	if err != nil {
		r := reply.From(err)
		return in.answer(id, hook.Verdict{}, r.Code, r.Enhanced.String(), r.Text), hook.Verdict{}
	}

	// Durable comes first: what the reply promises must survive a crash at any time.
	if err := in.o.Queue.Put(&t.Envelope, content); err != nil {
		r := reply.From(err)
		in.o.Log.Error("queueing failed", zap.String("uuid", string(id)), zap.Error(r))
		if r.Permanent() { // a queue that cannot store is our trouble, not the sender's
			r = reply.New(451, "4.3.0", "Queueing failed, please try again later").Because(r)
		}
		return in.answer(id, hook.Verdict{}, r.Code, r.Enhanced.String(), r.Text), hook.Verdict{}
	}
	in.o.Mail.Queued(string(id), t.From.String(), len(t.Recipients), content.Size())
	in.o.Dispatcher.Enqueue(mail.NewPending(&t.Envelope, content.Size()))
	return in.answer(id, hook.Verdict{}, 250, "2.0.0", "Message Queued"), hook.Verdict{}
}

// seal returns the message of a transaction as it leaves.
func (in *Intake) seal(ctx context.Context, t *hook.Transaction) (mail.Content, error) {
	m := t.View().Outgoing()
	if in.o.Seal == nil {
		return m.Content(), nil
	}
	fields, err := in.o.Seal.Seal(ctx, m)
	return m.With(fields), err
}
