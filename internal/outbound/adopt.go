package outbound

import (
	"context"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/handover"
	"tarishi/internal/schedule"
	"tarishi/internal/store"
)

// Adopt implements store.Deliverer.
func (o *Outbound) Adopt() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.adopting == nil {
		o.adopting = &handover.Requests{}
	}
	select {
	case o.adopt <- struct{}{}:
	default:
	}
}

// adoptAll schedules what was in the queue before this process, and what comes from
// another one later, until ctx ends.
func (o *Outbound) adoptAll(ctx context.Context) {
	for o.adoptRound(ctx) {
		for _, id := range o.adopted() {
			o.reconcile(id)
		}
		select {
		case <-ctx.Done():
			return
		case <-o.adopt:
		}
	}
}

// adopted ends a round, unless the queue has more already, and returns which messages
// Release was asked for meanwhile.
func (o *Outbound) adopted() []mail.ID {
	o.mu.Lock()
	defer o.mu.Unlock()
	released := o.adopting.TakeReleased()
	if len(o.adopt) == 0 {
		o.adopting = nil
	}
	return released
}

// adoptRound schedules what the queue has to pass on, and returns false if ctx ended
// before all of it was. What cannot be read is tried again after a while, or when
// Flush asks for it.
func (o *Outbound) adoptRound(ctx context.Context) bool {
	// Each message is scheduled as it is read: mail that is due need not wait for the rest.
	messages, began := 0, o.o.Now()
	for said := -1; ; {
		left := o.o.Queue.Adopt(func(p mail.Pending) bool {
			messages++
			o.mu.Lock()
			o.adopting.Hasten(&p)
			if o.handover.First(p.ID, o.o.Now()) {
				o.scheduleMessage(p)
			}
			o.mu.Unlock()
			o.signal()
			return ctx.Err() == nil
		})
		if ctx.Err() != nil {
			return false
		}

		// What cannot be read is logged once, and again only when there is more or less of it.
		if left != said {
			said = left
			o.o.Log.Info("queue loaded", zap.Int("messages", messages), zap.Int("left", left), zap.Duration("time", o.o.Now().Sub(began)))
		}
		if left == 0 {
			return true
		}
		again := time.NewTimer(loadAgain)
		select {
		case <-ctx.Done():
			again.Stop()
			return false
		case <-o.adopt:
		case <-again.C:
		case <-o.reload:
		}
		again.Stop()
	}
}

// Abandon implements store.Deliverer. An attempt that has sent its message to the end
// hears the reply, and logs a delivery; nothing else comes of it.
func (o *Outbound) Abandon(lost func(mail.ID) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()

	// Walk must not change the schedule, so what waits is dropped behind it.
	var units []*schedule.Unit
	running := 0
	o.schedule.Walk(func(u *schedule.Unit) bool {
		a := o.running[u]
		switch {
		case !lost(u.ID()):
			return true
		case a != nil:
			a.Abandon()
		case u.Running():
			o.forgone[u] = true
		default:
			units = append(units, u)
			return true
		}
		running++
		return true
	})
	o.drop(units, lost)
	o.handover.Forget(lost, o.o.Now())
	o.o.Log.Warn("messages were taken over by another process", zap.Int("deliveries", len(units)), zap.Int("running", running))
}

// comes reports whether a message that was just put is to be scheduled here. It may
// have been lost since, and even come back. The caller holds o.mu.
func (o *Outbound) comes(id mail.ID) bool {
	if !o.handover.Watching() {
		return true
	}
	return !store.IsUnknown(o.o.Queue.Permit(id)) && o.handover.First(id, o.o.Now())
}
