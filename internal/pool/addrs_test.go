package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// hosts starts servers on one port of 127.0.7.1, 127.0.7.2, …, of which no other
// test takes a port; a nil list of options is an address where nobody listens.
func hosts(t *testing.T, options ...[]smtptest.Option) (servers []*smtptest.Server, addrs []netip.AddrPort) {
	t.Helper()
	for range 20 {
		ln, err := net.Listen("tcp", "127.0.7.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := netip.MustParseAddrPort(ln.Addr().String()).Port()
		ln.Close()
		free := true
		for i := range options {
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 7, byte(i + 1)}), port)
			addrs = append(addrs, a)
			ln, err := net.Listen("tcp", a.String())
			if free = free && err == nil; err == nil {
				ln.Close()
			}
		}
		if free {
			break
		}
		addrs = nil
	}
	for i, o := range options {
		if o == nil {
			servers = append(servers, nil)
			continue
		}
		servers = append(servers, smtptest.New(t, append(o, smtptest.Listen("tcp", addrs[i].String()))...))
	}
	return servers, addrs
}

// TestOtherAddresses: which faults of one server send a message to the host's
// next address, and which do not.
func TestOtherAddresses(t *testing.T) {
	on := func(stage smtptest.Stage, a smtptest.Action) []smtptest.Option {
		return []smtptest.Option{smtptest.On(stage, smtptest.Always(a))}
	}
	with := func(o smtptest.Option, more []smtptest.Option) []smtptest.Option {
		return append([]smtptest.Option{o}, more...)
	}
	tls := smtptest.TLS()
	creds := smtptest.Credentials("u", "p")
	required := func(o *smtpclient.Options) { o.TLS = smtpclient.TLSEncrypt }
	auth := func(o *smtpclient.Options) { o.AuthUser, o.AuthPass, o.AuthRequired = "u", "p", true }
	for _, tt := range []struct {
		name  string
		first []smtptest.Option // nil: nobody listens
		both  smtptest.Option
		set   func(*smtpclient.Options)
		want  string // from the first server; "": the second one takes the message
	}{
		{name: "refused"},
		{name: "greeting 554", first: on(smtptest.Connect, smtptest.Reply("554 5.7.1 no"))},
		{name: "greeting 421", first: on(smtptest.Connect, smtptest.Reply("421 4.3.2 no").ThenClose())},
		{name: "greeting garbage", first: on(smtptest.Connect, smtptest.Garbage())},
		{name: "greeting reset", first: on(smtptest.Connect, smtptest.Reset())},
		{name: "greeting silence", first: on(smtptest.Connect, smtptest.Silence()), set: func(o *smtpclient.Options) { o.GreetingTimeout = 100 * time.Millisecond }},
		{name: "EHLO 421", first: on(smtptest.Hello, smtptest.Reply("421 4.3.2 no").ThenClose())},
		{name: "EHLO refused", first: on(smtptest.Hello, smtptest.Reply("550 5.7.1 no"))},
		{name: "EHLO closed", first: on(smtptest.Hello, smtptest.Close())},
		{name: "TLS not offered", first: []smtptest.Option{smtptest.Without("DSN")}, set: required},
		{name: "TLS broken", first: with(tls, on(smtptest.StartTLS, smtptest.BreakTLS())), set: required},
		{name: "TLS 454", first: with(tls, on(smtptest.StartTLS, smtptest.Reply("454 4.7.0 no"))), set: required},
		{name: "AUTH not offered", first: []smtptest.Option{smtptest.Without("DSN")}, set: auth},
		{name: "AUTH 454", first: with(creds, on(smtptest.Auth, smtptest.Reply("454 4.7.0 no"))), set: auth},
		{name: "AUTH 535", first: []smtptest.Option{smtptest.Credentials("u", "other")}, set: auth, want: "AUTH"},
		{name: "MAIL 421", first: on(smtptest.Mail, smtptest.Reply("421 4.3.2 no").ThenClose()), want: "MAIL"},
		{name: "DATA closed", first: on(smtptest.Data, smtptest.Close()), want: "DATA"},
		{name: "dot closed", first: on(smtptest.Dot, smtptest.Close()), want: "final dot"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			second := []smtptest.Option{tls, creds}
			servers, addrs := hosts(t, tt.first, second)
			p := pool.New(pool.Options{})
			run(t, p)
			to := pool.Target{Addrs: addrs, IdleTimeout: time.Minute}
			to.Host, to.Helo = "mx.test", "me.test"
			if tt.set != nil {
				tt.set(&to.Options)
			}
			res, err := p.Send(t.Context(), to, envelope(1), content())
			var f *smtpclient.Failure
			switch {
			case tt.want == "":
				if err != nil || !res.Replies[0].Positive() || res.Addr != addrs[1].String() {
					t.Fatal(res, err)
				}
			case !errors.As(err, &f) || f.Stage.String() != tt.want || f.Addr != addrs[0].String():
				t.Errorf("%v", err)
			case servers[1].Connections() > 0:
				t.Error("another server was tried")
			}
			if tt.want != "" {
				return
			}
			// The connection is shared by all who want this host.
			other := to
			other.Addrs = addrs[1:]
			if res, err := p.Send(t.Context(), other, envelope(2), content()); err != nil || !res.Reused || servers[1].Connections() != 1 {
				t.Error(res, err)
			}
		})
	}
}

