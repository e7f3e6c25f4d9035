package outbound

import (
	"go.uber.org/zap"

	"tarishi/internal/mail"
)

// FlushMessages is Flush for the deliveries of some messages. It looks at every
// delivery, so that many messages are best flushed at once.
func (o *Outbound) FlushMessages(ids ...mail.ID) int {
	o.mu.Lock()
	n := o.schedule.FlushMessages(o.o.Now(), ids...)
	o.mu.Unlock()
	if len(ids) == 1 {
		o.o.Log.Info("message flushed", zap.String("uuid", string(ids[0])), zap.Int("deliveries", n))
	} else {
		o.o.Log.Info("messages flushed", zap.Int("messages", len(ids)), zap.Int("deliveries", n))
	}
	o.signal()
	return n
}

// Active returns the recipients, by their indices, that attempts run for.
func (o *Outbound) Active() map[mail.ID][]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	active := make(map[mail.ID][]int, len(o.running))
	for u := range o.running {
		active[u.ID()] = append(active[u.ID()], u.Recipients()...)
	}
	return active
}

// Sites returns the domains at a site with a name that match accepts.
func (o *Outbound) Sites(match func(site string) bool) map[string]bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.schedule.DomainsAt(match)
}
