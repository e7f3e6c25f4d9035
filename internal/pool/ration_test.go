package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// stingy is a server that takes n messages a connection and refuses more with
// reply at a stage, without closing. refusals counts them.
func stingy(t *testing.T, stage smtptest.Stage, n int, reply string, refusals *atomic.Int32, more ...smtptest.Option) *smtptest.Server {
	return smtptest.New(t, append(more, smtptest.On(stage, func(e smtptest.Event) smtptest.Action {
		if e.Transaction <= n {
			return smtptest.Action{}
		}
		refusals.Add(1)
		return smtptest.Reply(reply)
	}))...)
}

// TestOneMessageAConnection: what a server refuses because of the messages before
// it is delivered on a new connection, and is asked for once only.
func TestOneMessageAConnection(t *testing.T) {
	for _, stage := range []smtptest.Stage{smtptest.Mail, smtptest.Rcpt} {
		for _, reply := range []string{
			"503 5.5.1 one message a connection", "554 no more", "550 5.7.1 no", "450 4.7.0 enough", "452 4.5.3 too many in this session",
		} {
			if blamed := strings.HasPrefix(reply, "503") || strings.Contains(reply, "session"); stage == smtptest.Rcpt && !blamed {
				continue
			}
			for _, n := range []int{1, 3} {
				for _, mode := range []string{"pipelined", "lockstep", "LMTP"} {
					t.Run(fmt.Sprint(stage, " ", reply[:3], " after ", n, ", ", mode), func(t *testing.T) {
						var refusals atomic.Int32
						var more []smtptest.Option
						to := pool.Target{}
						switch mode {
						case "lockstep":
							more = append(more, smtptest.Without("PIPELINING"))
						case "LMTP":
							more = append(more, smtptest.LMTP())
							to.Protocol = mail.LMTP
						}
						s := stingy(t, stage, n, reply, &refusals, more...)
						p := pool.New(pool.Options{})
						run(t, p)
						to.Addr, to.Helo, to.IdleTimeout = s.Addr(), "me.test", time.Minute
						const messages = 8
						for i := range messages {
							res, err := p.Send(t.Context(), to, envelope(i), content())
							if err != nil || !res.Replies[0].Positive() {
								t.Fatalf("message %d: %v %v", i, res.Replies, err)
							}
						}
						if got := len(s.Messages()); got != messages {
							t.Errorf("%d messages of %d", got, messages)
						}
						if want := (messages + n - 1) / n; s.Connections() != want || refusals.Load() != 1 {
							t.Errorf("%d connections, want %d; %d refusals", s.Connections(), want, refusals.Load())
						}
						if v := s.Violations(); len(v) > 0 {
							t.Error(v)
						}
					})
				}
			}
		}
	}
}

// TestRefusedOnBoth: what is refused on the new connection too counts, and a
// sender who is refused there is not carried to another one each time.
func TestRefusedOnBoth(t *testing.T) {
	s := smtptest.New(t, smtptest.On(smtptest.Mail, smtptest.For(smtptest.Reply("550 5.7.1 not you"), "s0@y.test")))
	p := pool.New(pool.Options{})
	run(t, p)
	for i, want := range []int{250, 550, 550, 550, 250, 550, 250} {
		n := 0 // the sender that is refused
		if want == 250 {
			n = i + 1
		}
		res, err := p.Send(t.Context(), target(s), envelope(n), content())
		if err != nil || res.Replies[0].Code != want {
			t.Fatalf("message %d: %v %v", i, res.Replies, err)
		}
	}
	if s.Connections() != 2 || len(s.Messages()) != 3 {
		t.Errorf("%d connections, %d messages", s.Connections(), len(s.Messages()))
	}
}

// TestNoNewConnection: where there is no new connection, a refusal on a kept one
// is no more than a reason to wait.
func TestNoNewConnection(t *testing.T) {
	s := smtptest.New(t,
		smtptest.On(smtptest.Mail, func(e smtptest.Event) smtptest.Action {
			if e.Transaction > 1 {
				return smtptest.Reply("554 5.7.1 no more")
			}
			return smtptest.Action{}
		}),
		smtptest.On(smtptest.Connect, func(e smtptest.Event) smtptest.Action {
			if e.Conn > 1 {
				return smtptest.Reply("421 4.7.0 too many connections").ThenClose()
			}
			return smtptest.Action{}
		}))
	p := pool.New(pool.Options{})
	run(t, p)
	if _, err := p.Send(t.Context(), target(s), envelope(1), content()); err != nil {
		t.Fatal(err)
	}
	_, err := p.Send(t.Context(), target(s), envelope(2), content())
	var f *smtpclient.Failure
	if !errors.As(err, &f) || f.Stage != smtpclient.StageGreeting || !f.Deferral().Temporary() {
		t.Error(err)
	}
}

// miser is a connection that takes one message and refuses those behind it.
type miser struct {
	fake
	taken, refused *int
	begun          bool
}

func (m *miser) Send(context.Context, *mail.Envelope, mail.Content) (smtpclient.Result, error) {
	if m.begun {
		*m.refused++
		return smtpclient.Result{Replies: []*reply.Reply{reply.New(554, "", "no more")}, Reused: true, Repeatable: true}, nil
	}
	m.begun = true
	*m.taken++
	return smtpclient.Result{Replies: []*reply.Reply{reply.New(250, "", "ok")}, Begun: true}, nil
}

// TestRationIsForgotten: the server is asked again after ten minutes.
func TestRationIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken, refused := 0, 0
		p := pool.New(pool.Options{
			Connect: func(context.Context, smtpclient.Options) (net.Conn, error) { return socket{}, nil },
			Open: func(context.Context, net.Conn, smtpclient.Options) (pool.Conn, error) {
				return &miser{taken: &taken, refused: &refused}, nil
			},
		})
		stop := run(t, p)
		to := pool.Target{IdleTimeout: time.Minute}
		to.Addr = "192.0.2.1:25"
		for range 25 { // minutes
			for range 60 {
				if res, err := p.Send(t.Context(), to, envelope(1), content()); err != nil || !res.Begun {
					t.Fatal(res, err)
				}
				time.Sleep(time.Second)
			}
		}
		if taken != 25*60 || refused != 3 {
			t.Errorf("%d messages, %d refusals", taken, refused)
		}
		stop()
	})
}

// TestGivenUpBeforeTheNewConnection: what was refused on a kept connection does not
// count either where the context ends before there is a new one.
func TestGivenUpBeforeTheNewConnection(t *testing.T) {
	for _, stage := range []smtptest.Stage{smtptest.Mail, smtptest.Rcpt} {
		ctx, cancel := context.WithCancel(t.Context())
		s := smtptest.New(t,
			smtptest.On(stage, func(e smtptest.Event) smtptest.Action {
				if e.Transaction > 1 {
					return smtptest.Reply("554 5.7.1 no more in this session").ThenSilence() // and no reply to the next command
				}
				return smtptest.Action{}
			}))
		p := pool.New(pool.Options{})
		run(t, p)
		if _, err := p.Send(t.Context(), target(s), envelope(1), content()); err != nil {
			t.Fatal(err)
		}
		end := time.AfterFunc(100*time.Millisecond, cancel)
		res, err := p.Send(ctx, target(s), envelope(2), content())
		end.Stop()
		cancel()
		var f *smtpclient.Failure
		if !errors.As(err, &f) || !f.Deferral().Temporary() || f.Uncertain {
			t.Errorf("%v: %v %v", stage, res.Replies, err)
		}
	}
}
