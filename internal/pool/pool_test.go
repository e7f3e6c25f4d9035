package pool_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
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

const message = "Subject: x\r\n\r\nhello\r\n"

func content() mail.Content { return mail.Memory{[]byte(message)} }

func envelope(n int) *mail.Envelope {
	return &mail.Envelope{
		From:       mail.Address{Local: fmt.Sprint("s", n), Domain: "y.test"},
		Recipients: []mail.Recipient{{Address: mail.Address{Local: "r", Domain: "x.test"}}},
	}
}

func target(s *smtptest.Server) pool.Target {
	return pool.Target{Options: smtpclient.Options{Addr: s.Addr(), Helo: "me.test"}, IdleTimeout: time.Minute}
}

// run starts p.Run and ends it with the test.
func run(t *testing.T, p *pool.Pool) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func TestReuse(t *testing.T) {
	for _, tt := range []struct {
		name  string
		set   func(*pool.Target)
		conns int // for 6 messages
		open  int
	}{
		{"kept", func(*pool.Target) {}, 1, 1},
		{"no reuse", func(t *pool.Target) { t.IdleTimeout = 0 }, 6, 0},
		{"two messages each", func(t *pool.Target) { t.MaxMessages = 2 }, 3, 0},
		{"four messages each", func(t *pool.Target) { t.MaxMessages = 4 }, 2, 1},
		{"too old", func(t *pool.Target) { t.MaxAge = time.Nanosecond }, 6, 0},
		{"one at a time", func(t *pool.Target) { t.MaxMessages, t.MaxConnections = 1, 1 }, 6, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := smtptest.New(t)
			p := pool.New(pool.Options{})
			stop := run(t, p)
			to := target(s)
			tt.set(&to)
			for i := range 6 {
				res, err := p.Send(t.Context(), to, envelope(i), content())
				if err != nil || !res.Replies[0].Positive() {
					t.Fatal(res, err)
				}
			}
			if s.Connections() != tt.conns || len(s.Messages()) != 6 {
				t.Errorf("%d messages on %d connections, want %d", len(s.Messages()), s.Connections(), tt.conns)
			}
			s.WaitOpen(tt.open)
			for p.Stats().Open != tt.open { // until it has seen the server's goodbye
				time.Sleep(time.Millisecond)
			}
			st := p.Stats()
			if st.Dials != tt.conns || st.Reuses != 6-tt.conns || st.Open != tt.open || st.Idle != tt.open {
				t.Errorf("%+v", st)
			}
			stop()
			s.WaitOpen(0)
			for i := range tt.conns {
				if d := s.Dialog(i + 1); d[len(d)-1] != "QUIT" {
					t.Errorf("connection %d ended with %q", i+1, d[len(d)-1])
				}
			}
			if st := p.Stats(); st.Open != 0 || st.Idle != 0 {
				t.Errorf("after Run: %+v", st)
			}
			// Without Run there is still delivery, but nothing is kept.
			if _, err := p.Send(t.Context(), to, envelope(7), content()); err != nil {
				t.Error(err)
			}
			s.WaitOpen(0)
		})
	}
}

