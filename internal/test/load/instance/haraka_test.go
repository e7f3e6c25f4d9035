package instance

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stub makes this test binary behave as node running Haraka: it greets whoever
// connects to the address in its configuration.
const stub = "TARISHI_TEST_HARAKA_STUB"

func TestMain(m *testing.M) {
	if os.Getenv(stub) == "" {
		os.Exit(m.Run())
	}
	dir := os.Args[len(os.Args)-1]
	ini, err := os.ReadFile(filepath.Join(dir, "config", "smtp.ini"))
	if err != nil {
		panic(err)
	}
	addr, _, _ := strings.Cut(strings.TrimPrefix(string(ini), "listen="), "\n")
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		panic(err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-end
		os.Exit(0)
	}()
	for {
		c, err := ln.Accept()
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(c, "220 %s\r\n", strings.Join(os.Args[1:], " "))
		c.Close()
	}
}

// tools puts fake programs before all others on the PATH.
func tools(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

const fakeNode = "if [ \"$1\" = --version ]; then echo v22.1.0; exit; fi\n"

const fakeNPM = `grep -q '"Haraka": "` + HarakaVersion + `"' package.json || exit 9
mkdir -p node_modules/Haraka/bin node_modules/Haraka/config
echo ran >>../runs
echo program >node_modules/Haraka/bin/haraka
echo '[main]' >node_modules/Haraka/config/connection.ini
`

func TestHaraka(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tools(t, map[string]string{"npm": fakeNPM, "node": fakeNode + "export " + stub + "=1\nexec '" + self + "' \"$@\"\n"})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cache := filepath.Join(t.TempDir(), "cache")
	var said bytes.Buffer
	var program string
	for range 2 {
		if program, err = InstallHaraka(ctx, cache, &said); err != nil {
			t.Fatal(err)
		}
	}
	if text, _ := os.ReadFile(program); string(text) != "program\n" {
		t.Errorf("%s has %q", program, text)
	}
	if runs, _ := os.ReadFile(cache + "/runs"); string(runs) != "ran\n" || strings.Count(said.String(), "\n") != 1 {
		t.Errorf("npm ran %q, and it was told %q", runs, &said)
	}
	secureRelay := func(ctx context.Context, program, dir string, port int, prefix ...string) (*Server, error) {
		return HarakaRelay(ctx, program, dir, port, true, prefix...)
	}
	for name, start := range map[string]func(context.Context, string, string, int, ...string) (*Server, error){
		"config/smtp_forward.ini": secureRelay, "plugins/one_mx.js": HarakaQueue,
	} {
		dir := t.TempDir()
		s, err := start(ctx, program, dir, 4711, "env")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		greeting, _ := bufio.NewReader(c).ReadString('\n')
		c.Close()
		if want := "220 " + program + " -c " + dir + "\r\n"; greeting != want {
			t.Errorf("greeting %q, want %q", greeting, want)
		}
		if text, _ := os.ReadFile(filepath.Join(dir, name)); !strings.Contains(string(text), "4711") {
			t.Errorf("%s has %q", name, text)
		}
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
}

// An installation that fails leaves nothing that the next one would believe.
func TestNoHaraka(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "cache")
	tools(t, map[string]string{"node": fakeNode, "npm": fakeNPM + "echo no such version >&2; exit 1\n"})
	var said bytes.Buffer
	for range 2 {
		if _, err := InstallHaraka(t.Context(), cache, &said); !errors.Is(err, ErrNoHaraka) || !strings.Contains(err.Error(), "no such version") {
			t.Errorf("error %v", err)
		}
	}
	left, err := os.ReadDir(cache)
	if err != nil || len(left) != 1 || left[0].Name() != "runs" {
		t.Errorf("left behind: %v, %v", left, err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := InstallHaraka(t.Context(), cache, &said); !errors.Is(err, ErrNoHaraka) {
		t.Errorf("without node: %v", err)
	}
}

// A system's node that is too old is not used.
func TestOldNode(t *testing.T) {
	name, ok := nodePackages[runtime.GOARCH]
	if !ok {
		t.Skip("npm has no node for " + runtime.GOARCH)
	}
	tools(t, map[string]string{"node": "echo v18.20.4\n", "npm": "mkdir -p node_modules/" + name + "/bin\necho x >node_modules/" + name + "/bin/node\n" +
		"grep -q '\"" + name + "\": \"" + nodeVersion + "\"' package.json || exit 9\n" + fakeNPM})
	program, err := InstallHaraka(t.Context(), t.TempDir(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if node := NodeOf(program); !strings.HasSuffix(node, "/node_modules/"+name+"/bin/node") {
		t.Errorf("%s runs it", node)
	}
}
