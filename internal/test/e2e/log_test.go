package e2e

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"tarishi/internal/test/load"
	"tarishi/internal/test/load/instance"
)

// piped is a daemon whose standard error is a pipe in the hands of the test.
type piped struct {
	*instance.Process
	dir, addr string
	log       *bufio.Reader
	pipe      *os.File // the end that is read
}

// startPiped runs the daemon and reads its log until it listens; prefix is as in
// startIn.
func startPiped(t *testing.T, config map[string]string, prefix ...string) *piped {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &piped{dir: folder(t, config), log: bufio.NewReader(r), pipe: r}
	argv := append(prefix, binary(t), "serve", "-c", p.dir)
	cmd := exec.Command(argv[0], argv[1:]...)
	p.Process, err = instance.StartTo(cmd, w)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		p.Signal(syscall.SIGKILL)
		<-p.Exited()
	})
	for p.addr == "" {
		line, err := p.log.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if m := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`).FindStringSubmatch(line); m != nil {
			p.addr = m[1]
		}
	}
	return p
}

// end stops the daemon, which must end by itself and in order.
func (p *piped) end(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

// ask runs a command on the daemon's instance.
func (p *piped) ask(t *testing.T, args ...string) string {
	t.Helper()
	o := execute(t, binary(t), append(args, "-c", p.dir)...)
	if o.exit != 0 {
		t.Fatalf("%q: exit %d, %s", args, o.exit, o.out)
	}
	return o.out
}

// deliver has the daemon take one message.
func deliver(t *testing.T, addr string) {
	t.Helper()
	c := dial(t, addr)
	c.say("MAIL FROM:<from@client.test>", "250")
	c.say("RCPT TO:<to@sink.test>", "250")
	c.say("DATA", "354")
	c.send(oneMessage)
	c.say(".", "250")
	c.say("QUIT", "221")
}

var someLost = regexp.MustCompile(`(?m)^tarishi_log_lines_lost_total [1-9]`)

// A log that nobody reads any more costs log lines, which are counted, and
// nothing else; also where SIGPIPE is ignored when the daemon starts, as services
// of systemd have it.
func TestLogReaderGone(t *testing.T) {
	t.Parallel()
	for name, prefix := range map[string][]string{
		"SIGPIPE": nil, "SIGPIPE ignored": {"sh", "-c", `trap "" PIPE; exec "$@"`, "sh"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPiped(t, queueTo(t, sink(t, load.SinkOptions{}).Port(), ""), prefix...)
			p.pipe.Close()
			for range 3 {
				deliver(t, p.addr)
			}
			eventually(t, "lost lines in the metrics", func() bool { return someLost.MatchString(p.ask(t, "metrics")) })
			if stat := p.ask(t, "queue", "stat"); !strings.Contains(stat, "health      ok\nnote        the log cannot be written: ") || !strings.Contains(stat, "log lines lost") {
				t.Error(stat)
			}
			p.end(t)
		})
	}
}

// A log that is not read for a while stops nobody, neither clients nor a stop.
func TestLogReaderStalled(t *testing.T) {
	t.Parallel()
	p := startPiped(t, with(queueTo(t, sink(t, load.SinkOptions{}).Port(), ""),
		"log.ini", "level=protocol\n", "smtp.ini", "listen=127.0.0.1:0\nforce_shutdown_timeout=1\n"))
	c := dial(t, p.addr)
	for range 600 { // with 2 x 40 lines each time, of about a hundred bytes
		c.send(strings.Repeat("NOOP\r\n", 40))
		for range 40 {
			c.expect("250")
		}
	}
	deliver(t, p.addr)
	if metrics := p.ask(t, "metrics"); !someLost.MatchString(metrics) {
		t.Error("no line was lost: the test has too few")
	}
	eventually(t, "a note of the stalled log", func() bool {
		return strings.Contains(p.ask(t, "queue", "stat"), "note        the log has not been read for ")
	})
	c.say("MAIL FROM:<from@client.test>", "250")
	p.end(t)
}

// Whatever the daemon says is a line of its log, in the log's format: what is
// wrong with the configuration, where it listens, and why it does not start.
func TestWholeLogIsJSON(t *testing.T) {
	t.Parallel()
	config := map[string]string{"log.ini": "format=json\nlevel=error\n", "smtp.ini": "listen=127.0.0.1:0\nnodes=4\n"}
	d := Start(t, config)
	d.Stop()
	config["smtp.ini"] += "inactivity_timeout=soon\n"
	broken := execute(t, binary(t), "serve", "-c", folder(t, config))
	unusable := folder(t, with(map[string]string{"log.ini": "format=json\n"}))
	writeFile(t, filepath.Join(unusable, "queue"), "no folder")
	failed := execute(t, binary(t), "serve", "-c", unusable)
	if broken.exit != 1 || failed.exit != 1 {
		t.Errorf("exit %d and %d", broken.exit, failed.exit)
	}
	for text, want := range map[string][]string{
		d.Log():    {`"level":"warn"`, "nodes", "listening on "},
		broken.out: {`"level":"error"`, "inactivity_timeout", "not started"},
		failed.out: {`"level":"error"`, "queue"},
	} {
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "}\n") {
				t.Errorf("not JSON: %q", line)
			}
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%q is not in %s", w, text)
			}
		}
	}
}

// All lines of one message, and no others, are found as the documentation says,
// and the line of a refusal has the client's address.
func TestOneGrep(t *testing.T) {
	t.Parallel()
	need(t, "grep")
	for format, grep := range map[string]string{"default": "-wF id=%s", "logfmt": "-wF id=%s", "json": `-F "id":"%s"`} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			config := with(queueTo(t, sink(t, load.SinkOptions{}).Port(), ""), "log.ini", "format="+format+"\n", "connection.ini", "[max]\nrecipients=1\n")
			d := Start(t, config)
			c := dial(t, d.Addr())
			ids := make([]string, 12)
			for i := range ids {
				c.say("MAIL FROM:<from@client.test>", "250")
				c.say("RCPT TO:<to@sink.test>", "250")
				c.say("RCPT TO:<more@sink.test>", "452")
				c.say("DATA", "354")
				c.send(oneMessage)
				ids[i] = regexp.MustCompile(`\(([0-9A-F-]{36}\.\d+)\)`).FindStringSubmatch(c.say(".", "250"))[1]
			}
			c.say("QUIT", "221")
			for _, id := range ids {
				d.awaitLog(regexp.QuoteMeta(id) + `[" ].*delivered|delivered.*` + regexp.QuoteMeta(id) + `[" ]`)
			}
			d.awaitLog("disconnect")
			log := filepath.Join(t.TempDir(), "log")
			writeFile(t, log, d.Log())
			for _, id := range ids {
				found := execute(t, "grep", append(strings.Fields(strings.ReplaceAll(grep, "%s", id)), log)...).out
				var events []string
				for line := range strings.Lines(found) {
					events = append(events, regexp.MustCompile(`\b(sender|recipient|queued|message|delivered)(" |"?,"?| )id\b`).FindString(line))
					if strings.Contains(line, "code=452") || strings.Contains(line, `"code":452`) {
						if !regexp.MustCompile(`\bip"?[=:]"?127\.0\.0\.1\b`).MatchString(line) {
							t.Errorf("no address of the client: %s", line)
						}
					}
				}
				if len(events) != 6 || strings.Count(found, id) < 12 {
					t.Errorf("%s: %q in\n%s", id, events, found)
				}
			}
			connection, _, _ := strings.Cut(ids[0], ".")
			whole := execute(t, "grep", append(strings.Fields(strings.ReplaceAll(grep, "%s", connection)), log)...).out
			if n, want := strings.Count(whole, "\n"), 2+6*len(ids); n != want && format != "json" || n != 2 && format == "json" {
				t.Errorf("%d lines of the connection", n)
			}
		})
	}
}