// TestNoAddressAnswers: what a server said is told, rather than that others are
// not there, and dead ones are not dialed again at once.
func TestNoAddressAnswers(t *testing.T) {
	servers, addrs := hosts(t, []smtptest.Option{smtptest.On(smtptest.Connect, smtptest.Always(smtptest.Reply("554 5.7.1 no")))}, nil)
	p := pool.New(pool.Options{})
	run(t, p)
	to := pool.Target{Addrs: addrs, IdleTimeout: time.Minute}
	to.Host = "mx.test"
	for range 3 {
		_, err := p.Send(t.Context(), to, envelope(1), content())
		var f *smtpclient.Failure
		if !errors.As(err, &f) || f.Stage != smtpclient.StageGreeting || f.Addr != addrs[0].String() {
			t.Fatal(err)
		}
	}
	if st := p.Stats(); st.Dials != 4 || servers[0].Connections() != 3 || st.Open != 0 {
		t.Errorf("%+v, %d connections", st, servers[0].Connections())
	}
	if u := p.Unreachable(); len(u) != 1 || u[0].Addr != addrs[1].String() || u[0].Failures != 1 || !strings.Contains(u[0].Last, "refused") || u[0].Until.IsZero() {
		t.Errorf("%+v", u)
	}
	// All of them in back-off: no dial, and the last error.
	to.Addrs = addrs[1:]
	_, err := p.Send(t.Context(), to, envelope(1), content())
	if r := reply.From(err); r.Code != 451 || r.Status() != (reply.Enhanced{4, 4, 1}) || p.Stats().Dials != 4 {
		t.Error(err, p.Stats())
	}
	to.Bind = netip.MustParseAddr("::1")
	if _, err := p.Send(t.Context(), to, envelope(1), content()); err == nil || !strings.Contains(err.Error(), "family") {
		t.Error(err)
	}
}

// network is a network whose addresses answer after a time, or never.
type network struct {
	mu    sync.Mutex
	dials []string
	at    []time.Duration
	start time.Time
	takes map[string]time.Duration // negative: never
	open  int
}

func (n *network) connect(ctx context.Context, o smtpclient.Options) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, o.Addr)
	n.at = append(n.at, time.Since(n.start))
	takes := n.takes[o.Addr]
	n.mu.Unlock()
	timeout := time.After(o.ConnectTimeout)
	var answer <-chan time.Time
	if takes >= 0 {
		answer = time.After(takes)
	}
	select {
	case <-answer:
		n.mu.Lock()
		defer n.mu.Unlock()
		n.open++
		return &counted{n: n}, nil
	case <-timeout:
	case <-ctx.Done():
	}
	return nil, &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: errors.New("timed out"), Fresh: true, Addr: o.Addr}
}

// counted is a socket of a network.
type counted struct {
	net.Conn
	n    *network
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.n.mu.Lock(); c.n.open--; c.n.mu.Unlock() })
	return nil
}

// tried returns how often an address was dialed; "": any.
func (n *network) tried(addr string) (times int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.dials {
		if addr == "" || a == addr {
			times++
		}
	}
	return times
}

func (n *network) set(addr string, takes time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.takes[addr] = takes
}

func (n *network) sockets() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open
}

