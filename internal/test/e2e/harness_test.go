package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/load"
	"tarishi/internal/test/load/instance"
)

// patience bounds every single wait. Tests never depend on it: it ends those
// that fail.
const patience = 2 * time.Minute

var program instance.Program

// atOnce is how many tests run at the same time: they wait for servers and clocks far more
// than they work.
const atOnce = 6

func TestMain(m *testing.M) {
	syscall.Umask(0o022) // servers that change to users of their own read what tests write

	// A number on the command line stands.
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", strconv.Itoa(atOnce)); err != nil {
			panic(err)
		}
	}
	os.Exit(program.Run(m))
}

// long begins a test that is not worth its time at every run: make long runs them, by their
// names.
func long(t *testing.T) {
	t.Helper()
	if !strings.HasPrefix(t.Name(), "TestLong") {
		t.Fatal("make long would not find it")
	}
	if testing.Short() {
		t.Skip("takes long: make long")
	}
}

// binary is the path of the binary under test.
func binary(t *testing.T) string {
	t.Helper()
	bin, err := program.Path()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// need skips the test when a program is not installed; in CI it fails.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing(t, p+" is not installed")
		}
	}
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// Daemon is a running Tarishi.
type Daemon struct {
	*instance.Server
	t       *testing.T
	stopped bool
}

// folder makes an instance with these files in its config folder. Unless they
// say otherwise it listens on a port that the system chooses and asks a DNS
// server on loopback.
func folder(t *testing.T, config map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"config/smtp.ini": "listen=127.0.0.1:0\n", "config/plugins": ""}
	for name, text := range config {
		files["config/"+name] = text
	}
	if _, ok := config["dns.ini"]; !ok {
		files["config/dns.ini"] = dnsINI(nameServer(t))
	}
	if err := instance.WriteFiles(dir, files); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Start runs the daemon on a new instance. It is stopped with the test, which
// fails when the daemon panicked or did not stop as it should.
func Start(t *testing.T, config map[string]string) *Daemon {
	t.Helper()
	return startIn(t, folder(t, config))
}

// startIn runs the daemon on an instance that exists.
func startIn(t *testing.T, dir string, prefix ...string) *Daemon {
	t.Helper()
	s, err := instance.Tarishi(t.Context(), binary(t), dir, 1, prefix...)
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Server: s, t: t}
	t.Cleanup(d.Stop)
	return d
}

// Stop ends the daemon in order.
func (d *Daemon) Stop() {
	d.t.Helper()
	if d.stopped {
		return
	}
	d.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := d.Server.Stop(ctx)
	d.check(err)
}

// Kill ends the daemon at once, as a crash would.
func (d *Daemon) Kill() {
	d.t.Helper()
	d.stopped = true
	if err := d.Signal(os.Kill); err != nil {
		d.t.Fatal(err)
	}
	<-d.Exited()
	d.check(nil)
}

var trouble = regexp.MustCompile(`(?m)^(panic:|fatal error:|goroutine \d+ \[|WARNING: DATA RACE).*|.*\bpanic(ked)?\b.*$`)

func (d *Daemon) check(exit error) {
	d.t.Helper()
	if exit != nil {
		d.t.Errorf("the daemon ended with %v", exit)
	}
	if line := trouble.FindString(d.Log()); line != "" {
		d.t.Errorf("the daemon's log has: %s", line)
	}
	if d.t.Failed() {
		log := d.Log()
		if len(log) > 20_000 {
			log = log[:5000] + "\n...\n" + log[len(log)-15_000:]
		}
		d.t.Logf("the daemon's log:\n%s", log)
	}
}

// awaitLog waits until the daemon has logged what pattern matches and returns
// the match.
func (d *Daemon) awaitLog(pattern string) string {
	d.t.Helper()
	re := regexp.MustCompile(pattern)
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	if err := d.Await(ctx, re.MatchString); err != nil {
		d.t.Fatalf("no %q in the log: %v", pattern, err)
	}
	return re.FindString(d.Log())
}

// outcome is what a command left.
type outcome struct {
	exit int
	out  string // standard output and error, as they came
}

// execute runs a program to its end.
func execute(t *testing.T, name string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out.String())
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String()}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// sink starts a sink that ends with the test, after the daemon.
func sink(t *testing.T, o load.SinkOptions) *load.Sink {
	t.Helper()
	s, err := load.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// given are the ports that freePort has returned.
var given sync.Map

// freePort is a loopback port that was free a moment ago, for programs that
// cannot choose one. It is none of those that systems give to clients, and no
// other test here gets it.
func freePort(t *testing.T) int {
	t.Helper()
	var last error
	for range 100 {
		port := 13_000 + rand.N(3000)
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			ln.Close()
			return port
		}
		last = err
	}
	t.Fatal(last)
	return 0
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

// nameServer starts a DNS server that knows loopback and nothing else.
func nameServer(t *testing.T) *dnstest.Server {
	t.Helper()
	s := dnstest.New(t)
	s.PTR("127.0.0.1", "localhost")
	return s
}

func dnsINI(s *dnstest.Server) string { return "servers[]=" + s.Addr() + "\n" }

// relayTo is the configuration of a relay that takes mail for sink.test.
func relayTo(port int) map[string]string {
	return map[string]string{
		"plugins":          "rcpt_to.in_host_list\nqueue/smtp_forward\n",
		"host_list":        "sink.test\n",
		"smtp_forward.ini": fmt.Sprintf("host=127.0.0.1\nport=%d\n", port),
	}
}

// queueTo is the configuration of a queue for clients on loopback: the MX of
// the domains is mx.sink.test, which is 127.0.0.1, and its port the one given.
// outbound are further lines of outbound.ini.
func queueTo(t *testing.T, port int, outbound string, domains ...string) map[string]string {
	t.Helper()
	dns := nameServer(t)
	for _, d := range append(domains, "sink.test") {
		dns.MX(d, 10, "mx.sink.test")
	}
	dns.A("mx.sink.test", "127.0.0.1")
	return map[string]string{
		"plugins":         "relay\n",
		"relay_acl_allow": "127.0.0.0/8\n",
		"dns.ini":         dnsINI(dns),
		"outbound.ini":    fmt.Sprintf("port=%d\nlocal_mx_ok=true\n%s\n", port, outbound),
	}
}

// with adds files to a configuration.
func with(config map[string]string, nameAndText ...string) map[string]string {
	for i := 0; i < len(nameAndText); i += 2 {
		config[nameAndText[i]] = nameAndText[i+1]
	}
	return config
}
