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
			o.gathering.Hold(p.ID, p.From.String(), []int{r.Index}, due, f.Collected, o.current().DSNRate)
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
