// Package redistest runs a Redis server for a test: Debian's redis-server, in a temporary
// folder, on a Unix socket and a port of loopback.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds the start of a server.
const patience = time.Minute

// Server is a running redis-server. It ends with the test.
type Server struct {
	Addr   string // on loopback
	Port   int
	Socket string

	t       testing.TB
	config  []string
	process *exec.Cmd
}

// Start runs a server. options are lines of redis.conf, such as "requirepass x". Without
// redis-server the test is skipped; in CI it fails.
func Start(t testing.TB, options ...string) *Server {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("redis-server is not installed")
		}
		t.Skip("redis-server is not installed")
	}

	// A test's own folder can have too long a path for a socket.
	dir, err := os.MkdirTemp("", "tarishi-redis-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, Socket: filepath.Join(dir, "socket")}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.Port = freePort(t)
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
	s.config = append([]string{
		program, "--bind", "127.0.0.1", "--port", strconv.Itoa(s.Port), "--unixsocket", s.Socket, "--dir", dir, "--save", "", "--appendonly", "no",
		"--daemonize", "no",
	}, flags(options)...)
	s.Restart()
	t.Cleanup(s.Stop)
	return s
}

// flags are lines of redis.conf as arguments.
func flags(options []string) []string {
	var all []string
	for _, line := range options {
		name, value, _ := strings.Cut(line, " ")
		all = append(all, "--"+name, value)
	}
	return all
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Restart runs the server again, empty, at the same place.
func (s *Server) Restart() {
	s.t.Helper()
	s.process = exec.Command(s.config[0], s.config[1:]...)
	var out strings.Builder
	s.process.Stdout, s.process.Stderr = &out, &out
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		if err = s.answers(); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.Stop()
	s.t.Fatalf("redis-server does not answer: %v\n%s", err, &out)
}

// answers reports whether the server speaks, on both ways.
func (s *Server) answers() error {
	for network, addr := range map[string]string{"tcp": s.Addr, "unix": s.Socket} {
		c, err := net.DialTimeout(network, addr, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := fmt.Fprint(c, "PING\r\n"); err != nil {
			return err
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends the server, if it runs.
func (s *Server) Stop() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill() // nothing of it is kept
	_ = s.process.Wait()
	s.process = nil
}

// Pause has the server answer nobody until Resume.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(which os.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(which); err != nil {
		s.t.Fatal(err)
	}
}
