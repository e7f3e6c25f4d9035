package load

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// proxied starts a server that answers whatever it was sent when its client has
// ended, and a proxy in front of it.
func proxied(t *testing.T, delay time.Duration, serve func(*net.TCPConn)) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	p, err := ListenProxy(ln.Addr().String(), delay)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

// Every question waits a round trip for its answer; many that are sent together
// wait for one.
func TestProxyDelays(t *testing.T) {
	const delay = 20 * time.Millisecond
	p := proxied(t, delay, func(c *net.TCPConn) { io.Copy(c, c) })
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	answer := make([]byte, 1000)
	begun := time.Now()
	for range 5 {
		c.Write(answer[:1])
		if _, err := io.ReadFull(c, answer[:1]); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begun); took < 5*2*delay {
		t.Errorf("5 round trips took %v", took)
	}
	begun = time.Now()
	for range answer {
		c.Write([]byte("x"))
	}
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < 2*delay || took > 500*2*delay { // one by one it would be 1000 times
		t.Errorf("%d bytes at once took %v", len(answer), took)
	}
}

// Bytes arrive unchanged and in order, and the end of one direction leaves the
// other open.
func TestProxyKeepsBytes(t *testing.T) {
	p := proxied(t, time.Millisecond, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		c.Write(all)
	})
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	sent := bytes.Repeat([]byte("0123456789abcdef."), 200_000)
	go func() {
		c.Write(sent)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(sent), err)
	}
}

// A proxy ends with its connections, whoever is silent on them.
func TestProxyStops(t *testing.T) {
	accepted := make(chan struct{})
	p := proxied(t, time.Millisecond, func(c *net.TCPConn) {
		close(accepted)
		io.Copy(io.Discard, c)
	})
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	<-accepted // the clean-up of proxied waits for Run
}
