package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/hook"
	"tarishi/internal/plugin"
)

// reloading is a daemon and the files that it follows.
type reloading struct {
	t    *testing.T
	root string
	log  *lines
	*Server
}

// startReloading runs a daemon that accepts mail for ours.test.
func startReloading(t *testing.T, files map[string]string) *reloading {
	t.Helper()
	r := &reloading{t: t, root: t.TempDir(), log: &lines{}}
	all := map[string]string{
		"me": "me.test\n", "smtp.ini": "listen=127.0.0.1:0\n", "dns.ini": "servers[]=127.0.0.1:9\n", "host_list": "ours.test\n",
		"plugins": "rcpt_to.in_host_list\nqueue/test\n", "http.ini": "listen=127.0.0.1:0\n",
	}
	for name, text := range files {
		all[name] = text
	}
	stop, s := launchTo(t, instanceIn(t, r.root, all), r.log)
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	r.Server = s
	return r
}

// write writes a file of the configuration.
func (r *reloading) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.root, "config", name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// reload puts the files in force.
func (r *reloading) reload() conf.Result {
	r.t.Helper()
	result, err := r.live.Reload(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return result
}

// good is reload where that has to bring something new.
func (r *reloading) good() {
	r.t.Helper()
	if result := r.reload(); !result.Changed || len(result.Problems) > 0 {
		r.t.Fatalf("%+v", result)
	}
}

// client is a connection to a daemon.
type client struct {
	t *testing.T
	*textproto.Conn
}

func (r *reloading) dial(addr string) client {
	r.t.Helper()
	raw, err := net.DialTimeout("tcp", addr, time.Minute)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { raw.Close() })
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	c := client{r.t, textproto.NewConn(raw)}
	c.want("220")
	return c
}

// want reads a reply.
func (c client) want(code string) {
	c.t.Helper()
	n, text, err := c.ReadResponse(0)
	if got := fmt.Sprintf("%d %s", n, text); err != nil || !strings.HasPrefix(got, code) {
		c.t.Errorf("%s, %v; want %s", got, err, code)
	}
}

// say sends a line and reads the reply to it.
func (c client) say(line, code string) {
	c.t.Helper()
	if err := c.PrintfLine("%s", line); err != nil {
		c.t.Fatal(err)
	}
	c.want(code)
}

// rcpt has the reply to a recipient checked, in a transaction of its own.
func (c client) rcpt(address, code string) {
	c.t.Helper()
	c.say("MAIL FROM:<a@client.test>", "250")
	c.say("RCPT TO:<"+address+">", code)
	c.say("RSET", "250")
}

// first is the first address that a daemon listens on.
func (r *reloading) first() string { return r.listener.Addrs()[0].String() }

// freePort returns a port that nobody listens on, at least a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// TestReload: a connection has what it was accepted with, the next one what the files say.
func TestReload(t *testing.T) {
	r := startReloading(t, nil)
	old := r.dial(r.first())
	old.say("EHLO client.test", "250")
	old.rcpt("x@ours.test", "250")
	old.rcpt("x@theirs.test", "550")

	// A list of a plugin, the name and a text of the conversation.
	r.write("host_list", "theirs.test\n")
	r.write("me", "new.test\n")
	r.good()
	next := r.dial(r.first())
	next.say("EHLO client.test", "250 new.test")
	next.rcpt("x@theirs.test", "250")
	next.rcpt("x@ours.test", "550")
	old.say("EHLO client.test", "250 me.test")
	old.rcpt("x@ours.test", "250")

	// Plugins, the log and where it listens.
	port := freePort(t)
	before := r.first()
	r.write("plugins", "queue/test\nrcpt_to.in_host_list\nprocess_title\n")
	r.write("log.ini", "level=debug\nformat=logfmt\n")
	r.write("smtp.ini", "listen=127.0.0.1:"+port+"\n")
	r.good()
	last := r.dial("127.0.0.1:" + port)
	last.say("EHLO client.test", "250")
	last.rcpt("x@theirs.test", "250")
	if c, err := net.Dial("tcp", before); err == nil {
		c.Close()
		t.Error("the address that is gone is still served")
	}
	old.rcpt("x@ours.test", "250") // on that address
	next.say("QUIT", "221")
	if !strings.Contains(r.log.String(), "level=info uuid=- origin=config message=\"configuration reloaded\" id=- generation=3") {
		t.Error("the log is as before")
	}
	if got := strings.Join(pluginNames(r.current.Load().cfg), " "); got != "queue/test rcpt_to.in_host_list process_title" {
		t.Error(got)
	}

	// Nothing that the old connection needs has ended, and then it does.
	old.say("QUIT", "221")
	r.retiringEnds()
}

