package attempt

import (
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/outbound/report"
	"tarishi/internal/reply"
)

// failRecipients is for recipients that were refused for good, and for those deferred
// once too often, with replies of class 4. Hook bounce decides whether the sender
// hears of it.
func (a *Attempt) failRecipients(ctx context.Context, recipients []int) {
	if len(recipients) == 0 {
		return
	}

	// The hook comes first: a plugin may handle the failure itself.
	v := a.bounce(ctx, recipients)
	var told []int
	for _, i := range recipients {
		if dsn.Wanted(a.env.Recipients[i], dsn.Failed) {
			told = append(told, i)
		}
	}

	// Each way out of here settles the recipients, or leaves them in the queue.
	switch {
	case v.Code != 0 && v.Code != hook.Cont && v.Code != hook.Stop:
		a.giveUpRecipients(recipients, fmt.Sprintf("suppressed by plugin %s, hook bounce: %s", v.Plugin, v.Code))
	case a.env.From.IsNull():
		a.m.o.Board.CountDouble()
		a.giveUpRecipients(recipients, report.NullSender)
	case len(told) == 0:
		a.giveUpRecipients(recipients, report.NotWanted)
	case a.gather(told):
		a.logFailed(told)
		if rest := without(recipients, told); len(rest) > 0 {
			a.giveUpRecipients(rest, report.NotWanted)
		}
	default:
		// The report is durable before the recipients are settled (I5).
		p, err := a.queueDSN(ctx, told, dsn.Failed)
		if err != nil {
			a.logError("DSN cannot be queued, the failed recipients stay in the queue", zap.Error(err))
			a.putOff(recipients, a.res.Replies, a.unit.Attempts(), a.now().Add(LocalWait))
			return
		}
		defer a.m.o.Board.Enqueue(p)
		a.giveUpRecipients(recipients, "")
	}
}

// bounce runs the hook of that name.
func (a *Attempt) bounce(ctx context.Context, recipients []int) hook.Verdict {
	e := hook.Event{Text: a.reason(recipients[0]), Failed: a.results(recipients)}
	for _, r := range e.Failed {
		if r.Reply.Permanent() {
			e.Bounced = append(e.Bounced, r)
		} else {
			e.Deferred = append(e.Deferred, r)
		}
	}
	return a.runHook(ctx, hook.OnBounce, e, recipients)
}

// giveUpRecipients gives recipients up after the sender was notified. reason is why there is no
// DSN, if there is none.
func (a *Attempt) giveUpRecipients(recipients []int, reason string) {
	a.settle(recipients)
	a.logFailed(recipients)
	if reason != "" {
		a.m.o.Mail.NoDSN(string(a.env.ID), reason)
	}
}

func (a *Attempt) logFailed(recipients []int) {
	for _, same := range delivery.GroupByReply(recipients, a.res.Replies) {
		a.res.TurnTo(same[0])
		a.m.o.Mail.Failed(a.logLine(a.attemptsMade()), a.addresses(same), reply.Clip(a.reason(same[0])))
	}
}

// without returns all but some.
func without(all, some []int) []int {
	return slices.DeleteFunc(slices.Clone(all), func(i int) bool { return slices.Contains(some, i) })
}
