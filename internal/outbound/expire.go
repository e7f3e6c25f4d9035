package outbound

import (
	"context"

	"tarishi/internal/delivery"
	"tarishi/internal/outbound/policy"
	"tarishi/internal/reply"
)

// expire gives up what could not be attempted until its lifetime was over.
func (a *attempt) expire(ctx context.Context) {
	if !a.load() {
		return
	}
	if a.lives(ctx) {
		a.keep(a.open(), rest{attempts: a.unit.Attempts(), next: a.now().Add(localWait)})
		return
	}
	if ctx.Err() != nil { // then its mail exchangers may not be known
		return
	}
	a.res.Replies = a.all(a.unattempted("4.4.7"))
	a.fail(ctx, a.open())
}

// lives reports whether the domain's mail exchangers have a section with a longer
// lifetime.
func (a *attempt) lives(ctx context.Context) bool {
	return a.policy.Backoff.Expired(a.env.Received, a.now()) && !a.policyByMX(ctx).Backoff.Expired(a.env.Received, a.now())
}

// policyByMX is the policy by the sections for mail exchangers too, which are not
// known before the first attempt of this process.
func (a *attempt) policyByMX(ctx context.Context) *policy.Policy {
	if !a.o.o.Config.HasMX() {
		return a.policy
	}
	plan, refusal := a.o.delivery.Plan(ctx, delivery.Job{Envelope: &a.env, Domain: a.unit.Domain()})
	if refusal != nil {
		return a.policy
	}
	return a.o.policies.For(a.unit.Domain(), plan.Hosts())
}

// unattempted is the reply about what its destination could not be tried with.
func (a *attempt) unattempted(status string) *reply.Reply {
	a.o.mu.Lock()
	last := a.o.schedule.LastError(a.unit)
	a.o.mu.Unlock()
	text := "Not delivered yet"
	if a.unit.Expired() {
		text = "Not delivered in time"
	}
	if last != "" {
		text += ": " + last
	}
	return reply.New(451, status, text)
}

// late warns of what waits for its destination.
func (a *attempt) late(ctx context.Context) {
	if a.load() {
		switch after := a.policyByMX(ctx).DelayWarning; {
		case after <= 0:
			a.unit.Mark()
		case !a.now().Before(a.env.Received.Add(after)):
			a.res.Replies = a.all(a.unattempted("4.4.1"))
			a.warn(ctx, a.open())
		}
	}
	next := a.unit.Next()
	if !a.unit.Marked() {
		next = a.now().Add(localWait)
	}
	a.keep(a.open(), rest{attempts: a.unit.Attempts(), next: next})
}
