package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/command"
)

// TestCheckDomain: what the DNS of a domain says, and the exit code for it.
func TestCheckDomain(t *testing.T) {
	dir, server, _ := keyTool(t)
	if err := os.WriteFile(filepath.Join(dir, "config", "me"), []byte("mx.d.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server.MX("d.test", 10, "mx.d.test")
	server.A("mx.d.test", "203.0.113.1")
	server.PTR("203.0.113.1", "mx.d.test")
	server.TXT("d.test", "v=spf1 mx -all")
	check := func(want int, has string, line ...string) {
		t.Helper()
		var out, stderr bytes.Buffer
		exit := run(append([]string{"check-domain", "-c", dir, "--no-connect"}, line...), command.Streams{Out: &out, Err: &stderr})
		if exit != want || !strings.Contains(out.String()+stderr.String(), has) {
			t.Errorf("%v: exit %d, %s%s", line, exit, &out, &stderr)
		}
	}

	// An error is one until it is mended.
	check(exitFailure, "error    DMARC    d.test has no policy", "d.test")
	server.TXT("_dmarc.d.test", "v=DMARC1; p=none; rua=mailto:x@d.test")
	check(exitOK, "ok       SPF      203.0.113.1 passes", "D.test.")
	check(exitOK, `{"level":"ok","about":"MX","text":"10 mx.d.test 203.0.113.1"}`+"\n", "d.test", "--json")
	check(exitFailure, "error    SPF      203.0.113.9: fail", "d.test", "--ip=203.0.113.9")
	check(exitFailure, "error    DKIM     s._domainkey.d.test: no key", "d.test", "--selector", "s")
	check(exitUsage, `--ip: "x" is no address`, "d.test", "--ip=x")
	check(exitUsage, "--selector: ", "d.test", "--selector=a b")
	check(exitFailure, `"d": no domain name`, "d")
}
