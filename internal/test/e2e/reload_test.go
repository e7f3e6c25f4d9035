package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/load"
	"tarishi/internal/test/smtptest"
)

// trusted and stranger are the addresses that clients come from: the one may relay,
// the other may send to the domains of host_list only.
const (
	trusted  = "127.0.0.1"
	stranger = "127.0.0.2"
)

// site is a daemon whose configuration changes while mail goes through it: the
// trusted client's to relay.test, in session to the sink relayed; its mail to
// sink.test, by the queue and MX to the sink queued; a stranger's to probe.test, in
// session to the server probes. Files of the configuration are changed by the
// methods of its folder.
type site struct {
	*Daemon
	t       *testing.T
	port    int // it listens there
	configs configFolder

	relayed, queued *load.Sink
	probes          *smtptest.Server
	flows           []*flow
	runs            uint16 // of all flows
}

// siteFiles is the configuration of a site that listens on port.
func (s *site) siteFiles() map[string]string {
	files := queueTo(s.t, s.queued.Port(), "pool_timeout=1\n")
	maps.Copy(files, map[string]string{
		"smtp.ini":        listenOn(s.port),
		"plugins":         basePlugins,
		"host_list":       "probe.test\n",
		"relay_acl_allow": trusted + "\n",
		"smtp_forward.ini": fmt.Sprintf("enable_outbound=false\ntimeout=1\n[relay.test]\nenable_outbound=true\nhost=127.0.0.1:%d\n[probe.test]\nhost=%s\n[other.test]\nhost=%s\n",
			s.relayed.Port(), s.probes.Addr(), s.probes.Addr()),
	})
	return files
}

const basePlugins = "relay\nauth/flat_file\nrcpt_to.in_host_list\nqueue/smtp_forward\n"

