package outbound

import (
	"context"
	"maps"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/dsn"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// warnings remembers which recipients of messages with several deliveries senders
// were warned of, so that the later deliveries need not. What it forgets, the
// oldest first or at a restart, may be warned of twice. Outbound.mu guards it.
type warnings struct {
	recipients map[mail.ID][]int
	order      []mail.ID
	n          int // recipients
}

// maxWarnings is how many recipients are remembered.
const maxWarnings = 100_000

// claim returns those of a delivery's recipients, and of others, that the sender
// was not warned of; if there are any of the delivery's all of them count as warned
// of now.
func (w *warnings) claim(id mail.ID, own, others []int) (fresh, more []int) {
	known := func(i int) bool { return slices.Contains(w.recipients[id], i) }
	fresh = slices.DeleteFunc(slices.Clone(own), known)
	if len(fresh) == 0 {
		return nil, nil
	}
	more = slices.DeleteFunc(slices.Clone(others), known)
	if w.recipients == nil {
		w.recipients = map[mail.ID][]int{}
	}
	if w.recipients[id] == nil {
		w.order = append(w.order, id)
	}
	w.recipients[id] = slices.Concat(w.recipients[id], fresh, more)
	for w.n += len(fresh) + len(more); w.n > maxWarnings && len(w.order) > 1; {
		w.n -= len(w.recipients[w.order[0]])
		delete(w.recipients, w.order[0])
		w.order = w.order[1:]
	}
	return fresh, more
}

// disclaim undoes claim: the sender could not be warned.
func (w *warnings) disclaim(id mail.ID, recipients []int) {
	before := w.recipients[id]
	if before == nil {
		return
	}
	after := slices.DeleteFunc(slices.Clone(before), func(i int) bool { return slices.Contains(recipients, i) })
	w.recipients[id] = after
	w.n -= len(before) - len(after)
}

// warn tells the sender once that recipients are not served yet, where NOTIFY does
// not forbid it: those of this attempt, and those of the message's other
// deliveries. What cannot be told now is told after the next attempt.
func (a *attempt) warn(ctx context.Context, recipients []int) {
	o, id := a.o, a.unit.ID()
	told := slices.DeleteFunc(slices.Clone(recipients), func(i int) bool { return !dsn.Wanted(a.env.Recipients[i], dsn.Delayed) })
	if len(told) == 0 || a.env.From.IsNull() {
		a.unit.Mark()
		return
	}
	var others map[int]dsn.Recipient
	var claimed []int
	if len(a.whole) > len(a.index) {
		others = a.lateOthers()
		o.mu.Lock()
		fresh, more := o.warnings.claim(id, a.indices(told), slices.Sorted(maps.Keys(others)))
		o.mu.Unlock()
		if len(fresh) == 0 {
			a.unit.Mark()
			return
		}
		told = slices.DeleteFunc(told, func(i int) bool { return !slices.Contains(fresh, a.index[i]) })
		claimed = slices.Concat(fresh, more)
		maps.DeleteFunc(others, func(i int, _ dsn.Recipient) bool { return !slices.Contains(more, i) })
	}

	r := a.describe(told, dsn.Delayed)
	for _, i := range slices.Sorted(maps.Keys(others)) {
		r.Recipients = append(r.Recipients, others[i])
	}
	p, err := o.put(ctx, r)
	if err != nil {
		a.log("DSN of delay cannot be queued", zap.Error(err))
		o.mu.Lock()
		o.warnings.disclaim(id, claimed)
		o.mu.Unlock()
		return
	}
	o.Enqueue(p)
	a.unit.Mark()
}

// lateOthers returns the recipients of the message's other deliveries that are as
// late, by their indices in the queue's envelope. Where sections for mail
// exchangers may say something else about them there are none.
func (a *attempt) lateOthers() map[int]dsn.Recipient {
	if a.o.o.Config.HasMX() {
		return nil
	}
	late := map[int]dsn.Recipient{}
	p, _ := a.o.o.Queue.Find(a.unit.ID())
	for _, one := range p.Recipients {
		its := a.o.policies.For(one.Address.Host(), nil)
		after := its.DelayWarning
		r := a.whole[one.Index]
		switch _, failed := parseFailure(one.Last); {
		case failed || one.Held || slices.Contains(a.index, one.Index):
		case after <= 0 || a.now().Before(a.env.Received.Add(after)) || !dsn.Wanted(r, dsn.Delayed):
		default:
			d := dsn.Recipient{Recipient: r, Action: dsn.Delayed, Reply: parseReply(one.Last)}
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
