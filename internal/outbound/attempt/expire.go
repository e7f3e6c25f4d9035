package attempt

import (
	"context"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/outbound/account"
	"tarishi/internal/outbound/policy"
	"tarishi/internal/reply"
)

// expire gives up what could not be attempted until its lifetime was over.
func (a *Attempt) expire(ctx context.Context) {
	if !a.loadMessage() {
		return
	}

	// The sections for its mail exchangers were not known when its time was set.
	if a.livesLonger(ctx) {
		a.account.Keep(a.account.Open(), account.Rest{Attempts: a.unit.Attempts(), Next: a.now().Add(LocalWait)})
		return
	}
	if ctx.Err() != nil { // then its mail exchangers may not be known
		return
	}

	// RFC 3463: delivery time expired.
	a.res.Replies = a.replyToAll(a.unattempted("4.4.7"))
	a.failRecipients(ctx, a.account.Open())
}

// livesLonger reports whether the domain's mail exchangers have a section with a longer
// lifetime.
func (a *Attempt) livesLonger(ctx context.Context) bool {
	return a.policy.Backoff.Expired(a.env.Received, a.now()) && !a.policyByMX(ctx).Backoff.Expired(a.env.Received, a.now())
}

// policyByMX is the policy by the sections for mail exchangers too, which are not
// known before the first attempt of this process.
func (a *Attempt) policyByMX(ctx context.Context) *policy.Policy {
	if !a.m.o.Config.HasMX() {
		return a.policy
	}
	plan, refusal := a.m.o.Delivery.Plan(ctx, delivery.Job{Envelope: &a.env, Domain: a.unit.Domain()})
	if refusal != nil {
		return a.policy
	}
	return a.m.o.Policies.For(a.unit.Domain(), plan.Hosts())
}

// unattempted is the reply about what its destination could not be tried with.
func (a *Attempt) unattempted(status string) *reply.Reply {
	last := a.m.o.Board.LastError(a.unit)
	text := "Not delivered yet"
	if a.unit.Expired() {
		text = "Not delivered in time"
	}
	if last != "" {
		text += ": " + last
	}
	return reply.New(451, status, text)
}

// warnLate warns of what waits for its destination.
func (a *Attempt) warnLate(ctx context.Context) {
	if a.loadMessage() {
		switch after := a.policyByMX(ctx).DelayWarning; {
		case after <= 0:
			a.unit.Mark()
		case !a.now().Before(a.env.Received.Add(after)):
			a.res.Replies = a.replyToAll(a.unattempted("4.4.1"))
			a.warnSender(ctx, a.account.Open())
		}
	}

	// Without a mark it would come at once, again and again.
	next := a.unit.Next()
	if !a.unit.Marked() {
		next = a.now().Add(LocalWait)
	}
	a.account.Keep(a.account.Open(), account.Rest{Attempts: a.unit.Attempts(), Next: next})
}

// isSpared reports whether an imported message is to be deferred although its domain
// does not exist: once, since the site may have routed its mail with a plugin that
// is not here yet.
func (a *Attempt) isSpared(refusal *reply.Reply) bool {
	return !a.spared && refusal.Permanent() && (dns.IsNXDomain(refusal) || dns.IsNoData(refusal)) && a.queued.Get(mail.ImportedNotes) != nil
}

// deferImported defers what spare spares, for long enough to see to the route. It
// may be one deferral more than there are waits for.
func (a *Attempt) deferImported(ctx context.Context, refusal *reply.Reply) {
	r := *refusal
	r.Code, r.Enhanced = 451, reply.Enhanced{4, 1, 2}
	a.spared, a.res.Replies = true, a.replyToAll(&r)
	wait, _ := a.policy.Wait(a.unit.ID(), a.unit.Domain(), a.unit.Attempts()+1)
	a.m.o.Log.Warn("imported message goes to a domain that does not exist, it fails at the next attempt: is a route of get_mx missing?",
		zap.String("uuid", string(a.unit.ID())), zap.String("domain", a.unit.Domain()))
	a.deferAll(ctx, a.account.Open(), max(wait, importedWait))
}
