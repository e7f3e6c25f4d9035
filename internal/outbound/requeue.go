package outbound

import (
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// EnqueueDeferred is Enqueue for a message that was attempted before it was put
// in the queue: why has for each of p's recipients the reply that deferred it,
// which counts as the first deferral. A nil, like a destination without retries,
// makes it due at once.
func (o *Outbound) EnqueueDeferred(p mail.Pending, why []*reply.Reply) {
	type group struct {
		next time.Time
		last string
	}

	// The wait is the one that a first deferral in the queue would have had.
	now := o.o.Now()
	var order []group
	members := map[group][]int{}
	for i := range p.Recipients {
		r := &p.Recipients[i]
		its := o.current().policies.For(r.Address.Host(), nil)
		wait, again := its.Wait(p.ID, r.Address.Host(), 1)
		if why[i] == nil || !again {
			continue
		}
		r.Attempts, r.Next, r.Last = 1, its.Backoff.Until(p.Received, now, wait), reply.Clip(why[i].Error())
		g := group{r.Next, r.Last}
		if members[g] == nil {
			order = append(order, g)
		}
		members[g] = append(members[g], r.Index)
	}

	// One record for all recipients with the same reply.
	for _, g := range order {
		if err := o.o.Queue.Defer(p.ID, members[g], 1, g.next, g.last); err != nil { // after a restart they are tried earlier
			o.o.Log.Warn("deferral not recorded", zap.String("uuid", string(p.ID)), zap.Ints("recipients", members[g]), zap.Error(err))
		}
	}
	o.Enqueue(p)
}
