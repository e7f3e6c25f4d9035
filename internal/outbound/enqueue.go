package outbound

import (
	"tarishi/internal/mail"
	"tarishi/internal/outbound/held"
	"tarishi/internal/schedule"
)

// Enqueue takes a message that has just been put in the queue. It never blocks
// for long and may be called before Run.
func (o *Outbound) Enqueue(p mail.Pending) {
	o.mu.Lock()
	if o.comes(p.ID) {
		o.scheduleMessage(p)
	}
	o.mu.Unlock()
	o.signal()
}

// scheduleMessage schedules the deliveries of a message: recipients of one domain that are
// due together are one. The caller holds o.mu.
func (o *Outbound) scheduleMessage(p mail.Pending) {
	type key struct {
		domain   string
		attempts int
		next     int64
	}
	now := o.o.Now()
	p.Recipients = o.notifier.Restore(&p)
	delivery := func(domain string, r mail.PendingRecipient) *schedule.Delivery {
		return &schedule.Delivery{
			ID: p.ID, Domain: domain, Attempts: r.Attempts, Next: r.Next, Received: p.Received, Null: p.From.IsNull(),
			Marked: r.Attempts > 0 && o.current().policies.For(domain, nil).Warned(&p, domain, r.Attempts, r.Next),
		}
	}

	// Most messages have one recipient: they need no maps.
	if len(p.Recipients) == 1 && !p.Recipients[0].Held {
		r := p.Recipients[0]
		v := delivery(r.Address.Host(), r)
		v.Recipients = []int{r.Index}
		o.schedule.Add(now, *v)
		return
	}
	var order []*schedule.Delivery
	groups := map[key]*schedule.Delivery{}
	for _, r := range p.Recipients {
		k := key{r.Address.Host(), r.Attempts, r.Next.UnixNano()}
		v := groups[k]
		switch {
		case r.Held:
			o.held.Park(held.Parked{Delivery: *delivery(k.domain, r)}, r.Index)
			continue
		case v == nil || o.current().AlwaysSplit:
			v = delivery(k.domain, r)
			groups[k] = v
			order = append(order, v)
		}
		v.Recipients = append(v.Recipients, r.Index)
	}

	// In the order of the envelope, so that the next start finds the same deliveries.
	for _, v := range order {
		o.schedule.Add(now, *v)
	}
}