// TestKey: what makes a connection another connection.
func TestKey(t *testing.T) {
	s := smtptest.New(t, smtptest.Credentials("u", "p"), smtptest.TLS())
	p := pool.New(pool.Options{})
	run(t, p)
	conns := 0
	clients := []*tls.Config{{Certificates: []tls.Certificate{s.Certificate()}}, {InsecureSkipVerify: true}}
	fine := func(tls.ConnectionState) error { return nil }
	for i, change := range []func(*pool.Target){
		func(*pool.Target) {},
		func(t *pool.Target) { t.Helo = "other.test" },
		func(t *pool.Target) { t.Host = "x.test" },
		func(t *pool.Target) { t.TLS = smtpclient.TLSMay },
		func(t *pool.Target) { t.TLS = smtpclient.TLSEncrypt },
		func(t *pool.Target) { t.TLS, t.TLSConfig = smtpclient.TLSEncrypt, clients[0] },
		func(t *pool.Target) { t.TLS, t.TLSConfig = smtpclient.TLSEncrypt, clients[1] },
		func(t *pool.Target) { t.TLS, t.Verify, t.VerifyKey = smtpclient.TLSEncrypt, fine, "a" },
		func(t *pool.Target) { t.TLS, t.Verify, t.VerifyKey = smtpclient.TLSEncrypt, fine, "b" },
		func(t *pool.Target) { t.Bind = netip.MustParseAddr("127.0.0.2") },
		func(t *pool.Target) { t.Bind = netip.MustParseAddr("127.0.0.3") },
		func(t *pool.Target) { t.Forwards = mail.XForward },
		func(t *pool.Target) { t.Forwards = mail.XClient },
		func(t *pool.Target) { t.AuthType, t.AuthUser, t.AuthPass = "plain", "u", "p" },
		func(t *pool.Target) { t.AuthType, t.AuthUser, t.AuthPass = "login", "u", "p" },
	} {
		to := target(s)
		change(&to)
		conns++
		for range 2 {
			if _, err := p.Send(t.Context(), to, envelope(i), content()); err != nil {
				t.Fatal(err)
			}
			if s.Connections() != conns {
				t.Fatalf("target %d: %d connections, want %d", i, s.Connections(), conns)
			}
		}
	}
	to := target(s)
	to.TLS, to.Verify = smtpclient.TLSEncrypt, fine // without a key nobody shares it
	for range 2 {
		conns++
		if _, err := p.Send(t.Context(), to, envelope(9), content()); err != nil || s.Connections() != conns {
			t.Error(err, s.Connections())
		}
	}
	to = target(s)
	to.CommandTimeout, to.MaxConnections = time.Hour, 5 // no identity
	if _, err := p.Send(t.Context(), to, envelope(9), content()); err != nil || s.Connections() != conns {
		t.Error(err, s.Connections())
	}
	to = target(s)
	to.AuthType, to.AuthUser, to.AuthPass = "plain", "u", "wrong"
	if _, err := p.Send(t.Context(), to, envelope(9), content()); err == nil {
		t.Error("the wrong password got somebody else's connection")
	}
}

