package attempt

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/outbound/report"
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

// returnable is the content for DSNs of success, if any may be due: the message may be gone
// when they are made.
func (a *Attempt) returnable(recipients []int) mail.Content {
	wanted := func(i int) bool {
		return dsn.Wanted(a.env.Recipients[i], dsn.Relayed) || dsn.Wanted(a.env.Recipients[i], dsn.Delivered)
	}
	if a.env.From.IsNull() || !slices.ContainsFunc(recipients, wanted) {
		return a.content
	}
	return report.Beginning(a.content)
}

// confirm tells the sender of success where NOTIFY=SUCCESS asks for it and the
// next hop, which has no DSN, will not (RFC 3461 section 5.2.2). What an LMTP
// server takes is delivered.
func (a *Attempt) confirm(ctx context.Context, recipients []int) {
	if a.res.DSN || a.env.From.IsNull() {
		return
	}

	// What an SMTP server takes may go further, and it is the last that knows of DSN (relayed).
	action := dsn.Relayed
	if a.res.Mode == mail.LMTP {
		action = dsn.Delivered
	}

	// NOTIFY is each recipient's own.
	var told []int
	for _, i := range recipients {
		if dsn.Wanted(a.env.Recipients[i], action) {
			told = append(told, i)
		}
	}
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

// reason says in one line why a recipient was not served.
func (a *Attempt) reason(i int) string {
	r := a.res.Replies[i]
	if r.Permanent() || a.unit.Expired() {
		return r.Error()
	}

	// The last reply alone would not explain why the message came back.
	if _, ok := a.policy.Backoff.Interval(a.unit.Attempts() + 1); !ok && !a.free {
		return fmt.Sprintf("Too many failures (%s)", r.Error())
	}
	if a.policy.Backoff.Expired(a.env.Received, a.now()) {
		return fmt.Sprintf("Not delivered within %s (%s)", a.policy.Backoff.MaxLifetime, r.Error())
	}
	return r.Error()
}

func (a *Attempt) results(recipients []int) []hook.RecipientResult {
	all := make([]hook.RecipientResult, len(recipients))
	for n, i := range recipients {
		a.res.TurnTo(i)
		all[n] = hook.RecipientResult{Recipient: a.env.Recipients[i], Reply: a.res.Replies[i], Host: a.remote()}
	}
	return all
}

// attemptsMade counts the attempts with this one, unless the delivery was given up
// without.
func (a *Attempt) attemptsMade() int {
	if a.unit.Expired() {
		return a.unit.Attempts()
	}
	return a.unit.Attempts() + 1
}

// logLine has the fields of this attempt in the mail log.
func (a *Attempt) logLine(attempts int) maillog.Delivery {
	return a.res.Line(&a.env, a.unit.Domain(), a.now().Sub(a.env.Received), attempts)
}

func (a *Attempt) addresses(recipients []int) []string {
	all := make([]string, len(recipients))
	for n, i := range recipients {
		all[n] = a.env.Recipients[i].Address.String()
	}
	return all
}