// listenOn is a smtp.ini.
func listenOn(ports ...int) string {
	var addrs []string
	for _, p := range ports {
		addrs = append(addrs, local(p))
	}
	return "listen=" + strings.Join(addrs, ",") + "\n"
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// startSite starts a site; further files are name and text by turns. prefix is as in
// startIn.
func startSite(t *testing.T, prefix []string, files ...string) *site {
	t.Helper()
	s := newSite(t)
	s.startIn(folder(t, with(s.siteFiles(), files...)), prefix...)
	return s
}

// newSite makes what is around a site's daemon.
func newSite(t *testing.T) *site {
	t.Helper()
	return &site{
		t: t, port: freePort(t), probes: smtptest.New(t),
		relayed: sink(t, load.SinkOptions{Latency: time.Millisecond}), queued: sink(t, load.SinkOptions{Latency: time.Millisecond}),
	}
}

// startIn runs the site's daemon on an instance that exists.
func (s *site) startIn(dir string, prefix ...string) {
	s.t.Helper()
	s.Daemon = startIn(s.t, dir, prefix...)
	s.configs = configFolder{s.t, filepath.Join(dir, "config")}
}

// flow is a steady load until the test has made its changes.
type flow struct {
	to   *load.Sink
	end  context.CancelFunc
	sent chan *load.Report
}

// startFlow sends l, at a pace that leaves the machine time, until endFlows. It returns
// when the first message has arrived.
func (s *site) startFlow(to *load.Sink, l load.Load) {
	s.t.Helper()
	s.launchFlow(to, l)
	run := s.runs
	eventually(s.t, "the first message", func() bool { return to.Arrived(run) > 0 })
}

// launchFlow is startFlow for mail that does not arrive yet.
func (s *site) launchFlow(to *load.Sink, l load.Load) {
	ctx, cancel := context.WithCancel(s.t.Context())
	f := &flow{to: to, end: cancel, sent: make(chan *load.Report, 1)}
	s.flows = append(s.flows, f)
	s.runs++
	l.Run, l.Duration, l.Pause, l.Size = s.runs, time.Hour, 40*time.Millisecond, 1500
	if l.Addr == "" {
		l.Addr = local(s.port)
	}
	if to == s.relayed {
		l.Domain = "relay.test"
	}
	go func() { f.sent <- l.Send(ctx) }()
	s.t.Cleanup(cancel)
}

// startFlows starts clients that send to the relay and to the queue: some that stay
// for all of their messages, and some that come anew for each, or for every third.
func (s *site) startFlows() {
	s.t.Helper()
	s.startFlow(s.relayed, load.Load{Clients: 2})
	s.startFlow(s.relayed, load.Load{PerSession: 1})
	s.startFlow(s.queued, load.Load{Clients: 2, Pipelining: true})
	s.startFlow(s.queued, load.Load{PerSession: 3, Recipients: 2})
	s.flowOn(10)
}

// flowOn waits until n more messages have arrived by either way.
func (s *site) flowOn(n int) {
	s.t.Helper()
	relayed, queued := s.relayed.Stats().Messages, s.queued.Stats().Messages
	eventually(s.t, fmt.Sprintf("%d more messages by relay and by queue", n), func() bool {
		return s.relayed.Stats().Messages >= relayed+n && s.queued.Stats().Messages >= queued+n
	})
}

// endFlows ends the clients and counts: every message was accepted, and has arrived
// once.
func (s *site) endFlows() {
	s.t.Helper()
	for _, f := range s.flows {
		f.end()
	}
	accepted := 0
	for _, f := range s.flows {
		r := <-f.sent
		accepted += r.Accepted
		if r.Refused+r.Failed+r.Uncertain > 0 || r.Accepted == 0 {
			s.t.Errorf("run %d: %d messages accepted, %d refused, %d failed, %d uncertain: %v", r.Load.Run, r.Accepted, r.Refused, r.Failed, r.Uncertain, r.Err)
		}
		s.account(f, r, 0)
	}
	s.flows = nil
	s.t.Logf("%d messages", accepted)
}

// account waits until what r says was accepted has arrived, at most doubled of it
// twice.
func (s *site) account(f *flow, r *load.Report, doubled int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	tally := f.to.Await(ctx, r)
	if tally.Lost > 0 || tally.Duplicates > doubled || doubled == 0 && tally.Unasked > 0 || f.to.Stats().Mixed > 0 {
		s.t.Errorf("run %d: %+v, of %d messages that were accepted; %d mixed up", r.Load.Run, tally, r.Accepted, f.to.Stats().Mixed)
	}
}

// reload has the daemon read its configuration again, and fails if that is refused. It
// returns what the daemon answers.
func (s *site) reload() string {
	s.t.Helper()
	answer := s.control(http.MethodPost, reloadPath)
	if !strings.Contains(answer, `"generation":`) || strings.Contains(answer, `"problems":`) {
		s.t.Fatalf("reload: %s", answer)
	}
	return answer
}

// reloadPath is where the control socket takes a reload.
const reloadPath = "/v1/reload"

// command runs tarishi reload, which costs more than reload. It fails if that is
// refused, and returns what the command printed.
func (s *site) command() string {
	s.t.Helper()
	o := execute(s.t, binary(s.t), "reload", "-c", s.Dir)
	if o.exit != 0 || !regexp.MustCompile(`(?m)\bgeneration \d+$`).MatchString(o.out) {
		s.t.Fatalf("reload: exit %d, %s", o.exit, o.out)
	}
	return o.out
}

// refused has the daemon read its configuration again, and fails unless that is
// refused for a reason that says matches.
func (s *site) refused(says string) {
	s.t.Helper()
	o := execute(s.t, binary(s.t), "reload", "-c", s.Dir)
	if o.exit != 1 || !regexp.MustCompile(says).MatchString(o.out) {
		s.t.Errorf("reload: exit %d, %s\nwant 1 and %s", o.exit, o.out, says)
	}
}

// generation and failures are what the metrics say of the configuration.
func (s *site) generation() int { return int(s.metric("tarishi_config_generation")) }
func (s *site) failures() int   { return int(s.metric("tarishi_config_reload_failures_total")) }

// metric is a metric's value, read from the control socket.
func (s *site) metric(name string) float64 {
	s.t.Helper()
	text := s.control(http.MethodGet, "/metrics")
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		s.t.Fatalf("no metric %s in\n%s", name, text)
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return value
}

// control asks the control socket, however long its path is.
func (s *site) control(method, path string) string {
	s.t.Helper()
	queue, err := os.Open(filepath.Join(s.Dir, "queue"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer queue.Close()
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/control.sock", queue.Fd()))
		},
	}}
	request, err := http.NewRequest(method, "http://tarishi"+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// visit opens a stranger's session and says EHLO.
func (s *site) visit() *dialog {
	s.t.Helper()
	return visitFrom(s.t, local(s.port), stranger)
}

func visitFrom(t *testing.T, addr, ip string) *dialog {
	t.Helper()
	c, err := connectFrom(addr, ip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	d := newDialog(t, c)
	d.expect("220")
	d.say("EHLO client.test", "250")
	return d
}

func connectFrom(addr, ip string) (net.Conn, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	return d.Dial("tcp", addr)
}

// refusedDial fails if somebody listens on a port.
func refusedDial(t *testing.T, port int) {
	t.Helper()
	if c, err := net.DialTimeout("tcp", local(port), patience); err == nil {
		c.Close()
		t.Errorf("port %d: there is still a listener", port)
	}
}

// answer says a line and returns the first word of the reply: its code.
func (d *dialog) answer(line string) string {
	d.t.Helper()
	return d.say(line, "")[:3]
}

// arrived returns the content of the probe with a subject, or "" if there is none.
func (s *site) arrived(subject string) string {
	for _, m := range s.probes.Messages() {
		if strings.Contains(string(m.Content), "Subject: "+subject+"\r\n") {
			return string(m.Content)
		}
	}
	return ""
}

// configFolder is a config/ whose files change.
type configFolder struct {
	t   *testing.T
	dir string
}

func (c configFolder) path(name string) string { return filepath.Join(c.dir, name) }

func (c configFolder) read(name string) string {
	c.t.Helper()
	text, err := os.ReadFile(c.path(name))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// write changes a file in place.
func (c configFolder) write(name, text string) {
	c.t.Helper()
	writeFile(c.t, c.path(name), text)
}

// replace renames a new file over the old one.
func (c configFolder) replace(name, text string) {
	c.t.Helper()
	next := c.path("." + name + ".next")
	writeFile(c.t, next, text)
	if err := os.Rename(next, c.path(name)); err != nil {
		c.t.Fatal(err)
	}
}

// remove removes a file that may not be there.
func (c configFolder) remove(name string) {
	c.t.Helper()
	if err := os.RemoveAll(c.path(name)); err != nil {
		c.t.Fatal(err)
	}
}
