package main

import (
	"bytes"
	"fmt"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// TestProcessTitle: with the plugin process_title the title of the daemon has the
// counters, and what it was started with is still in force.
func TestProcessTitle(t *testing.T) {
	if titleArea(unsafe.StringData(os.Args[0])) == nil {
		t.Skip("this system does not say where the command line is")
	}
	dir := folder(t, map[string]string{"smtp.ini": "listen=127.0.0.1:0\n", "plugins": "process_title\n", "me": "mx.example.com\n"})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	daemon := exec.Command(exe, "serve", "-c", dir)
	daemon.Env, daemon.Stderr, daemon.SysProcAttr = append(os.Environ(), "TARISHI_TEST_MAIN=1"), log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Process.Kill(); daemon.Wait() })
	addr := await(t, "the daemon to listen", func() (string, bool) {
		text, err := os.ReadFile(log.Name())
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`(127\.0\.0\.1:[1-9]\d*)`).FindStringSubmatch(string(text))
		if m == nil {
			return "", false
		}
		return m[1], true
	})
	title := func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", daemon.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return string(bytes.TrimRight(b, "\x00"))
	}
	c, err := smtp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the title to count", func() (string, bool) {
		now := title()
		return now, strings.HasPrefix(now, "tarishi cn=1 cc=1 cps=") && strings.Contains(now, " msgs=0/0 mps=0/0/0")
	})
	c.Close()
	await(t, "the title to count down", func() (string, bool) {
		now := title()
		return now, strings.HasPrefix(now, "tarishi cn=1 cc=0 ")
	})
	if code, out, errs := tarishi(t, "queue", "stat", "-c", dir); code != exitOK {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
}
