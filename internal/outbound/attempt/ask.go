package attempt

import (
	"context"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/nexthop"
	"tarishi/internal/reply"
	"tarishi/internal/route"
)

// askHooks runs the hooks send_email and get_mx. They may give next hops, or the
// reply for all recipients, or have postponed the delivery.
//
// A DENYSOFT of send_email is a plugin that failed: the message is deferred,
// not sent past it. DELAY does not count as a failure, and ends with the
// lifetime.
func (a *Attempt) askHooks(ctx context.Context) (hops []mail.NextHop, refusal *reply.Reply, postponed bool) {
	if !a.hasHook(hook.OnSendEmail) && !a.hasHook(hook.OnGetMX) {
		return nil, nil, false
	}

	// A plugin may postpone the message as often as it likes, until its lifetime is over.
	v := a.runHook(ctx, hook.OnSendEmail, hook.Event{}, a.account.Open())
	switch v.Code {
	case hook.Delay:
		r := reply.Newf(451, "4.3.0", "Delayed by plugin %s", v.Plugin)
		if a.policy.Backoff.Expired(a.env.Received, a.now()) {
			return nil, r, false
		}
		next := a.policy.Backoff.Until(a.env.Received, a.now(), max(v.Delay, time.Second))
		a.putOff(a.account.Open(), a.replyToAll(r), a.unit.Attempts(), next)
		return nil, nil, true
	case hook.DenySoft, hook.DenySoftDisconnect:
		return nil, v.ReplyOr(reply.New(451, "4.3.0", "Delivery is refused by a plugin for now")), false
	}

	// Only now: a plugin that postpones the message should not look for a way.
	domain := a.unit.Domain()
	v = a.runHook(ctx, hook.OnGetMX, hook.Event{Host: domain}, a.account.Open())
	switch v.Code {
	case hook.OK:
		hops, err := v.MX, route.CheckHops(v.MX)
		if len(v.MX) == 0 && v.Text != "" {
			hops, err = route.ParseHops(v.Text)
		}
		if err != nil {
			a.logError("get_mx gave no next hop", zap.String("plugin", v.Plugin), zap.String("domain", domain), zap.Error(err))
			return nil, reply.Newf(451, "4.3.5", "No MX for %s", domain).Because(err), false
		}
		return nexthop.InOrder(hops, a.unit.ID(), a.m.o.Log), nil, false
	case hook.Deny, hook.DenyDisconnect:
		return nil, v.ReplyOr(reply.Newf(550, "5.1.2", "No MX for %s", domain)), false
	case hook.DenySoft, hook.DenySoftDisconnect:
		return nil, v.ReplyOr(reply.Newf(451, "4.1.2", "Temporary MX lookup error for %s", domain)), false
	}
	return nil, nil, false
}
