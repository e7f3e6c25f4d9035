package attempt

import (
	"errors"
	"time"

	"tarishi/internal/nexthop"
	"tarishi/internal/outbound/account"
	"tarishi/internal/reply"
	"tarishi/internal/schedule"
	"tarishi/internal/store"
)

// The reasons for which the schedule has an attempt ended, see schedule.Recall.
var (
	errYield   = errors.New("made room for other mail")
	errOverdue = errors.New("took too long")
)

// policyWait is for how long a delivery waits for an MTA-STS policy at most: when
// it is still not fetched then, it is asked for again.
const policyWait = time.Minute

var (
	errStopped   = errors.New("stopping")                     // ends attempts on a stop
	errAbandoned = errors.New("message is another process's") // or when it was taken over
)

// permitWait is when a delivery is looked at again while its ownership is not sure.
const permitWait = time.Second

// Permit implements sending.Guard.
func (a *Attempt) Permit() error { return a.m.o.Queue.Permit(a.env.ID) }

// permitted reports whether the attempt may begin. If nobody knows at the moment it
// is to be asked again soon, which is no attempt.
func (a *Attempt) permitted() bool {
	err := a.m.o.Queue.Permit(a.unit.ID())
	switch {
	case err == nil:
		return true
	case store.IsUnknown(err):
		a.vanished(a.account.Open())
	default:
		a.account.Keep(a.account.Open(), account.Rest{Attempts: a.unit.Attempts(), Next: a.now().Add(permitWait)})
	}
	return false
}

// Abandon gives the message up to another process: nothing but a reply that is on its
// way may come of the attempt. Abandoned reports whether that was done. The caller
// holds the Board's lock.
func (a *Attempt) Abandon() {
	a.abandoned.Store(true)
	a.sending.GiveUp(errAbandoned)
}

func (a *Attempt) Abandoned() bool { return a.abandoned.Load() }

// Recall ends the attempt unless it cannot be ended any more: the schedule needs its
// place, or it is overdue.
func (a *Attempt) Recall(overdue bool) {
	cause := errYield
	if overdue {
		cause = errOverdue
	}
	a.sending.Recall(cause)
}

// GiveUp ends the attempt on a stop, unless its message has been sent to its end.
func (a *Attempt) GiveUp() { a.sending.GiveUp(errStopped) }

// Cancel ends the attempt in any case.
func (a *Attempt) Cancel() { a.sending.Cancel(errStopped) }

// recalled is the outcome of an attempt after its context has ended: a deferral as any
// other if the schedule ended it, else nil. Only where it had all its time something
// follows about the destination.
func (a *Attempt) recalled(cause error) *reply.Reply {
	switch {
	case errors.Is(cause, errOverdue):
		r := reply.New(451, "4.4.2", "Next hop did not let us send the message in time")
		a.report(schedule.Outcome{Reached: a.res.Reached, Throttled: true, Err: reply.Clip(r.String())})
		return r
	case errors.Is(cause, errYield):
		a.yielded = true
		r := reply.New(451, "4.4.2", "Next hop is slow, and other mail was waiting")
		a.report(schedule.Outcome{Local: true, Err: reply.Clip(r.String())})
		return r
	}
	return nil
}

// postpone puts the delivery back until the plan is complete. That is no attempt,
// and takes no place.
func (a *Attempt) postpone(plan *nexthop.Plan) {
	hasten := a.m.o.Board.Postpone(a, policyWait)
	a.moved = true
	plan.WhenReady(hasten)
}
