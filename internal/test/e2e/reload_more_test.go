package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"tarishi/internal/test/load"
)

// handshake begins TLS in a session of its own and returns the session and the name in
// the certificate.
func (s *site) handshake(config *tls.Config) (*dialog, string, error) {
	s.t.Helper()
	c := s.visit()
	c.say("STARTTLS", "220")
	config.InsecureSkipVerify = true // the certificate is the test's own
	in := tls.Client(c.Conn, config)
	if err := in.Handshake(); err != nil {
		return nil, "", err
	}
	return &dialog{in, s.t, bufio.NewReader(in)}, in.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

// Renewed certificates, others, and what TLS must be are for new handshakes; sessions
// live on. A key whose certificate is still to come changes nothing.
func TestReloadCertificates(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir := folder(t, with(s.siteFiles(), "plugins", "tls\n"+basePlugins, "tls.ini", "key=one.key\ncert=one.crt\n"))
	files := filepath.Join(dir, "config")
	certify(t, files, "one", "one-old.test", 80*days)
	certify(t, files, "two", "two.test", 80*days)
	s.startIn(dir)
	s.startFlow(s.relayed, load.Load{StartTLS: true})
	s.startFlow(s.queued, load.Load{StartTLS: true})
	s.startFlow(s.queued, load.Load{PerSession: 2})
	shown := func(want string) *dialog {
		t.Helper()
		c, name, err := s.handshake(&tls.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if name != want {
			t.Errorf("shown %s, want %s", name, want)
		}
		return c
	}
	first := shown("one-old.test")

	certify(t, files, "one", "one-new.test", 80*days)
	s.reload()
	shown("one-new.test")

	// A renewal is two renames, and somebody may look between them.
	whole := s.configs.read("one.key")
	s.configs.replace("one.key", s.configs.read("two.key"))
	s.refused(`one\.(crt|key)`)
	shown("one-new.test")
	s.configs.replace("one.key", whole)
	s.reload()

	s.configs.write("tls.ini", "key=two.key\ncert=two.crt\nminVersion=TLSv1.3\n")
	s.reload()
	shown("two.test")
	if _, _, err := s.handshake(&tls.Config{MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 below minVersion")
	}
	s.configs.write("plugins", basePlugins)
	s.reload()
	if reply := s.visit().say("EHLO client.test", "250"); strings.Contains(reply, "STARTTLS") {
		t.Errorf("STARTTLS without the plugin tls: %q", reply)
	}
	first.say("EHLO client.test", "250")
	if got := s.fate(first, "first"); got != "relayed" {
		t.Error(got)
	}
	s.configs.write("plugins", "tls\n"+basePlugins)
	s.reload()
	shown("two.test")
	s.flowOn(5)
	s.endFlows()
}

// Level and form of the log change at once, for sessions that are open too; only what
// is said in them is logged, or not, as it was when they began.
func TestReloadLog(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	s.startFlow(s.relayed, load.Load{Clients: 2})
	s.startFlow(s.queued, load.Load{PerSession: 2})
	client := s.visit()

	// since returns the log's lines of mail that came after a while.
	said := func() []string {
		s.flowOn(3) // what was on its way to the log is in it
		from := len(s.Log())
		client.say("NOOP", "250")
		s.fate(client, "said")
		s.visit().say("NOOP", "250") // what is said is logged for new sessions
		s.flowOn(5)

		// The first may be the rest of a line, and the last is not whole.
		lines := strings.Split(s.Log()[from:], "\n")
		return lines[min(1, len(lines)-1) : len(lines)-1]
	}
	count := func(lines []string, pattern string) (n int) {
		re := regexp.MustCompile(pattern)
		for _, line := range lines {
			if re.MatchString(line) {
				n++
			}
		}
		return n
	}
	if lines := said(); count(lines, `\[INFO\]`) == 0 {
		t.Errorf("level info, and the log says %q", lines)
	}
	for _, step := range []struct {
		text, all, some string // patterns: of every line, and of one of them at least
	}{
		{"level=warn\n", `\[(WARN|ERROR)\]`, ""},
		{"level=protocol\n", "", `NOOP`},
		{"level=info\nformat=json\n", `^\{.*\}$`, `"level":"`},
		{"level=info\nformat=logfmt\n", `\blevel=\w+ uuid=`, `message=`},
		{"", `^(\S+ )?\[\w+\] \[`, `\[INFO\]`},
	} {
		s.configs.write("log.ini", step.text)
		s.reload()
		lines := said()
		if n := count(lines, step.all); n < len(lines) {
			t.Errorf("with %q %d of %d lines are of the old kind: %q", step.text, len(lines)-n, len(lines), lines[:min(len(lines), 5)])
		}
		if step.some != "" && count(lines, step.some) == 0 {
			t.Errorf("with %q no line has %s: %q", step.text, step.some, lines[:min(len(lines), 5)])
		}
		for _, line := range lines {
			if strings.Contains(step.text, "json") && !json.Valid([]byte(line)) {
				t.Errorf("no JSON: %s", line)
			}
		}
	}
	s.endFlows()
}

// usage is what a process holds on to.
type usage struct {
	files, goroutines int
	memory            int64 // bytes, resident
}

func (s *site) usage() usage {
	s.t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID()))
	if err != nil {
		s.t.Fatal(err)
	}
	used, err := load.UsageOf(s.PID())
	if err != nil {
		s.t.Fatal(err)
	}
	return usage{len(files), int(s.metric("go_goroutines")), used.RSS}
}

// reloads is how often TestLongReloads has the configuration read.
const reloads = 1000

// A thousand reloads, every tenth of them refused and some under mail, leave no
// descriptor, no goroutine and no memory behind.
func TestLongReloads(t *testing.T) {
	long(t)
	t.Parallel()
	taken := sink(t, load.SinkOptions{}) // its port cannot be bound
	s := newSite(t)
	dir := folder(t, with(s.siteFiles(), "tls.ini", "key=mx.key\ncert=mx.crt\n", "log.ini", "level=warn\n"))
	certify(t, filepath.Join(dir, "config"), "mx", "mx.test", 80*days)
	s.startIn(dir)
	c, added, web := s.configs, freePort(t), freePort(t)
	forward, outbound := c.read("smtp_forward.ini"), c.read("outbound.ini")
	change := func(i int) {
		odd := func(text string) string { return []string{"", text}[i%2] }
		switch i % 5 {
		case 0:
			c.replace("plugins", odd("tls\nprocess_title\n")+basePlugins)
		case 1:
			c.replace("smtp.ini", listenOn(append([]int{s.port}, []int{added}[:i/5%2]...)...))
		case 2:
			c.replace("http.ini", []string{"", "listen=" + local(web) + "\n"}[i/5%2])
		case 3:
			c.replace("smtp_forward.ini", strings.Replace(forward, "timeout=1\n", fmt.Sprintf("timeout=1\nbind_helo=h%d.test\n", i%7), 1))
		case 4:
			c.replace("outbound.ini", outbound+fmt.Sprintf("[sink.test]\nconcurrency=%d\nhelo=h%d.test\n", i%9+1, i%5))
		}
		if i%10 == 9 {
			whole := c.read("smtp.ini")
			c.replace("smtp.ini", listenOn(s.port, freePort(t), taken.Port()))
			if answer := s.control("POST", reloadPath); !strings.Contains(answer, "in use") {
				t.Errorf("a taken port: %s", answer)
			}
			c.replace("smtp.ini", whole)
		} else {
			s.reload()
		}
	}
	for i := range 50 { // what is grown once
		change(i)
	}
	s.settle()
	before := s.usage()
	s.startFlows()
	for i := range reloads / 5 {
		change(i)
	}
	s.endFlows()
	for i := reloads / 5; i < reloads; i++ {
		change(i)
	}
	for i := range 10 { // as it was when it was measured
		change(40 + i)
	}
	if s.metric("tarishi_config_generation") < reloads*8/10 {
		t.Errorf("generation %d after %d reloads", s.generation(), reloads)
	}
	last := usage{}
	eventually(t, fmt.Sprintf("no more than before, %+v", before), func() bool {
		last = s.usage()
		return last.files <= before.files+8 && last.goroutines <= before.goroutines+10
	})
	if last.memory > 2*before.memory+8<<20 { // a collection may be due
		t.Errorf("%d MiB of memory, %d before", last.memory>>20, before.memory>>20)
	}
	t.Logf("before: %+v, after: %+v", before, last)
}

// settle waits until kept connections have been closed.
func (s *site) settle() {
	s.t.Helper()
	eventually(s.t, "no kept connection", func() bool {
		return s.relayed.Stats().Open+s.queued.Stats().Open+s.probes.Open() == 0
	})
}

// The daemon is killed again and again amid reloads and mail, and started with
// whatever stands there: what it answered with 250 arrives.
func TestReloadKilled(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil, "log.ini", "level=warn\n")
	forward, outbound := s.configs.read("smtp_forward.ini"), s.configs.read("outbound.ini")
	flows := []load.Load{{Clients: 2, Patience: patience}, {PerSession: 3, Patience: patience, Pipelining: true}}
	s.startFlow(s.queued, flows[0])
	s.startFlow(s.queued, flows[1])
	s.startFlow(s.relayed, flows[1])

	done, dir := make(chan struct{}), s.Dir
	var changing sync.WaitGroup
	changing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			s.configs.replace("connection.ini", token(i))
			s.configs.replace("plugins", []string{"", "process_title\n"}[i%2]+basePlugins)
			s.configs.replace("smtp_forward.ini", forward+fmt.Sprintf("[more.test]\nhost=127.0.0.1:%d\n", 2000+i))
			s.configs.replace("outbound.ini", outbound+fmt.Sprintf("[sink.test]\nconcurrency=%d\n", i%7+1))
			execute(t, binary(t), "reload", "-c", dir) // it may meet no daemon
		}
	})
	for range 3 {
		eventually(t, "some generations", func() bool { return s.generation() > 3 })
		s.flowOn(10)
		s.Kill()
		s.Daemon = startIn(t, s.Dir)
	}
	close(done)
	changing.Wait()
	s.configs.replace("connection.ini", token(9999))
	s.reload()
	s.awaitToken(9999)
	s.flowOn(10)
	for _, f := range s.flows {
		f.end()
		r := <-f.sent
		t.Logf("%d accepted, %d refused, %d uncertain, %d failed: %v", r.Accepted, r.Refused, r.Uncertain, r.Failed, r.Err)
		s.account(f, r, 100)
	}
}
