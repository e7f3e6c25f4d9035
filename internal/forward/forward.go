// Package forward relays a message to a backend while its client waits, and
// turns what the backend says into the client's reply. Nothing is stored: until
// the client has a 250 it keeps the message.
//
// Promises:
//
//   - A 250 means that for every recipient someone answers: the backend took it,
//     the queue took it (Requeuer), or a DSN says that it was refused
//     (Reporter), as the text of the reply does.
//   - Senders that ask for it get a DSN of success where the backend has no DSN
//     and sends none (RFC 3461 section 5.2.2).
//   - When no recipient was taken the client keeps all of them: 550 if each was
//     refused for good, else 450. With on_failure=queue those that were not
//     refused for good go into the queue instead.
//   - A message that may have been taken already is never sent a second time by
//     us, and not queued: the client gets 451 and decides. The exception is
//     LMTP and one_message_per_rcpt after another recipient was taken, when only
//     the queue can keep the promise of the 250.
//   - The message of a client that may relay or has authenticated is signed before it goes
//     anywhere (Seal); if that fails the client gets 451.
//   - When no host answers the client gets 451 at once, with a text that names
//     neither hosts nor credentials; the log has the causes.
//
// Which host a message goes to, and over which connection, is the business of package
// delivery: its Relay makes the attempts.
package forward

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/delivery/meaning"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/reply"
	"tarishi/internal/route"
	"tarishi/internal/sending"
)

// Relay offers a message to the hosts of its route; *delivery.Relay does.
type Relay interface {
	Attempt(ctx context.Context, j delivery.RelayJob) delivery.Result
}

// Reporter queues a DSN about recipients that were refused while others of the
// same message were taken. It returns nil when the DSN is durable.
type Reporter interface {
	Report(ctx context.Context, env *mail.Envelope, content mail.Content, failed []hook.RecipientResult) error
	// Confirm queues a DSN with that action of package dsn about recipients that
	// were taken.
	Confirm(ctx context.Context, env *mail.Envelope, content mail.Content, action string, taken []hook.RecipientResult) error
}

// Requeuer takes messages into the outbound queue, such as the recipients that a
// backend deferred while it took others: env has only these, and why the reply to
// each, which counts as a failed attempt. One that is nil is due at once, and with
// a nil list all are. It returns nil when the message is durable.
type Requeuer interface {
	Requeue(ctx context.Context, env *mail.Envelope, content mail.Content, why []*reply.Reply) error
}

// Seal signs messages. Its fields are put in front of a message, whose other bytes are
// final; none: it is not signed. An error is temporary.
type Seal interface {
	Seal(ctx context.Context, m hook.Outgoing) (fields []byte, err error)
}

// Options are what a Forwarder works with.
type Options struct {
	Seal     Seal // nil: nothing is signed
	Relay    Relay
	Reporter Reporter // nil: only the client learns of refused recipients
	Requeuer Requeuer // nil: deferred recipients of a message that others got count as refused

	Mail *maillog.Log
	Log  *zap.Logger
}

// Forwarder implements plugin.Forwarder. It may be used from any goroutine.
type Forwarder struct{ o Options }

// New returns a Forwarder.
func New(o Options) *Forwarder { return &Forwarder{o} }

// patience bounds one Forward, up to the end of the message: clients wait ten
// minutes for the reply to the final dot (RFC 5321 section 4.5.3.2.6). What a
// backend has whole it may take or refuse for as long as submission_timeout says:
// by then no other answer is better.
const patience = 10*time.Minute - 15*time.Second

// Forward relays the message of t by route r, which must have a host. The
// verdict's reply lacks the transaction's id, which session adds.
func (f *Forwarder) Forward(ctx context.Context, c hook.ConnectionView, t hook.TransactionView, r *route.Route) hook.Verdict {
	own, ok := credentials(c, r)
	if !ok {
		f.o.Log.Error("auth_type=forward, but the client has not authenticated", zap.String("uuid", string(t.ID())), zap.String("route", r.Name))
		return hook.Verdict{Code: hook.DenySoft, Reply: errStranger}
	}

	// A client waits ten minutes; what ends the attempt earlier still has time to become a
	// reply.
	attempt := sending.New(ctx)
	defer attempt.Cancel(nil)
	patient := time.AfterFunc(patience, func() { attempt.GiveUp(context.DeadlineExceeded) })
	defer patient.Stop()

	// Signed once, for all hosts of the route, and for the queue if none of them takes it.
	env := t.Envelope()
	content, err := f.seal(attempt, c, t)
	if err != nil {
		return hook.Verdict{Code: hook.DenySoft, Reply: reply.From(err)}
	}
	var silent successes

	// Without any recipient taken the client keeps the message, unless the queue may have
	// it.
	taken, refused, deferred := sortOut(f.relay(attempt, &env, content, r, own, &silent))
	if len(taken) == 0 && !(f.queues(r, deferred) && ctx.Err() == nil) {
		return refusal(r, refused, deferred)
	}
	if len(taken) == len(env.Recipients) && silent.none() { // nearly always
		return success(taken[0].Reply, nil)
	}
	// From here on it does not matter whether the client still waits.
	ctx = context.WithoutCancel(ctx)

	// Deferred recipients of a message that others got are the queue's; where that does not
	// take them they count as refused, and the sender gets a DSN.
	queued := 0
	switch {
	case len(deferred) == 0:
	case r.AuthType != route.AuthForward && f.requeued(ctx, env, content, deferred, len(taken) > 0):
		queued = len(deferred)
	case len(taken) == 0:
		return refusal(r, refused, deferred)
	default:
		refused = append(refused, deferred...)
	}
	if err := f.report(ctx, &env, content, refused); err != nil {
		f.o.Log.Error("refused recipients not reported", zap.String("uuid", string(env.ID)), zap.Error(err))
		return hook.Verdict{Code: hook.DenySoft, Reply: errUnreported.Because(err)}
	}

	// All recipients are accounted for: only now can the client have its 250.
	f.confirm(ctx, &env, content, &silent)
	if len(taken) == 0 {
		f.o.Log.Info("no backend took the message, it is queued", zap.String("uuid", string(env.ID)), zap.String("route", r.Name), zap.Int("recipients", queued))
		return success(queuedReply, refused)
	}
	return success(taken[0].Reply, refused)
}