// TestFaults sends one message to make a connection, a second to which
// something happens, and a third.
func TestFaults(t *testing.T) {
	second := func(a smtptest.Action) smtptest.Hook {
		return func(e smtptest.Event) smtptest.Action {
			if e.Transaction == 2 && e.Conn == 1 {
				return a
			}
			return smtptest.Action{}
		}
	}
	for _, tt := range []struct {
		name    string
		stage   smtptest.Stage
		action  smtptest.Action
		outcome string // of the second message
		retries int
		conns   int
		copies  int // of the second message that the server saw to the end
	}{
		{"mail closed", smtptest.Mail, smtptest.Close(), "250", 1, 2, 1},
		{"mail reset", smtptest.Mail, smtptest.Reset(), "250", 1, 2, 1},
		{"mail 421", smtptest.Mail, smtptest.Reply("421 4.3.2 x").ThenClose(), "250", 1, 2, 1},
		{"mail garbage", smtptest.Mail, smtptest.Garbage(), "failure at MAIL", 0, 2, 0},
		{"mail 450", smtptest.Mail, smtptest.Reply("450 4.7.1 x"), "250", 1, 3, 1},
		{"mail 550", smtptest.Mail, smtptest.Reply("550 5.7.1 x"), "250", 1, 3, 1},
		{"mail 503", smtptest.Mail, smtptest.Reply("503 one message a connection"), "250", 1, 3, 1},
		{"rcpt 421", smtptest.Rcpt, smtptest.Reply("421 4.3.2 x").ThenClose(), "250", 1, 2, 1},
		{"rcpt closed", smtptest.Rcpt, smtptest.Close(), "250", 1, 2, 1},
		{"rcpt 550", smtptest.Rcpt, smtptest.Reply("550 5.1.1 x"), "550", 0, 1, 0},
		{"rcpt 450", smtptest.Rcpt, smtptest.Reply("450 4.2.1 x"), "450", 0, 1, 0},
		{"rcpt 452", smtptest.Rcpt, smtptest.Reply("452 4.5.3 too many recipients in this session"), "250", 1, 3, 1},
		{"rcpt 550 of the session", smtptest.Rcpt, smtptest.Reply("550 5.7.1 Too many recipients in this session"), "250", 1, 3, 1},
		{"data closed", smtptest.Data, smtptest.Close(), "250", 1, 2, 1},
		{"data 421", smtptest.Data, smtptest.Reply("421 4.3.2 x").ThenClose(), "250", 1, 2, 1},
		{"data 503", smtptest.Data, smtptest.Reply("503 5.5.1 one message a connection"), "250", 1, 3, 1},
		{"data 554", smtptest.Data, smtptest.Reply("554 5.7.1 x"), "554", 0, 1, 0},
		{"dot closed", smtptest.Dot, smtptest.Close(), "uncertain", 0, 2, 1},
		{"dot 421", smtptest.Dot, smtptest.Reply("421 4.3.2 x").ThenClose(), "failure at final dot", 0, 2, 1},
		{"dot 451", smtptest.Dot, smtptest.Reply("451 4.3.2 x"), "451", 0, 1, 1},
		{"accepted, closed", smtptest.Dot, smtptest.Reply("250 x").ThenClose(), "250", 0, 2, 1},
		{"accepted, 421 behind", smtptest.Dot, smtptest.Extra("421 4.4.2 bye\r\n"), "250", 0, 2, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := smtptest.New(t, smtptest.On(tt.stage, second(tt.action)))
			p := pool.New(pool.Options{})
			run(t, p)
			for i := 1; i <= 3; i++ {
				want := "250"
				if i == 2 {
					want = tt.outcome
				}
				res, err := p.Send(t.Context(), target(s), envelope(i), content())
				got := ""
				var f *smtpclient.Failure
				switch {
				case errors.As(err, &f) && f.Uncertain:
					got = "uncertain"
				case err != nil && f != nil:
					got = "failure at " + f.Stage.String()
				case err == nil:
					got = fmt.Sprint(res.Replies[0].Code)
				}
				if got != want {
					t.Errorf("message %d: %s (%v), want %s", i, got, err, want)
				}
			}
			seen := map[string]int{}
			for _, x := range s.Transactions() {
				seen[x.From]++
			}
			if seen["s1@y.test"] != 1 || seen["s2@y.test"] != tt.copies || seen["s3@y.test"] != 1 {
				t.Errorf("seen %v", seen)
			}
			want := pool.Stats{Open: 1, Idle: 1, Retries: tt.retries, Dials: tt.conns}
			if tt.conns == 3 { // no more than one message a connection, after what was learned
				want.Open, want.Idle = 0, 0
				for p.Stats().Open > 0 {
					time.Sleep(time.Millisecond)
				}
			}
			st := p.Stats()
			// A connection closed behind the reply shows only when it is used.
			if tt.name == "accepted, closed" {
				want.Retries = 1
			}
			if st.Reuses = 0; st != want {
				t.Errorf("%+v, want %+v", st, want)
			}
			if v := s.Violations(); len(v) > 0 {
				t.Error(v)
			}
		})
	}
}

