package web

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestSocketMode(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	e, err := some(nil).Listen(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	info, err := os.Lstat(e.path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// The socket is there while the server is, and what a killed daemon left is
// replaced.
func TestSocketLife(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, socketName)
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrStopped) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := Dial(t.Context(), filepath.Join(dir, "missing")); !errors.Is(err, ErrStopped) {
		t.Errorf("no folder: %v", err)
	}
	stale, _, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	stale.Close() // the file stays
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrStopped) {
		t.Errorf("stale socket: %v", err)
	}
	e, err := some(nil).Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, e)
	if status, _ := get(t, onSocket(t, dir), "http://x/v1/queue"); status != 200 {
		t.Error(status)
	}
	stop()
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end: %v", err)
	}
	if e, err = some(nil).Listen(dir); err != nil {
		t.Fatal(err)
	}
	e.Close()
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
}

// What is no socket is not removed.
func TestSocketInTheWay(t *testing.T) {
	for what, put := range map[string]func(name string) error{
		"file":   func(name string) error { return os.WriteFile(name, []byte("x"), 0o600) },
		"folder": func(name string) error { return os.Mkdir(name, 0o700) },
		"link":   func(name string) error { return os.Symlink("/dev/null", name) },
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, socketName)
		if err := put(name); err != nil {
			t.Fatal(err)
		}
		if _, err := some(nil).Listen(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Lstat(name); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A folder whose name is too long for a socket's address.
func TestSocketLongPath(t *testing.T) {
	base := t.TempDir()
	for _, n := range []int{maxSocketPath - 1, maxSocketPath, maxSocketPath + 1, 400} {
		dir := base
		for room := n - len(dir) - 1 - len("/"+socketName); room > 0; room = n - len(dir) - 1 - len("/"+socketName) {
			dir = filepath.Join(dir, strings.Repeat("d", min(room, 200)))
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		e, err := some(nil).Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, e)
		if status, _ := get(t, onSocket(t, dir), "http://x/v1/queue"); status != 200 {
			t.Errorf("%d: %d", n, status)
		}
		stop()
		if _, err := os.Lstat(filepath.Join(dir, socketName)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// Idle connections do not hold the end up.
func TestStopWithIdleClients(t *testing.T) {
	dir := t.TempDir()
	e, err := some(nil).Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, e)
	for range 5 {
		if status, _ := get(t, onSocket(t, dir), "http://x/health"); status != 200 {
			t.Fatal(status)
		}
		c, err := Dial(t.Context(), dir) // says nothing
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	stop()
}

// TestStopWaitsForHandlers: when Run has returned no handler runs any more, and
// what a handler waits for when it heeds its context is no hindrance.
func TestStopWaitsForHandlers(t *testing.T) {
	dir := t.TempDir()
	begun, ended := make(chan struct{}), false
	s := New(Options{})
	s.Handle(Operator, "GET /wait", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		ended = true
	}))
	e, err := s.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, e)
	c := onSocket(t, dir)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if res, err := c.Get("http://x/wait"); err == nil {
			res.Body.Close()
		}
	}()
	<-begun
	stop()
	if !ended {
		t.Error("a handler outlives Run")
	}
	<-answered
}
