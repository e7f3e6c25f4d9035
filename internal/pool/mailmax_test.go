package pool_test

import (
	"testing"
	"time"

	"tarishi/internal/pool"
	"tarishi/internal/test/smtptest"
)

// TestMailMax: a server that says how many messages it takes on a connection gets no more, from the
// first connection on, and none is refused.
func TestMailMax(t *testing.T) {
	for limits, connections := range map[string]int{"MAILMAX=2": 3, "MAILMAX=0": 1, "RCPTMAX=1": 1} {
		s := smtptest.New(t, smtptest.Extensions("PIPELINING", "LIMITS "+limits))
		p := pool.New(pool.Options{})
		run(t, p)
		to := target(s)
		to.IdleTimeout = time.Minute
		for i := range 5 {
			if res, err := p.Send(t.Context(), to, envelope(i), content()); err != nil || !res.Replies[0].Positive() {
				t.Errorf("%s: %v %v", limits, res.Replies, err)
			}
		}
		if n := s.Connections(); n != connections {
			t.Errorf("%s: %d connections, not %d", limits, n, connections)
		}
	}
}
