package delivery

import (
	"context"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// hasty is a pool with short timeouts.
type hasty struct{ *pool.Pool }

func (p hasty) Send(ctx context.Context, t pool.Target, env *mail.Envelope, c mail.Content) (smtpclient.Result, error) {
	t.CommandTimeout, t.DataTimeout, t.SubmissionTimeout = 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
	return p.Pool.Send(ctx, t, env, c)
}

// TestSilence holds that what a server does not answer in time, wherever that
// is, asks to be sent less.
func TestSilence(t *testing.T) {
	for _, stage := range []smtptest.Stage{
		smtptest.Connect, smtptest.Hello, smtptest.Mail, smtptest.Rcpt, smtptest.Data, smtptest.Dot,
	} {
		server := smtptest.New(t, smtptest.On(stage, smtptest.Always(smtptest.Silence())))
		o := options(nil)
		o.Sender = hasty{pool.New(pool.Options{})}
		res := New(o).Attempt(t.Context(), Job{
			Envelope: envelope(1), Content: content, Domain: "x.test", Hops: []mail.NextHop{{Host: "127.0.0.1", Port: server.Port()}},
		}, nil)
		// Of one that never said a word nothing is known.
		if want := stage != smtptest.Connect; res.Throttled != want {
			t.Errorf("silent at %s: throttled %v; %v", stage, res.Throttled, res.Replies)
		}
	}
}
