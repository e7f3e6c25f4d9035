package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/command"
	"tarishi/internal/test/dnstest"
)

// keyTool runs dkim commands on an instance whose DNS is a test server's.
func keyTool(t *testing.T) (dir string, server *dnstest.Server, tool func(line ...string) (exit int, out, stderr string)) {
	t.Helper()
	dir, server = t.TempDir(), dnstest.New(t)
	if err := os.Mkdir(filepath.Join(dir, "config"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config", "dns.ini"), []byte("servers[]="+server.Addr()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, server, func(line ...string) (int, string, string) {
		var out, stderr bytes.Buffer
		exit := run(append(append([]string{"dkim"}, line...), "-c", dir), command.Streams{Out: &out, Err: &stderr})
		return exit, out.String(), stderr.String()
	}
}

// record returns the name and the text of a record in a zone file's line.
func record(t *testing.T, line string) (name, text string) {
	t.Helper()
	name, rest, ok := strings.Cut(strings.TrimSpace(line), ". IN TXT ( ")
	if !ok {
		t.Fatalf("%q", line)
	}
	return name, strings.ReplaceAll(strings.Trim(strings.TrimSuffix(rest, " )"), `"`), `" "`, "")
}

func TestKeys(t *testing.T) {
	dir, server, tool := keyTool(t)
	if exit, _, stderr := tool("check", "example.org"); exit != exitFailure || !strings.Contains(stderr, "no key in config/dkim") {
		t.Errorf("%d, %s", exit, stderr)
	}

	// The first key, one beside it, and no second one of the same name.
	exit, first, stderr := tool("new", "Example.ORG", "--selector", "one")
	if exit != exitOK || !strings.HasPrefix(first, "one._domainkey.example.org. IN TXT ( \"v=DKIM1; k=rsa; p=") || !strings.Contains(stderr, "dkim check example.org") {
		t.Fatalf("%d, %s, %s", exit, first, stderr)
	}
	exit, second, stderr := tool("new", "example.org", "--kind=ed25519", "--selector=two")
	if exit != exitOK || !strings.HasPrefix(second, "two._domainkey.example.org. IN TXT ( \"v=DKIM1; k=ed25519; p=") {
		t.Fatalf("%d, %s, %s", exit, second, stderr)
	}
	if exit, _, stderr := tool("new", "example.org", "--selector=one"); exit != exitFailure || !strings.Contains(stderr, "already") {
		t.Errorf("%d, %s", exit, stderr)
	}
	for name, mode := range map[string]os.FileMode{"private": 0o600, "selector": 0o644, "two/private": 0o600, "two/selector": 0o644} {
		info, err := os.Stat(filepath.Join(dir, "config/dkim/example.org", name))
		if err != nil || info.Mode().Perm()&^mode != 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}

	// What the DNS has: one, the wrong one, and none.
	name, text := record(t, first)
	server.TXT(name, text)
	exit, out, _ := tool("check", "example.org")
	if exit != exitFailure || !strings.Contains(out, "one._domainkey.example.org: right\n") || !strings.Contains(out, "two._domainkey.example.org: TXT two._domainkey.example.org: NXDOMAIN\n  it should be: "+second) {
		t.Errorf("%d, %s", exit, out)
	}
	other, _ := record(t, second)
	server.TXT(other, text)
	if exit, out, _ := tool("check", "example.org"); exit != exitFailure || !strings.Contains(out, "inappropriate key type") {
		t.Errorf("%d, %s", exit, out)
	}
	server.Remove(other)
	_, text = record(t, second)
	server.TXT(other, text)
	if exit, out, stderr := tool("check", "example.org"); exit != exitOK || strings.Count(out, ": right\n") != 2 {
		t.Errorf("%d, %s, %s", exit, out, stderr)
	}
}

func TestKeyMisuse(t *testing.T) {
	_, _, tool := keyTool(t)
	for _, c := range []struct {
		line []string
		want string
	}{
		{[]string{"new", "localhost"}, "no domain name"},
		{[]string{"new", "a/../b.example"}, "no domain name"},
		{[]string{"new", ".."}, "no domain name"},
		{[]string{"new", "example.org", "--selector=../x"}, "no selector"},
		{[]string{"new", "example.org", "--kind=dsa"}, "neither an RSA nor an Ed25519 key"},
		{[]string{"new"}, "<domain>"},
		{[]string{"check", "[192.0.2.1]"}, "no domain name"},
	} {
		if exit, _, stderr := tool(c.line...); exit == exitOK || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: %d, %s", c.line, exit, stderr)
		}
	}
}