func (n *network) pool() *pool.Pool {
	n.start = time.Now()
	return pool.New(pool.Options{
		Connect: n.connect,
		Open: func(_ context.Context, raw net.Conn, o smtpclient.Options) (pool.Conn, error) {
			return &fakeOf{raw: raw}, nil
		},
	})
}

// fakeOf is a fake that closes its socket.
type fakeOf struct {
	fake
	raw net.Conn
}

func (f *fakeOf) Close() error { f.raw.Close(); return f.fake.Close() }
func (f *fakeOf) Quit()        { f.raw.Close(); f.fake.Quit() }

func several(list ...string) pool.Target {
	var to pool.Target
	for _, a := range list {
		to.Addrs = append(to.Addrs, netip.MustParseAddrPort(a))
	}
	to.Host, to.ConnectTimeout = "mx.test", 30*time.Second
	return to
}

const (
	a1, a2, a3 = "192.0.2.1:25", "192.0.2.2:25", "192.0.2.3:25"
	b1, b2     = "[2001:db8::1]:25", "[2001:db8::2]:25"
)

// TestHappyEyeballs: the order of addresses, and the time between them.
func TestHappyEyeballs(t *testing.T) {
	const never = -1
	for _, tt := range []struct {
		name  string
		addrs []string
		takes map[string]time.Duration
		bind  string
		dials string
		took  time.Duration
		fails bool
	}{
		{name: "first", addrs: []string{b1, a1}, takes: map[string]time.Duration{b1: 100 * time.Millisecond}, dials: b1, took: 100 * time.Millisecond},
		{name: "families in turn", addrs: []string{b1, b2, a1, a2, a3}, takes: map[string]time.Duration{b1: never, b2: never, a1: never, a2: never, a3: 0}, dials: b1 + a1 + b2 + a2 + a3, took: time.Second},
		{name: "IPv4 first", addrs: []string{a1, a2, b1}, takes: map[string]time.Duration{a1: never, a2: never, b1: 300 * time.Millisecond}, dials: a1 + b1 + a2, took: 550 * time.Millisecond},
		{name: "slow wins", addrs: []string{b1, a1}, takes: map[string]time.Duration{b1: 400 * time.Millisecond, a1: time.Second}, dials: b1 + a1, took: 400 * time.Millisecond},
		{name: "bound", addrs: []string{b1, a1, b2, a2}, bind: "192.0.2.100", takes: map[string]time.Duration{a1: never, a2: 0}, dials: a1 + a2, took: 250 * time.Millisecond},
		{name: "all dead", addrs: []string{a1, a2, a3}, takes: map[string]time.Duration{a1: never, a2: never, a3: never}, dials: a1 + a2 + a3, took: 30 * time.Second, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{takes: tt.takes}
				p := n.pool()
				to := several(tt.addrs...)
				if tt.bind != "" {
					to.Bind = netip.MustParseAddr(tt.bind)
				}
				_, err := p.Send(t.Context(), to, envelope(1), content())
				if (err != nil) != tt.fails {
					t.Error(err)
				}
				if took := time.Since(n.start); took != tt.took || strings.Join(n.dials, "") != tt.dials {
					t.Errorf("%v after %v", n.dials, took)
				}
				if n.sockets() != 0 {
					t.Errorf("%d sockets are open", n.sockets())
				}
				if !tt.fails {
					return
				}
				before, at := len(n.dials), time.Now()
				if _, err := p.Send(t.Context(), to, envelope(1), content()); err == nil || len(n.dials) != before || time.Since(at) != 0 {
					t.Error("dead addresses were dialed again:", n.dials)
				}
			})
		})
	}
}

// TestRaceIsADraw: of two that answer at the same moment one is closed.
func TestRaceIsADraw(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			n := &network{takes: map[string]time.Duration{b1: 300 * time.Millisecond, a1: 50 * time.Millisecond}}
			p := n.pool()
			if _, err := p.Send(t.Context(), several(b1, a1), envelope(1), content()); err != nil {
				t.Error(err)
			}
			if n.sockets() != 0 || p.Stats().Open != 0 {
				t.Errorf("%d sockets are open", n.sockets())
			}
		})
	}
}

