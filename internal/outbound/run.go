package outbound

import (
	"context"
	"math"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/outbound/account"
	"tarishi/internal/outbound/notice"
	"tarishi/internal/schedule"
)

// Run delivers until ctx ends. Then no attempt begins, and those that have not
// sent their message to its end are given up. The others have Options.ReplyGrace
// to hear whether it was taken, and all of them Options.Grace to record the
// answer. Deliveries do not wait until all that was in the queue before is loaded.
func (o *Outbound) Run(ctx context.Context) error {
	attempts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var running sync.WaitGroup

	// Mail that comes in now need not wait for the mail of earlier processes.
	o.o.Queue.Watch(o)
	running.Go(func() { o.adoptAll(ctx) })
	next := make(chan *schedule.Unit) // to a worker that has nothing to do
	alarm := alarm{Timer: time.NewTimer(longestSleep)}
	defer alarm.Stop()
	for ctx.Err() == nil {
		units, settled, reports, wait := o.collectDue()
		if len(reports) > 0 {
			running.Go(func() { o.notifier.Tell(ctx, attempts, reports) })
		}
		if len(settled) > 0 {
			running.Go(func() { o.recordAgain(settled) })
		}

		// A worker that has nothing to do has a grown stack; a new one costs more.
		for _, u := range units {
			select {
			case next <- u:
			default:
				running.Go(func() { o.runWorker(ctx, attempts, u, next) })
			}
		}
		o.awaitWork(ctx, wait, &alarm)
	}

	// The stop: what runs has its grace, then it is cut off, and then it is waited for.
	idle := make(chan struct{})
	go func() {
		running.Wait()
		close(idle)
	}()
	o.finish(idle)
	cut()
	<-idle
	o.mu.Lock()
	if n := o.doubtful; n > 0 {
		o.o.Log.Warn("next hops did not answer in time to messages that they may have taken, which are sent again after the next start", zap.Int("deliveries", n))
	}

	// The last chance for these records: without them mail goes out twice after a start.
	settled := o.unrecorded
	o.unrecorded = nil
	o.mu.Unlock()
	o.recordAgain(settled)
	return nil
}

// runWorker makes an attempt at u, and then at what comes by next, until nothing has
// come for a while or ctx ends. To begin a goroutine for each attempt would cost
// more: its stack has to grow every time.
func (o *Outbound) runWorker(ctx, attempts context.Context, u *schedule.Unit, next <-chan *schedule.Unit) {
	idle := time.NewTimer(idleWorker)
	defer idle.Stop()
	for {
		// One timer serves all attempts of the worker.
		now := o.generation.Take()
		now.Value.attempts.Make(attempts, u)
		now.Release()
		idle.Reset(idleWorker)
		select {
		case u = <-next:
		case <-idle.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// never is a wait that only a signal ends.
const never = time.Duration(-1)

// alarm is a timer that is not set anew for each message: it may ring early, by
// early at most.
type alarm struct {
	*time.Timer
	at time.Time // when it rings; zero: it does not
}

const early = 100 * time.Millisecond

// set has it ring after wait.
func (a *alarm) set(wait time.Duration) {
	if wait == never {
		if !a.at.IsZero() {
			a.at = time.Time{}
			a.Stop()
		}
		return
	}

	// A timer that rings a little early costs less than one that is set for each message.
	wait = min(wait, longestSleep)
	at := time.Now().Add(wait)
	if d := at.Sub(a.at); a.at.IsZero() || d < 0 || d > early {
		a.at = at
		a.Reset(wait)
	}
}

// awaitWork returns when there may be work again, or when ctx ends.
func (o *Outbound) awaitWork(ctx context.Context, wait time.Duration, a *alarm) {
	a.set(wait)
	select {
	case <-ctx.Done():
	case <-o.wake:
	case <-a.C:
		a.at = time.Time{}
	}
}

// collectDue hands out the attempts, records and reports that are due now, and says for how
// long there will be nothing more.
func (o *Outbound) collectDue() (units []*schedule.Unit, settled []account.Unrecorded, reports []*notice.Report, wait time.Duration) {
	disabled := o.current().Disabled
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.o.Now()

	// Recalls come before new work: they take places away from attempts that hang.
	settled, reports = o.dueUnrecorded(now), o.notifier.Take(now)
	o.recall(now)
	if !disabled {
		units = o.withhold(now, o.schedule.Due(now, math.MaxInt))
	}
	units = append(units, o.withhold(now, o.schedule.Expire(now, math.MaxInt))...)

	// The earliest of all that is to come ends the wait.
	next, ok := o.schedule.Next(now)
	switch {
	case !ok:
		wait = never
	case disabled:
		wait = max(disabledPoll, next.Sub(now))
	default:
		wait = max(0, next.Sub(now))
	}
	if again := o.recordAt.Sub(now); len(o.unrecorded) > 0 && (wait == never || again < wait) {
		wait = max(0, again)
	}
	if next, ok := o.notifier.Next(); ok && (wait == never || next.Sub(now) < wait) {
		wait = max(0, next.Sub(now))
	}
	return units, settled, reports, wait
}

// signal tells Run that there may be work.
func (o *Outbound) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// recall ends attempts that have to end. The caller holds o.mu.
func (o *Outbound) recall(now time.Time) {
	for _, c := range o.schedule.Recall(now) {
		if a := o.running[c.Unit]; a != nil {
			a.Recall(c.Overdue)
		}
	}
}
