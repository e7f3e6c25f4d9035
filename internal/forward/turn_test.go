package forward

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/route"
	"tarishi/internal/smtpclient"
)

func inTurn(name string, hosts ...string) *route.Route {
	r := routeTo(hosts...)
	r.Name, r.InTurn, r.DeadRetry, r.ConnectTimeout = name, true, 10*time.Second, 30*time.Second
	return r
}

func takeAll(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
	return replies(env, "250 taken", nil), nil
}

func TestTurns(t *testing.T) {
	b := &backend{answer: takeAll}
	f := forwarder(options(b))
	one, other := inTurn("one", "10.0.0.1", "10.0.0.2", "10.0.0.3"), inTurn("other", "10.0.0.4", "10.0.0.5")
	for range 4 {
		f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), one)
	}
	f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), other)
	f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), one)
	f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), other)
	if got := b.hosts(); got != "1 2 3 1 4 2 5" {
		t.Errorf("in turn: %s", got)
	}
	one.InTurn = false
	for range 3 {
		f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), one)
	}
	if got := b.hosts(); got != "1 1 1" {
		t.Errorf("in order: %s", got)
	}
}

// A host that swallows connections costs one message one connect_timeout, and
// no message after it anything: it is looked at again beside the mail, by one
// connection at a time, and has its turn again when it is back.
func TestDeadHost(t *testing.T) {
	for _, turns := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			var up atomic.Bool
			b := &backend{answer: func(ctx context.Context, addr string, env *mail.Envelope) (smtpclient.Result, error) {
				if addr == "10.0.0.1:25" && !up.Load() {
					time.Sleep(30 * time.Second)
					return smtpclient.Result{}, errRefused
				}
				return takeAll(ctx, addr, env)
			}}
			var probes []string
			var mu sync.Mutex
			var now, most int
			o := options(b)
			o.engine.Probe = func(ctx context.Context, target pool.Target) error {
				mu.Lock()
				now++
				most = max(most, now)
				probes = append(probes, target.Addrs[0].Addr().String()+" "+time.Since(began).String())
				mu.Unlock()
				defer func() { mu.Lock(); now--; mu.Unlock() }()
				if !up.Load() {
					time.Sleep(20 * time.Second)
					return errRefused
				}
				return nil
			}
			probed := func() string {
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if most > 1 {
					t.Errorf("%d probes at once", most)
				}
				return strings.Join(probes, ", ")
			}
			f, relay := build(o)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- relay.Run(ctx) }()
			r := inTurn("r", "10.0.0.1", "10.0.0.2", "10.0.0.3")
			r.InTurn = turns
			send := func(n int) string {
				for range n {
					if v := f.Forward(ctx, hook.ConnectionView{}, message("a@b.c").View(), r); v.Code != hook.OK {
						t.Errorf("%v", v.Reply)
					}
				}
				return b.hosts()
			}
			if got := send(1); got != "1 2" && got != "1 3" || time.Since(began) != 30*time.Second {
				t.Errorf("first: %s after %v", got, time.Since(began))
			}
			want := map[bool]string{true: "3 2 3 2", false: "2 2 2 2"}[turns]
			for range 5 {
				before := time.Now()
				if got := send(4); got != want || !time.Now().Equal(before) {
					t.Errorf("while it is dead: %s, %v", got, time.Since(before))
				}
				time.Sleep(7 * time.Second)
			}
			if got := probed(); got != "10.0.0.1 40s" {
				t.Errorf("probes %s", got)
			}
			up.Store(true)
			time.Sleep(6 * time.Second) // 71 s: the probe of 40 s failed at 60 s, the next was due at 70 s
			if got := probed(); got != "10.0.0.1 40s, 10.0.0.1 1m10s" {
				t.Errorf("probes %s", got)
			}
			if got := send(3); strings.Count(got, "1") != map[bool]int{true: 1, false: 3}[turns] {
				t.Errorf("it is back: %s", got)
			}
			time.Sleep(time.Minute)
			if got := probed(); got != "10.0.0.1 40s, 10.0.0.1 1m10s" {
				t.Errorf("a host that is well is probed: %s", got)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// With all of them dead each message still tries all: a wrong belief must not
// keep mail back, and what answers counts as well again.
func TestAllDead(t *testing.T) {
	up := ""
	b := &backend{answer: func(ctx context.Context, addr string, env *mail.Envelope) (smtpclient.Result, error) {
		if addr != up {
			return smtpclient.Result{}, errRefused
		}
		return takeAll(ctx, addr, env)
	}}
	f := forwarder(options(b))
	r := inTurn("r", "10.0.0.1", "10.0.0.2")
	for range 2 {
		if v := f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r); v.Reply.Code != 451 {
			t.Errorf("%v", v.Reply)
		}
	}
	if got := b.hosts(); got != "1 2 2 1" {
		t.Error(got)
	}
	up = "10.0.0.2:25"
	for range 3 {
		f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
	}
	if got := b.hosts(); got != "1 2 2 2" {
		t.Error(got)
	}
}

