package outbound

import (
	"context"
	"strings"
	"testing"
	"time"

	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// endRunning ends the attempts that run, as the schedule has it.
func (r *rig) endRunning(overdue bool) {
	r.out.mu.Lock()
	defer r.out.mu.Unlock()
	for _, a := range r.out.running {
		a.Recall(overdue)
	}
}

// TestRoomForOthersIsNoFailure: an attempt that had to make room is a deferral, but
// never the one too many: the destination did nothing wrong.
func TestRoomForOthersIsNoFailure(t *testing.T) {
	for _, tt := range []struct {
		name      string
		overdue   bool
		intervals []time.Duration
		bounces   bool
	}{
		{"made room", false, interval, false},
		{"took too long", true, interval, true},
		{"made room, no retries", false, nil, false},
		{"took too long, no retries", true, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.o.TempFailIntervals = tt.intervals
				r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
					if s.from == "" {
						return []*reply.Reply{ok}, nil
					}
					<-ctx.Done()
					return nil, &smtpclient.Failure{Stage: smtpclient.StageGreeting, Err: ctx.Err(), Fresh: true, Addr: s.addr}
				})
				r.start()
				r.send("x@a.test")
				for range 12 {
					r.pass(time.Minute)
					r.endRunning(tt.overdue)
					r.pass(10 * time.Minute)
				}
				bounced := false
				for _, op := range r.queue.takeOps() {
					bounced = bounced || strings.HasPrefix(op, "put <>")
				}
				if bounced != tt.bounces {
					t.Errorf("bounced: %v", bounced)
				}
			})
		})
	}
}