// TestStaleTwice: there is one repetition, not more.
func TestStaleTwice(t *testing.T) {
	s := smtptest.New(t, smtptest.On(smtptest.Mail, func(e smtptest.Event) smtptest.Action {
		if e.Address == "s2@y.test" {
			return smtptest.Close()
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
	if !errors.As(err, &f) || !f.Fresh || s.Connections() != 2 {
		t.Error(err, s.Connections())
	}
	if st := p.Stats(); st.Open != 0 {
		t.Errorf("%+v", st)
	}
}

func TestTLSFallsBack(t *testing.T) {
	s := smtptest.New(t, smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.BreakTLS())))
	p := pool.New(pool.Options{})
	run(t, p)
	to := target(s)
	to.TLS = smtpclient.TLSMay
	for range 2 {
		res, err := p.Send(t.Context(), to, envelope(1), content())
		if err != nil || res.TLS != "none" {
			t.Fatal(res, err)
		}
	}
	if s.Connections() != 2 {
		t.Error(s.Connections())
	}
	to.TLS = smtpclient.TLSEncrypt
	if _, err := p.Send(t.Context(), to, envelope(1), content()); err == nil {
		t.Error("sent in clear though TLS is required")
	}
	s = smtptest.New(t, smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Extra("250 x\r\n"))))
	to = target(s)
	to.TLS = smtpclient.TLSMay
	if _, err := p.Send(t.Context(), to, envelope(1), content()); err == nil || s.Connections() != 1 {
		t.Error("an injection was taken for a server without TLS")
	}
}

// TestTLSHangsUp: a server that ends the connection at STARTTLS, in whatever way,
// gets mail in clear where that is allowed, and the next one without asking again.
func TestTLSHangsUp(t *testing.T) {
	for name, a := range map[string]smtptest.Action{
		"closed": smtptest.Close(), "reset": smtptest.Reset(), "421": smtptest.Reply("421 4.7.0 no TLS today").ThenClose(),
		"421, open": smtptest.Reply("421 4.7.0 no TLS today"), "refused, then closed": smtptest.Reply("454 4.7.0 no").ThenClose(),
		"refused, then reset": smtptest.Reply("502 5.5.1 no").ThenReset(), "garbage": smtptest.Garbage(),
		"220, then closed": smtptest.Reply("220 go ahead").ThenClose(),
	} {
		t.Run(name, func(t *testing.T) {
			s := smtptest.New(t, smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(a)))
			p := pool.New(pool.Options{})
			run(t, p)
			to := target(s)
			to.TLS, to.IdleTimeout = smtpclient.TLSMay, 0
			for range 2 {
				res, err := p.Send(t.Context(), to, envelope(1), content())
				if err != nil || !res.Replies[0].Positive() || res.TLS != "none" {
					t.Fatal(res, err)
				}
			}
			if s.Connections() != 3 || len(s.Messages()) != 2 {
				t.Errorf("%d connections, %d messages", s.Connections(), len(s.Messages()))
			}
			for _, policy := range []smtpclient.TLSPolicy{smtpclient.TLSEncrypt, smtpclient.TLSVerify} {
				to.TLS = policy
				if _, err := p.Send(t.Context(), to, envelope(1), content()); err == nil || len(s.Messages()) != 2 {
					t.Error("sent in clear though TLS is required")
				}
			}
		})
	}
}

// TestSlots: never more connections than MaxConnections, all get their turn,
// and the connections are shared.
func TestSlots(t *testing.T) {
	var now, most atomic.Int32
	s := smtptest.New(t, smtptest.On(smtptest.Connect, func(smtptest.Event) smtptest.Action {
		for n := now.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				return smtptest.Action{}
			}
		}
	}), smtptest.On(smtptest.Quit, func(smtptest.Event) smtptest.Action {
		now.Add(-1)
		return smtptest.Action{}
	}))
	p := pool.New(pool.Options{})
	run(t, p)
	to := target(s)
	to.MaxConnections, to.MaxMessages = 3, 10
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if res, err := p.Send(t.Context(), to, envelope(i), content()); err != nil || !res.Replies[0].Positive() {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 {
		t.Errorf("%d connections", most.Load())
	}
	seen := map[string]bool{}
	for _, m := range s.Messages() {
		seen[m.From] = true
	}
	if len(s.Messages()) != 200 || len(seen) != 200 {
		t.Errorf("%d messages, %d different", len(s.Messages()), len(seen))
	}
	if st := p.Stats(); st.Dials != s.Connections() || st.Dials+st.Reuses != 200 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
}

