package forward

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/pool"
	"tarishi/internal/route"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// faults is what a backend may do instead of its answer.
var faults = map[string]smtptest.Action{
	"4yz":      smtptest.Reply("452 4.2.0 later"),
	"5yz":      smtptest.Reply("554 5.7.1 no"),
	"421":      smtptest.Reply("421 4.3.2 closing").ThenClose(),
	"silence":  smtptest.Silence(),
	"garbage":  smtptest.Garbage(),
	"half":     smtptest.HalfLine(),
	"huge":     smtptest.Huge("250"),
	"close":    smtptest.Close(),
	"reset":    smtptest.Reset(),
	"2yz, end": smtptest.Reply("250 2.0.0 fine").ThenClose(),
}

// outcome says what the client is told when a backend does that at a stage, with
// reply_codes=flatten and pass; "" where the next host is asked.
func outcome(stage smtptest.Stage, fault string) (flat, pass string) {
	const lost = "451 4.4.2 Connection to the backend lost, please try again later"
	switch stage {
	case smtptest.Mail, smtptest.Rcpt, smtptest.Data, smtptest.Dot:
		switch fault {
		case "4yz":
			return "450 4.2.0 later", "452 4.2.0 later"
		case "5yz":
			return "550 5.7.1 no", "554 5.7.1 no"
		case "421":
			if stage != smtptest.Rcpt { // the whole host says goodbye, and has not taken the message
				return "", ""
			}
			return "450 4.3.2 closing", "450 4.3.2 closing"
		}
	}
	if stage == smtptest.Dot {
		switch fault {
		case "2yz, end":
			return "250 2.0.0 fine", "250 2.0.0 fine"
		case "huge": // the code says it, and only the text has no end
			return "250 2.0.0 xxx", "250 2.0.0 xxx"
		}
		return lost, lost
	}
	return "", ""
}

// Each fault at each stage: what our client is told, that the log says why, and
// that in the end exactly one of client, backend and queue has the message.
func TestFaults(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, 40) // for those that do not only wait
	for _, stage := range []smtptest.Stage{smtptest.Connect, smtptest.Hello, smtptest.StartTLS, smtptest.Auth, smtptest.Mail, smtptest.Rcpt, smtptest.Data, smtptest.Dot} {
		for fault, action := range faults {
			for _, c := range []faultCase{{}, {pass: true}, {second: true}, {queues: true}, {pass: true, second: true, queues: true}} {
				c.stage, c.fault, c.action = stage, fault, action
				wg.Go(func() {
					if !c.quiet() {
						slots <- struct{}{}
						defer func() { <-slots }()
					}
					c.run(t)
				})
			}
		}
	}
}

type faultCase struct {
	stage                smtptest.Stage
	fault                string
	action               smtptest.Action
	pass, second, queues bool
}

// quiet reports whether only a time limit can find the fault.
func (c faultCase) quiet() bool { return c.fault == "silence" || c.fault == "half" }

