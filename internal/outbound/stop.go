package outbound

import (
	"time"

	"go.uber.org/zap"
)

// giveUp ends the attempts that have not sent their message to its end: that costs
// nothing but time. The others have a while to hear whether it was taken; with all
// set they are ended too.
func (o *Outbound) giveUp(all bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopping = true
	for _, a := range o.running {
		if all {
			a.Cancel()
		} else {
			a.GiveUp()
		}
	}
}

// finish waits until idle is closed: first for replies to whole messages, for
// ReplyGrace at most, then for the records that are still to be written, for Grace in all.
func (o *Outbound) finish(idle <-chan struct{}) {
	o.giveUp(false)

	// A reply to a whole message is worth more time: without it the message goes out twice.
	replies := time.NewTimer(min(o.current().ReplyGrace, o.current().Grace))
	defer replies.Stop()
	grace := time.NewTimer(o.current().Grace)
	defer grace.Stop()
	for {
		select {
		case <-idle:
			return
		case <-replies.C:
			o.giveUp(true)
		case <-grace.C:
			if n := o.Stat().Running; n > 0 {
				o.o.Log.Warn("attempts are cut off", zap.Int("running", n))
			}
			return
		}
	}
}
