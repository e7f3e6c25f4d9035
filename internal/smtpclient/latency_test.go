package smtpclient_test

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"tarishi/internal/smtpclient"
	"tarishi/internal/smtptest"
)

// far makes a server as far away as half a round trip in each direction.
func far(t testing.TB, addr string, half time.Duration) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() { ln.Close(); running.Wait() })
	carry := func(to, from net.Conn) {
		type piece struct {
			b  []byte
			at time.Time
		}
		way := make(chan piece, 1000)
		running.Go(func() {
			defer to.Close()
			for p := range way {
				time.Sleep(time.Until(p.at))
				if _, err := to.Write(p.b); err != nil {
					from.Close()
				}
			}
		})
		running.Go(func() {
			defer close(way)
			for {
				b := make([]byte, 64<<10)
				n, err := from.Read(b)
				if n > 0 {
					way <- piece{b[:n], time.Now().Add(half)}
				}
				if err == io.EOF || err != nil {
					return
				}
			}
		})
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
			carry(s, c)
			carry(c, s)
		}
	})
	return ln.Addr().String()
}

// TestPipeliningPays: how much less time a message takes on a connection with 50
// ms of round trip when the server offers PIPELINING: two round trips instead of
// one for each command.
func TestPipeliningPays(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const messages = 5
	measure := func(recipients int, opts ...smtptest.Option) time.Duration {
		s := smtptest.New(t, opts...)
		c := dial(t, smtpclient.Options{Addr: far(t, s.Addr(), 25*time.Millisecond), Helo: "me.test"})
		defer c.Close()
		to := []string{"a@x.test", "b@x.test", "c@x.test"}[:recipients]
		e, body := envelope(t, "s@y.test", to...), text(lines(4<<10))
		start := time.Now()
		for range messages {
			if res, err := c.Send(t.Context(), e, body); err != nil || !res.Replies[0].Positive() {
				t.Fatal(outcome(res, err))
			}
		}
		return time.Since(start)
	}
	for recipients, want := range map[int]float64{1: 1.8, 3: 2.7} {
		var ratio float64
		for range 3 { // a busy machine only makes it less
			with, without := measure(recipients), measure(recipients, smtptest.Without("PIPELINING"))
			if ratio = max(ratio, float64(without)/float64(with)); ratio >= want {
				break
			}
		}
		t.Logf("%d recipients: %.2f times", recipients, ratio)
		if ratio < want {
			t.Errorf("%d recipients: %.2f times, want %.1f", recipients, ratio, want)
		}
	}
}