func (c faultCase) run(t *testing.T) {
	name := fmt.Sprintf("%s at %s, pass %v, second host %v, on_failure=queue %v", c.fault, c.stage, c.pass, c.second, c.queues)
	bad := smtptest.New(t, smtptest.TLS(), smtptest.Credentials("u", "p"), smtptest.On(c.stage, smtptest.Always(c.action)))
	good := smtptest.New(t, smtptest.TLS(), smtptest.Credentials("u", "p"))
	r := via(hopTo(bad))
	if c.second {
		r = via(hopTo(bad), hopTo(good))
	}
	r.RequireTLS, r.EnableTLS = true, true
	r.AuthType, r.AuthUser, r.AuthPass = "plain", "u", "p"
	limit := 2 * time.Minute
	if c.quiet() {
		limit = 8 * time.Second
	}
	r.ConnectTimeout, r.CommandTimeout, r.SubmissionTimeout, r.Timeout = limit, limit, limit, 0
	if c.queues {
		r.OnFailure = route.FailToQueue
	}
	var desk office
	core, logs := observer.New(zapcore.InfoLevel)
	o := onWire(t)
	o.Requeuer, o.Reporter, o.Mail, o.Log, o.engine.Log = &desk, &desk, maillog.New(zap.New(core)), zap.New(core), zap.New(core)
	r.PassCodes = c.pass
	v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)

	flat, want := outcome(c.stage, c.fault)
	if !c.pass {
		want = flat
	}
	answered := want != ""
	uncertain := strings.HasPrefix(want, "451 4.4.2")
	queued := false
	switch {
	case !answered && c.second:
		want = "250 2.0.0 "
	case c.queues && !uncertain && (!answered || want[0] == '4'):
		want, queued = "250 2.0.0 Message Queued", true
	case !answered:
		want = "45" // which one is the business of other tests
	}
	got := v.Reply.String()
	if !strings.HasPrefix(got, want) || (v.Code == hook.OK) != (want[0] == '2') || (v.Code == hook.Deny) != (want[0] == '5') {
		t.Errorf("%s: %s %s, want %s", name, v.Code, got, want)
	}
	if uncertain { // by definition nobody knows whether the backend has it, but it was sent once and we do not
		if len(good.Transactions())+len(desk.requeued) > 0 {
			t.Errorf("%s: sent again, or queued", name)
		}
		return
	}
	has := len(bad.Messages()) + len(good.Messages()) + len(desk.requeued)
	if owned := map[bool]int{true: 1}[v.Code == hook.OK]; has != owned || queued != (len(desk.requeued) == 1) {
		t.Errorf("%s: %s, and %d of backends and queue have the message (queue: %q)", name, got, has, desk.requeued)
	}
	if sent := len(bad.Transactions()) + len(good.Transactions()); sent > 1 && c.fault != "421" {
		t.Errorf("%s: sent %d times", name, sent)
	}
	failed := logs.FilterMessage("forward failed").Len() + logs.FilterMessage("backend failed").Len()
	if failed == 0 && len(bad.Messages()) == 0 {
		t.Errorf("%s: the log is silent", name)
	}
	for _, l := range logs.All() {
		if strings.Contains(l.Message+fmt.Sprint(l.ContextMap()), "AHUAcA") {
			t.Errorf("%s: credentials are logged", name)
		}
	}
}

// Of a dead host, a broken one and a good one in turn each message reaches the
// good one, over one connection, and only the first ones try the others.
func TestOnWireTurns(t *testing.T) {
	bad := smtptest.New(t, smtptest.On(smtptest.Connect, smtptest.Always(smtptest.Reply("554 5.3.2 not today"))))
	good := smtptest.New(t)
	f := forwarder(onWire(t))
	r := via(deadHop, hopTo(bad), hopTo(good))
	r.InTurn, r.DeadRetry = true, time.Hour
	for range 20 {
		if v := f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r); v.Code != hook.OK {
			t.Fatalf("%v: %v", v.Reply, v.Reply.Cause)
		}
	}
	if len(good.Messages()) != 20 || good.Connections() != 1 || bad.Connections() != 1 {
		t.Errorf("%d messages on %d connections, %d to the broken host", len(good.Messages()), good.Connections(), bad.Connections())
	}
}

