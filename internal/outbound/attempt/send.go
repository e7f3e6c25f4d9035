package attempt

import (
	"context"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/mail"
	"tarishi/internal/nexthop"
	"tarishi/internal/reply"
	"tarishi/internal/schedule"
)

// send finds the way to the destination and makes the attempt. It returns the
// reply for all recipients if there is no way.
func (a *Attempt) send(ctx context.Context) *reply.Reply {
	o, domain := &a.m.o, a.unit.Domain()
	job := delivery.Job{Envelope: &a.env, Content: a.content, Domain: domain, Hops: a.hops, Trying: a.trying}
	if len(job.Hops) == 0 {
		job.Hops = a.policy.Hosts
	}

	// The sections for mail exchangers count only where no hook names the hops.
	plan, refusal := o.Delivery.Plan(ctx, job)
	if refusal == nil && len(job.Hops) == 0 {
		if a.policy = o.Policies.For(domain, plan.Hosts()); len(a.policy.Hosts) > 0 {
			job.Hops = a.policy.Hosts
			plan, refusal = o.Delivery.Plan(ctx, job)
		}
	}
	if ctx.Err() != nil {
		a.res.Interrupted = true
		return nil
	}

	// A place is too precious to wait for a web server.
	if plan != nil && plan.Pending() {
		a.postpone(plan)
		return nil
	}
	if !a.locate(plan) {
		return nil
	}

	// A domain without a way says nothing about the site, but the error explains the wait.
	if refusal != nil {
		if refusal.Temporary() {
			a.report(schedule.Outcome{Err: reply.Clip(refusal.String())})
		}
		return refusal
	}

	// From here on the attempt counts: how it is sent, and from where.
	source := a.policy.ChooseSource(&a.env, o.Random())
	job.Settings = a.policy.Settings(source)
	if a.force.Load() {
		job.Settings.TLS = max(job.Settings.TLS, mail.TLSEncrypt)
		job.Hops = slices.Clone(job.Hops)
		for i := range job.Hops {
			if h := &job.Hops[i]; h.TLS != mail.TLSDefault {
				h.TLS = max(h.TLS, mail.TLSEncrypt)
			}
		}
		if len(job.Hops) > 0 {
			plan, _ = o.Delivery.Plan(ctx, job) // hops only: it cannot fail
		}
	}
	a.res = o.Delivery.Attempt(ctx, job, plan)
	if other, ok := a.policy.OtherSource(source, o.Random()); ok && len(a.res.Tried) == 0 && !a.res.Interrupted {
		job.Settings = a.policy.Settings(other) // no host has an address of that family
		a.res = o.Delivery.Attempt(ctx, job, plan)
	}

	// What an interrupted attempt saw is no outcome of the destination.
	if a.res.Interrupted {
		return nil
	}
	out := schedule.Outcome{Reached: a.res.Reached, Throttled: a.res.Throttled, Local: a.res.Local}
	for _, r := range a.res.Replies {
		if !r.Positive() {
			out.Err = reply.Clip(r.String())
		}
	}
	a.report(out)
	return nil
}

// trying notes which host is tried next.
func (a *Attempt) trying(host string) { a.host.Store(&host) }

// locate tells the schedule which domains this one shares its next hops with;
// plan is nil when there are none. It returns false when these have no place for
// the delivery now, which is in the schedule again.
func (a *Attempt) locate(plan *nexthop.Plan) bool {
	o, domain := &a.m.o, a.unit.Domain()
	site, route, limits := "", "", a.policy.Limits
	switch {
	case plan == nil || o.Config.Apart(domain):
	case len(a.hops) > 0: // another message for the domain may go elsewhere
		site, limits = plan.Site(), a.policy.LimitsAt(a.hops[0])
		route = site
	case a.policy.MX != "" && len(a.policy.Hosts) == 0:
		site = "[" + a.policy.MX + "]" // one for all that the section is for
	case plan.Site() != domain:
		site = plan.Site()
	}
	if a.m.o.Board.Locate(a, route, site, limits) {
		return true
	}
	a.moved = true
	return false
}

// report tells the schedule how the destination fared. That a site is suspended, or
// not any more, is logged; a probe that fails is not.
func (a *Attempt) report(out schedule.Outcome) {
	site, change, until := a.m.o.Board.Report(a.unit, out)
	switch change {
	case schedule.Suspended:
		a.m.o.Log.Warn("destination suspended", zap.String("site", site), zap.String("domain", a.unit.Domain()), zap.Time("probe", until.UTC()), zap.String("error", out.Err))
	case schedule.Resumed:
		a.m.o.Log.Info("destination resumed", zap.String("site", site), zap.String("domain", a.unit.Domain()))
	}
}
