package e2e

import (
	"crypto/tls"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/load"
)

// What is not SMTP gets a reply that a person can read, and the connection is
// closed; the daemon goes on.
func TestNotSMTP(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{})
	d := Start(t, relayTo(s.Port()))
	for _, c := range []struct {
		name, sent string
		reply      string // what the server says after its banner, a regexp
	}{
		{"HTTP request", "GET / HTTP/1.1\r\nHost: mail.test\r\nUser-Agent: curl/8\r\n\r\n", `^[45]\d\d .*`},
		{"HTTP POST with SMTP in its body", "POST / HTTP/1.1\r\nHost: mail.test\r\nContent-Length: 80\r\n\r\n" +
			"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<to@sink.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n", `^[45]\d\d .*`},
		{"TLS ClientHello", clientHello(t), `^[45]\d\d .*`},
		{"1 MB without LF", strings.Repeat("A", 1<<20), `^[45]\d\d .*`},
		{"1 MB of parameter without LF", "EHLO client.test\r\nMAIL FROM:<" + strings.Repeat("a", 1<<20), `(?m)^[45]\d\d .*`},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := connect(t, d.Addr())
			conn.expect("220")
			conn.send(c.sent)
			got := conn.rest()
			if !regexp.MustCompile(c.reply).MatchString(got) {
				t.Errorf("the server said %q", got)
			}
			t.Logf("%.200q", got)
		})
	}
	if s.Stats().Messages != 0 {
		t.Error("a message came of it")
	}
	countAll(t, s, load.Load{Addr: d.Addr(), Messages: 1}) // it still works
}

// clientHello is what a TLS client sends first.
func clientHello(t *testing.T) string {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go tls.Client(theirs, &tls.Config{ServerName: "localhost", MinVersion: tls.VersionTLS12}).Handshake()
	ours.SetDeadline(time.Now().Add(patience))
	hello := make([]byte, 16<<10)
	n, err := ours.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	return string(hello[:n])
}

// Commands that make no sense are refused one by one, with the right class of
// reply, and the session goes on.
func TestBadCommands(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{})
	d := Start(t, relayTo(s.Port()))
	c := connect(t, d.Addr())
	c.expect("220")
	for _, step := range []struct{ line, code string }{
		{"MAIL FROM:<a@client.test>", "50"}, // before EHLO
		{"EHLO", "501"},
		{"EHLO client.test", "250"},
		{"FROB", "500"},
		{"", "5"},
		{"RCPT TO:<to@sink.test>", "50"}, // before MAIL
		{"DATA", "50"},
		{"MAIL", "501"},
		{"MAIL FROM:", "501"},
		{"MAIL FROM:<a@client.test> FROB=1", "5"},
		{"MAIL FROM:<a@client.test> SIZE=999999999", "55"},
		{"MAIL FROM:<a@client.test> SIZE=99999999999999999999", "5"},
		{"MAIL FROM:<a@client.test>", "250"},
		{"MAIL FROM:<b@client.test>", "250"}, // a new transaction, as in Haraka
		{"RCPT TO:<nobody@elsewhere.test>", "550"},
		{"RCPT TO:<to@sink.test", "501"},
		{"DATA", "5"}, // no recipient
	} {
		c.say(step.line, step.code)
	}
	c.say("RSET", "250")
	if reply := c.mail("a@client.test", "to@sink.test", oneMessage); !strings.HasPrefix(reply, "250") {
		t.Errorf("after all that: %q", reply)
	}
	if s.Stats().Messages != 1 {
		t.Errorf("%d messages, want 1", s.Stats().Messages)
	}
}