// The probe of a dead host goes as far as a message would, carries none, and
// says goodbye.
func TestOnWireProbe(t *testing.T) {
	fails := smtptest.First(1, smtptest.Reply("421 4.3.2 closing"))
	back := smtptest.New(t, smtptest.Credentials("u", "p"), smtptest.On(smtptest.Connect, fails))
	good := smtptest.New(t, smtptest.Credentials("u", "p"))
	f, relay := build(onWire(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	defer func() { cancel(); <-done }()
	r := via(hopTo(back), hopTo(good))
	r.DeadRetry, r.AuthType, r.AuthUser, r.AuthPass = 10*time.Millisecond, "plain", "u", "p"
	f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
	back.Wait(func() bool { return back.Connections() > 1 && back.Open() == 0 }, "a probe")
	if d := back.Dialog(2); len(d) != 3 || !strings.HasPrefix(d[1], "AUTH PLAIN") || d[2] != "QUIT" {
		t.Errorf("probe %q", d)
	}
	for len(back.Messages()) == 0 {
		if v := f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r); v.Code != hook.OK {
			t.Fatalf("%v", v.Reply)
		}
	}
}

// A probe goes on in clear where messages do.
func TestOnWireProbeInClear(t *testing.T) {
	back := smtptest.New(t, smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Close())),
		smtptest.On(smtptest.Connect, smtptest.First(1, smtptest.Reply("421 4.3.2 closing"))))
	good := smtptest.New(t)
	f, relay := build(onWire(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	defer func() { cancel(); <-done }()
	r := via(hopTo(back), hopTo(good))
	r.DeadRetry, r.EnableTLS = 10*time.Millisecond, true
	f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
	back.Wait(func() bool { return back.Connections() > 2 && back.Open() == 0 }, "a probe in clear")
	for len(back.Messages()) == 0 {
		if v := f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r); v.Code != hook.OK {
			t.Fatalf("%v", v.Reply)
		}
	}
}

// All mechanisms, and two clients of auth_type=forward on connections of their
// own.
func TestOnWireAuth(t *testing.T) {
	for _, mech := range []string{"plain", "login", "cram-md5"} {
		s := smtptest.New(t, smtptest.Credentials("u", "p"), smtptest.Mechanisms("PLAIN", "LOGIN", "CRAM-MD5"))
		r := via(hopTo(s))
		r.AuthType, r.AuthUser, r.AuthPass = mech, "u", "p"
		if v := forwarder(onWire(t)).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r); v.Code != hook.OK {
			t.Errorf("%s: %v: %v", mech, v.Reply, v.Reply.Cause)
		} else if d := s.Dialog(1); !strings.HasPrefix(d[1], "AUTH "+strings.ToUpper(mech)) {
			t.Errorf("%s: %q", mech, d)
		}
	}
	s := smtptest.New(t, smtptest.Credentials("joe", "p"))
	r := via(hopTo(s))
	r.AuthType = route.AuthForward
	f := forwarder(onWire(t))
	for _, tc := range []struct{ user, pass, want string }{
		{"joe", "p", "250 2.0.0"},
		{"ann", "p", "451 4.7.0 No authentication at the backend"},
		{"joe", "wrong", "451 4.7.0 No authentication at the backend"},
		{"joe", "p", "250 2.0.0"},
	} {
		v := f.Forward(t.Context(), (&hook.Connection{AuthUser: tc.user, AuthPass: tc.pass, AuthMech: "LOGIN"}).View(), message("a@b.c").View(), r)
		if !strings.HasPrefix(v.Reply.String(), tc.want) {
			t.Errorf("%s %s: %v: %v", tc.user, tc.pass, v.Reply, v.Reply.Cause)
		}
	}
	if s.Connections() != 3 || len(s.Messages()) != 2 {
		t.Errorf("%d connections, %d messages", s.Connections(), len(s.Messages()))
	}
}

