package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSession: one client's conversation, and the exit code for it.
func TestSession(t *testing.T) {
	dir, server, _ := keyTool(t)
	server.PTR("203.0.113.9", "client.test")
	server.A("client.test", "203.0.113.9")
	message := filepath.Join(dir, "mail.eml")
	for name, text := range map[string]string{
		"config/me": "mx.test\n", "config/host_list": "here.test\n", "config/relay_acl_allow": "198.51.100.0/24\n",
		"config/plugins": "relay\nfcrdns\nrcpt_to.in_host_list\nqueue/test\n", "mail.eml": "Subject: of a file\n\ntext\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	play := func(want int, has []string, line ...string) {
		t.Helper()
		exit, out, stderr := tarishi(t, append([]string{"session", "-c", dir}, line...)...)
		all := out + stderr
		for _, text := range has {
			if exit != want || !strings.Contains(all, text) {
				t.Errorf("%v: exit %d without %q in\n%s", line, exit, text, all)
			}
		}
	}

	play(exitOK, []string{"C: EHLO [203.0.113.9]", "Hello client.test [203.0.113.9]", "rcpt_to.in_host_list.hook_rcpt", "queue/test.queue", "S: 250 2.0.0 The message would be taken"},
		"--from=203.0.113.9", "--envrcpt=a@here.test")
	play(exitOK, []string{"C: HELO x.test", "C: MAIL FROM:<>", "| Subject: of a file"},
		"--from=203.0.113.9", "--helo=x.test", "--envfrom=<>", "--envrcpt=a@here.test", "--message", message)
	play(exitFailure, []string{"S: 550"}, "--from=203.0.113.9", "--envrcpt=a@elsewhere.test")
	play(exitOK, []string{"S: 250 2.0.0"}, "--from=203.0.113.9", "--envrcpt=a@elsewhere.test", "--set-relay")
	play(exitOK, []string{"S: 250 2.0.0"}, "--from=198.51.100.7", "--envrcpt=a@elsewhere.test")
	play(exitUsage, []string{`--from: "x" is no address`}, "--from=x")
	play(exitUsage, []string{`--to: "here" is no address with a port`}, "--from=203.0.113.9", "--to=here")
	play(exitFailure, []string{"nothing.eml"}, "--from=203.0.113.9", "--message=nothing.eml")

	// Nothing was opened that a daemon would have.
	if _, err := os.Stat(filepath.Join(dir, "queue", "lock")); err == nil {
		t.Error("the queue was opened")
	}
}
