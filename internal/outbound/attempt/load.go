package attempt

import (
	"fmt"

	"go.uber.org/zap"

	"tarishi/internal/mail"
)

// loadMessage fetches the message from the queue.
func (a *Attempt) loadMessage() bool {
	env, content, err := a.m.o.Queue.Load(a.unit.ID())
	if err == nil {
		for _, i := range a.index {
			if i < 0 || i >= len(env.Recipients) {
				err = fmt.Errorf("there is no recipient %d", i)
			}
		}
	}
	if a.m.unknown(err) {
		a.vanished(a.unaccounted())
		return false
	}
	if err != nil {
		a.logError("message cannot be loaded, it stays in the queue", zap.String("domain", a.unit.Domain()), zap.Error(err))
		a.keepScheduled(a.unaccounted(), Rest{Attempts: a.unit.Attempts(), Next: a.now().Add(Unreadable)})
		return false
	}
	a.env, a.content = *env, content
	a.env.Recipients = make([]mail.Recipient, len(a.index))
	for n, i := range a.index {
		a.env.Recipients[n] = env.Recipients[i]
	}
	a.loaded, a.whole = true, env.Recipients
	// Other deliveries of the message may run at the same time.
	if a.queued = a.restoreNotes(env.Notes); a.queued == nil {
		a.queued = mail.Notes{}
	}
	if a.env.Notes = a.was.Message; a.env.Notes == nil {
		a.env.Notes = a.queued.Plain() // a handler that is late may change its lists too
	}
	return true
}
