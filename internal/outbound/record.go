package outbound

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/maillog"
	"tarishi/internal/reply"
)

// record does with each recipient what its reply asks for.
func (a *attempt) record(ctx context.Context) {
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
	a.deliver(ctx, delivered)
	if a.abandoned.Load() { // another process will find out what becomes of the others
		return
	}
	a.keep(more, rest{attempts: a.unit.Attempts(), next: a.now()})
	wait, ok := a.policy.wait(a.unit.ID(), a.unit.Domain(), a.unit.Attempts()+1)
	if !ok && a.yielded { // that is not the destination's fault: only the lifetime ends it
		a.free, ok = true, true
		if wait, _ = a.policy.wait(a.unit.ID(), a.unit.Domain(), a.unit.Attempts()); wait == 0 {
			wait = localWait
		}
	}
	if !ok || a.policy.backoff.Expired(a.env.Received, a.now()) {
		failed, deferred = append(failed, deferred...), nil // with their replies of class 4
	}
	a.fail(ctx, failed)
	a.deferAll(ctx, deferred, wait)
}

// deliver is for recipients whose message the next hop took.
func (a *attempt) deliver(ctx context.Context, recipients []int) {
	if len(recipients) == 0 {
		return
	}
	whole := a.content
	a.content = a.returnable(recipients)
	a.settle(recipients)
	for _, some := range a.byHost(recipients) {
		a.announce(ctx, some)
	}
	a.content = whole
}

// byHost puts recipients with replies of the same host together, in order of
// appearance.
func (a *attempt) byHost(recipients []int) [][]int {
	var all [][]int
	place := map[*delivery.Via]int{}
	for _, i := range recipients {
		via := a.res.From(i)
		at, ok := place[via]
		if !ok {
			at = len(all)
			place[via] = at
			all = append(all, nil)
		}
		all[at] = append(all[at], i)
	}
	return all
}

// turnTo makes a.res tell of the host that replied about a recipient.
func (a *attempt) turnTo(i int) {
	if via := a.res.From(i); via != nil {
		a.res.Via = *via
	}
}

// announce tells of recipients that one host took.
func (a *attempt) announce(ctx context.Context, recipients []int) {
	a.turnTo(recipients[0])
	line := a.line(a.made())
	for _, same := range groups(recipients, a.res.Replies) {
		a.o.o.Mail.Delivered(line, a.addresses(same), clip(a.res.Replies[same[0]].String()))
	}
	params := &hook.DeliveredParams{
		Host: a.res.Host, IP: a.res.IP, Response: a.res.Replies[recipients[0]].Text, Delay: line.Delay, Port: a.res.Port,
		Mode: line.Mode, Secured: a.res.TLS != "" && a.res.TLS != "none", Authenticated: a.res.Authenticated,
	}
	for _, i := range recipients {
		params.OKRecipients = append(params.OKRecipients, a.env.Recipients[i])
	}
	a.hook(ctx, hook.OnDelivered, hook.Event{Success: params}, recipients)
	a.confirm(ctx, recipients)
}

// deferAll is for recipients that are tried again after wait. Hook deferred may
// change the wait (DENYSOFT), or drop the recipients (what is neither that nor
// CONT), as Haraka documents.
func (a *attempt) deferAll(ctx context.Context, recipients []int, wait time.Duration) {
	if len(recipients) == 0 {
		return
	}
	v := a.hook(ctx, hook.OnDeferred, hook.Event{
		Text: a.reason(recipients[0]), Delay: wait, Failed: a.results(recipients),
	}, recipients)
	switch v.Code {
	case 0, hook.Cont, hook.Stop:
	case hook.DenySoft, hook.DenySoftDisconnect:
		if v.Delay > 0 {
			wait = max(v.Delay, time.Second)
		}
	default:
		a.give(recipients, fmt.Sprintf("dropped by plugin %s, hook deferred: %s", v.Plugin, v.Code))
		return
	}
	now := a.now()
	next := a.policy.backoff.Until(a.env.Received, now, wait)
	a.putOff(recipients, a.res.Replies, a.deferrals(), next)
	if w := a.policy.DelayWarning; w > 0 && !now.Before(a.env.Received.Add(w)) && !a.unit.Marked() {
		a.warn(ctx, recipients)
	}
}

// putOff records that recipients wait until next, as one delivery.
func (a *attempt) putOff(recipients []int, replies []*reply.Reply, attempts int, next time.Time) {
	for _, same := range groups(recipients, replies) {
		a.turnTo(same[0])
		line := a.line(attempts)
		index := a.indices(same)
		last := clip(replies[same[0]].Error())
		switch err := a.o.o.Queue.Defer(a.unit.ID(), index, attempts, next, last); {
		case unknown(err):
			a.vanished(same)
			continue
		case err != nil: // after a restart they would only be tried earlier
			a.log("deferral not recorded", zap.Ints("recipients", index), zap.Error(err))
		}
		a.o.o.Mail.Deferred(line, a.addresses(same), last, next)
	}
	a.keep(slices.DeleteFunc(slices.Clone(recipients), func(i int) bool { return a.accounted[i] }), rest{attempts: attempts, next: next})
}

