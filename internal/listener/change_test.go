package listener

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// greet greets, and echoes until the client goes.
func greet(_ context.Context, c net.Conn, implicitTLS bool) {
	defer c.Close()
	fmt.Fprintf(c, "220 tls=%v\r\n", implicitTLS)
	_, _ = io.Copy(c, c)
}

// served returns the greeting of addr, or the error.
func served(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, time.Minute)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return bufio.NewReader(c).ReadString('\n')
}

// clients connect to addr again and again, until the function that is returned is called.
// Each must be served.
func clients(t *testing.T, addr string) (stop func()) {
	var all sync.WaitGroup
	var ended atomic.Bool
	var n atomic.Int64
	begun := make(chan struct{}, 4)
	for range 4 {
		all.Go(func() {
			for first := true; !ended.Load(); first = false {
				if got, err := served(addr); err != nil || !strings.HasPrefix(got, "220 ") {
					t.Errorf("%s, connection %d: %q %v", addr, n.Load(), got, err)
					ended.Store(true)
				}
				n.Add(1)
				if first {
					begun <- struct{}{}
				}
			}
		})
	}
	for range 4 {
		<-begun
	}
	return func() {
		ended.Store(true)
		all.Wait()
		t.Logf("%d connections to %s", n.Load(), addr)
	}
}

