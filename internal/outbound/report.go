package outbound

import (
	"context"
	"io"
	"slices"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
)

// Report queues a DSN about recipients that failed without ever being in the
// queue, and sees to its delivery. env and c are the message. nil means that
// the DSN is durable, or that nobody is to be told; an error is temporary.
func (o *Outbound) Report(env *mail.Envelope, c mail.Content, failed []hook.RecipientResult) error {
	return o.report(env, c, dsn.Failed, failed)
}

// Confirm is Report for recipients that a next hop took; action is dsn.Relayed
// or dsn.Delivered.
func (o *Outbound) Confirm(env *mail.Envelope, c mail.Content, action string, taken []hook.RecipientResult) error {
	return o.report(env, c, action, taken)
}

func (o *Outbound) report(env *mail.Envelope, c mail.Content, action string, results []hook.RecipientResult) error {
	r := o.newReport(env, c)
	for _, x := range results {
		if dsn.Wanted(x.Recipient, action) {
			r.Recipients = append(r.Recipients, dsn.Recipient{
				Recipient: x.Recipient, Action: action, Reply: x.Reply, RemoteMTA: x.Host, LastAttempt: r.Date,
			})
		}
	}
	switch {
	case env.From.IsNull():
		o.o.Mail.NoDSN(string(env.ID), nullSender)
		return nil
	case len(r.Recipients) == 0:
		o.o.Mail.NoDSN(string(env.ID), notWanted)
		return nil
	}
	p, err := o.put(context.Background(), r)
	if err != nil {
		return err
	}
	o.Enqueue(p)
	return nil
}

// Why there is no DSN.
const (
	nullSender = "the sender is null"
	notWanted  = "the sender does not want it (NOTIFY)"
)

func (o *Outbound) newReport(env *mail.Envelope, c mail.Content) dsn.Report {
	return dsn.Report{
		ID: mail.NewID(mail.NewConnectionID(), 1), Me: o.o.Me, PID: o.pid, Date: o.o.Now(), Original: env, OriginalContent: c,
		Full: o.o.Config.DSNReturn == "full",
	}
}

// put composes a DSN, shows it to pre_send_trans_email and puts it in the queue.
// The caller enqueues it.
func (o *Outbound) put(ctx context.Context, r dsn.Report) (mail.Pending, error) {
	env, content, err := dsn.Compose(r, o.o.Templates)
	if err == nil {
		content = o.shown(ctx, env, content)
		err = o.o.Queue.Put(env, content)
	}
	if err != nil {
		o.counts.dsnFailed.Add(1)
		return mail.Pending{}, err
	}
	o.counts.dsn.Add(1)
	last := r.Original.ID
	o.logDSN(env, last, r)
	for i := range r.Recipients { // of several messages each has its line
		if of := r.Recipients[i].Of; of != nil && of.ID() != last {
			last = of.ID()
			o.logDSN(env, last, r)
		}
	}
	return mail.NewPending(env, content.Size()), nil
}

// logDSN logs which report tells of a message; "": of none alone.
func (o *Outbound) logDSN(env *mail.Envelope, about mail.ID, r dsn.Report) {
	if about != "" {
		o.o.Mail.DSN(string(env.ID), string(about), r.Original.From.String(), r.Recipients[0].Action)
	}
}

// shown returns a DSN with the header fields that plugins gave it, a signature
// for instance. Nothing else of it is theirs to change.
func (o *Outbound) shown(ctx context.Context, env *mail.Envelope, c mail.Content) mail.Content {
	if o.o.Chain == nil || !o.o.Chain.Has(hook.OnPreSendTransEmail) {
		return c
	}
	t := &hook.Transaction{Envelope: *env, Relaying: true, Results: hook.NewResults(), Content: c, Size: c.Size()}
	t.Recipients, t.Notes = slices.Clone(env.Recipients), mail.Notes{}
	if err := readHeader(t); err != nil {
		o.o.Log.Error("DSN goes out without what plugins add to it", zap.String("uuid", string(env.ID)), zap.Error(err))
		return c
	}
	o.o.Chain.Run(ctx, hook.OnPreSendTransEmail, &hook.Event{Point: hook.OnPreSendTransEmail, Tx: t.View()})
	return t.Final()
}

// tell puts a DSN about what became of recipients in the queue. The caller
// enqueues it.
func (a *attempt) tell(ctx context.Context, recipients []int, action string) (mail.Pending, error) {
	return a.o.put(ctx, a.describe(recipients, action))
}

// describe makes a report about what became of recipients.
func (a *attempt) describe(recipients []int, action string) dsn.Report {
	r := a.o.newReport(&a.env, a.content)
	for _, i := range recipients {
		a.turnTo(i)
		r.Recipients = append(r.Recipients, dsn.Recipient{
			Recipient: a.env.Recipients[i], Action: action, Reply: a.res.Replies[i], RemoteMTA: a.remote(),
			Expired: action == dsn.Failed && a.res.Replies[i].Temporary(), LastAttempt: r.Date,
		})
		if action == dsn.Delayed && a.policy.MaxLifetime > 0 {
			r.Recipients[len(r.Recipients)-1].RetryUntil = a.env.Received.Add(a.policy.MaxLifetime)
		}
	}
	return r
}

// remote is who decided in this attempt: what listens on a socket of this host
// goes by our name. "" is nobody.
func (a *attempt) remote() string {
	switch {
	case strings.HasPrefix(a.res.Host, "/"):
		return a.o.o.Me
	case a.res.IP == "":
		return ""
	}
	return a.res.Host
}

// maxReturned is how much of a message a DSN of success returns at most, in bytes.
const maxReturned = 64 << 10

// returnable is the content for DSNs of success: what they return is read now, if any
// may be due, as the message may be gone when they are made.
func (a *attempt) returnable(recipients []int) mail.Content {
	wanted := func(i int) bool {
		return dsn.Wanted(a.env.Recipients[i], dsn.Relayed) || dsn.Wanted(a.env.Recipients[i], dsn.Delivered)
	}
	if a.env.From.IsNull() || !slices.ContainsFunc(recipients, wanted) {
		return a.content
	}
	r, err := a.content.Open()
	if err != nil {
		return a.content // the DSN will fail, and say so
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxReturned))
	if err != nil {
		return a.content
	}
	return mail.Memory{b}
}

// confirm tells the sender of success where NOTIFY=SUCCESS asks for it and the
// next hop, which has no DSN, will not (RFC 3461 section 5.2.2). What an LMTP
// server takes is delivered.
func (a *attempt) confirm(ctx context.Context, recipients []int) {
	if a.res.DSN || a.env.From.IsNull() {
		return
	}
	action := dsn.Relayed
	if a.res.Mode == mail.LMTP {
		action = dsn.Delivered
	}
	var told []int
	for _, i := range recipients {
		if dsn.Wanted(a.env.Recipients[i], action) {
			told = append(told, i)
		}
	}
	if len(told) == 0 {
		return
	}
	p, err := a.tell(ctx, told, action)
	if err != nil {
		a.log("DSN of success cannot be queued", zap.Error(err))
		return
	}
	a.o.Enqueue(p)
}