// What is no fault of the host does not make it dead.
func TestNotDead(t *testing.T) {
	for name, failure := range map[string]*smtpclient.Failure{
		"busy":          {Stage: smtpclient.StageConnect, Reply: reply.New(451, "4.4.5", "no slot")},
		"credentials":   {Stage: smtpclient.StageAuth, Reply: reply.New(535, "5.7.8", "no")},
		"lost at MAIL":  {Stage: smtpclient.StageMail, Err: errors.New("lost")},
		"greeting":      {Stage: smtpclient.StageGreeting, Reply: reply.New(421, "4.3.2", "closing")},
		"connection":    errRefused,
		"TLS handshake": {Stage: smtpclient.StageTLS, Err: errors.New("bad certificate")},
	} {
		b := &backend{answer: func(ctx context.Context, addr string, env *mail.Envelope) (smtpclient.Result, error) {
			if addr == "10.0.0.1:25" {
				return smtpclient.Result{}, failure
			}
			return takeAll(ctx, addr, env)
		}}
		f := forwarder(options(b))
		r := routeTo("10.0.0.1", "10.0.0.2")
		r.DeadRetry = time.Minute
		f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
		f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
		want := "1 2 1 2"
		if name == "greeting" || name == "connection" || name == "TLS handshake" {
			want = "1 2 2"
		}
		if got := b.hosts(); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// One message that asks for more than the route does not take the host away from
// the others.
func TestRequireTLSMakesNothingDead(t *testing.T) {
	b := &backend{}
	b.answer = func(ctx context.Context, addr string, env *mail.Envelope) (smtpclient.Result, error) {
		if env.RequireTLS {
			return smtpclient.Result{}, &smtpclient.Failure{Stage: smtpclient.StageTLS, Err: errors.New("not offered")}
		}
		return takeAll(ctx, addr, env)
	}
	f := forwarder(options(b))
	r := routeTo("10.0.0.1", "10.0.0.2")
	tx := message("a@b.c")
	tx.RequireTLS = true
	if v := f.Forward(t.Context(), hook.ConnectionView{}, tx.View(), r); v.Reply.Enhanced.String() != "4.7.5" {
		t.Errorf("%v", v.Reply)
	}
	f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
	if got := b.hosts(); got != "1 2 1" {
		t.Error(got)
	}
}

// A client that leaves during the wait for a host says nothing about the host.
func TestClientLeavesWhileConnecting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := &backend{}
	b.answer = func(context.Context, string, *mail.Envelope) (smtpclient.Result, error) {
		cancel()
		return smtpclient.Result{}, errRefused
	}
	f := forwarder(options(b))
	r := routeTo("10.0.0.1", "10.0.0.2")
	f.Forward(ctx, hook.ConnectionView{}, message("a@b.c").View(), r)
	b.answer = takeAll
	f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
	if got := b.hosts(); got != "1 1" {
		t.Error(got)
	}
}

// A probe that finds the server in order, but not our credentials, is the last:
// each would show them again.
func TestProbeIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{answer: func(ctx context.Context, addr string, env *mail.Envelope) (smtpclient.Result, error) {
			if addr == "10.0.0.1:25" {
				return smtpclient.Result{}, errRefused
			}
			return takeAll(ctx, addr, env)
		}}
		var probes atomic.Int32
		o := options(b)
		o.engine.Probe = func(context.Context, pool.Target) error {
			probes.Add(1)
			return &smtpclient.Failure{Stage: smtpclient.StageAuth, Reply: reply.New(535, "5.7.8", "no"), Addr: "10.0.0.1:25"}
		}
		f, relay := build(o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- relay.Run(ctx) }()
		f.Forward(ctx, hook.ConnectionView{}, message("a@b.c").View(), inTurn("r", "10.0.0.1", "10.0.0.2"))
		time.Sleep(time.Hour)
		if n := probes.Load(); n != 1 {
			t.Errorf("%d probes", n)
		}
		cancel()
		<-done
	})
}

