package outbound

import (
	"context"

	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/outbound/report"
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
	now := o.generation.Take()
	defer now.Release()
	reporter := now.Value.reporter
	r := reporter.New(env, c)
	for _, x := range results {
		if dsn.Wanted(x.Recipient, action) {
			r.Recipients = append(r.Recipients, dsn.Recipient{
				Recipient: x.Recipient, Action: action, Reply: x.Reply, RemoteMTA: x.Host, LastAttempt: r.Date,
			})
		}
	}
	switch {
	case env.From.IsNull():
		o.o.Mail.NoDSN(string(env.ID), report.NullSender)
		return nil
	case len(r.Recipients) == 0:
		o.o.Mail.NoDSN(string(env.ID), report.NotWanted)
		return nil
	}
	p, err := reporter.Put(context.Background(), r)
	if err != nil {
		return err
	}
	o.Enqueue(p)
	return nil
}
