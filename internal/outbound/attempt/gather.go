package attempt

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/outbound/notice"
)

// gather holds back the report about recipients of this attempt: until the others
// of the message are decided too, or with others of the sender. It returns false
// if they are to be reported now.
func (a *Attempt) gather(recipients []int) bool {
	board, now, wait := a.m.o.Board, a.now(), a.m.o.Config.DSNWait
	sender := a.env.From.String()
	due, collected := now.Add(wait), false

	// A message with one delivery has nothing to wait for.
	var open map[int]bool
	if wait > 0 && (len(a.whole) > len(a.index) || len(a.left.Later) > 0) {
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
	board.HoldReport(a.unit.ID(), sender, a.account(recipients), due, collected, open)
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
func (a *Attempt) Decided() []int {
	now := a.now()
	return slices.DeleteFunc(slices.Clone(a.index), func(i int) bool {
		return slices.ContainsFunc(a.left.Later, func(r Rest) bool { return !r.Next.After(now) && slices.Contains(r.Index, i) })
	})
}

// markFailed has the queue remember that recipients failed, and why. Without that they
// cannot wait: it returns false.
func (a *Attempt) markFailed(recipients []int, due time.Time, collected bool) bool {
	for _, same := range delivery.GroupByReply(recipients, a.res.Replies) {
		a.res.TurnTo(same[0])
		f := notice.Failure{At: a.now(), Reply: a.res.Replies[same[0]], Host: a.remote(), Collected: collected}
		index := a.indices(same)
		if err := a.m.o.Queue.Defer(a.unit.ID(), index, a.attemptsMade(), due, f.String()); err != nil {
			if !a.m.unknown(err) {
				a.logError("failure not recorded, it is reported at once", zap.Ints("recipients", index), zap.Error(err))
			}
			return false
		}
	}
	return true
}
