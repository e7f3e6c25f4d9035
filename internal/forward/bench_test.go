package forward

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/route"
)

// quickSink is a server that does as little as can be: it answers MAIL, RCPT and
// DATA in one write, and the final dot.
func quickSink(b *testing.B) mail.NextHop {
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
			go func() {
				defer c.Close()
				buf, used := make([]byte, 64<<10), 0
				c.Write([]byte("220 sink ESMTP\r\n"))
				for {
					n, err := c.Read(buf[used:])
					if err != nil {
						return
					}
					used += n
					answer := ""
					switch got := buf[:used]; {
					case bytes.HasSuffix(got, []byte("\r\n.\r\n")):
						answer = "250 2.0.0 queued as 0123456789\r\n"
					case bytes.HasSuffix(got, []byte("DATA\r\n")):
						answer = "250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n"
					case bytes.HasPrefix(got, []byte("EHLO")):
						answer = "250-sink\r\n250-PIPELINING\r\n250-SIZE\r\n250 8BITMIME\r\n"
					case bytes.HasPrefix(got, []byte("QUIT")):
						answer = "221 bye\r\n"
					default:
						continue
					}
					used = 0
					c.Write([]byte(answer))
				}
			}()
		}
	}()
	return mail.NextHop{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port}
}

// BenchmarkForward is the relay without its clients: messages of 4 KiB by a real
// pool to a server on loopback.
func BenchmarkForward(b *testing.B) {
	for name, parallel := range map[string]int{"1": 0, "100": 50} { // times two processors
		b.Run(name, func(b *testing.B) {
			o := options(nil)
			p := pool.New(pool.Options{})
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() { p.Run(ctx); close(ended) }()
			defer func() { cancel(); <-ended }()
			o.engine.Sender = p
			f := forwarder(o)
			r := &route.Route{
				Name: "main", Hosts: []mail.NextHop{quickSink(b)}, ConnectTimeout: 5 * time.Second, Timeout: time.Minute,
				CommandTimeout: time.Minute, SubmissionTimeout: time.Minute, MaxConnections: 1000, MaxMessages: 100, MaxAge: time.Minute,
			}
			body := mail.Memory{[]byte("A: b\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 52))}
			send := func(ctx context.Context) {
				t := message("a@b.c")
				t.Content = body
				if v := f.Forward(ctx, hook.ConnectionView{}, t.View(), r); v.Code != hook.OK {
					b.Error(v.Reply)
				}
			}
			b.ReportAllocs()
			if parallel == 0 {
				for b.Loop() {
					send(ctx)
				}
				return
			}
			b.SetParallelism(parallel)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				session, cancel := context.WithCancel(ctx) // as sessions have one
				defer cancel()
				for pb.Next() {
					send(session)
				}
			})
		})
	}
}
