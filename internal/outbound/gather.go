package outbound

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/notice"
)

// loadWait is how long a report that fell due while no process ran waits at least
// for what else of its sender the queue has, which is loaded message by message.
const loadWait = 10 * time.Second

// maxWaits is how often a report is put off by the same wait, as long as further
// recipients of the message fail.
const maxWaits = 6

// gather holds back the report about recipients of this attempt: until the others
// of the message are decided too, or with others of the sender. It returns false
// if they are to be reported now.
func (a *attempt) gather(recipients []int) bool {
	o, now := a.o, a.now()
	wait, rate := o.o.Config.DSNWait, o.o.Config.DSNRate
	sender := a.env.From.String()
	due, collected := now.Add(wait), false
	var open map[int]bool
	if wait > 0 && (len(a.whole) > len(a.index) || len(a.later) > 0) {
		open = a.undecided(due)
	}

	// Nothing else may fail soon: now, unless others of the message wait already.
	if len(open) == 0 {
		o.mu.Lock()
		joins, ok, until := o.gathering.Holds(a.unit.ID()), true, now
		if !joins {
			ok, until = o.gathering.Admit(now, sender, rate)
		}
		o.mu.Unlock()
		switch {
		case joins:
		case ok:
			return false
		default:
			due, collected = until, true
		}
	}

	// Only what the queue remembers may wait.
	if !a.mark(recipients, due, collected) {
		return false
	}
	o.mu.Lock()
	r, begun := o.gathering.Hold(a.unit.ID(), sender, a.account(recipients), due, collected, rate)
	if !collected {
		o.gathering.Await(r, open, due, now.Add(maxWaits*wait))
	}
	o.mu.Unlock()
	if begun {
		o.logCollecting(sender, due)
	}
	return true
}

// gatherFailed has what failed before a restart reported, and returns the
// recipients that are still to be attempted. The caller holds o.mu.
func (o *Outbound) gatherFailed(p *mail.Pending) []mail.PendingRecipient {
	open := p.Recipients
	for n, r := range p.Recipients {
		f, ok := notice.Failure{}, false
		if r.Last != "" {
			f, ok = notice.ParseFailure(r.Last)
		}
		switch {
		case ok:
			if len(open) == len(p.Recipients) {
				open = slices.Clone(p.Recipients[:n])
			}
			due := r.Next
			if soon := o.o.Now().Add(loadWait); f.Collected && due.Before(soon) {
				due = soon
			}
			o.gathering.Hold(p.ID, p.From.String(), []int{r.Index}, due, f.Collected, o.o.Config.DSNRate)
		case len(open) < n:
			open = append(open, r)
		}
	}
	return open
}

// logCollecting says once in a period why a sender's reports are late.
func (o *Outbound) logCollecting(sender string, until time.Time) {
	o.o.Log.Info("a sender has had many reports of failures, further ones are collected into one", zap.String("sender", sender), zap.Time("until", until))
}

// undecided returns the recipients of the message, by their indices in the queue's
// envelope, that may fail before some time: neither delivered nor failed, nor put
// off for longer.
func (a *attempt) undecided(before time.Time) map[int]bool {
	p, _ := a.o.o.Queue.Find(a.unit.ID())
	open := map[int]bool{}
	for _, r := range p.Recipients {
		if _, failed := notice.ParseFailure(r.Last); !failed && !r.Held && !r.Next.After(before) {
			open[r.Index] = true
		}
	}
	for _, i := range a.decided() {
		delete(open, i)
	}
	return open
}

// decided returns this attempt's recipients, by their indices in the queue's
// envelope, without those that are due again at once.
func (a *attempt) decided() []int {
	now := a.now()
	return slices.DeleteFunc(slices.Clone(a.index), func(i int) bool {
		return slices.ContainsFunc(a.later, func(r rest) bool { return !r.next.After(now) && slices.Contains(r.index, i) })
	})
}

// mark has the queue remember that recipients failed, and why. Without that they
// cannot wait: it returns false.
func (a *attempt) mark(recipients []int, due time.Time, collected bool) bool {
	for _, same := range groups(recipients, a.res.Replies) {
		a.turnTo(same[0])
		f := notice.Failure{At: a.now(), Reply: a.res.Replies[same[0]], Host: a.remote(), Collected: collected}
		index := a.indices(same)
		if err := a.o.o.Queue.Defer(a.unit.ID(), index, a.made(), due, f.String()); err != nil {
			if !a.o.unknown(err) {
				a.log("failure not recorded, it is reported at once", zap.Ints("recipients", index), zap.Error(err))
			}
			return false
		}
	}
	return true
}
