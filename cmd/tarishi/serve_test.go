package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestHangUpWhileStarting: SIGHUP flushes the queue. One that comes before there
// is a queue ends nothing. The key is a pipe, so that the start takes as long as
// the test wants.
func TestHangUpWhileStarting(t *testing.T) {
	dir := folder(t, map[string]string{"smtp.ini": "listen=127.0.0.1:0\n", "plugins": "", "tls.ini": "key=key.pem\ncert=cert.pem\n", "cert.pem": ""})
	key := filepath.Join(dir, "config", "key.pem")
	if err := syscall.Mkfifo(key, 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	daemon := exec.Command(exe, "serve", "-c", dir)
	daemon.Env, daemon.Stderr, daemon.SysProcAttr = append(os.Environ(), "TARISHI_TEST_MAIN=1"), &log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Process.Kill() })
	var pipe *os.File
	await(t, "the daemon to read its key", func() (string, bool) {
		pipe, err = os.OpenFile(key, os.O_WRONLY|syscall.O_NONBLOCK, 0) // fails while nobody reads
		return "", err == nil
	})
	if err := daemon.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	pipe.Close() // an empty key, and no certificate: the start fails now
	daemon.Wait()
	if code := daemon.ProcessState.ExitCode(); code != exitFailure || !strings.Contains(log.String(), "tls certificate") {
		t.Errorf("%v, log: %s", daemon.ProcessState, &log)
	}
}

// TestHangUpBeforeMain: SIGHUP is caught before most packages are initialised, none
// of other modules among them.
func TestHangUpBeforeMain(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(exe, "version")
	command.Env = append(os.Environ(), "TARISHI_TEST_MAIN=1", "GODEBUG=inittrace=1")
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before, after := 0, 0
	for line := range strings.Lines(string(out)) {
		name, ok := strings.CutPrefix(line, "init ")
		name, _, _ = strings.Cut(name, " ")
		switch {
		case !ok:
		case name == "tarishi/internal/hangup":
			after = 1
		case after > 0:
			after++
		default:
			before++
			if name == "net" || strings.HasPrefix(name, "google") || strings.HasPrefix(name, "tarishi/") {
				t.Errorf("%s is initialised before", name)
			}
		}
	}
	if after < before {
		t.Errorf("%d packages are initialised before SIGHUP is caught, %d after:\n%s", before, max(after-1, 0), out)
	}
}
