package pool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

// guarded is a server at which the password "right" is the right one. An attempt
// takes a tenth of a second.
type guarded struct {
	mu       sync.Mutex
	began    time.Time
	attempts []time.Duration
	right    string
	code     int // to the others
}

func (g *guarded) options() pool.Options {
	g.began = time.Now()
	return dialer(func(_ context.Context, o smtpclient.Options) (*fake, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if o.AuthUser == "" {
			return &fake{}, nil
		}
		g.attempts = append(g.attempts, time.Since(g.began).Truncate(time.Second))
		right := o.AuthPass == g.right
		g.mu.Unlock()
		time.Sleep(100 * time.Millisecond)
		g.mu.Lock()
		if !right {
			return nil, &smtpclient.Failure{
				Stage: smtpclient.StageAuth, Reply: reply.New(g.code, fmt.Sprintf("%d.7.8", g.code/100), "no"), Fresh: true, Addr: o.Addr,
			}
		}
		return &fake{}, nil
	})
}

// TestRefusedCredentials follows messages for a server that does not know our
// password, ten a second, for twenty minutes.
func TestRefusedCredentials(t *testing.T) {
	for _, tt := range []struct {
		code int
		want string
	}{
		{535, "[0s 0s 0s 0s 11s 32s 1m13s 2m34s 5m15s 10m16s 15m17s]"}, // four that began before anything was known
		{454, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := &guarded{right: "right", code: tt.code}
			p := pool.New(g.options())
			run(t, p)
			to := pool.Target{IdleTimeout: time.Minute}
			to.AuthUser, to.AuthPass = "u", "wrong"
			var wg sync.WaitGroup
			for s := range 20 * 60 {
				for i := range 10 {
					wg.Go(func() {
						begin := time.Now()
						_, err := p.Send(t.Context(), to, envelope(i), content())
						var f *smtpclient.Failure
						if !errors.As(err, &f) || f.Stage != smtpclient.StageAuth || f.Reply.Code != tt.code || !reply.From(err).Temporary() {
							t.Errorf("after %d s: %v", s, err)
						}
						if tt.code == 535 && time.Since(begin) > 200*time.Millisecond {
							t.Errorf("after %d s: waited %v", s, time.Since(begin))
						}
					})
				}
				time.Sleep(time.Second)
			}
			wg.Wait()
			if got := fmt.Sprint(g.attempts); tt.want != "" && got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if n := len(g.attempts); tt.want == "" && n < 20*60 {
				t.Errorf("%d attempts after a 4yz", n)
			}
			if st := p.Stats(); st.Open != 0 || st.Waiting != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestOtherCredentials: what is not held up by credentials that were refused,
// and when they are forgotten.
func TestOtherCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guarded{right: "right", code: 535}
		p := pool.New(g.options())
		run(t, p)
		send := func(user, pass string) bool {
			to := pool.Target{IdleTimeout: time.Hour}
			to.AuthUser, to.AuthPass = user, pass
			_, err := p.Send(t.Context(), to, envelope(1), content())
			return err == nil
		}
		tried := func(want int) {
			t.Helper()
			if len(g.attempts) != want {
				t.Errorf("%d attempts, want %d", len(g.attempts), want)
			}
		}
		for range 2 {
			if send("u", "wrong") {
				t.Error("taken")
			}
		}
		tried(1)
		if !send("u", "right") || !send("", "") || send("v", "wrong") {
			t.Error("others are held up")
		}
		tried(3)
		// A kept connection has authenticated.
		g.right = "new"
		if !send("u", "right") {
			t.Error("a kept connection is not used")
		}
		tried(3)
		// Once they were right nothing is left of it.
		g.right = "wrong"
		time.Sleep(11 * time.Second)
		if !send("u", "wrong") {
			t.Error("refused for ever")
		}
		tried(4)
		g.right = "right"
		time.Sleep(2 * time.Hour) // nothing is kept any more
		for range 2 {
			if send("u", "wrong") {
				t.Error("taken")
			}
		}
		tried(5)
		time.Sleep(11 * time.Second)
		send("u", "wrong")
		tried(6)
	})
}

// TestRefusedAfterXClient: with XCLIENT each client's message authenticates
// again, on a connection that is there.
func TestRefusedAfterXClient(t *testing.T) {
	var attempts atomic.Int32
	hold := make(chan struct{})
	s := smtptest.New(t, smtptest.Credentials("u", "p"), smtptest.With("XCLIENT NAME"),
		smtptest.On(smtptest.Dot, func(e smtptest.Event) smtptest.Action {
			if e.Conn == 1 {
				<-hold
			}
			return smtptest.Action{}
		}),
		smtptest.On(smtptest.Auth, func(smtptest.Event) smtptest.Action {
			if attempts.Add(1) > 4 { // as ourselves and for a, on two connections
				return smtptest.Reply("535 5.7.8 no")
			}
			return smtptest.Action{}
		}))
	p := pool.New(pool.Options{})
	run(t, p)
	to := target(s)
	to.AuthUser, to.AuthPass, to.Forwards = "u", "p", mail.XClient
	send := func(client string) string {
		env := envelope(1)
		env.Origin = &mail.Origin{Name: client}
		res, err := p.Send(t.Context(), to, env, content())
		if err != nil {
			return reply.From(err).String()
		}
		return res.Replies[0].String()[:1]
	}
	first := make(chan string)
	go func() { first <- send("a.test") }()
	s.Wait(func() bool { return s.Connections() == 1 }, "the first connection")
	second := send("a.test")
	close(hold)
	if one := <-first; one != "2" || second != "2" || p.Stats().Idle != 2 {
		t.Fatalf("%s, %s, %+v", one, second, p.Stats())
	}
	const no = "451 4.7.8 Next hop refused at AUTH: 535 5.7.8 no"
	for range 3 {
		if got := send("b.test"); got != no {
			t.Error(got)
		}
	}
	if n := attempts.Load(); n != 5 || s.Connections() != 2 || p.Stats().Idle != 1 {
		t.Errorf("%d attempts on %d connections, %+v", n, s.Connections(), p.Stats())
	}
}
