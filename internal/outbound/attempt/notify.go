package attempt

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/dsn"
	"tarishi/internal/outbound/notice"
	"tarishi/internal/reply"
	"tarishi/internal/store"
)

// warnSender notifies the sender once that recipients are not served yet, where NOTIFY does
// not forbid it: those of this attempt, and those of the message's other
// deliveries. If that fails now it is tried after the next attempt.
func (a *Attempt) warnSender(ctx context.Context, recipients []int) {
	board, id := a.m.o.Board, a.unit.ID()
	told := slices.DeleteFunc(slices.Clone(recipients), func(i int) bool { return !dsn.Wanted(a.env.Recipients[i], dsn.Delayed) })
	if len(told) == 0 || a.env.From.IsNull() {
		a.unit.Mark()
		return
	}
	var others map[int]dsn.Recipient
	var claimed []int

	// Another delivery of the message may have warned of these recipients already.
	if len(a.whole) > len(a.account.Index) {
		others = a.lateOthers()
		fresh, more := board.ClaimWarning(id, a.account.Indices(told), slices.Sorted(maps.Keys(others)))
		if len(fresh) == 0 {
			a.unit.Mark()
			return
		}
		told = slices.DeleteFunc(told, func(i int) bool { return !slices.Contains(fresh, a.account.Index[i]) })
		claimed = slices.Concat(fresh, more)
		maps.DeleteFunc(others, func(i int, _ dsn.Recipient) bool { return !slices.Contains(more, i) })
	}

	// One report for all recipients of the message that are late.
	r := a.describe(told, dsn.Delayed)
	for _, i := range slices.Sorted(maps.Keys(others)) {
		r.Recipients = append(r.Recipients, others[i])
	}
	p, err := a.m.o.Reporter.Put(ctx, r)
	if err != nil {
		a.logError("DSN of delay cannot be queued", zap.Error(err))
		board.DisclaimWarning(id, claimed)
		return
	}
	board.Enqueue(p)
	a.unit.Mark()
}

// lateOthers returns the recipients of the message's other deliveries that are as
// late, by their indices in the queue's envelope. Where sections for mail
// exchangers may say something else about them there are none.
func (a *Attempt) lateOthers() map[int]dsn.Recipient {
	if a.m.o.Config.HasMX() {
		return nil
	}

	// The queue says what the other deliveries wait for, and when they came.
	late := map[int]dsn.Recipient{}
	p, _ := a.m.o.Queue.Find(a.unit.ID())
	for _, one := range p.Recipients {
		its := a.m.o.Policies.For(one.Address.Host(), nil)
		after := its.DelayWarning
		r := a.whole[one.Index]
		switch _, failed := notice.ParseFailure(one.Last); {
		case failed || one.Held || slices.Contains(a.account.Index, one.Index):
		case after <= 0 || a.now().Before(a.env.Received.Add(after)) || !dsn.Wanted(r, dsn.Delayed):
		default:
			// The last reply explains the delay; it is missing if nothing was attempted yet.
			d := dsn.Recipient{Recipient: r, Action: dsn.Delayed, Reply: notice.ParseReply(one.Last)}
			if d.Reply == nil || d.Reply.Permanent() {
				d.Reply = reply.New(451, "4.4.1", "Not delivered yet")
			}
			if its.MaxLifetime > 0 {
				d.RetryUntil = a.env.Received.Add(its.MaxLifetime)
			}
			late[one.Index] = d
		}
	}
	return late
}

// gather holds back the report about recipients of this attempt: until the others
// of the message are decided too, or with others of the sender. It returns false
// if they are to be reported now.
func (a *Attempt) gather(recipients []int) bool {
	board, now, wait := a.m.o.Board, a.now(), a.m.o.Config.DSNWait
	sender := a.env.From.String()
	due, collected := now.Add(wait), false

	// A message with one delivery has nothing to wait for. Those of others may end at the
	// same moment.
	var open map[int]bool
	if wait > 0 && (len(a.whole) > len(a.account.Index) || len(a.account.Later) > 0) {
		board.BeginReport(a.unit.ID())
		defer board.EndReport(a.unit.ID())
		open = a.undecided(due)
	}

	// Nothing else may fail soon: now, unless others of the message wait already.
	if len(open) == 0 {
		joins, ok, until := board.AdmitReport(a.unit.ID(), sender)
		switch {
		case joins:
		case ok:
			return false
		default:
			due, collected = until, true
		}
	}

	// Only what the queue remembers may wait.
	if !a.markFailed(recipients, due, collected) {
		return false
	}
	board.HoldReport(a.unit.ID(), sender, a.account.Close(recipients), due, collected, open)
	return true
}

// undecided returns the recipients of the message, by their indices in the queue's
// envelope, that may fail before some time: neither delivered nor failed, nor put
// off for longer.
func (a *Attempt) undecided(before time.Time) map[int]bool {
	p, _ := a.m.o.Queue.Find(a.unit.ID())
	open := map[int]bool{}
	for _, r := range p.Recipients {
		if _, failed := notice.ParseFailure(r.Last); !failed && !r.Held && !r.Next.After(before) {
			open[r.Index] = true
		}
	}
	for _, i := range a.Decided() {
		delete(open, i)
	}
	return open
}

// Decided returns this attempt's recipients, by their indices in the queue's
// envelope, without those that are due again at once.
func (a *Attempt) Decided() []int { return a.account.Decided(a.now()) }

// markFailed has the queue remember that recipients failed, and why. Without that they
// cannot wait: it returns false.
func (a *Attempt) markFailed(recipients []int, due time.Time, collected bool) bool {
	for _, same := range delivery.GroupByReply(recipients, a.res.Replies) {
		a.res.TurnTo(same[0])
		f := notice.Failure{At: a.now(), Reply: a.res.Replies[same[0]], Host: a.remote(), Collected: collected}
		index := a.account.Indices(same)
		if err := a.m.o.Queue.Defer(a.unit.ID(), index, a.attemptsMade(), due, f.String()); err != nil {
			if !store.IsUnknown(err) {
				a.logError("failure not recorded, it is reported at once", zap.Ints("recipients", index), zap.Error(err))
			}
			return false
		}
	}
	return true
}
