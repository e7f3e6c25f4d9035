package attempt

import (
	"context"
	"maps"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/dsn"
	"tarishi/internal/outbound/notice"
	"tarishi/internal/reply"
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
	if len(a.whole) > len(a.index) {
		others = a.lateOthers()
		fresh, more := board.ClaimWarning(id, a.indices(told), slices.Sorted(maps.Keys(others)))
		if len(fresh) == 0 {
			a.unit.Mark()
			return
		}
		told = slices.DeleteFunc(told, func(i int) bool { return !slices.Contains(fresh, a.index[i]) })
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
	late := map[int]dsn.Recipient{}
	p, _ := a.m.o.Queue.Find(a.unit.ID())
	for _, one := range p.Recipients {
		its := a.m.o.Policies.For(one.Address.Host(), nil)
		after := its.DelayWarning
		r := a.whole[one.Index]
		switch _, failed := notice.ParseFailure(one.Last); {
		case failed || one.Held || slices.Contains(a.index, one.Index):
		case after <= 0 || a.now().Before(a.env.Received.Add(after)) || !dsn.Wanted(r, dsn.Delayed):
		default:
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
