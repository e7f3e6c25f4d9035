package outbound

import (
	"context"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/destination"
	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/outbound/account"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/outbound/report"
	"tarishi/internal/store"
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

	// Recipients are in the report only if their NOTIFY asks for it.
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

	// The caller's context may end with its session; the report must not.
	p, err := reporter.Put(context.Background(), r)
	if err != nil {
		return err
	}
	o.Enqueue(p)
	return nil
}

// reporting is an Outbound as its Notifier sees it.
type reporting Outbound

func (r *reporting) Enqueue(p mail.Pending) { (*Outbound)(r).Enqueue(p) }
func (r *reporting) Signal()                { (*Outbound)(r).signal() }

func (r *reporting) Reports() (rate destination.Rate, wait time.Duration) {
	now := r.generation.Now()
	return now.DSNRate, now.DSNWait
}

func (r *reporting) Reporter() (reporter *report.Reporter, release func()) {
	now := r.generation.Take()
	return now.Value.reporter, now.Release
}

func (r *reporting) Reschedule(p mail.Pending) {
	o := (*Outbound)(r)
	o.mu.Lock()
	o.scheduleMessage(p)
	o.mu.Unlock()
	o.signal()
}

func (r *reporting) Settle(id mail.ID, recipients []int) {
	o := (*Outbound)(r)
	err := o.o.Queue.Settle(id, recipients)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil || store.IsUnknown(err) {
		o.held.Unmark(id, recipients)
		return
	}
	o.o.Log.Error("recipients are done with, but the queue cannot record it", zap.String("uuid", string(id)), zap.Ints("recipients", recipients), zap.Error(err))
	o.noteUnrecorded(account.Unrecorded{ID: id, Recipients: recipients, Next: o.o.Now().Add(attempt.LocalWait)})
}
