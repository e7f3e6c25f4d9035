package delivery

import (
	"context"
	"net"
	"testing"
	"testing/synctest"

	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// TestSilence holds that what a server does not answer in time, wherever that
// is, asks to be sent less.
func TestSilence(t *testing.T) {
	for _, stage := range []smtptest.Stage{
		smtptest.Connect, smtptest.Hello, smtptest.Mail, smtptest.Rcpt, smtptest.Data, smtptest.Dot,
	} {
		synctest.Test(t, func(t *testing.T) {
			var network smtptest.Network
			server := smtptest.New(t, network.Listen(), smtptest.On(stage, smtptest.Always(smtptest.Silence())))
			o := options(nil)
			o.Sender = pool.New(pool.Options{Connect: func(ctx context.Context, o smtpclient.Options) (net.Conn, error) {
				return network.Dial(ctx, o.Addr)
			}})
			res := New(o).Attempt(t.Context(), Job{
				Envelope: envelope(1), Content: content, Domain: "x.test", Hops: []mail.NextHop{{Host: "127.0.0.1", Port: server.Port()}},
			}, nil)
			// Of one that never said a word nothing is known.
			if want := stage != smtptest.Connect; res.Throttled != want {
				t.Errorf("silent at %s: throttled %v; %v", stage, res.Throttled, res.Replies)
			}
		})
	}
}
