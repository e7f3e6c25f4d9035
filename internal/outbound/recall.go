package outbound

import (
	"errors"
	"time"

	"tarishi/internal/nexthop"
	"tarishi/internal/reply"
	"tarishi/internal/schedule"
)

// The reasons for which the schedule has an attempt ended, see schedule.Recall.
var (
	errYield   = errors.New("made room for other mail")
	errOverdue = errors.New("took too long")
)

// policyWait is for how long a delivery waits for an MTA-STS policy at most: when
// it is still not fetched then, it is asked for again.
const policyWait = time.Minute

// recall ends attempts that have to end. The caller holds o.mu.
func (o *Outbound) recall(now time.Time) {
	for _, c := range o.schedule.Recall(now) {
		a, cause := o.running[c.Unit], errYield
		if c.Overdue {
			cause = errOverdue
		}
		if a != nil {
			a.sending.Recall(cause)
		}
	}
}

// recalled is the outcome of an attempt whose context has ended: a deferral as any
// other if the schedule ended it, else nil. Only where it had all its time something
// follows about the destination.
func (a *attempt) recalled(cause error) *reply.Reply {
	switch {
	case errors.Is(cause, errOverdue):
		r := reply.New(451, "4.4.2", "Next hop did not let us send the message in time")
		a.report(schedule.Outcome{Reached: a.res.Reached, Throttled: true, Err: clip(r.String())})
		return r
	case errors.Is(cause, errYield):
		a.yielded = true
		r := reply.New(451, "4.4.2", "Next hop is slow, and other mail was waiting")
		a.report(schedule.Outcome{Local: true, Err: clip(r.String())})
		return r
	}
	return nil
}

// postpone puts the delivery back until the plan is complete. That is no attempt,
// and takes no place.
func (a *attempt) postpone(plan *nexthop.Plan) {
	o, u := a.o, a.unit
	o.mu.Lock()
	now := o.o.Now()
	o.schedule.Defer(u, now, a.index, u.Attempts(), now.Add(policyWait))
	a.put()
	o.mu.Unlock()
	o.signal()
	plan.WhenReady(func() {
		o.mu.Lock()
		o.schedule.Hasten(u, o.o.Now())
		o.mu.Unlock()
		o.signal()
	})
}