func TestTurnsAtOnce(t *testing.T) {
	b := &backend{answer: func(ctx context.Context, addr string, env *mail.Envelope) (smtpclient.Result, error) {
		if addr == "10.0.0.2:25" {
			return smtpclient.Result{}, errRefused
		}
		return takeAll(ctx, addr, env)
	}}
	o := options(b)
	o.engine.Probe = func(context.Context, pool.Target) error { return nil }
	f, relay := build(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- relay.Run(ctx) }()
	r := inTurn("r", "10.0.0.1", "10.0.0.2", "10.0.0.3")
	r.DeadRetry = time.Millisecond
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if v := f.Forward(ctx, hook.ConnectionView{}, message("a@b.c").View(), r); v.Code != hook.OK {
					t.Errorf("%v", v.Reply)
				}
			}
		})
	}
	wg.Wait()
	cancel()
	<-done
}

// max_connections is for the route, however many hosts it has and users show
// their own credentials there: who gets none waits, and is told to come again
// when the time is over.
func TestSlotsOfARoute(t *testing.T) {
	for _, tc := range []struct {
		hosts []string
		auth  string
		takes time.Duration
		want  string // of all verdicts
		ends  time.Duration
	}{
		{[]string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, "", time.Minute, "OK OK OK OK OK OK", 3 * time.Minute},
		{[]string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, "", time.Hour, "DENYSOFT DENYSOFT DENYSOFT DENYSOFT OK OK", time.Hour},
		{[]string{"10.0.0.1"}, route.AuthForward, time.Minute, "OK OK OK OK OK OK", 3 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			var now, most atomic.Int32
			b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(tc.takes)
				now.Add(-1)
				return replies(env, "250 taken", nil), nil
			}}
			r := inTurn("one", tc.hosts...)
			r.MaxConnections, r.AuthType = 2, tc.auth
			f := forwarder(options(b))
			verdicts := make(chan string)
			for i := range 6 {
				go func() {
					v := f.Forward(t.Context(), (&hook.Connection{AuthUser: fmt.Sprint(i)}).View(), message("a@b.c").View(), r)
					if v.Code == hook.DenySoft && v.Reply.Text != errBusy.Text {
						t.Errorf("%v", v.Reply)
					}
					verdicts <- v.Code.String()
				}()
			}
			var all []string
			for range 6 {
				all = append(all, <-verdicts)
			}
			if got := strings.Join(all, " "); got != tc.want || most.Load() != 2 || time.Since(began) != tc.ends {
				t.Errorf("%s, at most %d at a time, after %v", got, most.Load(), time.Since(began))
			}
		})
	}
}
