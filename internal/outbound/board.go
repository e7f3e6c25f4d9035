package outbound

import (
	"slices"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/account"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/outbound/remember"
	"tarishi/internal/schedule"
)

// board is an Outbound as its attempts see it.
type board Outbound

func (b *board) Begin(a *attempt.Attempt) (was remember.Kept, known bool) {
	o, u := (*Outbound)(b), a.Unit()
	o.mu.Lock()
	defer o.mu.Unlock()

	// Another attempt at the unit can only begin after End, so nobody else needs it.
	was, known = o.kept[u]
	delete(o.kept, u)
	o.running[u] = a
	if o.stopping {
		a.GiveUp()
	}
	if o.forgone[u] {
		delete(o.forgone, u)
		a.Abandon()
	}
	return was, known
}

func (b *board) End(a *attempt.Attempt, left account.Left) {
	o, u := (*Outbound)(b), a.Unit()
	defer o.signal()
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.running, u)
	if a.Abandoned() {
		o.schedule.Done(u)
		return
	}
	id, now := u.ID(), o.o.Now()
	var done []int
	if len(o.held) > 0 {
		done = u.Recipients()
	}

	// Each group of recipients is a separate delivery from now on.
	first := u
	for i, r := range left.Later {
		if i == 0 {
			o.schedule.Defer(u, now, r.Index, r.Attempts, r.Next)
			o.keepFor(u, left.Kept)
			continue
		}
		u = o.schedule.Add(now, schedule.Delivery{
			ID: id, Domain: first.Domain(), Recipients: r.Index, Attempts: r.Attempts, Next: r.Next,
			Received: first.Received(), Null: first.Null(), Marked: first.Marked(),
		})
		o.keepFor(u, left.Kept.Clone())
	}
	for _, d := range left.Unrecorded {
		o.noteUnrecorded(d)
	}

	// Reports that wait for these recipients, and holds on those that are done with.
	o.notifier.Decide(id, a.Decided)
	if done != nil {
		o.held.Unmark(id, slices.DeleteFunc(done, func(i int) bool {
			return slices.ContainsFunc(left.Later, func(r account.Rest) bool { return slices.Contains(r.Index, i) })
		}))
	}
	if len(left.Later) == 0 {
		o.schedule.Done(first)
	}
}

func (b *board) Locate(a *attempt.Attempt, w attempt.Way) bool {
	o, u := (*Outbound)(b), a.Unit()
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.o.Now()

	// An attempt that began before a reload must not bring the old limits back.
	if newest := o.current().policies; !a.GoesBy(newest) {
		w = a.WayBy(newest)
	}
	o.schedule.Reroute(u, w.Route, now)
	if o.schedule.Locate(u, w.Site, w.Limits, now) {
		return true
	}

	// The unit may run again before this returns: the attempt must not touch it any more.
	o.putBack(a)
	return false
}

func (b *board) Postpone(a *attempt.Attempt, wait time.Duration) (hasten func()) {
	o, u := (*Outbound)(b), a.Unit()
	o.mu.Lock()
	now := o.o.Now()
	o.schedule.Defer(u, now, u.Recipients(), u.Attempts(), now.Add(wait))
	o.putBack(a)
	o.mu.Unlock()
	return func() {
		o.mu.Lock()
		o.schedule.Hasten(u, o.o.Now())
		o.mu.Unlock()
		o.signal()
	}
}

// putBack leaves what a delivery's next attempt needs, for one that has not been made.
// The caller holds o.mu, and the schedule has the unit.
func (o *Outbound) putBack(a *attempt.Attempt) {
	delete(o.running, a.Unit())
	if a.Abandoned() {
		o.schedule.Drop(a.Unit())
	} else {
		k := a.Postponed()
		if !a.GoesBy(o.current().policies) {
			k = k.Unasked()
		}
		o.keepFor(a.Unit(), k)
	}
	o.signal()
}

// keepFor notes what u's next attempt finds again. The caller holds o.mu.
func (o *Outbound) keepFor(u *schedule.Unit, k remember.Kept) {
	if !k.IsNothing() {
		o.kept[u] = k
	}
}

func (b *board) Report(u *schedule.Unit, out schedule.Outcome) (site string, change schedule.Change, probe time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.schedule.Report(u, out, b.o.Now())
}

func (b *board) LastError(u *schedule.Unit) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.schedule.LastError(u)
}

func (b *board) CountDoubtful() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.doubtful++
}

func (b *board) CountDouble() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.double++
}

func (b *board) Enqueue(p mail.Pending) { (*Outbound)(b).Enqueue(p) }

func (b *board) BeginReport(id mail.ID) { b.notifier.Begin(id) }
func (b *board) EndReport(id mail.ID)   { b.notifier.End(id) }

func (b *board) AdmitReport(id mail.ID, sender string) (joins, ok bool, until time.Time) {
	return b.notifier.Admit(id, sender)
}

func (b *board) HoldReport(id mail.ID, sender string, recipients []int, due time.Time, collected bool, open map[int]bool) {
	b.notifier.Hold(id, sender, recipients, due, collected, open)
}

func (b *board) ClaimWarning(id mail.ID, own, others []int) (fresh, more []int) {
	return b.notifier.ClaimWarning(id, own, others)
}

func (b *board) DisclaimWarning(id mail.ID, recipients []int) {
	b.notifier.DisclaimWarning(id, recipients)
}