// credentials returns those of the client for a route that wants them; ok is false if it
// has none.
func credentials(c hook.ConnectionView, r *route.Route) (own delivery.Credentials, ok bool) {
	if r.AuthType != route.AuthForward {
		return own, true
	}
	client := c.Authenticated()
	return delivery.Credentials{User: client.User, Pass: client.Password}, client.User != ""
}

// queuedReply stands for the reply of a backend where the queue took everything.
var queuedReply = reply.New(250, "2.0.0", "Message Queued")

// errStranger keeps the message with a client that could have authenticated: to
// send it as nobody is not what the route says.
var errStranger = reply.New(451, "4.7.0", "Authentication required to relay this message")

// queues reports whether the queue is to take what no backend took. What may
// have been taken is left to the client: it must ask again in any case where
// the connection to it is lost too, and one of us repeating it is enough.
func (f *Forwarder) queues(r *route.Route, deferred []hook.RecipientResult) bool {
	return r.OnFailure == route.FailToQueue && r.AuthType != route.AuthForward && len(deferred) > 0 &&
		!slices.ContainsFunc(deferred, func(x hook.RecipientResult) bool { return meaning.MayHaveArrived(x.Reply) })
}

// seal returns the message of t as it leaves. That of a stranger is not signed, for it is
// not ours whatever its From says.
func (f *Forwarder) seal(ctx context.Context, c hook.ConnectionView, t hook.TransactionView) (mail.Content, error) {
	m := t.Outgoing()
	if f.o.Seal == nil || !hook.IsOurs(c, t) {
		return m.Content(), nil
	}
	fields, err := f.o.Seal.Seal(ctx, m)
	return m.With(fields), err
}

// Queue takes the message of t into the outbound queue.
func (f *Forwarder) Queue(ctx context.Context, c hook.ConnectionView, t hook.TransactionView) hook.Verdict {
	env := t.Envelope()
	content, err := f.seal(ctx, c, t)
	if err != nil {
		return hook.Verdict{Code: hook.DenySoft, Reply: reply.From(err)}
	}
	err = errors.New("there is no queue")
	if f.o.Requeuer != nil {
		err = f.o.Requeuer.Requeue(context.WithoutCancel(ctx), &env, content, nil)
	}
	if err != nil {
		r := reply.From(err)
		f.o.Log.Error("queueing failed", zap.String("uuid", string(env.ID)), zap.Error(err))
		if !r.Temporary() { // a queue that cannot store is our trouble, not the sender's
			r = reply.New(451, "4.3.0", "Queueing failed, please try again later").Because(err)
		}
		return hook.Verdict{Code: hook.DenySoft, Reply: r}
	}
	f.o.Mail.Queued(string(env.ID), env.From.String(), len(env.Recipients), content.Size())
	return hook.Verdict{Code: hook.OK, Reply: queuedReply}
}

// errUnreported makes the client send again what some recipients have got:
// twice is better than a recipient that got nothing and a sender that never learns it.
var errUnreported = reply.New(451, "4.3.0", "Temporary local problem, please try again later")

// requeued hands deferred recipients to the queue and reports whether it took
// them. took is whether the backend took others.
func (f *Forwarder) requeued(ctx context.Context, env mail.Envelope, content mail.Content, deferred []hook.RecipientResult, took bool) bool {
	if f.o.Requeuer == nil {
		return false
	}

	// A reply counts as a failed attempt; that there were only too many recipients at once
	// does not.
	env.Recipients = make([]mail.Recipient, len(deferred))
	why := make([]*reply.Reply, len(deferred))
	for i, d := range deferred {
		env.Recipients[i] = d.Recipient
		if !took || !d.Reply.Surplus() {
			why[i] = d.Reply
		}
	}
	// get_mx sends it by the same routes.
	if env.Notes = env.Notes.Clone(); env.Notes == nil {
		env.Notes = mail.Notes{}
	}
	env.Notes.Set(route.NoteWants, route.WantsForward)
	if err := f.o.Requeuer.Requeue(ctx, &env, content, why); err != nil {
		f.o.Log.Error("deferred recipients not queued", zap.String("uuid", string(env.ID)), zap.Error(err))
		return false
	}
	f.o.Mail.Queued(string(env.ID), env.From.String(), len(env.Recipients), content.Size())
	return true
}

// sortOut divides recipients by their replies.
func sortOut(all []hook.RecipientResult) (taken, refused, deferred []hook.RecipientResult) {
	others := slices.ContainsFunc(all, func(x hook.RecipientResult) bool { return !x.Reply.Surplus() })
	for _, x := range all {
		switch {
		case x.Reply.Positive():
			taken = append(taken, x)
		case x.Reply.Permanent() && !(others && x.Reply.Surplus()):
			refused = append(refused, x)
		default:
			deferred = append(deferred, x)
		}
	}
	return taken, refused, deferred
}
