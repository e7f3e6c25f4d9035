package listener

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestListenNamesTheAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = Listen(Options{Settings: Settings{Addrs: []string{"127.0.0.1:0", taken.Addr().String()}}})
	if err == nil || !strings.Contains(err.Error(), "listen on "+taken.Addr().String()+": ") || strings.Count(err.Error(), "127.0.0.1") != 1 {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"127.0.0.1:99999", "nonsense", "192.0.2.1:0"} {
		if _, err := Listen(Options{Settings: Settings{Addrs: []string{bad}}}); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := Listen(Options{}); err == nil {
		t.Error("no address, no error")
	}
}

// [::] is every address of both families, and does without IPv6 where there is
// none.
func TestWildcard(t *testing.T) {
	l, err := Listen(Options{Settings: Settings{Addrs: []string{"[::]:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addrs()[0].(*net.TCPAddr).Port)))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// run starts l and returns a function that stops it.
func run(t *testing.T, l *Listener, serve func(context.Context, net.Conn, bool)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, serve) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

func TestRun(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	l, err := Listen(Options{Settings: Settings{Addrs: []string{"127.0.0.1:0", "127.0.0.1:" + strconv.Itoa(port)}, SMTPSPort: port}})
	if err != nil {
		t.Fatal(err)
	}
	type seen struct {
		implicitTLS bool
		ctx         context.Context
	}
	got := make(chan seen, 2)
	stop := run(t, l, func(ctx context.Context, c net.Conn, implicitTLS bool) {
		c.Close()
		got <- seen{implicitTLS, ctx}
	})
	for i, a := range l.Addrs() {
		c, err := net.Dial("tcp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		s := <-got
		if s.implicitTLS != (i == 1) {
			t.Errorf("%v: implicit TLS %v", a, s.implicitTLS)
		}
		defer func() {
			if s.ctx.Err() != nil {
				t.Error("a connection's context ended with the listener")
			}
		}()
	}
	stop()
	for _, a := range l.Addrs() {
		if c, err := net.Dial("tcp", a.String()); err == nil {
			c.Close()
			t.Errorf("%v is still open", a)
		}
	}
}

func TestLimits(t *testing.T) {
	for name, o := range map[string]Options{
		"Too many connections,":                  {Settings: Settings{MaxConnections: 2}},
		"Too many connections from your address": {Settings: Settings{MaxPerIP: 2}},
	} {
		o.Addrs, o.Me = []string{"127.0.0.1:0"}, "mx.test"
		l, err := Listen(o)
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, l, func(_ context.Context, c net.Conn, _ bool) {
			defer c.Close()
			_, _ = io.WriteString(c, "220 hi\r\n")
			_, _ = io.Copy(io.Discard, c)
		})
		dial := func() (net.Conn, string) {
			c, err := net.Dial("tcp", l.Addrs()[0].String())
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			line, err := bufio.NewReader(c).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			return c, line
		}
		a, _ := dial()
		b, _ := dial()
		c, line := dial()
		c.Close()
		if !strings.HasPrefix(line, "421 4.3.2 mx.test "+name) {
			t.Errorf("third got %q", line)
		}
		a.Close()
		for l.Open() != 1 {
			time.Sleep(time.Millisecond)
		}
		d, line := dial()
		if !strings.HasPrefix(line, "220") {
			t.Errorf("after one left: %q", line)
		}
		b.Close()
		d.Close()
		for l.Open() != 0 {
			time.Sleep(time.Millisecond)
		}
		if len(l.perIP) != 0 {
			t.Errorf("addresses are still counted: %v", l.perIP)
		}
		stop()
	}
}

// TestClient: a host with an IPv6 network is one client, whatever address it takes.
func TestClient(t *testing.T) {
	l, err := Listen(Options{Settings: Settings{Addrs: []string{"127.0.0.1:0"}, MaxPerIP: 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	come := func(ip string, want bool) {
		t.Helper()
		if why := l.admit(netip.MustParseAddr(ip)); (why == "") != want {
			t.Errorf("%s: %q", ip, why)
		}
	}
	come("2001:db8:0:1::1", true)
	come("2001:db8:0:1:ffff::", true)
	come("2001:db8:0:1::2", false)
	come("2001:db8:0:2::2", true)
	come("192.0.2.1", true)
	come("192.0.2.1", true)
	come("192.0.2.1", false)
	come("192.0.2.2", true)
	l.release(netip.MustParseAddr("2001:db8:0:1:ffff::"))
	come("2001:db8:0:1::2", true)
	come("fe80::1", true) // neighbours are hosts
	come("fe80::1", true)
	come("fe80::2", true)
}

func TestCeiling(t *testing.T) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil || lim.Cur > 1<<30 {
		t.Skip("no descriptor limit here")
	}
	n := int(lim.Cur)
	for _, tc := range []struct{ most, reserve, want int }{
		{0, 10, n - 10}, {5, 10, 5}, {n, 10, n - 10}, {0, n + 5, 1},
	} {
		if got := ceiling(tc.most, tc.reserve); got != tc.want {
			t.Errorf("%+v: %d", tc, got)
		}
		core, seen := observer.New(zap.WarnLevel)
		l, err := Listen(Options{Settings: Settings{Addrs: []string{"127.0.0.1:0"}, MaxConnections: tc.most}, Reserve: tc.reserve, Log: zap.New(core)})
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if warned := seen.Len() == 1; warned != (tc.want < tc.most) {
			t.Errorf("%+v: %d warnings", tc, seen.Len())
		}
	}
}

// scarce is a net.Listener whose first accepts fail as with a full descriptor
// table.
type scarce struct {
	net.Listener
	left int
}

func (s *scarce) Accept() (net.Conn, error) {
	if s.left > 0 {
		s.left--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return s.Listener.Accept()
}

func TestAcceptGoesOn(t *testing.T) {
	l, err := Listen(Options{Settings: Settings{Addrs: []string{"127.0.0.1:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	l.sockets[0].Listener = &scarce{l.sockets[0].Listener, 3}
	served := make(chan struct{})
	stop := run(t, l, func(_ context.Context, c net.Conn, _ bool) {
		c.Close()
		close(served)
	})
	c, err := net.Dial("tcp", l.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-served
	stop()
}

// broken is a net.Listener that cannot accept any more.
type broken struct{ net.Listener }

func (broken) Accept() (net.Conn, error) { return nil, &net.OpError{Op: "accept", Err: syscall.EBADF} }

// TestAcceptFails: when one address is lost, Run ends with an error and closes
// the others.
func TestAcceptFails(t *testing.T) {
	l, err := Listen(Options{Settings: Settings{Addrs: []string{"127.0.0.1:0", "127.0.0.1:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	l.sockets[1].Listener = broken{l.sockets[1].Listener}
	err = l.Run(context.Background(), func(context.Context, net.Conn, bool) {})
	if err == nil || !strings.Contains(err.Error(), l.Addrs()[1].String()) {
		t.Errorf("%v", err)
	}
}

func TestCloseWithoutRun(t *testing.T) {
	l, err := Listen(Options{Settings: Settings{Addrs: []string{"127.0.0.1:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	again, err := Listen(Options{Settings: Settings{Addrs: []string{l.Addrs()[0].String()}}})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
