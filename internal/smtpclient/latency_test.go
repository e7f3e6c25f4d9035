package smtpclient_test

import (
	"net"
	"sync"
	"testing"

	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// turns stands between a client and its server and counts how often the client
// speaks again after the server has spoken: each time is a round trip that it
// has waited for.
type turns struct {
	addr string

	mu       sync.Mutex
	answered bool
	n        int
}

func countTurns(t *testing.T, addr string) *turns {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &turns{addr: ln.Addr().String()}
	var running sync.WaitGroup
	t.Cleanup(func() { ln.Close(); running.Wait() })
	carry := func(to, from net.Conn, client bool) {
		defer to.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := from.Read(b)
			if n > 0 {
				k.spoke(client)
				if _, err := to.Write(b[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", addr)
			if err != nil {
				c.Close()
				return
			}
			running.Go(func() { carry(s, c, true) })
			running.Go(func() { carry(c, s, false) })
		}
	})
	return k
}

func (k *turns) spoke(client bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if client && k.answered {
		k.n++
	}
	k.answered = !client
}

func (k *turns) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.n
}

// TestPipeliningPays: with PIPELINING a message takes two round trips, without it
// one for each command and one for the content.
func TestPipeliningPays(t *testing.T) {
	const messages = 5
	measure := func(recipients int, opts ...smtptest.Option) int {
		k := countTurns(t, smtptest.New(t, opts...).Addr())
		c := dial(t, smtpclient.Options{Addr: k.addr, Helo: "me.test"})
		defer c.Close()
		to := []string{"a@x.test", "b@x.test", "c@x.test"}[:recipients]
		e, body := envelope(t, "s@y.test", to...), text(lines(4<<10))
		before := k.count()
		for range messages {
			if res, err := c.Send(t.Context(), e, body); err != nil || !res.Replies[0].Positive() {
				t.Fatal(outcome(res, err))
			}
		}
		return k.count() - before
	}
	for _, recipients := range []int{1, 3} {
		with, without := measure(recipients), measure(recipients, smtptest.Without("PIPELINING"))
		if want := messages * (3 + recipients); with != 2*messages || without != want {
			t.Errorf("%d recipients: %d round trips with PIPELINING, %d without; want %d and %d", recipients, with, without, 2*messages, want)
		}
	}
}
