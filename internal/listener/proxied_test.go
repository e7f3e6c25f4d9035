package listener

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/maillog"
	"tarishi/internal/proxyproto"
)

// behindProxy returns a running Listener with a proxy on 127.0.0.1, whose connections it
// greets with their addresses, and what it has logged.
func behindProxy(t *testing.T, o Options) (*Listener, *observer.ObservedLogs) {
	t.Helper()
	core, lines := observer.New(zap.InfoLevel)
	o.Addrs, o.Me, o.Mail = []string{"127.0.0.1:0"}, "mx.test", maillog.New(zap.New(core))
	o.PROXY, o.Proxies = true, append(o.Proxies, netip.MustParsePrefix("127.0.0.1/32"))
	l, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, l, func(_ context.Context, c net.Conn, implicitTLS bool) {
		defer c.Close()
		_, handedOn := c.(*proxyproto.Conn)
		fmt.Fprintf(c, "220 %v %v %v %v\r\n", c.RemoteAddr(), c.LocalAddr(), implicitTLS, handedOn)
		_, _ = io.Copy(c, c)
	})
	t.Cleanup(func() {
		stop()
		for end := time.Now().Add(time.Minute); l.Open() != 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if l.Open() != 0 || len(l.perIP) != 0 || len(l.silent) != 0 {
			t.Errorf("%d connections are counted, by address %v, %d wait", l.Open(), l.perIP, len(l.silent))
		}
	})
	return l, lines
}

// speak connects from a loopback address, sends what a proxy would, and returns the
// connection and the first line.
func speak(t *testing.T, l *Listener, from, header string) (net.Conn, string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", l.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(c, header)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Errorf("%q: %q, %v", header, line, err)
	}
	return c, line
}

const version2 = "\r\n\r\n\x00\r\nQUIT\n"

func TestProxied(t *testing.T) {
	l, _ := behindProxy(t, Options{})
	own := l.Addrs()[0].String()
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 198.51.100.25 4711 25\r\n":                                          "220 192.0.2.7:4711 198.51.100.25:25 false true\r\n",
		"PROXY TCP6 2001:db8::7 2001:db8::25 4711 587\r\n":                                        "220 [2001:db8::7]:4711 [2001:db8::25]:587 false true\r\n",
		version2 + "\x21\x11\x00\x0f\xc0\x00\x02\x07\xc6\x33\x64\x19\x12\x67\x00\x19\x04\x00\x00": "220 192.0.2.7:4711 198.51.100.25:25 false true\r\n",
		"PROXY UNKNOWN\r\n":           "220 127.0.0.1:",
		version2 + "\x20\x00\x00\x00": "220 127.0.0.1:",
		"EHLO client.test\r\n":        "421 4.7.0 Invalid PROXY format\r\n",
		"PROXY TCP4 192.0.2.7\r\n" + strings.Repeat("EHLO client.test\r\n", 1000): "421 4.7.0 Invalid PROXY format\r\n",
	} {
		if _, line := speak(t, l, "127.0.0.1", header); !strings.HasPrefix(line, want) || strings.HasPrefix(want, "220 127") && !strings.HasSuffix(line, own+" false true\r\n") {
			t.Errorf("%q: %q, want %q", header, line, want)
		}
	}

	// Nobody else is asked for a header.
	if _, line := speak(t, l, "127.0.0.2", ""); !strings.HasPrefix(line, "220 127.0.0.2:") || !strings.HasSuffix(line, "false false\r\n") {
		t.Errorf("%q", line)
	}
}

