package smtpclient_test

import (
	"context"
	"errors"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/smtpclient"
	"tarishi/internal/smtptest"
)

// TestEnding: a message that is not to be ended never gets its final dot or last
// chunk, and one that is gets it after one question.
func TestEnding(t *testing.T) {
	for _, way := range []string{"DATA", "long DATA", "BDAT", "LMTP"} {
		t.Run(way, func(t *testing.T) {
			var opts []smtptest.Option
			o, content := smtpclient.Options{Helo: "client.test"}, text(message)
			switch way {
			case "long DATA":
				content = text(lines(1 << 20))
			case "BDAT":
				opts, content = chunking(), text(lines(1<<20))
			case "LMTP":
				opts, o.Protocol = append(opts, smtptest.LMTP()), mail.LMTP
			}
			s := smtptest.New(t, opts...)
			o.Addr = s.Addr()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for _, cancels := range []bool{false, true} {
				asked := 0
				c := dial(t, o)
				res, err := c.Send(smtpclient.WithEnding(ctx, func() bool {
					if asked++; cancels {
						cancel()
					}
					return false
				}), envelope(t, "s@y.test", "a@x.test", "b@x.test"), content)
				var f *smtpclient.Failure
				if !errors.As(err, &f) || f.Stage != smtpclient.StageContent || f.Uncertain || f.Stale() || f.Unreachable() || c.Reusable() || asked != 1 {
					t.Errorf("asked %d times: %s", asked, outcome(res, err))
				}
			}
			asked := 0
			c := dial(t, o)
			for range 2 {
				res, err := c.Send(smtpclient.WithEnding(t.Context(), func() bool { asked++; return true }), envelope(t, "s@y.test", "a@x.test"), content)
				if err != nil || !res.Replies[0].Positive() {
					t.Error(outcome(res, err))
				}
			}
			if asked != 2 || !c.Reusable() {
				t.Errorf("asked %d times", asked)
			}
			c.Quit()
			if n := len(s.WaitMessages(2)); n != 2 {
				t.Errorf("%d messages were ended", n)
			}
		})
	}
	if !smtpclient.MayEnd(t.Context()) {
		t.Error("what nobody asks about may not be ended")
	}
}
