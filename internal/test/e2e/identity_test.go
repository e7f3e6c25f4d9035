package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk"
	"tarishi/internal/test/load"
	"tarishi/internal/test/load/instance"
)

// nobodyID is the user and group that every Linux has.
const nobodyID = 65534

// rooted skips a test that has to change users.
func rooted(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can change to other users")
	}
}

// public is a folder that every user can enter, with a copy of the binary.
func public(t *testing.T) (dir, bin string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tarishi-e2e-public-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin = filepath.Join(dir, "tarishi")
	from, err := os.Open(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(bin, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close()); err != nil {
		t.Fatal(err)
	}
	return dir, bin
}

// asNobody makes a command run as nobody, which it is already where root does not
// run the test.
func asNobody(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobodyID, Gid: nobodyID, Groups: []uint32{}}}
	}
	return cmd
}

// serving starts a command that serves an instance and stops it with the test.
func serving(t *testing.T, dir string, cmd *exec.Cmd) *Daemon {
	t.Helper()
	s, err := instance.Listening(t.Context(), cmd, dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Server: s, t: t}
	t.Cleanup(d.Stop)
	return d
}

func write(t *testing.T, dir string, config map[string]string) {
	t.Helper()
	for name, text := range config {
		if err := instance.WriteFiles(dir, map[string]string{"config/" + name: text}); err != nil {
			t.Fatal(err)
		}
	}
}

// give changes the owner of everything below dir.
func give(t *testing.T, dir string, uid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, uid))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Root does not start on the queue of another user, whose daemon could not read
// what root's accepts; not even before the first start of that user. On a queue of
// its own root starts with a warning.
func TestRootOnAnothersQueue(t *testing.T) {
	rooted(t)
	dir, bin := public(t)
	s := sink(t, load.SinkOptions{})
	write(t, dir, with(queueTo(t, s.Port(), ""), "smtp.ini", "listen=127.0.0.1:0\n"))
	give(t, dir, nobodyID)
	refused := func() {
		t.Helper()
		got := execute(t, bin, "serve", "-c", dir)
		if got.exit == 0 || !strings.Contains(got.out, "belongs to nobody") || !strings.Contains(got.out, "user=nobody") {
			t.Errorf("exit %d: %s", got.exit, got.out)
		}
	}
	refused()
	if _, err := os.Stat(filepath.Join(dir, "queue")); err == nil {
		t.Error("it has made a queue")
	}
	d := serving(t, dir, asNobody(bin, "serve", "-c", dir))
	if strings.Contains(d.Log(), "running as root") {
		t.Error("nobody is taken for root")
	}
	d.Stop()
	refused()
	give(t, dir, 0)
	d = serving(t, dir, exec.Command(bin, "serve", "-c", dir))
	d.awaitLog(`running as root.*user=`)
}

