package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/command"
	"tarishi/internal/control"
	"tarishi/internal/control/mailq"
	"tarishi/internal/mail"
	"tarishi/internal/outbound"
	"tarishi/internal/schedule"
	"tarishi/internal/store/disk"
	"tarishi/internal/web"
)

// TestMain lets the tests run the program itself: as this binary.
func TestMain(m *testing.M) {
	if os.Getenv("TARISHI_TEST_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

// tarishi runs one command line and returns its exit code and output.
func tarishi(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(args, command.Streams{Out: &out, Err: &err})
	return code, out.String(), err.String()
}

// expect runs a command that must end with code, and compares its output with
// regular expressions.
func expect(t *testing.T, code int, stdout, stderr string, args ...string) string {
	t.Helper()
	got, out, err := tarishi(t, args...)
	if got != code || !regexp.MustCompile(`^(?:`+stdout+`)$`).MatchString(out) || !regexp.MustCompile(`^(?:`+stderr+`)$`).MatchString(err) {
		t.Errorf("%q: exit %d\nstdout: %s\nstderr: %s\nwant %d, %s, %s", args, got, out, err, code, stdout, stderr)
	}
	return out
}

// folder makes an instance.
func folder(t *testing.T, config map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "config"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range config {
		if err := os.WriteFile(filepath.Join(dir, "config", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

type quiet struct{}

func (quiet) Flush(string) int                 { return 2 }
func (quiet) FlushMessages(ids ...mail.ID) int { return len(ids) }

func (quiet) Active() map[mail.ID][]int { return nil }

func (quiet) Sites(func(string) bool) map[string]bool { return nil }

func (quiet) Suspensions() map[string]schedule.Suspension {
	return map[string]schedule.Suspension{"y.test": {Until: time.Now().Add(20*time.Minute + 50*time.Second), Ready: 1}}
}

func (quiet) Forget(...mail.ID)   {}
func (quiet) Stat() schedule.Stat { return schedule.Stat{Waiting: 3} }

func (quiet) Hold(mail.ID, []int) error    { return nil }
func (quiet) Release(mail.ID, []int) error { return nil }
func (quiet) Counts() outbound.Counts      { return outbound.Counts{DSNFailed: 2} }

func (quiet) Explain(mail.ID) []outbound.Waiting {
	return []outbound.Waiting{{Domain: "x.test", Recipients: []int{1, 2}, Attempts: 1, Reason: "evil \x1b[2J", Host: "\x1bmx.test"}}
}

func (quiet) Destinations(int) []schedule.DestinationStat {
	return []schedule.DestinationStat{{
		Domain: "x.test", Site: "mx.test", Waiting: 5, Ready: 6, Running: 7, Oldest: time.Now().Add(-3 * time.Hour), Limit: 8,
		Rate: schedule.Rate{Count: 600, Per: time.Minute}, SuspendedUntil: time.Now().Add(10*time.Minute + 50*time.Second), LastError: "451 \x1b[2J",
	}, {Domain: "y.test", Site: "y.test"}}
}

const (
	first  = "F47AC10B-58CC-4372-A567-0E02B2C3D479.1"
	second = "F47AC10B-58CC-4372-A567-0E02B2C3D479.2.1" // as Haraka's queue has them
	none   = "F47AC10B-58CC-4372-A567-0E02B2C3D479.9"
)

const hostile = "Subject: one\r\nX-Evil: \x1b[2J\u009b31m\r\n\tfolded\r\n\r\n\x1bbody\r\n"

// fill puts two messages into the queue of an instance and serves it, as the
// daemon would, until stop is called.
func fill(t *testing.T, dir string) (stop func()) {
	t.Helper()
	dir = filepath.Join(dir, "queue")
	q, err := disk.Open(disk.Options{Dir: dir, SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	one := &mail.Envelope{
		ID: first, From: mail.Address{Local: "one\u009b", Domain: "client.test"}, Received: now.Add(-3 * time.Hour), Body: "8BITMIME", EnvelopeID: "x\x1b",
		Recipients: []mail.Recipient{
			{Address: mail.Address{Local: "a", Domain: "x.test"}},
			{Address: mail.Address{Local: "b", Domain: "x.test"}, Notify: mail.NotifySuccess | mail.NotifyDelay},
			{Address: mail.Address{Local: "c", Domain: "y.test"}, ORCPT: "rfc822;z@y.test"},
		},
	}
	two := &mail.Envelope{ID: second, Received: now, Recipients: []mail.Recipient{{Address: mail.Address{Local: "d", Domain: "y.test"}}}}
	for _, err := range []error{
		q.Put(one, mail.Memory{[]byte(hostile)}), q.Put(two, mail.Memory{[]byte("Subject: two\r\n\r\n")}),
		q.Settle(first, []int{0}),
		q.Defer(first, []int{1, 2}, 2, now.Add(10*time.Minute+50*time.Second), "451 4.7.1 \x1b]0;owned\x07 "+strings.Repeat("again ", 20)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w := web.New(web.Options{})
	w.Handle(web.Operator, "/v1/", control.NewHandler(mailq.New(q, quiet{}, nil).Operations(), nil))
	s, err := w.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestQueueCommands(t *testing.T) {
	dir := folder(t, nil)
	stop := fill(t, dir)
	look := func(note string) {
		t.Helper()
		// y.test is suspended, which only the daemon knows.
		due, next := "now", "next in 10m"
		if note == "" {
			due, next = "in 20m", "its destination is suspended, next probe in 20m"
		}
		expect(t, 0, `ID +AGE +SIZE +FROM +TO +NEXT +TRIES +LAST REPLY\n`+
			first+` +3h +\d+B +<one\\x9b@client.test> +b@x.test \+1 +in 10m +2 +451 4.7.1 \\x1b]0;owned\\x07 (again )+aga…\n`+
			second+` +\d+s +\d+B +<> +d@y.test +`+due+` +0 +\n2 messages, \d+B\n`, note, "queue", "list", "-c", dir)
		expect(t, 0, `no message\n`, note, "queue", "list", "-c", dir, "--domain", "z.test")
		expect(t, 0, `(?s).*`+second+`.*\n1 message, \d+B\n`, note, "queue", "list", "-c", dir, "--sender", "<>")
		expect(t, 0, `\{"id":"`+first+`","from":"one\\u009b@client.test".*"last":"451 4.7.1 \\u001b.*\}\n`, note,
			"queue", "list", "-c", dir, "--json", "--limit", "1")
		expect(t, 0, `id +`+first+`\nfrom +<one\\x9b@client.test>\nreceived +.*Z, 3h ago\nsize +\d+\nparameters  BODY=8BITMIME ENVID=x\\x1b\nrecipients\n`+
			`  <a@x.test>  settled\n`+
			`  <b@x.test>  pending, 2 attempts, next in 10m, NOTIFY=SUCCESS,DELAY\n      451 .*\n`+
			`  <c@y.test>  pending, 2 attempts, `+next+`, ORCPT=rfc822;z@y.test\n      451 .*\n`+
			`\nSubject: one\nX-Evil: \\x1b\[2J\\x9b31m\n\tfolded\n\n`, note, "queue", "show", "-c", dir, first)
		expect(t, 0, `\{"id":"`+second+`".*"header":"Subject: two\\r\\n\\r\\n"\}\n`, note, "queue", "show", "-c", dir, "--json", second)
		expect(t, 0, regexp.QuoteMeta(hostile), note, "queue", "cat", "-c", dir, first)
		expect(t, 0, regexp.QuoteMeta(fmt.Sprintf(`{"id":"%s","size":%d,"content":"%s"}`+"\n", first, len(hostile), base64.StdEncoding.EncodeToString([]byte(hostile)))),
			note, "queue", "cat", "-c", dir, "--json", first)
		expect(t, 1, ``, note+`tarishi: `+none+`: not in the queue\n`, "queue", "show", "-c", dir, none)
		expect(t, 2, ``, note+`tarishi: invalid request: "\.\./x" is no ID\n`, "queue", "cat", "-c", dir, "../x")
		expect(t, 2, ``, note+`tarishi: invalid request: .*\n`, "queue", "list", "-c", dir, "--domain", "a b")
		want := fmt.Sprintf("Q: %s rcpt:1 from:<one\\\\x9b@client.test> domain:x.test\nQ: %[1]s rcpt:1 from:<one\\\\x9b@client.test> domain:y.test\n"+
			"Q: %s rcpt:1 from:<> domain:y.test\n", first, second)
		expect(t, 0, want, note, "--qlist", "-c", dir)
		expect(t, 0, `\{ queue_dir: '`+dir+`/queue', queue_count: 3 \}\n`, note, "-c", dir, "--qstat")
	}
	look("")
	expect(t, 0, `daemon +running\nhealth +ok\nmessages +2, \d+B\nrecipients +3\ndeliveries  3 waiting, 0 ready, 0 running\nreports +2 could not be queued\noldest +3h, received .*\n`+
		`\nMESSAGES RECIPIENTS  DESTINATION\n +2 +2  y.test\n +1 +1  x.test\n`, "", "queue", "stat", "-c", dir)
	expect(t, 0, `\{"running":true,"messages":2,.*\}\n`, "", "queue", "stat", "-c", dir, "--json")
	expect(t, 0, `2 deliveries are due now\n`, "", "queue", "flush", "-c", dir)
	expect(t, 0, `2 deliveries are due now\n`, "", "queue", "flush", "-c", dir, "x.test")
	expect(t, 0, `\{"deliveries":2\}\n`, "", "queue", "flush", "-c", dir, "--json")
	expect(t, 0, `1 delivery is due now\n`, "", "queue", "flush", "-c", dir, first)
	expect(t, 0, `1 delivery is due now\n`, "", "queue", "flush", "-c", dir, second)
	for _, id := range []string{none, none + ".1", strings.ToLower(first)} {
		expect(t, 1, ``, `tarishi: `+id+`: not in the queue\n`, "queue", "flush", "-c", dir, id)
	}
	for name, args := range map[string][]string{"cat": {"--help"}, "queue cat": {"queue", "--help"}} {
		var help bytes.Buffer
		if exit := run(args, command.Streams{Out: &help, Err: &help}); exit != 0 || !strings.Contains(help.String(), name) {
			t.Errorf("%q does not name %s:\n%s", args, name, help.String())
		}
	}
	expect(t, 0, `2 deliveries are due now\n`, "", "--qunstick", "x.test", "-c", dir)
	expect(t, 2, ``, `tarishi: invalid request: an empty domain.*\n`, "queue", "flush", "-c", dir, "")
	expect(t, 2, ``, `tarishi: invalid request: --domain is empty\n`, "queue", "list", "-c", dir, "--domain", "")
	expect(t, 2, ``, `tarishi: invalid request: --sender is empty.*\n`, "queue", "list", "-c", dir, "--sender=")
	expect(t, 2, ``, `tarishi: invalid request: sender "bad addr": .*\n`, "queue", "list", "-c", dir, "--sender", "bad addr")
	expect(t, 2, ``, `tarishi: invalid request: "a b" is no domain\n`, "queue", "list", "-c", dir, "--domain", "a b")
	expect(t, 2, ``, `tarishi: invalid request: --limit must be at least 1\n`, "queue", "list", "-c", dir, "--limit=-1")
	expect(t, 2, ``, `(?s)tarishi: .*`, "queue", "remove", "-c", dir)
	expect(t, 2, ``, `(?s)tarishi: .*`, "queue", "-c", dir)

	stop()
	look(`tarishi: no daemon answers, this is from the files\n`)
	expect(t, 0, `daemon +not running\nmessages +2, \d+B\nrecipients +3\noldest +3h, received .*\n\n(?s).*`,
		`tarishi: .*\n`, "queue", "stat", "-c", dir)
	for _, args := range [][]string{{"queue", "flush"}, {"queue", "remove", first}} {
		expect(t, 1, ``, `tarishi: no daemon answers, and this needs one\n`, append(args, "-c", dir)...)
	}
}

// Held recipients are told in each view.
func TestQueueHeld(t *testing.T) {
	dir := folder(t, nil)
	fill(t, dir)()
	q, err := disk.Open(disk.Options{Dir: dir + "/queue"})
	if err == nil {
		err = errors.Join(q.Hold(first, []int{1}), q.Hold(second, nil), q.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	const note = `tarishi: no daemon .*\n`
	expect(t, 0, `(?s).*\n`+first+` .* in \d+m +2 .*\n`+second+` .* held +0 +\n2 messages.*`, note, "queue", "list", "-c", dir)
	expect(t, 0, `(?s).*\n  <b@x.test>  pending, 2 attempts, held, .*\n  <c@y.test>  pending, 2 attempts, next in .*`, note, "queue", "show", "-c", dir, first)
	expect(t, 0, `\{.*"address":"b@x.test","status":"pending","held":true,.*"address":"c@y.test","status":"pending","attempts":2,.*\}\n`, note,
		"queue", "show", "-c", dir, "--json", first)
	expect(t, 0, `(?s).*\nrecipients  3\nheld        2 recipients\n.*`, note, "queue", "stat", "-c", dir)
	expect(t, 0, `\{.*"held":2,.*\}\n`, note, "queue", "stat", "-c", dir, "--json")
}

func TestQueueRemove(t *testing.T) {
	dir := folder(t, nil)
	fill(t, dir)
	expect(t, 1, `removed `+second+`\n`, `tarishi: `+none+`: not in the queue\n`, "queue", "remove", "-c", dir, none, second)
	expect(t, 1, `\{"id":"`+first+`","removed":true\}\n\{"id":"`+second+`","removed":false,"error":"not in the queue"\}\n`, ``,
		"queue", "remove", "-c", dir, "--json", first, second)
	expect(t, 0, `no message\n`, ``, "queue", "list", "-c", dir)
}

func TestQueueOfNothing(t *testing.T) {
	dir := folder(t, nil)
	expect(t, 1, ``, `tarishi: cannot use the spool folder .*/queue: .*\n`, "queue", "list", "-c", dir)
	expect(t, 1, ``, `tarishi: .* is no instance.*\n`, "--qlist", "-c", filepath.Join(dir, "missing"))
	if _, err := os.Stat(filepath.Join(dir, "queue")); err == nil {
		t.Error("a look made a queue")
	}
}

// The daemon itself: a message that cannot be delivered is seen, flushed and
// removed; another one is seen in the files.
func TestQueueOfDaemon(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0") // a name server without answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dir := folder(t, map[string]string{
		"smtp.ini": "listen=127.0.0.1:0\n", "plugins": "relay\n", "relay_acl_allow": "127.0.0.0/8\n",
		"dns.ini": "servers[]=" + silent.LocalAddr().String() + "\ntimeout=1\ntries=1\n",
	})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	daemon := exec.Command(exe, "serve", "-c", dir)
	daemon.Env, daemon.Stderr, daemon.SysProcAttr = append(os.Environ(), "TARISHI_TEST_MAIN=1"), log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { end <- daemon.Wait() }()
	t.Cleanup(func() {
		daemon.Process.Kill()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s", text)
		}
	})
	addr := await(t, "its address", func() (string, bool) {
		text, _ := os.ReadFile(log.Name())
		if m := regexp.MustCompile(`listening on (127\S+)`).FindSubmatch(text); m != nil {
			return string(m[1]), true
		}
		return "", false
	})
	send := func(to string) {
		t.Helper()
		if err := smtp.SendMail(addr, nil, "from@client.test", []string{to}, []byte("Subject: x\r\n\r\nbody\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	send("a@x.test")
	send("b@y.test")
	id := strings.Fields(expect(t, 0, `Q: \S+ rcpt:1 from:<from@client.test> domain:x.test\nQ: .* domain:y.test\n`, ``, "--qlist", "-c", dir))[1]
	await(t, "the deferrals", func() (string, bool) {
		_, out, _ := tarishi(t, "queue", "stat", "-c", dir)
		return out, strings.Contains(out, "2 waiting")
	})
	expect(t, 0, `(?s).*pending, 1 attempt, .*`, ``, "queue", "show", "-c", dir, id)
	expect(t, 0, `(?s)Received: .*\r\n\r\nbody\r\n`, ``, "queue", "cat", "-c", dir, id)
	expect(t, 0, `(?s).*\ntarishi_queue_messages 2\n.*`, ``, "metrics", "-c", dir)
	expect(t, 0, `1 delivery is due now\n`, ``, "queue", "flush", "-c", dir, "X.test")
	expect(t, 0, `removed .*\n`, ``, "queue", "remove", "-c", dir, id)
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-end; err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	expect(t, 0, `Q: \S+ rcpt:1 from:<from@client.test> domain:y.test\n`, `tarishi: .*\n`, "--qlist", "-c", dir)
	expect(t, 1, ``, `tarishi: no daemon answers, and this needs one\n`, "metrics", "-c", dir)
	if _, err := os.Lstat(filepath.Join(dir, "queue", "control.sock")); err == nil {
		t.Error("the socket is still there")
	}
}

func await(t *testing.T, what string, ready func() (string, bool)) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s, ok := ready(); ok {
			return s
		}
	}
	t.Fatalf("never came: %s", what)
	return ""
}
