package attempt

import (
	"errors"
	"time"

	"tarishi/internal/delivery"
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

// errStopped ends attempts on a stop.
var errStopped = errors.New("stopping")

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
func (a *Attempt) postpone(plan *delivery.Plan) {
	hasten := a.m.o.Board.Postpone(a, policyWait)
	a.moved = true
	plan.WhenReady(hasten)
}
