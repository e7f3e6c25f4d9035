package e2e

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tarishi/internal/test/load"
)

// With the shipped configuration a user who logs in sends to the world: the
// message is queued and leaves by MX.
func TestShippedConfigurationSendsOut(t *testing.T) {
	t.Parallel()
	need(t, "swaks")
	dir := filepath.Join(t.TempDir(), "instance")
	if o := execute(t, binary(t), "init", dir); o.exit != 0 {
		t.Fatalf("init: exit %d, %s", o.exit, o.out)
	}
	s := sink(t, load.SinkOptions{Keep: true})
	dns := nameServer(t)
	dns.MX("sink.test", 10, "mx.sink.test")
	dns.A("mx.sink.test", "127.0.0.1")
	edit(t, dir, "smtp.ini", "(?m)^listen *=.*", "listen=127.0.0.1:0")
	edit(t, dir, "outbound.ini", "(?m)^port *=.*", "port="+strconv.Itoa(s.Port()))
	edit(t, dir, "outbound.ini", "(?m)^local_mx_ok *=.*", "local_mx_ok=true") // the world is this host
	edit(t, dir, "auth_flat_file.ini", "(?m)^;user@example.com=secret", "user@example.com=secret")
	writeFile(t, filepath.Join(dir, "config", "dns.ini"), dnsINI(dns))

	written := t.TempDir()
	d := startIn(t, dir, "env", "TMPDIR="+written)
	host, port, _ := net.SplitHostPort(d.Addr())
	o := execute(t, "swaks", "--server", host, "--port", port, "--auth", "PLAIN", "--auth-user", "user@example.com", "--auth-password", "secret",
		"--from", "user@example.com", "--to", "friend@sink.test")
	if o.exit != 0 {
		t.Fatalf("swaks: exit %d\n%s", o.exit, o.out)
	}
	eventually(t, "the message at its MX", func() bool { return len(s.Messages()) == 1 })
	if m := s.Messages()[0]; !slices.Equal(m.Recipients, []string{"friend@sink.test"}) {
		t.Errorf("delivered %+v", m)
	}
	if files, _ := filepath.Glob(written + "/mail_*"); len(files) != 0 {
		t.Errorf("files of queue/test: %q", files)
	}
}

// edit replaces the one place of a file in config/ that pattern matches.
func edit(t *testing.T, dir, name, pattern, text string) {
	t.Helper()
	path, re := filepath.Join(dir, "config", name), regexp.MustCompile(pattern)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(re.FindAll(old, -1)); n != 1 {
		t.Fatalf("%s has %d places that match %s", name, n, pattern)
	}
	writeFile(t, path, re.ReplaceAllLiteralString(string(old), text))
}

// A first message on the shipped configuration, as README tells it.
func TestFirstMessage(t *testing.T) {
	t.Parallel()
	need(t, "swaks")
	dir := filepath.Join(t.TempDir(), "instance")
	if o := execute(t, binary(t), "init", dir); o.exit != 0 || !strings.Contains(o.out, "smtp.ini") {
		t.Fatalf("init: exit %d, %s", o.exit, o.out)
	}
	if o := execute(t, binary(t), "check", "-c", dir); o.exit != 0 {
		t.Errorf("the shipped configuration does not check: exit %d, %s", o.exit, o.out)
	}
	// Only the port is another, so that the test runs beside a daemon, and the
	// name server.
	writeFile(t, filepath.Join(dir, "config", "dns.ini"), dnsINI(nameServer(t)))
	ini := filepath.Join(dir, "config", "smtp.ini")
	text, err := os.ReadFile(ini)
	if err != nil {
		t.Fatal(err)
	}
	listen := regexp.MustCompile(`(?m)^listen *=.*`)
	if got := listen.FindString(string(text)); !strings.HasSuffix(strings.TrimSpace(got), "127.0.0.1:2525") {
		t.Errorf("shipped %q, want 127.0.0.1:2525", got)
	}
	if err := os.WriteFile(ini, listen.ReplaceAll(text, []byte("listen=127.0.0.1:0")), 0o644); err != nil {
		t.Fatal(err)
	}
	written := t.TempDir() // where queue/test, the shipped choice, writes messages
	d := startIn(t, dir, "env", "TMPDIR="+written)
	host, port, _ := net.SplitHostPort(d.Addr())
	o := execute(t, "swaks", "--server", host, "--port", port, "--from", "you@example.org", "--to", "first@localhost",
		"--header", "Subject: first message")
	if o.exit != 0 || !regexp.MustCompile(`(?m)^<-  250 .*`).MatchString(o.out) {
		t.Fatalf("swaks: exit %d\n%s", o.exit, o.out)
	}
	d.awaitLog(`\bdisconnect\b`)
	connection := ""
	for _, event := range []string{"connect", "sender", "recipient", "message", "disconnect"} {
		line := regexp.MustCompile(`(?m)^.*\[([0-9A-F-]{36})(?:\.\d+)?\].* ` + event + ` \w+=.*$`)
		found := line.FindAllStringSubmatch(d.Log(), -1)
		if len(found) != 1 {
			t.Errorf("%d lines for event %s, want one: %q", len(found), event, found)
			continue
		}
		if connection == "" {
			connection = found[0][1]
		}
		if found[0][1] != connection {
			t.Errorf("event %s has id %s, want %s", event, found[0][1], connection)
		}
		t.Log(found[0][0])
	}
	for _, want := range []string{"you@example.org", "first@localhost", "code=250", "ip=127.0.0.1"} {
		if !strings.Contains(d.Log(), want) {
			t.Errorf("the log does not say %s", want)
		}
	}
	files, _ := filepath.Glob(written + "/mail_*")
	if len(files) != 1 {
		t.Fatalf("files of queue/test: %q", files)
	}
	if text, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(text), "\r\nSubject: first message\r\n") {
		t.Errorf("%s: %v\n%s", files[0], err, text)
	}
	// init keeps what is there.
	if o := execute(t, binary(t), "init", dir); o.exit != 0 || strings.Contains(o.out, "wrote") || !strings.Contains(o.out, "kept") {
		t.Errorf("init again: exit %d, %s", o.exit, o.out)
	}
}