// Started by root with user=nobody the daemon reads a key that only root may read,
// binds, and is nobody in all its threads and groups from then on.
func TestChangeUser(t *testing.T) {
	rooted(t)
	dir, bin := public(t)
	s := sink(t, load.SinkOptions{})
	cert, key := certificate(t)
	write(t, dir, with(queueTo(t, s.Port(), ""), "smtp.ini", "listen=127.0.0.1:0\nuser=nobody\n",
		"tls_cert.pem", cert, "tls_key.pem", key))
	if err := os.Chmod(filepath.Join(dir, "config/tls_key.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := serving(t, dir, exec.Command(bin, "serve", "-c", dir))
	countAll(t, s, load.Load{Addr: d.Addr(), Clients: 5, Messages: 50})
	pid := d.PID()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	for _, name := range threads {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		for _, want := range []string{`(?m)^Uid:(\t65534){4}$`, `(?m)^Gid:(\t65534){4}$`, `(?m)^Groups:\s*(65534)?\s*$`, `(?m)^CapEff:\s*0+$`} {
			if !regexp.MustCompile(want).Match(b) {
				t.Errorf("%s: no %s in\n%s", name, want, b)
			}
		}
	}
	d.Stop()
	err = filepath.WalkDir(filepath.Join(dir, "queue"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != nobodyID {
			t.Error(path, "is not nobody's")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The queue folder that 'tarishi init' leaves, root's and empty, becomes the user's at
// the first start; one of root's that has been used does not.
func TestChangeUserAfterInit(t *testing.T) {
	rooted(t)
	dir, bin := public(t)
	s := sink(t, load.SinkOptions{})
	write(t, dir, with(queueTo(t, s.Port(), ""), "smtp.ini", "listen=127.0.0.1:0\nuser=nobody\n"))
	queue := filepath.Join(dir, "queue")
	if err := os.Mkdir(queue, 0o700); err != nil {
		t.Fatal(err)
	}
	d := serving(t, dir, exec.Command(bin, "serve", "-c", dir))
	countAll(t, s, load.Load{Addr: d.Addr(), Clients: 1, Messages: 3})
	d.Stop()
	got := execute(t, bin, "queue", "recover", "-c", dir)
	if got.exit == 0 || !strings.Contains(got.out, "belongs to nobody") || strings.Contains(got.out, "smtp.ini") {
		t.Errorf("exit %d: %s", got.exit, got.out)
	}
	give(t, queue, 0)
	got = execute(t, bin, "serve", "-c", dir)
	if got.exit == 0 || !strings.Contains(got.out, "belongs to root") || !strings.Contains(got.out, "chown -R nobody "+queue) || strings.Contains(got.out, "user=root") {
		t.Errorf("exit %d: %s", got.exit, got.out)
	}
}

// A user that cannot be had stops the start: a setting that is to protect is never
// passed over.
func TestChangeUserRefused(t *testing.T) {
	dir, bin := public(t)
	for text, want := range map[string]string{
		"user=root":                  "only root can change to root (uid 0, gid 0)",
		"user=no_such_user":          "config/smtp.ini: user: unknown user no_such_user",
		"group=no_such_group":        "config/smtp.ini: group: unknown group no_such_group",
		"user=4567890":               "config/smtp.ini: user: uid 4567890 has no entry that names its group: set group too",
		"user=4567890\ngroup=456789": "only root can change to 4567890",
	} {
		write(t, dir, map[string]string{"smtp.ini": "listen=127.0.0.1:0\n" + text + "\n", "plugins": ""})
		out, err := asNobody(bin, "serve", "-c", dir).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s", text, err, out)
		}
	}
}

// Messages whose files the daemon's user may not read are one line of its log with
// a count, stand in the list, make health red, and are delivered when they can be
// read again.
func TestUnreadableMessages(t *testing.T) {
	dir, bin := public(t)
	s := sink(t, load.SinkOptions{})
	write(t, dir, with(queueTo(t, s.Port(), ""), "smtp.ini", "listen=127.0.0.1:0\n"))
	const n = 40
	spool(t, filepath.Join(dir, "queue"), n)
	states, err := filepath.Glob(filepath.Join(dir, "queue/msg/*/*.json"))
	if err != nil || len(states) != n {
		t.Fatal(len(states), err)
	}
	chmod := func(mode os.FileMode) {
		for _, name := range states {
			if err := os.Chmod(name, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	chmod(0)
	if os.Geteuid() == 0 {
		give(t, dir, nobodyID)
	}
	d := serving(t, dir, asNobody(bin, "serve", "-c", dir))
	d.awaitLog(`queue loaded.*\bleft\W+40\b`)
	if lines := regexp.MustCompile(`(?m)^.*cannot be read.*$`).FindAllString(d.Log(), -1); len(lines) != 1 || !strings.Contains(lines[0], "40") {
		t.Errorf("the log has %d lines: %q", len(lines), lines[:min(3, len(lines))])
	}
	if got := execute(t, bin, "queue", "list", "-c", dir); strings.Count(got.out, "cannot be read: open: permission denied for ") != n {
		t.Error(got.out)
	}
	if got := execute(t, bin, "queue", "stat", "-c", dir); !strings.Contains(got.out, "health      40 messages in the queue cannot be read: open: permission denied") {
		t.Error(got.out)
	}
	chmod(0o600)
	if got := execute(t, bin, "queue", "flush", "-c", dir); got.exit != 0 {
		t.Error(got.out)
	}
	eventually(t, "all messages", func() bool { return s.Stats().Messages == n })
	if got := execute(t, bin, "queue", "stat", "-c", dir); !strings.Contains(got.out, "health      ok") {
		t.Error(got.out)
	}
}

// spool makes a queue of n messages that have left the journal.
func spool(t *testing.T, dir string, n int) {
	t.Helper()
	o := disk.Options{Dir: dir, NoSync: true}
	q, err := disk.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		env := &mail.Envelope{
			ID: mail.NewID(fmt.Sprintf("%08X-0000-4000-8000-000000000000", i), 1), Received: time.Now(),
			From:       mail.Address{Local: "from", Domain: "client.test"},
			Recipients: []mail.Recipient{{Address: mail.Address{Local: fmt.Sprint("to", i), Domain: "sink.test"}}},
		}
		if err := q.Put(env, mail.Memory{[]byte("Subject: " + strings.Repeat("x", 100) + "\r\n\r\n")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Close(); err != nil { // from now on the segment does not grow
		t.Fatal(err)
	}
	o.Now = func() time.Time { return time.Now().Add(time.Hour) } // to which it is old
	if q, err = disk.Open(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	eventually(t, "an empty journal", func() bool {
		segments, _ := filepath.Glob(filepath.Join(dir, "journal/*.log"))
		return len(segments) == 0
	})
	cancel()
	<-done
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
}
