package listener

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
)

func TestBindings(t *testing.T) {
	for _, c := range []struct{ addrs, want string }{
		{"[::]:25", "tcp :25"},
		{":25", "tcp :25"},
		{"[::1]:25", "tcp [::1]:25"},
		{"0.0.0.0:25", "tcp4 0.0.0.0:25"},
		{"[::ffff:0.0.0.0]:25", "tcp4 0.0.0.0:25"},
		{"nonsense", "tcp nonsense"},
		{"[::]:0 0.0.0.0:0 [::]:0", "tcp :0, tcp4 0.0.0.0:0, tcp :0"},

		// Both families by name.
		{"0.0.0.0:25 [::]:25", "tcp4 0.0.0.0:25, tcp6 [::]:25"},
		{"[::]:25 0.0.0.0:25", "tcp6 [::]:25, tcp4 0.0.0.0:25"},
		{":25 0.0.0.0:25", "tcp6 [::]:25, tcp4 0.0.0.0:25"},
		{"[::ffff:0.0.0.0]:25 [::]:25", "tcp4 0.0.0.0:25, tcp6 [::]:25"},
		{"0.0.0.0:25 [::]:587", "tcp4 0.0.0.0:25, tcp :587"},
		{"0.0.0.0:25 [::]:25 0.0.0.0:587 [::]:587", "tcp4 0.0.0.0:25, tcp6 [::]:25, tcp4 0.0.0.0:587, tcp6 [::]:587"},

		// One address beside every one of the other family, or of its own.
		{"127.0.0.1:25 [::]:25", "tcp4 127.0.0.1:25, tcp6 [::]:25"},
		{"[::]:25 127.0.0.1:25 127.0.0.2:25", "tcp6 [::]:25, tcp4 127.0.0.1:25, tcp4 127.0.0.2:25"},
		{"0.0.0.0:25 [::1]:25", "tcp4 0.0.0.0:25, tcp [::1]:25"},
		{"0.0.0.0:25 127.0.0.1:25", "tcp4 0.0.0.0:25, 127.0.0.1:25 in 0.0.0.0:25"},
		{"[::1]:25 [::]:25", "[::1]:25 in [::]:25, tcp :25"},
		{"[::1]:25 [::]:25 127.0.0.1:25 0.0.0.0:25", "[::1]:25 in [::]:25, tcp6 [::]:25, 127.0.0.1:25 in 0.0.0.0:25, tcp4 0.0.0.0:25"},
		{":25 [::]:25", "tcp :25, [::]:25 in :25"},
		{"127.0.0.1:25 [::ffff:127.0.0.1]:25", "tcp4 127.0.0.1:25, [::ffff:127.0.0.1]:25 in 127.0.0.1:25"},
		{"127.0.0.1:25 [::1]:25", "tcp4 127.0.0.1:25, tcp [::1]:25"},
	} {
		var got []string
		addrs := strings.Fields(c.addrs)
		for i, b := range bindings(addrs) {
			one := b.network + " " + b.addr
			if b.covered != "" {
				one = addrs[i] + " in " + b.covered
			}
			got = append(got, one)
		}
		want := strings.Split(c.want, ", ")
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", c.addrs, got, want)
		}
	}
}

// freePort is a port that nothing listens on, in either family.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// Every combination of wildcards and addresses with one port is bound, and answers
// on what it names.
func TestBindSamePort(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("this host has no IPv6 loopback: %v", err)
	} else {
		l.Close()
	}
	for _, c := range []struct {
		hosts    string
		v4, v6   bool // answered on the loopback addresses
		sockets  int
		loopback bool // 127.0.0.2 is not
	}{
		{"0.0.0.0 [::]", true, true, 2, false},
		{"[::] 0.0.0.0", true, true, 2, false},
		{"[::] 127.0.0.1", true, true, 2, true},
		{"0.0.0.0 127.0.0.1", true, false, 1, false},
		{"[::] [::1]", true, true, 1, false},
		{"[::]", true, true, 1, false},
	} {
		var all []net.Listener
		var port string
		for range 20 { // a port that is free now may be taken a moment later
			port = freePort(t)
			var addrs []string
			for _, h := range strings.Fields(c.hosts) {
				addrs = append(addrs, h+":"+port)
			}
			var err error
			if all, err = bindAll(addrs); err == nil {
				break
			}
			if !errors.Is(err, syscall.EADDRINUSE) {
				t.Fatalf("%s: %v", c.hosts, err)
			}
		}
		if len(all) != c.sockets {
			t.Errorf("%s: %d sockets, want %d", c.hosts, len(all), c.sockets)
		}
		for host, want := range map[string]bool{"127.0.0.1": c.v4, "::1": c.v6, "127.0.0.2": c.v4 && !c.loopback} {
			conn, err := net.Dial("tcp", net.JoinHostPort(host, port))
			if err == nil {
				conn.Close()
			}
			if (err == nil) != want {
				t.Errorf("%s: %s answers: %v", c.hosts, host, err)
			}
		}
		for _, ln := range all {
			ln.Close()
		}
	}
}

func TestBindNamesTheAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	first := "127.0.0.1:" + freePort(t)
	_, err = bindAll([]string{first, taken.Addr().String()})
	if err == nil || !strings.HasPrefix(err.Error(), "listen on "+taken.Addr().String()+": ") {
		t.Errorf("%v", err)
	}
	if c, err := net.Dial("tcp", first); err == nil {
		c.Close()
		t.Error("the first address stayed bound")
	}
}

// bindAll binds addresses of which none is bound, and returns the sockets that they need.
func bindAll(addrs []string) ([]net.Listener, error) {
	all, err := BindMissing(addrs, func(int) bool { return false }, zap.NewNop())
	return slices.DeleteFunc(all, func(ln net.Listener) bool { return ln == nil }), err
}