// TestOneConnectTimeout is for all addresses together, also when one connects
// and is of no use.
func TestOneConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{start: time.Now(), takes: map[string]time.Duration{a1: 20 * time.Second, a2: -1, a3: -1}}
		p := pool.New(pool.Options{
			Connect: n.connect,
			Open: func(_ context.Context, raw net.Conn, o smtpclient.Options) (pool.Conn, error) {
				raw.Close()
				return nil, &smtpclient.Failure{Stage: smtpclient.StageGreeting, Reply: reply.New(554, "5.7.1", "no"), Fresh: true, Addr: o.Addr}
			},
		})
		_, err := p.Send(t.Context(), several(a1, a2, a3), envelope(1), content())
		var f *smtpclient.Failure
		if !errors.As(err, &f) || f.Addr != a1 || time.Since(n.start) != 30*time.Second || n.sockets() != 0 {
			t.Errorf("%v after %v", err, time.Since(n.start))
		}
	})
}

// TestOneDeadAmongThree: for ten minutes three hosts are wanted, one of which is
// dead, as three addresses of one name or as three targets tried in turn. No
// message is lost, and what they wait in all is about one ConnectTimeout.
func TestOneDeadAmongThree(t *testing.T) {
	const messages = 600
	for _, how := range []string{"addresses", "targets"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{takes: map[string]time.Duration{a1: -1, a2: 10 * time.Millisecond, a3: 10 * time.Millisecond}}
				p := n.pool()
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { p.Run(ctx); close(done) }()
				send := func() error {
					if how == "addresses" {
						_, err := p.Send(t.Context(), several(a1, a2, a3), envelope(1), content())
						return err
					}
					var err error
					for _, a := range []string{a1, a2, a3} {
						to := pool.Target{Options: smtpclient.Options{Addr: a, ConnectTimeout: 30 * time.Second}}
						if _, err = p.Send(t.Context(), to, envelope(1), content()); err == nil {
							return nil
						}
					}
					return err
				}
				var waited time.Duration
				for range messages {
					at := time.Now()
					if err := send(); err != nil {
						t.Fatal(err)
					}
					waited += time.Since(at) - 10*time.Millisecond
					time.Sleep(time.Second)
				}
				most := 30 * time.Second
				if how == "targets" {
					most += 5 * time.Second // for the probes, of which there is about one a minute
				}
				dead := n.tried(a1)
				if waited > most || dead > 20 {
					t.Errorf("waited %v, dialed the dead one %d times", waited, dead)
				}
				t.Log(waited, dead)
				cancel()
				<-done
				if n.sockets() != 0 {
					t.Errorf("%d sockets are open", n.sockets())
				}
			})
		})
	}
}

// TestProbe: nobody waits for long while a dead address is probed, and when it
// comes back what the probe connected is used.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{takes: map[string]time.Duration{a1: -1}}
		p := n.pool()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx); close(done) }()
		to := pool.Target{Options: smtpclient.Options{Addr: a1, ConnectTimeout: 30 * time.Second}, IdleTimeout: time.Minute}
		send := func() (time.Duration, error) {
			at := time.Now()
			_, err := p.Send(t.Context(), to, envelope(1), content())
			return time.Since(at), err
		}
		if took, err := send(); err == nil || took != 30*time.Second {
			t.Error(took, err)
		}
		time.Sleep(2 * time.Second)
		if took, err := send(); err == nil || took != 300*time.Millisecond || n.tried("") != 2 {
			t.Error(took, err, n.tried(""))
		}
		if took, err := send(); err == nil || took != 0 || n.tried("") != 2 {
			t.Error(took, err, n.tried(""))
		}
		n.set(a1, 250*time.Millisecond)
		time.Sleep(40 * time.Second) // the probe of before fails
		if took, err := send(); err != nil || took != 250*time.Millisecond || n.tried("") != 3 || n.sockets() != 1 {
			t.Error(took, err, n.tried(""), n.sockets())
		}
		if u := p.Unreachable(); len(u) != 0 {
			t.Errorf("%+v", u)
		}
		// A probe for which nobody waited any more is closed.
		n.set(a1, -1)
		to.Helo = "other"
		if _, err := send(); err == nil {
			t.Error("sent")
		}
		n.set(a1, 2*time.Second)
		time.Sleep(2 * time.Second)
		if _, err := send(); err == nil {
			t.Error("sent")
		}
		time.Sleep(5 * time.Second)
		if n.sockets() != 0 && n.sockets() != 1 { // the idle one
			t.Error(n.sockets())
		}
		if took, err := send(); err != nil || took != 2*time.Second {
			t.Error(took, err)
		}
		cancel()
		<-done
		if n.sockets() != 0 {
			t.Errorf("%d sockets are open", n.sockets())
		}
	})
}