// What comes behind the header, in the same segment too, is the client's.
func TestProxiedKeepsTheRest(t *testing.T) {
	l, _ := behindProxy(t, Options{})
	c, err := net.Dial("tcp", l.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(c, "PROXY TCP4 192.0.2.7 198.51.100.25 4711 25\r\nEHLO client.test\r\n")
	r := bufio.NewReader(c)
	_, _ = r.ReadString('\n')
	if line, err := r.ReadString('\n'); err != nil || line != "EHLO client.test\r\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestProxiedTimeout(t *testing.T) {
	l, lines := behindProxy(t, Options{HeaderTime: 10 * time.Millisecond})
	if _, line := speak(t, l, "127.0.0.1", "PROXY TC"); line != "421 4.4.2 PROXY timeout\r\n" {
		t.Errorf("%q", line)
	}
	if all := lines.FilterMessage("refused").All(); len(all) != 1 || all[0].ContextMap()["ip"] != "127.0.0.1" {
		t.Errorf("%v", all)
	}
}

// On a port that begins with TLS nothing is said in clear.
func TestProxiedImplicitTLS(t *testing.T) {
	l, _ := behindProxy(t, Options{})
	l.mu.Lock()
	l.settings.SMTPSPort = l.sockets[0].Addr().(*net.TCPAddr).Port
	l.mu.Unlock()
	if _, line := speak(t, l, "127.0.0.1", "PROXY TCP4 192.0.2.7 198.51.100.25 4711 465\r\n"); line != "220 192.0.2.7:4711 198.51.100.25:465 true true\r\n" {
		t.Errorf("%q", line)
	}
	c, err := net.Dial("tcp", l.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	if got, _ := io.ReadAll(c); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// Clients behind a proxy have the limit each, and the proxy has none.
func TestProxiedLimits(t *testing.T) {
	l, lines := behindProxy(t, Options{Settings: Settings{MaxPerIP: 2}})
	for _, c := range []struct{ source, want string }{
		{"192.0.2.7", "220"},
		{"192.0.2.7", "220"},
		{"192.0.2.8", "220"},
		{"192.0.2.7", "421 4.3.2 mx.test Too many connections from your address"},
		{"192.0.2.8", "220"},
		{"192.0.2.9", "220"},
	} {
		if _, line := speak(t, l, "127.0.0.1", "PROXY TCP4 "+c.source+" 198.51.100.25 4711 25\r\n"); !strings.HasPrefix(line, c.want) {
			t.Errorf("%s: %q", c.source, line)
		}
	}
	for range 3 {
		if _, line := speak(t, l, "127.0.0.1", "PROXY UNKNOWN\r\n"); !strings.HasPrefix(line, "220") {
			t.Errorf("the proxy's own: %q", line)
		}
	}
	if all := lines.FilterMessage("refused").All(); len(all) != 1 || all[0].ContextMap()["ip"] != "192.0.2.7" {
		t.Errorf("%v", all)
	}
}

// The proxies are those of the moment at which a connection is accepted.
func TestProxiedChange(t *testing.T) {
	l, _ := behindProxy(t, Options{})
	for i, proxies := range [][]netip.Prefix{nil, {netip.MustParsePrefix("127.0.0.0/8")}} {
		change, err := l.Change(Settings{Addrs: []string{l.Addrs()[0].String()}, PROXY: true, Proxies: proxies})
		if err != nil {
			t.Fatal(err)
		}
		change.Apply()
		header := ""
		if i == 1 {
			header = "PROXY TCP4 192.0.2.7 198.51.100.25 4711 25\r\n"
		}
		if _, line := speak(t, l, "127.0.0.3", header); !strings.HasPrefix(line, []string{"220 127.0.0.3:", "220 192.0.2.7:4711"}[i]) {
			t.Errorf("%v: %q", proxies, line)
		}
	}
}

// A stop does not wait for headers that do not come.
func TestProxiedStop(t *testing.T) {
	l, _ := behindProxy(t, Options{})
	c, err := net.Dial("tcp", l.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		l.mu.Lock()
		n := len(l.silent)
		l.mu.Unlock()
		if n == 1 {
			break
		}
	}
	l.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if got, err := io.ReadAll(c); len(got) != 0 || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
