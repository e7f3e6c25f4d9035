package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/smtp"
	"os"
	"strings"
	"testing"
	"time"

	"tarishi/internal/maillog"
	"tarishi/internal/store/disk"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// TestMetrics sends mail through a daemon and finds it in the metrics, over HTTP
// and on the control socket.
func TestMetrics(t *testing.T) {
	mx, backend := smtptest.New(t, smtptest.On(smtptest.Rcpt, smtptest.For(smtptest.Reply("550 5.1.1 unknown"), "no@bad.test")),
		smtptest.On(smtptest.Mail, smtptest.For(smtptest.Reply("451 4.7.0 later"), "slow@from.test"))), smtptest.New(t)
	names := dnstest.New(t)
	names.SetDefault("mx.test", "127.0.0.1")
	cfg := instance(t, map[string]string{
		"me": "me.test\n", "plugins": "relay\nqueue/smtp_forward\n", "relay_acl_allow": "127.0.0.1/32\n",
		"smtp.ini": "listen=127.0.0.1:0\n", "http.ini": "listen=127.0.0.1:0\ndestinations=1\n", "dns.ini": "servers[]=" + names.Addr() + "\n",
		"smtp_forward.ini": fmt.Sprintf("[relayed.test]\nhost=127.0.0.1:%d\nenable_outbound=true\n", backend.Port()),
		"outbound.ini":     fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", mx.Port()),
	})
	stop, s := launch(t, cfg)
	defer stop()
	folder, err := os.Open(cfg.QueueDir) // its name may be too long for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	overHTTP := &http.Client{Timeout: time.Minute}
	onSocket := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/control.sock", folder.Fd()))
		},
	}}
	defer overHTTP.CloseIdleConnections()
	at := "http://" + s.http.Addrs()[0].String()
	ask := func(by *http.Client, path string) string {
		t.Helper()
		res, err := by.Get(at + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %v\n%s", path, res.Status, err, text)
		}
		return string(text)
	}
	send := func(from, to string) {
		t.Helper()
		if err := smtp.SendMail(s.listener.Addrs()[0].String(), nil, from, []string{to}, []byte("Subject: x\r\n\r\nbody\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	send("s@from.test", "one@relayed.test")
	send("s@from.test", "two@good.test")
	send("s@from.test", "no@bad.test") // its DSN goes to from.test
	send("slow@from.test", "three@later.test")
	send("slow@from.test", "four@latest.test")
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}} // who may not relay
	conn, err := stranger.DialContext(t.Context(), "tcp", s.listener.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := smtp.NewClient(conn, "me.test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Mail("s@from.test"); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("five@good.test"); err == nil {
		t.Fatal("an open relay")
	}
	want := strings.Split(`replies_total{command="mail",result="accepted"} 6
replies_total{command="rcpt",result="accepted"} 5
replies_total{command="rcpt",result="refused"} 1
replies_total{command="message",result="accepted"} 5
message_seconds_count 5
queued_messages_total 4
connections_total 6
connections_open 1
delivery_recipients_total{result="delivered",role="relay"} 1
delivery_recipients_total{result="delivered",role="outbound"} 2
delivery_recipients_total{result="failed",role="outbound"} 1
delivery_recipients_total{result="deferred",role="outbound"} 2
delivery_delay_seconds_count{role="relay"} 1
dsn_total{action="failed"} 1
accepting 1
queue_messages 2
queue_recipients 2
deliveries{state="waiting"} 2
deliveries{state="running"} 0
destinations 2
destination_deliveries{destination="later.test",state="waiting"} 1
destination_deliveries{destination="other",state="waiting"} 1
journal_sync_failures_total 0`, "\n")
	var missing []string
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		text := ask(overHTTP, "/metrics")
		missing = missing[:0]
		for _, line := range want {
			if !strings.Contains(text, "\ntarishi_"+line+"\n") {
				missing = append(missing, line)
			}
		}
		if len(missing) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%q are not in\n%s", missing, text)
		}
	}
	text := ask(onSocket, "/metrics")
	for _, some := range []string{`tarishi_build_info{goversion="go`, `version="test"} 1`, "\ntarishi_disk_free_bytes ", "\nprocess_cpu_seconds_total ", "\ngo_goroutines "} {
		if !strings.Contains(text, some) {
			t.Errorf("no %q", some)
		}
	}
	if strings.Contains(text, "\ntarishi_journal_sync_seconds_count 0\n") || strings.Contains(text, "\ntarishi_connections_total 0\n") {
		t.Error(text)
	}
	if a, b := ask(overHTTP, "/health"), ask(onSocket, "/health"); a != "ok\n" || b != a {
		t.Error(a, b)
	}
}

// TestMetricsNowhere: without http.ini nothing listens, and with an address that
// is taken the daemon does not start and keeps nothing.
func TestMetricsNowhere(t *testing.T) {
	files := map[string]string{"me": "me.test\n", "plugins": "", "smtp.ini": "listen=127.0.0.1:0\n"}
	stop, s := launch(t, instance(t, files))
	if n := len(s.http.Addrs()); n > 0 {
		t.Errorf("%d addresses", n)
	}
	stop()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	files["http.ini"] = "listen=" + taken.Addr().String() + "\n"
	cfg := instance(t, files)
	for range 2 { // nothing is left of the first
		if _, err := New(cfg, Options{Log: maillog.NewWriter(io.Discard)}); err == nil || !strings.Contains(err.Error(), "config/http.ini: cannot listen on "+taken.Addr().String()) {
			t.Fatal(err)
		}
	}
	// Nor is anything kept when the queue is another's.
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	addr := net.JoinHostPort("127.0.0.7", port)
	files["http.ini"] = "listen=" + addr + "\n"
	cfg = instance(t, files)
	other, err := disk.Open(disk.Options{Dir: cfg.QueueDir})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := New(cfg, Options{Log: maillog.NewWriter(io.Discard)}); err == nil || !strings.Contains(err.Error(), "in use by another") {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
}