func pluginNames(cfg *conf.Config) []string {
	var all []string
	for _, p := range cfg.Plugins.Listed {
		all = append(all, p.Name)
	}
	return all
}

// retiringEnds waits for the generations that are not in force.
func (r *reloading) retiringEnds() {
	r.t.Helper()
	ended := make(chan struct{})
	go func() { r.retiring.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		r.t.Fatal("an old generation does not end")
	}
}

// TestReloadHTTP: the addresses of http.ini, and what is shown there.
func TestReloadHTTP(t *testing.T) {
	r := startReloading(t, nil)
	get := func(url string) string {
		t.Helper()
		c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := c.Get(url)
		if err != nil {
			return ""
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return string(text)
	}
	old := "http://" + r.http.Addrs()[0].String() + "/metrics"
	if text := get(old); !strings.Contains(text, "\ntarishi_config_generation 1\n") {
		t.Error("no generation")
	}
	addr := "127.0.0.1:" + freePort(t)
	r.write("http.ini", "listen="+addr+"\n")
	r.good()
	if get(old) != "" {
		t.Error("the old address is still served")
	}
	r.write("http.ini", "lisen=1\n")
	if result := r.reload(); len(result.Problems) != 1 {
		t.Errorf("%+v", result)
	}
	text := get("http://" + addr + "/metrics")
	if !strings.Contains(text, "\ntarishi_config_generation 2\n") || !strings.Contains(text, "\ntarishi_config_reload_failures_total 1\n") {
		t.Error("not generation 2 with one failure")
	}
	r.write("http.ini", "")
	r.good()
	if get("http://"+addr+"/metrics") != "" || len(r.http.Addrs()) > 0 {
		t.Error("HTTP is still served")
	}
}

// TestReloadRefused: whatever is wrong, everything goes on as it was.
func TestReloadRefused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := "127.0.0.1:" + freePort(t)
	r := startReloading(t, nil)
	files := map[string]string{}
	for _, name := range []string{"plugins", "smtp.ini", "http.ini", "host_list"} {
		b, err := os.ReadFile(filepath.Join(r.root, "config", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(b)
	}
	c := r.dial(r.first())
	c.say("EHLO client.test", "250")
	before := r.current.Load()
	for name, tt := range map[string]struct {
		files map[string]string
		want  []string // each in a problem of its own
	}{
		"a plugin that there is not": {map[string]string{"plugins": "nothing\n", "host_list": "theirs.test\n"}, []string{"config/plugins:1: there is no plugin nothing"}},
		"a port that is taken":       {map[string]string{"smtp.ini": "listen=" + free + "," + taken.Addr().String() + "\n"}, []string{"config/smtp.ini: key listen: listen on " + taken.Addr().String()}},
		"HTTP on one that is taken":  {map[string]string{"smtp.ini": "listen=" + free + "\n", "http.ini": "listen=" + taken.Addr().String() + "\n"}, []string{"config/http.ini: cannot listen on " + taken.Addr().String()}},
		"a certificate that is missing": {
			map[string]string{"tls.ini": "key=/nowhere/key.pem\ncert=/nowhere/cert.pem\n", "smtp.ini": "listen=" + free + "\n"},
			[]string{"config/tls.ini:1: key key", "config/tls.ini:2: key cert"},
		},
		"a certificate that is none": {map[string]string{"tls.ini": "key=tls_key.pem\ncert=tls_cert.pem\n", "tls_key.pem": "x", "tls_cert.pem": "x"}, []string{"tls_cert.pem holds no PEM block CERTIFICATE"}},
		"an unknown key":             {map[string]string{"smtp.ini": "listen=" + free + "\nlisen=1\n"}, []string{"config/smtp.ini:2: key lisen: unknown"}},
		"several things": {
			map[string]string{"plugins": "nothing\n", "smtp.ini": "listen=" + taken.Addr().String() + "\n", "http.ini": "listen=" + taken.Addr().String() + "\n"},
			[]string{"config/smtp.ini: key listen", "config/http.ini: cannot listen", "config/plugins:1: there is no plugin nothing"},
		},
	} {
		for file, text := range tt.files {
			r.write(file, text)
		}
		result := r.reload()
		if result.Changed || result.Generation != 1 || len(result.Problems) != len(tt.want) {
			t.Errorf("%s: %+v", name, result)
		}
		for _, want := range tt.want {
			if !slices.ContainsFunc(result.Problems, func(p string) bool { return strings.Contains(p, want) }) {
				t.Errorf("%s: %q is not in %q", name, want, result.Problems)
			}
		}

		// Clients old and new find what was there.
		if r.current.Load() != before {
			t.Errorf("%s: another generation", name)
		}
		c.rcpt("x@ours.test", "250")
		again := r.dial(r.first())
		again.say("EHLO client.test", "250")
		again.rcpt("x@ours.test", "250")
		again.say("QUIT", "221")
		ln, err := net.Listen("tcp", free)
		if err != nil {
			t.Fatalf("%s: an address stays bound: %v", name, err)
		}
		ln.Close()
		for file := range tt.files {
			if text, ok := files[file]; ok {
				r.write(file, text)
			} else if err := os.Remove(filepath.Join(r.root, "config", file)); err != nil {
				t.Fatal(err)
			}
		}
		if result := r.reload(); result.Changed || len(result.Problems) > 0 {
			t.Fatalf("%s: the old files: %+v", name, result)
		}
	}
}

// TestReloadFixed: what only a start can change stays, the rest of the reload counts.
func TestReloadFixed(t *testing.T) {
	r := startReloading(t, nil)
	queue := r.current.Load().cfg.QueueDir
	r.write("queue_dir", "elsewhere\n")
	r.write("host_list", "theirs.test\n")
	result := r.reload()
	if !result.Changed || !slices.ContainsFunc(result.Warnings, func(w string) bool { return strings.HasPrefix(w, "config/queue_dir: ") }) {
		t.Errorf("%+v", result)
	}
	if r.current.Load().cfg.QueueDir != queue {
		t.Error("another queue")
	}
	c := r.dial(r.first())
	c.say("EHLO client.test", "250")
	c.rcpt("x@theirs.test", "250")
}

// descriptors are the open files of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc:", err)
	}
	return len(all)
}