// TestTLSMemory: a handshake that fails is not tried again for an hour, by those
// who may do without, and there.
func TestTLSMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tried []string
		broken := true
		p := pool.New(pool.Options{
			Connect: func(context.Context, smtpclient.Options) (net.Conn, error) { return socket{}, nil },
			Open: func(_ context.Context, _ net.Conn, o smtpclient.Options) (pool.Conn, error) {
				tried = append(tried, fmt.Sprint(o.Addr[8:9], o.TLS))
				if o.TLS != smtpclient.TLSNone && broken {
					return nil, &smtpclient.Failure{Stage: smtpclient.StageTLS, Err: errors.New("broken"), Handshake: true, Fresh: true}
				}
				return &fake{}, nil
			},
		})
		send := func(policy smtpclient.TLSPolicy, addr, want string) {
			t.Helper()
			tried = nil
			to := pool.Target{Options: smtpclient.Options{Addr: addr, TLS: policy}}
			_, err := p.Send(t.Context(), to, envelope(1), content())
			if strings.Join(tried, " ") != want || (err != nil) != (policy >= smtpclient.TLSEncrypt) {
				t.Errorf("%v, %v", tried, err)
			}
		}
		send(smtpclient.TLSMay, a1, "11 10")
		send(smtpclient.TLSMay, a1, "10")
		send(smtpclient.TLSMay, a2, "21 20")
		send(smtpclient.TLSEncrypt, a1, fmt.Sprintf("1%d", smtpclient.TLSEncrypt))
		send(smtpclient.TLSVerify, a1, fmt.Sprintf("1%d", smtpclient.TLSVerify))
		time.Sleep(59 * time.Minute)
		send(smtpclient.TLSMay, a1, "10")
		time.Sleep(2 * time.Minute)
		broken = false
		send(smtpclient.TLSMay, a1, "11")
		// However many there are, they are forgotten.
		broken = true
		for i := range 5000 {
			to := pool.Target{Options: smtpclient.Options{Addr: fmt.Sprintf("192.0.2.%d:%d", i%250, 1000+i), TLS: smtpclient.TLSMay}}
			if _, err := p.Send(t.Context(), to, envelope(1), content()); err != nil {
				t.Fatal(err)
			}
		}
		again := 0
		for i := range 5000 {
			tried = nil
			to := pool.Target{Options: smtpclient.Options{Addr: fmt.Sprintf("192.0.2.%d:%d", i%250, 1000+i), TLS: smtpclient.TLSMay}}
			p.Send(t.Context(), to, envelope(1), content())
			again += len(tried) - 1
		}
		if again < 900 {
			t.Errorf("%d of 5000 were forgotten", again)
		}
	})
}

// TestHosts: what can be seen from outside.
func TestHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := pool.New(dialer(func(context.Context, smtpclient.Options) (*fake, error) {
			return &fake{busy: func(context.Context) error { <-release; return nil }}, nil
		}))
		one, two := several(a1, b1), pool.Target{Options: smtpclient.Options{Addr: a2, AuthUser: "u", AuthPass: "secret"}}
		one.MaxConnections, one.IdleTimeout = 1, time.Minute
		var wg sync.WaitGroup
		for _, to := range []pool.Target{one, one, two} {
			wg.Go(func() {
				if _, err := p.Send(t.Context(), to, envelope(1), content()); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		want := []pool.HostStat{
			{Addr: a2, AuthUser: "u", Open: 1},
			{Host: "mx.test", Port: 25, Open: 1, Waiting: 1},
		}
		if got := p.Hosts(); !slices.Equal(got, want) {
			t.Errorf("%+v", got)
		}
		close(release)
		wg.Wait()
		if got := p.Hosts(); !slices.Equal(got, []pool.HostStat{{Host: "mx.test", Port: 25, Open: 1, Idle: 1}}) {
			t.Errorf("%+v", got)
		}
	})
}
