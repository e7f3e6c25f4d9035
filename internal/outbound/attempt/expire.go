package attempt

import (
	"context"

	"tarishi/internal/delivery"
	"tarishi/internal/outbound/policy"
	"tarishi/internal/reply"
)

// expire gives up what could not be attempted until its lifetime was over.
func (a *Attempt) expire(ctx context.Context) {
	if !a.loadMessage() {
		return
	}
	if a.livesLonger(ctx) {
		a.keepScheduled(a.unaccounted(), Rest{Attempts: a.unit.Attempts(), Next: a.now().Add(LocalWait)})
		return
	}
	if ctx.Err() != nil { // then its mail exchangers may not be known
		return
	}
	a.res.Replies = a.replyToAll(a.unattempted("4.4.7"))
	a.failRecipients(ctx, a.unaccounted())
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
			a.warnSender(ctx, a.unaccounted())
		}
	}
	next := a.unit.Next()
	if !a.unit.Marked() {
		next = a.now().Add(LocalWait)
	}
	a.keepScheduled(a.unaccounted(), Rest{Attempts: a.unit.Attempts(), Next: next})
}
