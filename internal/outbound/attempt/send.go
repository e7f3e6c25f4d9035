package attempt

import (
	"context"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/mail"
	"tarishi/internal/nexthop"
	"tarishi/internal/outbound/policy"
	"tarishi/internal/reply"
	"tarishi/internal/schedule"
)

// send finds the way to the destination and makes the attempt. It returns the
// reply for all recipients if there is no way.
func (a *Attempt) send(ctx context.Context) *reply.Reply {
	job := delivery.Job{Envelope: &a.env, Content: a.content, Domain: a.unit.Domain(), Hops: a.hops, Trying: a.trying}
	if a.reversePath != nil {
		env := a.env
		env.From, job.Envelope = *a.reversePath, &env
	}
	plan, refusal := a.findWay(ctx, &job)
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

	// From here on the attempt counts: how it is sent, and from where. When no host has an
	// address of the source's family another source may do.
	o := &a.m.o
	source := a.policy.ChooseSource(&a.env, o.Random())
	job.Settings = a.policy.Settings(source)
	if a.force.Load() {
		plan = a.forceTLS(ctx, &job, plan)
	}
	a.res = o.Delivery.Attempt(ctx, job, plan)
	if other, ok := a.policy.OtherSource(source, o.Random()); ok && len(a.res.Tried) == 0 && !a.res.Interrupted {
		job.Settings = a.policy.Settings(other)
		a.res = o.Delivery.Attempt(ctx, job, plan)
	}
	a.reportOutcome()
	return nil
}

// findWay finds the next hops: those of get_mx, else of the domain's section, else of the
// DNS. There the sections for mail exchangers count too, and may name others.
func (a *Attempt) findWay(ctx context.Context, job *delivery.Job) (*nexthop.Plan, *reply.Reply) {
	o := &a.m.o

	// A hook knows more about one message than the configuration does.
	if len(job.Hops) == 0 {
		job.Hops = a.policy.Hosts
	}
	plan, refusal := o.Delivery.Plan(ctx, *job)
	if refusal == nil && len(job.Hops) == 0 {
		a.mx = plan.Hosts()
		if a.policy = o.Policies.For(job.Domain, a.mx); len(a.policy.Hosts) > 0 {
			job.Hops = a.policy.Hosts
			plan, refusal = o.Delivery.Plan(ctx, *job)
		}
	}
	return plan, refusal
}

// forceTLS has a job go nowhere without TLS, as a plugin asked, and returns its plan.
func (a *Attempt) forceTLS(ctx context.Context, job *delivery.Job, plan *nexthop.Plan) *nexthop.Plan {
	job.Settings.TLS = max(job.Settings.TLS, mail.TLSEncrypt)
	if len(job.Hops) == 0 {
		return plan
	}

	// The hops are the policy's, and other attempts have them too.
	job.Hops = slices.Clone(job.Hops)
	for i := range job.Hops {
		if h := &job.Hops[i]; h.TLS != mail.TLSDefault {
			h.TLS = max(h.TLS, mail.TLSEncrypt)
		}
	}
	plan, _ = a.m.o.Delivery.Plan(ctx, *job) // hops only: it cannot fail
	return plan
}

// reportOutcome reports what the attempt was for its destination. What an interrupted one
// saw is no outcome.
func (a *Attempt) reportOutcome() {
	if a.res.Interrupted {
		return
	}
	out := schedule.Outcome{Reached: a.res.Reached, Throttled: a.res.Throttled, Local: a.res.Local}
	for _, r := range a.res.Replies {
		if !r.Positive() {
			out.Err = reply.Clip(r.String())
		}
	}
	a.report(out)
}

// trying notes which host is tried next.
func (a *Attempt) trying(host string) { a.host.Store(&host) }

// Way says which site a delivery goes to, and by which route, see schedule.Reroute.
type Way struct {
	Route, Site string
	Limits      *schedule.Limits
}

// locate tells the schedule which domains this one shares its next hops with;
// plan is nil when there are none. It returns false when these have no place for
// the delivery now, which is in the schedule again.
func (a *Attempt) locate(plan *nexthop.Plan) bool {
	a.plan = plan
	if a.m.o.Board.Locate(a, a.WayBy(a.m.o.Policies)) {
		return true
	}
	a.moved = true
	return false
}

// WayBy is the way of an attempt that has a plan, as far as policies say: those of the
// attempt, or later ones, which are what the schedule goes by.
func (a *Attempt) WayBy(policies *policy.Table) Way {
	domain, p, plan := a.unit.Domain(), a.policy, a.plan
	if !a.GoesBy(policies) {
		p = policies.For(domain, a.mx)
	}

	// A domain with separate limits shares no site: others would have the same limits then.
	w := Way{Limits: p.Limits}
	switch {
	case plan == nil || policies.Apart(domain):
	case len(a.hops) > 0: // another message for the domain may go elsewhere
		w.Site, w.Limits = plan.Site(), p.LimitsAt(a.hops[0])
		w.Route = w.Site
	case p.MX != "" && len(p.Hosts) == 0:
		w.Site = "[" + p.MX + "]" // one for all that the section is for
	case plan.Site() != domain:
		w.Site = plan.Site()
	}
	return w
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