// TestReloadsLeakNothing: many generations leave no goroutine and no descriptor
// behind, though each has its plugins, its addresses and a connection that began in it.
func TestReloadsLeakNothing(t *testing.T) {
	const reloads = 100 // one that leaves something behind is one too many
	r := startReloading(t, nil)
	odd := map[string]string{
		"plugins": "process_title\nqueue/test\nrcpt_to.in_host_list\n", "smtp.ini": "listen=127.0.0.1:0,127.0.0.2:0\n",
		"http.ini": "listen=127.0.0.1:0,127.0.0.2:0\n", "outbound.ini": "concurrency_max=7\n", "smtp_forward.ini": "host=127.0.0.9\n", "log.ini": "level=warn\n",
		"dns.ini": "servers[]=127.0.0.2:9\n",
	}
	even := map[string]string{
		"plugins": "rcpt_to.in_host_list\nqueue/test\n", "smtp.ini": "listen=127.0.0.1:0\n", "http.ini": "listen=127.0.0.1:0\n",
		"outbound.ini": "", "smtp_forward.ini": "", "log.ini": "", "dns.ini": "servers[]=127.0.0.1:9\n",
	}
	turn := func(i int, bad bool) {
		t.Helper()
		some := even
		if i%2 == 1 {
			some = odd
		}
		for name, text := range some {
			r.write(name, text)
		}
		if bad {
			r.write("host_list", "a b\n")
			if result := r.reload(); len(result.Problems) != 1 {
				t.Fatalf("%+v", result)
			}
		}
		r.write("host_list", fmt.Sprintf("ours.test\nhost%d.test\n", i))
		r.good()
	}
	settled := func() (goroutines, files int) {
		t.Helper()
		r.retiringEnds()
		for end := time.Now().Add(time.Minute); r.listener.Open() > 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		return runtime.NumGoroutine(), descriptors(t)
	}
	turn(1, true) // both are made once before it is counted
	turn(2, true)
	goroutines, files := settled()

	// A connection of each third generation lives for some others.
	var open []client
	for i := range reloads {
		turn(i+1, i%10 == 0)
		if i%3 == 0 {
			c := r.dial(r.first())
			c.say("EHLO client.test", "250")
			open = append(open, c)
		}
		if len(open) > 5 {
			open[0].rcpt("x@ours.test", "250")
			open[0].say("QUIT", "221")
			open[0].Close()
			open = open[1:]
		}
	}
	for _, c := range open {
		c.say("QUIT", "221")
		c.Close()
	}
	var now, left int
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if now, left = settled(); now <= goroutines && left <= files || time.Now().After(end) {
			break
		}
	}
	if now > goroutines || left > files {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before; %d descriptors, %d before\n%s", now, goroutines, left, files, stacks[:runtime.Stack(stacks, true)])
	}
	if s := r.live.Status(); s.Generation != int64(reloads)+3 {
		t.Errorf("generation %d", s.Generation)
	}
}

