package outbound

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/smtpclient"
)

// sends are the attempts that are under way, up to the reply that ends them. On a
// stop those whose message has not been sent to its end are given up at once:
// nothing is lost by it but time. The others have a while to hear whether it was
// taken.
type sends struct {
	mu       sync.Mutex
	running  map[*sending]struct{}
	stopping bool
	doubtful int // cut off without that reply
}

// sending is one of them.
type sending struct {
	cancel context.CancelFunc
	ended  bool // the message has been sent to its end
}

// begin returns the context of one attempt. next is called before each server that
// is tried: until it gets a message of its own to the end, one that another server
// has answered to is no reason to wait. leave is called when the outcome is known.
func (s *sends) begin(ctx context.Context) (attempt context.Context, next, leave func()) {
	one := &sending{}
	ctx, one.cancel = context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		s.running = map[*sending]struct{}{}
	}
	s.running[one] = struct{}{}
	if s.stopping {
		one.cancel()
	}
	next = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		one.ended = false
		if s.stopping {
			one.cancel()
		}
	}
	leave = func() {
		s.mu.Lock()
		delete(s.running, one)
		s.mu.Unlock()
		one.cancel()
	}
	return smtpclient.WithEnding(ctx, func() bool { return s.end(one) }), next, leave
}

// end reports whether a message may be ended, and notes that it is.
func (s *sends) end(one *sending) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		one.cancel() // it may be the second server, after the first refused
		return false
	}
	one.ended = true
	return true
}

// giveUp ends the attempts whose message has not been ended; with all set, those
// too that wait for the reply to it.
func (s *sends) giveUp(all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	for one := range s.running {
		if all || !one.ended {
			one.cancel()
		}
	}
}

// doubt counts an attempt that was cut off after the end of its message.
func (s *sends) doubt() {
	s.mu.Lock()
	s.doubtful++
	s.mu.Unlock()
}

// finish waits until idle is closed: first for replies to whole messages, for
// ReplyGrace at most, then for what is still to be recorded, for Grace in all.
func (o *Outbound) finish(idle <-chan struct{}) {
	o.sends.giveUp(false)
	replies := time.NewTimer(min(o.o.ReplyGrace, o.o.Grace))
	defer replies.Stop()
	grace := time.NewTimer(o.o.Grace)
	defer grace.Stop()
	for {
		select {
		case <-idle:
			return
		case <-replies.C:
			o.sends.giveUp(true)
		case <-grace.C:
			if n := o.Stat().Running; n > 0 {
				o.o.Log.Warn("attempts are cut off", zap.Int("running", n))
			}
			return
		}
	}
}
