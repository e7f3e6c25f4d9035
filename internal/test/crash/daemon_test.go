package crash

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/load/instance"
)

// patience bounds every single wait. Tests never depend on it: it ends those
// that fail.
const patience = 2 * time.Minute

var program instance.Program

func TestMain(m *testing.M) { os.Exit(program.Run(m)) }

// concurrency is outbound.ini's concurrency_max in these tests.
const concurrency = 20

// folder makes an instance that queues for clients on loopback and delivers to
// the port. more are further files of config/, whose text is put behind what
// stands in a file of that name.
func folder(t *testing.T, dir string, port int, more map[string]string) {
	t.Helper()
	dns := dnstest.New(t)
	dns.PTR("127.0.0.1", "localhost")
	dns.SetDefault("mx.sink.test", "127.0.0.1")
	files := map[string]string{
		"smtp.ini":        "listen=127.0.0.1:0\n",
		"plugins":         "relay\n",
		"relay_acl_allow": "127.0.0.0/8\n",
		"dns.ini":         "servers[]=" + dns.Addr() + "\n",
		"log.ini":         "format=json\n",
		"outbound.ini": fmt.Sprintf("port=%d\nlocal_mx_ok=true\nconcurrency_max=%d\npool_concurrency_max=%d\ntemp_fail_intervals=2s*99\n",
			port, concurrency, concurrency),
	}
	for name, text := range more {
		files[name] += text
	}
	for name, text := range files {
		if err := instance.WriteFiles(dir, map[string]string{"config/" + name: text}); err != nil {
			t.Fatal(err)
		}
	}
}

// daemon is a running Tarishi. It is killed with the test if it still runs.
type daemon struct {
	*instance.Server
	t *testing.T
}

func start(t *testing.T, dir string) *daemon {
	t.Helper()
	bin, err := program.Path()
	if err != nil {
		t.Fatal(err)
	}
	s, err := instance.Tarishi(t.Context(), bin, dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Signal(os.Kill)
		<-s.Exited()
	})
	return &daemon{s, t}
}

// kill ends the daemon as a crash would.
func (d *daemon) kill() {
	d.t.Helper()
	if err := d.Signal(os.Kill); err != nil {
		d.t.Fatal(err)
	}
	<-d.Exited()
	d.sound()
}

// stop ends the daemon in order.
func (d *daemon) stop() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		d.t.Errorf("the daemon ended with %v", err)
	}
	d.sound()
}

var trouble = regexp.MustCompile(`(?m)^(panic:|fatal error:|goroutine \d+ \[).*|.*\bpanicked\b.*$`)

func (d *daemon) sound() {
	d.t.Helper()
	if line := trouble.FindString(d.Log()); line != "" {
		d.t.Errorf("the daemon's log has: %s", line)
	}
}

// eventually polls until ok says true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}