// TestRetire: plugins end behind the last user of their generation, whatever is held of
// older ones.
func TestRetire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{hooks: &failures{}, log: zap.NewNop()}
		s.ending, s.endRetiring = context.WithCancel(t.Context())
		var closed []string
		var registry plugin.Registry
		for _, name := range []string{"a", "b", "c"} {
			registry.Register(name, func(plugin.Env) (plugin.Plugin, error) { return &ending{name: name, closed: &closed}, nil })
		}
		l := &plugin.Loader{Registry: &registry, Services: plugin.Services{Log: zap.NewNop()}}
		make1 := func(before *generation, names ...string) *generation {
			c := &plugin.Config{}
			for i, name := range names {
				c.Listed = append(c.Listed, plugin.Listed{Name: name, As: name, File: "config/plugins", Line: i + 1})
			}
			g := &generation{}
			var running *plugin.Set
			if before != nil {
				running = before.plugins
			}
			var err error
			if g.plugins, err = l.Prepare(t.Context(), running, c); err != nil {
				t.Fatal(err)
			}
			g.plugins.Commit()
			g.chain = hook.NewChain(g.plugins.Registrations(), zap.NewNop())
			s.hooks.add(g.chain)
			return g
		}
		want := func(names string) {
			t.Helper()
			synctest.Wait()
			if got := strings.Join(closed, " "); got != names {
				t.Errorf("closed: %q, want %q", got, names)
			}
		}
		first := make1(nil, "a")
		second := make1(first, "a", "b")
		third := make1(second, "c")
		users := [2][2]chan struct{}{{make(chan struct{}), make(chan struct{})}, {make(chan struct{}), make(chan struct{})}}
		s.retire(first, users[0][0], users[0][1])
		s.retire(second, users[1][0], users[1][1])
		close(users[1][0])
		want("")
		close(users[1][1])
		want("b a") // those of the second one, while the first is held
		if n := len(s.hooks.chains); n != 2 {
			t.Errorf("%d chains", n)
		}
		close(users[0][0])
		want("b a")
		close(users[0][1])
		want("b a a")
		if n := len(s.hooks.chains); n != 1 {
			t.Errorf("%d chains", n)
		}

		// At the stop nothing is waited for.
		s.retire(third, make(chan struct{}))
		want("b a a")
		s.endRetiring()
		s.retiring.Wait()
		want("b a a c")
	})
}

// ending is a plugin that notes its end.
type ending struct {
	name   string
	closed *[]string
}

func (*ending) Register(plugin.Host) {}

func (e *ending) Close() error {
	*e.closed = append(*e.closed, e.name)
	return nil
}
