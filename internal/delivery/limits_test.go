package delivery

import (
	"testing"
	"time"

	"tarishi/internal/mail"
)

// TestLimits: a hop's own limits hold in place of all that is configured, also
// an idle time of nothing.
func TestLimits(t *testing.T) {
	o := options(&sender{})
	o.ConnectTimeout, o.PoolTimeout, o.PoolConcurrencyMax = time.Second, time.Minute, 5
	hop := mail.NextHop{Host: "192.0.2.1"}
	job := Job{Envelope: envelope(1), Domain: "x.test", Settings: Settings{MaxConnections: 6, MaxMessages: 7}}
	w := &walk{d: New(o), job: job}
	got := w.target(&place{hop: hop})
	if got.MaxConnections != 6 || got.MaxMessages != 7 || got.MaxAge != maxAge || got.IdleTimeout != time.Minute || got.ConnectTimeout != time.Second {
		t.Errorf("without limits: %+v", got)
	}
	hop.Limits = mail.Limits{Connections: 1, Messages: 2, Age: 3, Connect: 5, Command: 6, Submission: 7}
	got = w.target(&place{hop: hop})
	if got.MaxConnections != 1 || got.MaxMessages != 2 || got.MaxAge != 3 || got.IdleTimeout != 0 ||
		got.ConnectTimeout != 5 || got.CommandTimeout != 6 || got.SubmissionTimeout != 7 {
		t.Errorf("with limits: %+v", got)
	}
}