// fail is for recipients that were refused for good, and for those deferred
// once too often, whose replies are of class 4. Hook bounce decides whether the
// sender is told.
func (a *attempt) fail(ctx context.Context, recipients []int) {
	if len(recipients) == 0 {
		return
	}
	v := a.bounce(ctx, recipients)
	var told []int
	for _, i := range recipients {
		if dsn.Wanted(a.env.Recipients[i], dsn.Failed) {
			told = append(told, i)
		}
	}
	switch {
	case v.Code != 0 && v.Code != hook.Cont && v.Code != hook.Stop:
		a.give(recipients, fmt.Sprintf("suppressed by plugin %s, hook bounce: %s", v.Plugin, v.Code))
	case a.env.From.IsNull():
		a.o.counts.double.Add(1)
		a.give(recipients, nullSender)
	case len(told) == 0:
		a.give(recipients, notWanted)
	case a.gather(told):
		a.logFailed(told)
		if rest := without(recipients, told); len(rest) > 0 {
			a.give(rest, notWanted)
		}
	default:
		p, err := a.tell(ctx, told, dsn.Failed)
		if err != nil {
			a.log("DSN cannot be queued, the failed recipients stay in the queue", zap.Error(err))
			a.putOff(recipients, a.res.Replies, a.unit.Attempts(), a.now().Add(localWait))
			return
		}
		defer a.o.Enqueue(p)
		a.give(recipients, "")
	}
}

// bounce runs the hook of that name.
func (a *attempt) bounce(ctx context.Context, recipients []int) hook.Verdict {
	e := hook.Event{Text: a.reason(recipients[0]), Failed: a.results(recipients)}
	for _, r := range e.Failed {
		if r.Reply.Permanent() {
			e.Bounced = append(e.Bounced, r)
		} else {
			e.Deferred = append(e.Deferred, r)
		}
	}
	return a.hook(ctx, hook.OnBounce, e, recipients)
}

// give gives recipients up: whoever is to be told has been. reason is why there
// is no DSN, if there is none.
func (a *attempt) give(recipients []int, reason string) {
	a.settle(recipients)
	a.logFailed(recipients)
	if reason != "" {
		a.o.o.Mail.NoDSN(string(a.env.ID), reason)
	}
}

func (a *attempt) logFailed(recipients []int) {
	for _, same := range groups(recipients, a.res.Replies) {
		a.turnTo(same[0])
		a.o.o.Mail.Failed(a.line(a.made()), a.addresses(same), clip(a.reason(same[0])))
	}
}

// without returns all but some.
func without(all, some []int) []int {
	return slices.DeleteFunc(slices.Clone(all), func(i int) bool { return slices.Contains(some, i) })
}

// reason says in one line why a recipient was not served.
func (a *attempt) reason(i int) string {
	r := a.res.Replies[i]
	if r.Permanent() || a.unit.Expired() {
		return r.Error()
	}
	if _, ok := a.policy.backoff.Interval(a.unit.Attempts() + 1); !ok && !a.free {
		return fmt.Sprintf("Too many failures (%s)", r.Error())
	}
	if a.policy.backoff.Expired(a.env.Received, a.now()) {
		return fmt.Sprintf("Not delivered within %s (%s)", a.policy.backoff.MaxLifetime, r.Error())
	}
	return r.Error()
}

func (a *attempt) results(recipients []int) []hook.RecipientResult {
	all := make([]hook.RecipientResult, len(recipients))
	for n, i := range recipients {
		a.turnTo(i)
		all[n] = hook.RecipientResult{Recipient: a.env.Recipients[i], Reply: a.res.Replies[i], Host: a.remote()}
	}
	return all
}

// made counts the attempts with this one, unless the delivery was given up
// without.
func (a *attempt) made() int {
	if a.unit.Expired() {
		return a.unit.Attempts()
	}
	return a.unit.Attempts() + 1
}

// line is what the mail log tells of this attempt.
func (a *attempt) line(attempts int) maillog.Delivery {
	return a.res.Line(&a.env, a.unit.Domain(), a.now().Sub(a.env.Received), attempts)
}

func (a *attempt) addresses(recipients []int) []string {
	all := make([]string, len(recipients))
	for n, i := range recipients {
		all[n] = a.env.Recipients[i].Address.String()
	}
	return all
}

// groups puts recipients with the same reply together, in order of appearance.
func groups(recipients []int, replies []*reply.Reply) [][]int {
	var all [][]int
	place := map[string]int{}
	at := 0
	for n, i := range recipients {
		if n == 0 || replies[i] != replies[recipients[n-1]] { // most share one
			key, ok := replies[i].String(), false
			if at, ok = place[key]; !ok {
				at = len(all)
				place[key] = at
				all = append(all, nil)
			}
		}
		all[at] = append(all[at], i)
	}
	return all
}

// maxReason is how much of a server's words is kept.
const maxReason = 1000

// clip makes a peer's words fit for a record: valid UTF-8 on one line, without
// control characters, of bounded length.
func clip(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason] + "…"
	}
	s = strings.ToValidUTF8(s, "?")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || 0x80 <= r && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
