package attempt

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/hook"
	"tarishi/internal/outbound/account"
	"tarishi/internal/reply"
	"tarishi/internal/store"
)

// record does with each recipient what its reply asks for.
func (a *Attempt) record(ctx context.Context) {
	var delivered, deferred, failed, more []int
	// Surplus recipients go again at once, as long as each time fewer are left.
	others := slices.ContainsFunc(a.res.Replies, func(r *reply.Reply) bool { return !r.Surplus() })
	fewer := slices.ContainsFunc(a.res.Replies, func(r *reply.Reply) bool { return r.Positive() || r.Permanent() && !r.Surplus() })
	for i, r := range a.res.Replies {
		switch {
		case r.Positive():
			delivered = append(delivered, i)
		case fewer && r.Surplus():
			more = append(more, i)
		case r.Permanent() && !(others && r.Surplus()):
			failed = append(failed, i)
		default:
			deferred = append(deferred, i)
		}
	}

	// Delivered ones first: a crash from here on sends them again otherwise.
	a.deliver(ctx, delivered)
	if a.abandoned.Load() { // another process will find out what becomes of the others
		return
	}
	a.account.Keep(more, account.Rest{Attempts: a.unit.Attempts(), Next: a.now()})

	// Deferrals are counted, and the last one is a failure.
	wait, ok := a.policy.Wait(a.unit.ID(), a.unit.Domain(), a.unit.Attempts()+1)
	if !ok && a.yielded { // that is not the destination's fault: only the lifetime ends it
		a.free, ok = true, true
		if wait, _ = a.policy.Wait(a.unit.ID(), a.unit.Domain(), a.unit.Attempts()); wait == 0 {
			wait = LocalWait
		}
	}
	if !ok || a.policy.Backoff.Expired(a.env.Received, a.now()) {
		failed, deferred = append(failed, deferred...), nil // with their replies of class 4
	}
	a.failRecipients(ctx, failed)
	a.deferAll(ctx, deferred, wait)
}

// deliver is for recipients that the next hop took the message for.
func (a *Attempt) deliver(ctx context.Context, recipients []int) {
	if len(recipients) == 0 {
		return
	}
	whole := a.content
	a.content = a.returnable(recipients)
	a.settle(recipients)
	for _, some := range a.res.GroupByHost(recipients) {
		a.announce(ctx, some)
	}
	a.content = whole
}

// announce logs recipients that one host took, and runs the hook.
func (a *Attempt) announce(ctx context.Context, recipients []int) {
	a.res.TurnTo(recipients[0])
	line := a.logLine(a.attemptsMade())
	for _, same := range delivery.GroupByReply(recipients, a.res.Replies) {
		a.m.o.Mail.Delivered(line, a.addresses(same), reply.Clip(a.res.Replies[same[0]].String()))
	}

	// Settled before it is announced: a plugin that hangs must not make a duplicate.
	if a.hasHook(hook.OnDelivered) {
		a.runHook(ctx, hook.OnDelivered, hook.Event{Success: a.success(recipients, line.Delay)}, recipients)
	}
	a.confirm(ctx, recipients)
}

// success has the parameters of hook delivered.
func (a *Attempt) success(recipients []int, delay time.Duration) *hook.DeliveredParams {
	params := &hook.DeliveredParams{
		Host: a.res.Host, IP: a.res.IP, Response: a.res.Replies[recipients[0]].Text, Delay: delay, Port: a.res.Port,
		Mode: a.res.Mode.String(), Secured: a.res.TLS != "" && a.res.TLS != "none", Authenticated: a.res.Authenticated,
	}
	for _, i := range recipients {
		params.OKRecipients = append(params.OKRecipients, a.env.Recipients[i])
	}
	return params
}

// deferAll is for recipients that are tried again after wait. Hook deferred may
// change the wait (DENYSOFT), or drop the recipients (any other verdict but
// CONT), as Haraka documents.
func (a *Attempt) deferAll(ctx context.Context, recipients []int, wait time.Duration) {
	if len(recipients) == 0 {
		return
	}
	v := a.runHook(ctx, hook.OnDeferred, hook.Event{
		Text: a.reason(recipients[0]), Delay: wait, Failed: a.results(recipients),
	}, recipients)

	// As Haraka has it, only DENYSOFT changes the wait; what else a plugin decides ends it.
	switch v.Code {
	case 0, hook.Cont, hook.Stop:
	case hook.DenySoft, hook.DenySoftDisconnect:
		if v.Delay > 0 {
			wait = max(v.Delay, time.Second)
		}
	default:
		a.giveUpRecipients(recipients, fmt.Sprintf("dropped by plugin %s, hook deferred: %s", v.Plugin, v.Code))
		return
	}

	// The last attempt is made when the lifetime ends, not a moment later.
	now := a.now()
	next := a.policy.Backoff.Until(a.env.Received, now, wait)
	a.putOff(recipients, a.res.Replies, a.deferrals(), next)
	if w := a.policy.DelayWarning; w > 0 && !now.Before(a.env.Received.Add(w)) && !a.unit.Marked() {
		a.warnSender(ctx, recipients)
	}
}

// putOff records that recipients wait until next, as one delivery.
func (a *Attempt) putOff(recipients []int, replies []*reply.Reply, attempts int, next time.Time) {
	for _, same := range delivery.GroupByReply(recipients, replies) {
		a.res.TurnTo(same[0])
		line := a.logLine(attempts)
		index := a.account.Indices(same)
		last := reply.Clip(replies[same[0]].Error())
		switch err := a.m.o.Queue.Defer(a.unit.ID(), index, attempts, next, last); {
		case store.IsUnknown(err):
			a.vanished(same)
			continue
		case err != nil: // after a restart they would only be tried earlier
			a.logError("deferral not recorded", zap.Ints("recipients", index), zap.Error(err))
		}
		a.m.o.Mail.Deferred(line, a.addresses(same), last, next)
	}

	// Some may have left the queue meanwhile.
	a.account.Keep(slices.DeleteFunc(slices.Clone(recipients), func(i int) bool { return !a.account.IsOpen(i) }), account.Rest{Attempts: attempts, Next: next})
}

// replyToAll is r for every recipient.
func (a *Attempt) replyToAll(r *reply.Reply) []*reply.Reply {
	return slices.Repeat([]*reply.Reply{r}, len(a.account.Index))
}

// settle records in the queue that recipients are done with. Where that is not
// possible now it is all that remains to be done for them.
func (a *Attempt) settle(recipients []int) {
	index := a.account.Close(recipients)
	if err := a.m.o.Queue.Settle(a.unit.ID(), index); err != nil && !store.IsUnknown(err) {
		a.logError("recipients are done with, but the queue cannot record it", zap.Ints("recipients", index), zap.Error(err))
		a.account.Unrecorded = append(a.account.Unrecorded, account.Unrecorded{ID: a.unit.ID(), Domain: a.unit.Domain(), Recipients: index, Next: a.now().Add(LocalWait)})
	}
}

// vanished is for recipients of a message that somebody took out of the queue.
func (a *Attempt) vanished(recipients []int) {
	a.account.Close(recipients)
	a.m.o.Log.Warn("message is not in the queue any more", zap.String("uuid", string(a.unit.ID())))
}