// What a route says about the client is told, and only then.
func TestOnWireOrigin(t *testing.T) {
	for _, way := range []mail.ForwardsOrigin{mail.ForwardsNothing, mail.XForward, mail.XClient} {
		s := smtptest.New(t, smtptest.With("XFORWARD NAME ADDR PORT PROTO HELO SOURCE", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN"))
		hop := hopTo(s)
		hop.Forwards = way
		tx := message("a@b.c")
		tx.Origin = &mail.Origin{Addr: netip.MustParseAddr("192.0.2.7"), Helo: "client.example", Protocol: "ESMTP"}
		if v := forwarder(onWire(t)).Forward(t.Context(), hook.ConnectionView{}, tx.View(), via(hop)); v.Code != hook.OK {
			t.Errorf("%v: %v", v.Reply, v.Reply.Cause)
		}
		said := func(verb string) bool {
			return slices.ContainsFunc(s.Dialog(1), func(l string) bool { return strings.HasPrefix(l, verb+" ") && strings.Contains(l, "ADDR=192.0.2.7") })
		}
		if said("XFORWARD") != (way == mail.XForward) || said("XCLIENT") != (way == mail.XClient) {
			t.Errorf("%v: %q", way, s.Dialog(1))
		}
	}
}

// One of three hosts swallows connections: no message is lost or deferred, and
// all together wait for it once.
func TestOnWireBlackHole(t *testing.T) {
	t.Parallel()
	const connectTimeout = 5 * time.Second // more than a message waits on a busy machine
	hole := netip.MustParseAddrPort("127.0.0.99:25")
	var tried atomic.Int32
	o := options(nil)
	p := pool.New(pool.Options{Connect: func(ctx context.Context, o smtpclient.Options) (net.Conn, error) {
		if o.Addr != hole.String() {
			return smtpclient.Connect(ctx, o)
		}
		tried.Add(1)
		wait := time.NewTimer(o.ConnectTimeout)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
		return nil, &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: context.DeadlineExceeded, Addr: o.Addr}
	}})
	o.engine.Sender = p
	one, two := smtptest.New(t), smtptest.New(t)
	f := forwarder(o)
	r := via(mail.NextHop{Host: "127.0.0.99", Port: 25}, hopTo(one), hopTo(two))
	r.InTurn, r.ConnectTimeout, r.DeadRetry = true, connectTimeout, time.Hour
	began := time.Now()
	var wg sync.WaitGroup
	var waited atomic.Int64
	for range 30 {
		wg.Go(func() {
			for range 10 {
				at := time.Now()
				if v := f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r); v.Code != hook.OK {
					t.Errorf("%v: %v", v.Reply, v.Reply.Cause)
				}
				if d := time.Since(at); d >= connectTimeout {
					waited.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := len(one.Messages()) + len(two.Messages()); n != 300 {
		t.Errorf("%d messages arrived", n)
	}
	// Those that were on their way to it when it was found out waited together.
	if n := tried.Load(); n > 10 || waited.Load() > 30 || time.Since(began) > 10*connectTimeout {
		t.Errorf("%d connections tried, %d messages waited, %v in all", n, waited.Load(), time.Since(began))
	}
	before := tried.Load()
	for range 30 {
		f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
	}
	if tried.Load() != before {
		t.Error("a later message tried it")
	}
}

// One of several hosts takes connections and says nothing: that costs one
// connect_timeout, not the time that a reply may take.
func TestOnWireHungHost(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"greeting", "TLS"} {
		hung, well := smtptest.New(t, smtptest.On(smtptest.Connect, smtptest.Always(smtptest.Silence()))), smtptest.New(t)
		one := hopTo(hung)
		one.ImplicitTLS = name == "TLS"
		r := via(one, hopTo(well))
		r.ConnectTimeout, r.CommandTimeout, r.DeadRetry, r.MaxConnections = 3*time.Second, 10*time.Minute, time.Hour, 20
		f := forwarder(onWire(t))
		began := time.Now()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if v := f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r); v.Code != hook.OK {
					t.Errorf("%s: %v: %v", name, v.Reply, v.Reply.Cause)
				}
			})
		}
		wg.Wait()
		// Those that came later waited with the first ones, and did not try in turn.
		if n, d := hung.Connections(), time.Since(began); n > 8 || d > 5*time.Minute || len(well.Messages()) != 20 {
			t.Errorf("%s: %d connections to the host that hangs, %d messages arrived after %v", name, n, len(well.Messages()), d)
		}
	}
}
