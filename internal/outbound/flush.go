package outbound

import (
	"go.uber.org/zap"

	"tarishi/internal/mail"
)

// Flush makes every waiting delivery to domain due now; "" means all. It
// returns how many there are; while the queue is still being loaded, more may
// follow. Reports that could not be queued, and what could not be read at the
// start, are tried again too.
func (o *Outbound) Flush(domain string) int {
	o.mu.Lock()
	n := o.schedule.Flush(mail.CanonicalDomain(domain), o.o.Now())
	o.notifier.Flush()
	o.adopting.Flush(mail.CanonicalDomain(domain))
	o.mu.Unlock()
	o.o.Log.Info("queue flushed", zap.String("domain", domain), zap.Int("deliveries", n))

	// Messages that could not be read when the daemon started are tried again too.
	select {
	case o.reload <- struct{}{}:
	default:
	}
	o.signal()
	return n
}
