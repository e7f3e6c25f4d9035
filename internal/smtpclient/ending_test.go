package smtpclient_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/sending"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// atEnd is a content that tells when all of it has been read.
type atEnd struct {
	mail.Content
	told func()
}

func (c atEnd) Open() (io.ReadCloser, error) {
	r, err := c.Content.Open()
	return &atEndReader{r, c.told}, err
}

type atEndReader struct {
	io.ReadCloser
	told func()
}

func (r *atEndReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err == io.EOF {
		r.told()
	}
	return n, err
}

// TestEnding: a message that is not to be ended never gets its final dot or last
// chunk.
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
			errTired := errors.New("tired")
			ctx := sending.New(t.Context())
			c := dial(t, o)
			res, err := c.Send(ctx, envelope(t, "s@y.test", "a@x.test", "b@x.test"), atEnd{content, func() { ctx.GiveUp(errTired) }})
			var f *smtpclient.Failure
			if !errors.As(err, &f) || f.Stage != smtpclient.StageContent || f.Uncertain || f.Stale() || f.Unreachable() || c.Reusable() || context.Cause(ctx) != errTired {
				t.Error(outcome(res, err))
			}
			ctx = sending.New(t.Context())
			defer ctx.Cancel(nil)
			c = dial(t, o)
			for range 2 {
				res, err := c.Send(ctx, envelope(t, "s@y.test", "a@x.test"), content)
				if err != nil || !res.Replies[0].Positive() {
					t.Error(outcome(res, err))
				}
			}
			if !c.Reusable() {
				t.Error("the connection is of no use any more")
			}
			c.Quit()
			if n := len(s.WaitMessages(2)); n != 2 {
				t.Errorf("%d messages were ended", n)
			}
		})
	}
	if !sending.MayEnd(t.Context()) {
		t.Error("what nobody asks about may not be ended")
	}
}

// guard refuses permits with an error, or counts those that it gives.
type guard struct {
	given int
	err   error
}

func (g *guard) Permit() error {
	if g.err == nil {
		g.given++
	}
	return g.err
}

// TestGuard: the guard of a sending.Context is asked before the final dot, and can still stop
// the message there.
func TestGuard(t *testing.T) {
	errLost := errors.New("lost")
	for _, refusal := range []error{nil, errLost} {
		s := smtptest.New(t)
		g := &guard{err: refusal}
		ctx := sending.New(t.Context())
		ctx.Guard(g)
		c := dial(t, smtpclient.Options{Helo: "client.test", Addr: s.Addr()})
		res, err := c.Send(ctx, envelope(t, "s@y.test", "a@x.test"), text(message))
		if refusal == nil {
			if err != nil || g.given != 1 || len(s.WaitMessages(1)) != 1 {
				t.Error(outcome(res, err), g.given)
			}
			c.Quit()
			ctx.Cancel(nil)
			continue
		}
		var f *smtpclient.Failure
		if !errors.As(err, &f) || f.Uncertain || context.Cause(ctx) != errLost || c.Reusable() {
			t.Error(outcome(res, err), context.Cause(ctx))
		}
		if n := len(s.Messages()); n != 0 {
			t.Errorf("%d messages were ended without a permit", n)
		}
	}
}