// serving returns a Listener of addrs that serves until the test ends.
func serving(t *testing.T, addrs ...string) *Listener {
	t.Helper()
	l, err := Listen(Options{Settings: Settings{Addrs: addrs}, Me: "mx.test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(run(t, l, greet))
	return l
}

// change applies a change of the addresses.
func change(t *testing.T, l *Listener, addrs ...string) {
	t.Helper()
	c, err := l.Change(Settings{Addrs: addrs})
	if err != nil {
		t.Fatal(err)
	}
	c.Apply()
}

// TestChange: an address that stays serves every client while others come and go, those on
// an address that goes are served to their end, and a new one answers.
func TestChange(t *testing.T) {
	stays, goes, comes := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	l := serving(t, stays, goes)
	stop := clients(t, stays)
	for round := range 5 {
		old, err := net.Dial("tcp", goes)
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(old)
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		change(t, l, comes, stays)
		if got := l.Addrs(); len(got) != 2 || got[0].String() != comes || got[1].String() != stays {
			t.Errorf("round %d: bound are %v", round, got)
		}
		if _, err := served(comes); err != nil {
			t.Errorf("round %d: the new address: %v", round, err)
		}
		if _, err := served(goes); err == nil {
			t.Errorf("round %d: the old address answers", round)
		}
		_, _ = io.WriteString(old, "still there\r\n")
		if line, err := r.ReadString('\n'); line != "still there\r\n" {
			t.Errorf("round %d: a client of the old address: %q %v", round, line, err)
		}
		old.Close()
		change(t, l, stays, goes)
	}
	stop()
}

// TestChangeServesTheQueue: clients that wait in the queue of an address that goes are
// served.
func TestChangeServesTheQueue(t *testing.T) {
	l, err := Listen(Options{Settings: Settings{Addrs: []string{"127.0.0.1:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	var waiting []net.Conn
	for range 100 {
		c, err := net.Dial("tcp", l.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		waiting = append(waiting, c)
	}

	// The accept loop is held up until the change wants it to end.
	late := &held{TCPListener: l.sockets[0].Listener.(*net.TCPListener), free: make(chan struct{})}
	l.sockets[0].Listener = late
	stop := run(t, l, greet)
	for {
		l.mu.Lock()
		begun := l.sockets[0].over != nil
		l.mu.Unlock()
		if begun {
			break
		}
		time.Sleep(time.Millisecond)
	}
	change(t, l, "127.0.0.1:"+freePort(t))
	for i, c := range waiting {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if line, err := bufio.NewReader(c).ReadString('\n'); !strings.HasPrefix(line, "220 ") {
			t.Errorf("client %d: %q %v", i, line, err)
		}
		c.Close()
	}
	stop()
}

// held is a net.Listener that accepts nothing before it gets a deadline, and then is late for
// every second one, as on a busy machine.
type held struct {
	*net.TCPListener
	once  sync.Once
	free  chan struct{}
	calls int
}

func (h *held) Accept() (net.Conn, error) {
	<-h.free
	if h.calls++; h.calls%2 == 1 {
		return nil, os.ErrDeadlineExceeded
	}
	return h.TCPListener.Accept()
}

func (h *held) SetDeadline(t time.Time) error {
	err := h.TCPListener.SetDeadline(t)
	h.once.Do(func() { close(h.free) })
	return err
}

// TestChangeFails: an address that is in use, or cannot be bound, is named, and all stays
// as it was. So it does when the change is given up.
func TestChangeFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	first, fine := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	l := serving(t, first)
	defer clients(t, first)()
	for addr, want := range map[string]string{
		taken.Addr().String(): "config/smtp.ini: key listen: listen on " + taken.Addr().String() + ": bind: address already in use",
		"192.0.2.1:2525":      "config/smtp.ini: key listen: listen on 192.0.2.1:2525: bind: ",
	} {
		c, err := l.Change(Settings{Addrs: []string{fine, addr}, MaxConnections: 1})
		if err == nil {
			c.Discard()
			t.Fatalf("%s was bound", addr)
		}
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if c, err := l.Change(Settings{Addrs: []string{"127.0.0.1:1"}}); err == nil {
		c.Discard() // this user may bind it
	} else if !strings.HasSuffix(err.Error(), "listen on 127.0.0.1:1: bind: permission denied; a port below 1024 can be bound at the start only, so restart the daemon") {
		t.Error(err)
	}
	if _, err := l.Change(Settings{}); err == nil || !strings.HasPrefix(err.Error(), "config/smtp.ini: key listen: ") {
		t.Errorf("without an address: %v", err)
	}
	c, err := l.Change(Settings{Addrs: []string{fine}, MaxConnections: 1})
	if err != nil {
		t.Fatal(err)
	}
	c.Discard()
	if _, err := served(fine); err == nil {
		t.Error("an address of a change that failed answers")
	}
	if got := l.Addrs(); len(got) != 1 || got[0].String() != first {
		t.Errorf("bound are %v", got)
	}
}

// TestChangeLimits: new limits, our name, and which port speaks TLS at once, count for the
// next connection on an address that stays.
func TestChangeLimits(t *testing.T) {
	addr := "127.0.0.1:" + freePort(t)
	l := serving(t, addr)
	first, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	r := bufio.NewReader(first)
	if got, _ := r.ReadString('\n'); got != "220 tls=false\r\n" {
		t.Fatalf("%q", got)
	}
	port := l.Addrs()[0].(*net.TCPAddr).Port
	for _, one := range []struct {
		settings Settings
		want     string
	}{
		{Settings{MaxConnections: 1}, "421 4.3.2 mx.next.test Too many connections, try again later\r\n"},
		{Settings{MaxPerIP: 1}, "421 4.3.2 mx.next.test Too many connections from your address, try again later\r\n"},
		{Settings{SMTPSPort: port}, "220 tls=true\r\n"},
		{Settings{}, "220 tls=false\r\n"},
	} {
		one.settings.Addrs = []string{addr}
		c, err := l.Change(one.settings)
		if err != nil {
			t.Fatal(err)
		}
		c.Apply()
		l.SetMe("mx.next.test")
		if got, err := served(addr); got != one.want {
			t.Errorf("%+v: %q %v", one.settings, got, err)
		}
		for l.Open() != 1 {
			time.Sleep(time.Millisecond)
		}
	}
}

// TestChangeOfWidth: an address becomes a part of another one, and the other way round,
// and clients of what they have in common are all served.
func TestChangeOfWidth(t *testing.T) {
	if ln, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("this host has no IPv6 loopback: %v", err)
	} else {
		ln.Close()
	}
	port := freePort(t)
	narrow := "127.0.0.1:" + port
	l := serving(t, narrow)
	stop := clients(t, narrow)
	for _, hosts := range []string{"0.0.0.0", "[::]", "0.0.0.0 [::]", "[::]", "127.0.0.1 [::1]", "127.0.0.1"} {
		var addrs []string
		for _, host := range strings.Fields(hosts) {
			addrs = append(addrs, host+":"+port)
		}
		given, err := l.Change(Settings{Addrs: addrs})
		if err != nil {
			t.Fatalf("%s: %v", hosts, err)
		}
		given.Discard()
		change(t, l, addrs...)
		for host, want := range map[string]bool{"127.0.0.2": hosts != "127.0.0.1" && hosts != "127.0.0.1 [::1]", "[::1]": strings.Contains(hosts, "::")} {
			if _, err := served(host + ":" + port); (err == nil) != want {
				t.Errorf("%s: %s answers: %v", hosts, host, err)
			}
		}
	}
	stop()

	// No other process can bind the address beside us.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return setReusePort(raw, true) }}
	if ln, err := config.Listen(context.Background(), "tcp4", narrow); err == nil {
		ln.Close()
		t.Error("the address can be bound twice")
	}
}

// TestChangeStopped: a change that comes while the daemon stops, or before it serves, leaves
// nothing behind.
func TestChangeStopped(t *testing.T) {
	first, next := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	l, err := Listen(Options{Settings: Settings{Addrs: []string{first}}})
	if err != nil {
		t.Fatal(err)
	}
	change(t, l, next)
	if ln, err := net.Listen("tcp", first); err != nil {
		t.Errorf("the old address is still bound: %v", err)
	} else {
		ln.Close()
	}
	c, err := l.Change(Settings{Addrs: []string{next, first}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, l, greet)()
	c.Apply()
	for _, addr := range []string{first, next} {
		if ln, err := net.Listen("tcp", addr); err != nil {
			t.Errorf("%s is still bound: %v", addr, err)
		} else {
			ln.Close()
		}
	}
}
