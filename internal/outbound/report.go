package outbound

import (
	"go.uber.org/zap"

	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
)

// Report queues a DSN about recipients that failed without ever being in the
// queue, and sees to its delivery. env and c are the message. nil means that
// the DSN is durable, or that nobody is to be told; an error is temporary.
func (o *Outbound) Report(env *mail.Envelope, c mail.Content, failed []hook.RecipientResult) error {
	r := o.newReport(env, c)
	for _, f := range failed {
		if dsn.Wanted(f.Recipient, dsn.Failed) {
			r.Recipients = append(r.Recipients, dsn.Recipient{
				Recipient: f.Recipient, Action: dsn.Failed, Reply: f.Reply,
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
	p, err := o.put(r)
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
	}
}

// put composes a DSN and puts it in the queue. The caller enqueues it.
func (o *Outbound) put(r dsn.Report) (mail.Pending, error) {
	env, content, err := dsn.Compose(r, o.o.Templates)
	if err == nil {
		err = o.o.Queue.Put(env, content)
	}
	if err != nil {
		o.counts.dsnFailed.Add(1)
		return mail.Pending{}, err
	}
	o.counts.dsn.Add(1)
	o.o.Mail.DSN(string(env.ID), string(r.Original.ID), r.Original.From.String())
	return mail.NewPending(env, content.Size()), nil
}

// tell puts a DSN about what became of recipients in the queue. The caller
// enqueues it.
func (a *attempt) tell(recipients []int, action string) (mail.Pending, error) {
	r := a.o.newReport(&a.env, a.content)
	remote := a.res.Host
	if a.res.IP == "" { // a socket, or nowhere at all
		remote = ""
	}
	for _, i := range recipients {
		r.Recipients = append(r.Recipients, dsn.Recipient{
			Recipient: a.env.Recipients[i], Action: action, Reply: a.res.Replies[i], RemoteMTA: remote,
			Expired: action == dsn.Failed && a.res.Replies[i].Temporary(), LastAttempt: r.Date,
		})
		if action == dsn.Delayed && a.policy.MaxLifetime > 0 {
			r.Recipients[len(r.Recipients)-1].RetryUntil = a.env.Received.Add(a.policy.MaxLifetime)
		}
	}
	return a.o.put(r)
}

// confirm tells the sender of success where NOTIFY=SUCCESS asks for it and the
// next hop, which has no DSN, will not (RFC 3461 section 5.2.2). What an LMTP
// server takes is delivered.
func (a *attempt) confirm(recipients []int) {
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
	p, err := a.tell(told, action)
	if err != nil {
		a.log("DSN of success cannot be queued", zap.Error(err))
		return
	}
	a.o.Enqueue(p)
}
