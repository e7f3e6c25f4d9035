package metrics

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
)

// ask sends a request and returns the status and the body.
func ask(t *testing.T, method, url string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestServer(t *testing.T) {
	var ill atomic.Bool
	health := Health(func() error {
		if ill.Load() {
			return errors.New("452 4.3.1 no space")
		}
		return nil
	}, func() []string {
		if ill.Load() {
			return []string{"something is amiss"}
		}
		return nil
	})
	s, err := Listen([]string{"127.0.0.1:0", "[::1]:0"}, watch(some(), space).Handler(), health, zap.NewNop())
	if err != nil && strings.Contains(err.Error(), "[::1]") { // a host without IPv6
		s, err = Listen([]string{"127.0.0.1:0", "127.0.0.1:0"}, watch(some(), space).Handler(), health, zap.NewNop())
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for _, addr := range s.Addrs() {
		at := "http://" + addr.String()
		ill.Store(false)
		if status, body := ask(t, "GET", at+"/health"); status != 200 || body != "ok\n" {
			t.Error(status, body)
		}
		ill.Store(true)
		if status, body := ask(t, "GET", at+"/health"); status != 503 || body != "452 4.3.1 no space\nsomething is amiss\n" {
			t.Error(status, body)
		}
		if status, body := ask(t, "GET", at+"/metrics"); status != 200 || !strings.Contains(body, "\ntarishi_accepting 1\n") || !strings.Contains(body, "\ngo_goroutines ") {
			t.Error(status, body)
		}
		for _, other := range []string{"/", "/metrics/x", "/debug/pprof/", "/v1/queue"} {
			if status, _ := ask(t, "GET", at+other); status != 404 {
				t.Error(other, status)
			}
		}
		if status, _ := ask(t, "POST", at+"/metrics"); status != 405 {
			t.Error(status)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", s.Addrs()[0].String()); err == nil {
		c.Close()
		t.Error("still bound after Run")
	}
}

// TestServerEnds: a client that never ends its request, and one that reads
// nothing, do not keep Run.
func TestServerEnds(t *testing.T) {
	s, err := Listen([]string{"127.0.0.1:0"}, New("").Handler(), Health(func() error { return nil }, nil), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for _, text := range []string{"GET /metr", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNotBound: an address that is taken is named, and no other stays bound.
func TestNotBound(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	first := net.JoinHostPort("127.0.0.7", port) // free: who takes a port asks for 127.0.0.1 or for all addresses
	nobody := http.NotFoundHandler()
	_, err = Listen([]string{first, taken.Addr().String()}, nobody, nobody, zap.NewNop())
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "http.ini") || !strings.Contains(err.Error(), "in use") {
		t.Error(err)
	}
	again, err := net.Listen("tcp", first)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// TestManyConnections: clients that say nothing take only so many descriptors.
func TestManyConnections(t *testing.T) {
	s, err := Listen([]string{"127.0.0.1:0"}, New("").Handler(), Health(func() error { return nil }, nil), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	var accepted atomic.Int64
	s.http.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			accepted.Add(1)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var all []net.Conn
	for range maxConnections + 10 {
		c, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	answer := func(c net.Conn) {
		t.Helper()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	for _, c := range all[:maxConnections] { // first come, first served
		answer(c)
	}
	if n := accepted.Load(); n != maxConnections {
		t.Errorf("%d connections at a time", n)
	}
	for _, c := range all[:10] {
		c.Close()
	}
	answer(all[len(all)-1])
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
