package pool_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/smtpclient"
)

// sink is a server that does as little as can be: it answers MAIL, RCPT and
// DATA in one write, and the final dot.
func sink(b *testing.B) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go sinkConn(c)
		}
	}()
	return ln.Addr().String()
}

func sinkConn(c net.Conn) {
	defer c.Close()
	buf, used := make([]byte, 64<<10), 0
	say := func(s string) { c.Write([]byte(s)) }
	envelope := []byte("250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n")
	queued := []byte("250 2.0.0 queued as 0123456789\r\n")
	say("220 sink ESMTP\r\n")
	data := false
	for {
		n, err := c.Read(buf[used:])
		if err != nil {
			return
		}
		used += n
		got := buf[:used]
		switch {
		case data && bytes.HasSuffix(got, []byte("\r\n.\r\n")):
			c.Write(queued)
			data, used = false, 0
		case data:
			if used > len(buf)/2 {
				used = copy(buf, got[used-8:])
			}
		case bytes.HasSuffix(got, []byte("DATA\r\n")):
			c.Write(envelope)
			data, used = true, 0
		case bytes.HasPrefix(got, []byte("EHLO")):
			say("250-sink\r\n250-PIPELINING\r\n250-SIZE\r\n250 8BITMIME\r\n")
			used = 0
		case bytes.HasPrefix(got, []byte("QUIT")):
			say("221 bye\r\n")
			return
		}
	}
}

func lines(size int) mail.Content {
	return mail.Memory{[]byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78+1)[:size])}
}

func BenchmarkClient(b *testing.B) {
	for name, size := range map[string]int{"4KiB": 4 << 10, "64KiB": 64 << 10, "10MiB": 10 << 20} {
		b.Run(name, func(b *testing.B) {
			c, err := smtpclient.Dial(context.Background(), smtpclient.Options{Addr: sink(b), Helo: "me.test"})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			env, body := envelope(1), lines(size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if res, err := c.Send(context.Background(), env, body); err != nil || !res.Replies[0].Positive() {
					b.Fatal(res, err)
				}
			}
		})
	}
}

func BenchmarkPool(b *testing.B) {
	for name, parallel := range map[string]int{"1": 1, "20": 10} { // times two processors
		b.Run(name, func(b *testing.B) {
			p := pool.New(pool.Options{})
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { p.Run(ctx); close(done) }()
			defer func() { cancel(); <-done }()
			to := pool.Target{
				Options:        smtpclient.Options{Addr: sink(b), Helo: "me.test"},
				MaxConnections: 20, IdleTimeout: time.Minute,
			}
			env, body := envelope(1), lines(4<<10)
			b.SetParallelism(parallel)
			b.ReportAllocs()
			b.ResetTimer()
			send := func() {
				if res, err := p.Send(ctx, to, env, body); err != nil || !res.Replies[0].Positive() {
					b.Error(res, err)
				}
			}
			if parallel == 1 {
				for b.Loop() {
					send()
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					send()
				}
			})
		})
	}
}