// fake is a Conn of a fake server.
type fake struct {
	busy   func(ctx context.Context) error
	closed bool
	quit   *atomic.Int32
}

func (f *fake) Send(ctx context.Context, env *mail.Envelope, _ mail.Content) (smtpclient.Result, error) {
	if f.busy != nil {
		if err := f.busy(ctx); err != nil {
			f.closed = true
			return smtpclient.Result{}, &smtpclient.Failure{Stage: smtpclient.StageMail, Err: err}
		}
	}
	return smtpclient.Result{Replies: []*reply.Reply{reply.New(250, "", "ok")}}, nil
}
func (f *fake) Reusable() bool   { return !f.closed }
func (f *fake) MaxMessages() int { return 0 }
func (f *fake) Quit() {
	f.closed = true
	if f.quit != nil {
		f.quit.Add(1)
	}
}
func (f *fake) Close() error { f.closed = true; return nil }

func dialer(d func(ctx context.Context, o smtpclient.Options) (*fake, error)) pool.Options {
	return pool.Options{
		Connect: func(context.Context, smtpclient.Options) (net.Conn, error) { return socket{}, nil },
		Open: func(ctx context.Context, _ net.Conn, o smtpclient.Options) (pool.Conn, error) {
			c, err := d(ctx, o)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
	}
}

// socket is a connection that is only opened and closed.
type socket struct{ net.Conn }

func (socket) Close() error { return nil }

func unreachable(o smtpclient.Options) error {
	return &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: errors.New("refused"), Fresh: true, Addr: o.Addr}
}

func TestWaitingForASlotEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := pool.New(dialer(func(context.Context, smtpclient.Options) (*fake, error) {
			return &fake{busy: func(context.Context) error { <-release; return nil }}, nil
		}))
		to := pool.Target{MaxConnections: 1, IdleTimeout: time.Minute}
		var order []int
		var mu sync.Mutex
		var wg sync.WaitGroup
		send := func(ctx context.Context, i int) {
			wg.Go(func() {
				if _, err := p.Send(ctx, to, envelope(i), content()); err != nil {
					var f *smtpclient.Failure
					if i != 2 || !errors.As(err, &f) || reply.From(err).String() != "451 4.4.5 No connection slot to the next hop" {
						t.Errorf("%d: %v", i, err)
					}
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for i := range 5 {
			if i == 2 {
				send(ctx, i)
			} else {
				send(t.Context(), i)
			}
		}
		if st := p.Stats(); st.Waiting != 4 || st.Open != 1 {
			t.Errorf("%+v", st)
		}
		time.Sleep(2 * time.Second)
		if st := p.Stats(); st.Waiting != 3 {
			t.Errorf("%+v", st)
		}
		for range 4 {
			release <- struct{}{}
			synctest.Wait()
		}
		wg.Wait()
		if fmt.Sprint(order) != "[0 1 3 4]" {
			t.Error(order)
		}
		if st := p.Stats(); st.Dials != 1 || st.Reuses != 3 || st.Idle != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// TestBackOff follows an address that is down for five minutes while a hundred
// want it at every turn.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var dials []time.Duration
		var mu sync.Mutex
		p := pool.New(dialer(func(_ context.Context, o smtpclient.Options) (*fake, error) {
			mu.Lock()
			dials = append(dials, time.Since(start))
			mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			if time.Since(start) < 5*time.Minute {
				return nil, unreachable(o)
			}
			return &fake{}, nil
		}))
		to := pool.Target{Options: smtpclient.Options{Addr: "192.0.2.1:25"}, IdleTimeout: time.Minute}
		round := func() (failed int) {
			var n atomic.Int32
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					if _, err := p.Send(t.Context(), to, envelope(i), content()); err != nil {
						n.Add(1)
						if r := reply.From(err); r.Code != 451 || r.Status() != (reply.Enhanced{4, 4, 1}) {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			return int(n.Load())
		}
		if n := round(); n != 100 || len(dials) > 4 {
			t.Fatalf("%d failed, %d dials", n, len(dials))
		}
		burst := len(dials)
		for time.Since(start) < 5*time.Minute {
			before := len(dials)
			if n := round(); n != 100 {
				t.Errorf("%d failed", n)
			}
			if n := len(dials) - before; n > 1 {
				t.Errorf("%d dials at once after %v", n, time.Since(start))
			}
			time.Sleep(time.Second / 2)
		}
		// 1 2 4 8 16 32 60 60 60 … seconds, less a quarter at most
		if n := len(dials) - burst; n < 9 || n > 14 {
			t.Errorf("%d probes: %v", n, dials)
		}
		time.Sleep(time.Minute)
		before := len(dials)
		if n := round(); n != 0 || len(dials) == before {
			t.Errorf("after the address came back %d failed", n)
		}
		if st := p.Stats(); st.Open != 100 || st.Idle != 100 {
			if st.Open != st.Idle {
				t.Errorf("%+v", st)
			}
		}
	})
}

// TestStrangers: an address that nobody knows is dialed by a few, and once it
// is well by all.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dialing, most int
		var mu sync.Mutex
		gate := make(chan struct{})
		p := pool.New(dialer(func(context.Context, smtpclient.Options) (*fake, error) {
			mu.Lock()
			dialing++
			most = max(most, dialing)
			mu.Unlock()
			<-gate
			return &fake{busy: func(context.Context) error { time.Sleep(time.Second); return nil }}, nil
		}))
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if _, err := p.Send(t.Context(), pool.Target{}, envelope(i), content()); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if most != 4 {
			t.Errorf("%d dials at once", most)
		}
		gate <- struct{}{}
		synctest.Wait()
		if most != 50 {
			t.Errorf("%d dials after the first success", most)
		}
		close(gate)
		wg.Wait()
	})
}

func TestRunReaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var quit atomic.Int32
		p := pool.New(dialer(func(context.Context, smtpclient.Options) (*fake, error) {
			return &fake{quit: &quit, busy: func(context.Context) error { time.Sleep(time.Second); return nil }}, nil
		}))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { p.Run(ctx) })
		for i := range 3 {
			wg.Go(func() {
				to := pool.Target{IdleTimeout: time.Duration(i+1) * time.Minute}
				if _, err := p.Send(t.Context(), to, envelope(i), content()); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(30 * time.Second)
		for i := range 3 {
			if st := p.Stats(); st.Idle != 3-i || int(quit.Load()) != i {
				t.Errorf("%+v, %d said goodbye", st, quit.Load())
			}
			time.Sleep(time.Minute)
		}
		if st := p.Stats(); st.Idle != 0 || st.Open != 0 {
			t.Errorf("%+v", st)
		}
		if _, err := p.Send(t.Context(), pool.Target{IdleTimeout: time.Hour}, envelope(1), content()); err != nil {
			t.Error(err)
		}
		cancel()
		wg.Wait()
		if quit.Load() != 4 {
			t.Error(quit.Load())
		}
	})
}

// TestDialBlocked: who waits behind somebody else's dial is let go when its
// context ends.
func TestDialBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New(dialer(func(ctx context.Context, o smtpclient.Options) (*fake, error) {
			<-ctx.Done()
			return nil, unreachable(o)
		}))
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				if _, err := p.Send(ctx, pool.Target{}, envelope(i), content()); err == nil || !reply.From(err).Temporary() {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if st := p.Stats(); st.Open != 0 || st.Waiting != 0 {
			t.Errorf("%+v", st)
		}
		// The dials took 30 s each: the address counts as down.
		before := p.Stats().Dials
		if _, err := p.Send(t.Context(), pool.Target{}, envelope(1), content()); err == nil || p.Stats().Dials != before {
			t.Error("dialed at once")
		}
	})
}