// Every start that cannot work says why, in one line that names the place, and
// exits with 1.
func TestBadStarts(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // after the parallel subtests
	for _, c := range []struct {
		name   string
		config map[string]string
		files  map[string]string // beside config/
		says   []string          // regexps
		check  bool              // check finds it too
	}{
		{
			name:   "misspelt key",
			config: map[string]string{"smtp.ini": "; mail comes in here\nlisen=127.0.0.1:0\n"},
			says:   []string{`smtp\.ini:2\b.*lisen.*listen`}, check: true,
		},
		{
			name:   "misspelt section",
			config: map[string]string{"connection.ini": "[mxa]\nbytes=1000\n"},
			says:   []string{`connection\.ini:1\b.*mxa.*max`}, check: true,
		},
		{
			name:   "wrong value",
			config: map[string]string{"outbound.ini": "\n\nconcurrency_max=many\n"},
			says:   []string{`outbound\.ini:3\b.*concurrency_max.*many`}, check: true,
		},
		{
			name:   "unknown plugin",
			config: map[string]string{"plugins": "# ours\nrcpt_to.in_hostlist\n"},
			says:   []string{`plugins:2\b.*rcpt_to\.in_hostlist.*rcpt_to\.in_host_list`}, check: true,
		},
		{
			name:   "missing certificate",
			config: map[string]string{"plugins": "tls\n", "tls.ini": "key=absent_key.pem\ncert=absent_cert.pem\n"},
			says:   []string{`absent_(key|cert)\.pem`}, check: true,
		},
		{
			name:   "queue folder that cannot be",
			config: map[string]string{"queue_dir": "blocked/queue\n"},
			says:   []string{`blocked/queue`},
		},
		{
			name:   "port in use",
			config: map[string]string{"smtp.ini": "listen=" + taken.Addr().String() + "\n"},
			says:   []string{regexp.QuoteMeta(taken.Addr().String()) + `.*in use`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, c.config)
			writeFile(t, dir+"/blocked", "a regular file: not even root can make a folder below it\n")
			if q, ok := c.config["queue_dir"]; ok {
				writeFile(t, dir+"/config/queue_dir", dir+"/"+q)
			}
			commands := [][]string{{"serve", "-c", dir}, {"-c", dir}}
			if c.check {
				commands = append(commands, []string{"check", "-c", dir})
			}
			for _, args := range commands {
				o := execute(t, binary(t), args...)
				if o.exit != 1 {
					t.Errorf("%s: exit %d", args[0], o.exit)
				}
				for _, re := range c.says {
					if !regexp.MustCompile(re).MatchString(o.out) {
						t.Errorf("%s does not say %s but:\n%s", args[0], re, o.out)
					}
				}
				if strings.Contains(o.out, "goroutine ") {
					t.Errorf("%s panicked:\n%s", args[0], o.out)
				}
				t.Logf("%s: %s", args[0], strings.TrimSpace(o.out))
			}
		})
	}
}

// Two daemons on one queue: the second says so and leaves the first alone.
func TestOneQueueOneDaemon(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{})
	d := Start(t, queueTo(t, s.Port(), ""))
	o := execute(t, binary(t), "serve", "-c", d.Dir)
	if o.exit != 1 || !regexp.MustCompile(`in use`).MatchString(o.out) || !strings.Contains(o.out, "queue") {
		t.Errorf("exit %d: %s", o.exit, o.out)
	}
	t.Log(strings.TrimSpace(o.out))
	countAll(t, s, load.Load{Addr: d.Addr(), Messages: 5})
}

func TestUsage(t *testing.T) {
	t.Parallel()
	bin := binary(t)
	for _, c := range []struct {
		args []string
		exit int
		says string
	}{
		{[]string{"frob"}, 2, "frob"},
		{[]string{"serve", "--frob"}, 2, "frob"},
		{[]string{"init"}, 2, "DIR|dir"},
		{[]string{"check", "-c"}, 2, "-c|configs"},
		{[]string{"serve", "-c", "/proc/nowhere"}, 1, "/proc/nowhere"},
		{[]string{"check", "-c", "/proc/nowhere"}, 1, "/proc/nowhere"},
		{[]string{"init", "/proc/nowhere"}, 1, "/proc/nowhere"},
		{[]string{"version"}, 0, `(?m)^tarishi \S+`},
		{[]string{"--help"}, 0, "serve"},
	} {
		if o := execute(t, bin, c.args...); o.exit != c.exit || !regexp.MustCompile(c.says).MatchString(o.out) {
			t.Errorf("tarishi %s: exit %d, want %d, and %q in:\n%s", strings.Join(c.args, " "), o.exit, c.exit, c.says, o.out)
		}
	}
}

// check --print and plugins show what is in force, without secrets.
func TestShow(t *testing.T) {
	t.Parallel()
	dir := folder(t, with(relayTo(2526), "auth_flat_file.ini", "[users]\nme@client.test=hush hush\n",
		"plugins", "auth/flat_file\nrcpt_to.in_host_list\nqueue/smtp_forward\n"))
	o := execute(t, binary(t), "check", "-c", dir, "--print")
	if o.exit != 0 || !regexp.MustCompile(`(?m)^listen *= *127\.0\.0\.1:0`).MatchString(o.out) || !strings.Contains(o.out, "2526") {
		t.Errorf("check --print: exit %d\n%s", o.exit, o.out)
	}
	if strings.Contains(o.out, "hush hush") {
		t.Errorf("check --print shows a password:\n%s", o.out)
	}
	o = execute(t, binary(t), "plugins", "-c", dir)
	for _, want := range []string{`rcpt\b`, `rcpt_to\.in_host_list`, `queue/smtp_forward`} {
		if o.exit != 0 || !regexp.MustCompile(want).MatchString(o.out) {
			t.Errorf("plugins does not show %s: exit %d\n%s", want, o.exit, o.out)
		}
	}
}

// A client that floods with connections is told to slow down, and others are
// served when it is gone.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{})
	d := Start(t, with(relayTo(s.Port()), "connection.ini", "[max]\nconnections=20\n"))
	var held []*dialog
	for range 20 {
		c := connect(t, d.Addr())
		c.expect("220")
		held = append(held, c)
	}
	c := connect(t, d.Addr())
	c.expect("421")
	c.rest()
	for _, c := range held {
		c.Close()
	}
	// Their places are free a moment later.
	countAll(t, s, load.Load{Addr: d.Addr(), Messages: 10, Clients: 5, Patience: patience})
}
