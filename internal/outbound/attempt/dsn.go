package attempt

import (
	"context"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/dsn"
	"tarishi/internal/mail"
)

// queueDSN puts a DSN about recipients in the queue. The caller
// enqueues it.
func (a *Attempt) queueDSN(ctx context.Context, recipients []int, action string) (mail.Pending, error) {
	return a.m.o.Reporter.Put(ctx, a.describe(recipients, action))
}

// describe makes a report about recipients.
func (a *Attempt) describe(recipients []int, action string) dsn.Report {
	r := a.m.o.Reporter.New(&a.env, a.content)
	for _, i := range recipients {
		a.res.TurnTo(i)
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

// remote names the host that decided in this attempt: a server behind a socket of this
// host goes by our name. "": none did.
func (a *Attempt) remote() string {
	switch {
	case strings.HasPrefix(a.res.Host, "/"):
		return a.m.o.Me
	case a.res.IP == "":
		return ""
	}
	return a.res.Host
}

// confirm tells the sender of success where NOTIFY=SUCCESS asks for it and the
// next hop, which has no DSN, will not (RFC 3461 section 5.2.2). What an LMTP
// server takes is delivered.
func (a *Attempt) confirm(ctx context.Context, recipients []int) {
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

	// NOTIFY=SUCCESS is rare.
	if len(told) == 0 {
		return
	}
	p, err := a.queueDSN(ctx, told, action)
	if err != nil {
		a.logError("DSN of success cannot be queued", zap.Error(err))
		return
	}
	a.m.o.Board.Enqueue(p)
}
