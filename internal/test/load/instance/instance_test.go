package instance

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestProcess(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	p, err := Start(exec.Command("sh", "-c", "echo one; echo two >&2; exec sleep 60"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Await(ctx, func(log string) bool { return strings.Contains(log, "one\n") && strings.Contains(log, "two\n") }); err != nil {
		t.Error(err)
	}
	if err := p.Stop(ctx); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("Stop: %v", err)
	}

	p, err = Start(exec.Command("sh", "-c", "echo a reason >&2; exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Await(ctx, func(string) bool { return false }); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "a reason") {
		t.Errorf("Await: %v", err)
	}

	p, err = Start(exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Await(ctx, func(log string) bool { return log != "" }); err != nil {
		t.Error(err)
	}
	now, cancel := context.WithCancel(ctx)
	cancel()
	if err := p.Stop(now); err == nil || !strings.Contains(err.Error(), "did not end") {
		t.Errorf("Stop of one that does not listen: %v", err)
	}
}

// A server is known by the addresses that its log names, whatever stands
// around them.
func TestTarishiAddresses(t *testing.T) {
	dir := t.TempDir()
	fake := dir + "/fake"
	script := "#!/bin/sh\necho '[NOTICE] listening on 127.0.0.1:10025'\necho listening on 127.0.0.1:10025\n" +
		"echo '{\"msg\":\"listening on [::1]:10465\"}'\nexec sleep 60\n"
	if err := os.WriteFile(fake, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := Tarishi(ctx, fake, dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(ctx)
	if s.Addr() != "127.0.0.1:10025" || len(s.Addrs) != 2 || s.Addrs[1] != "[::1]:10465" {
		t.Errorf("addresses %q", s.Addrs)
	}
}

func TestPostfix(t *testing.T) {
	if !HasPostfix() {
		if os.Getenv("CI") == "true" {
			t.Fatal("postfix is not installed, or the test does not run as root")
		}
		t.Skip("postfix is not installed, or the test does not run as root")
	}
	dir, err := os.MkdirTemp("/tmp", "postfix") // TMPDIR may be too long for the names of its sockets
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // its user must get through
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := Postfix(ctx, dir+"/instance", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
	if !strings.Contains(s.Log(), "daemon started") {
		t.Errorf("log %q", s.Log())
	}
}
