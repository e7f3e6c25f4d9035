package smtpclient_test

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// lines returns size bytes of text with a dot here and there.
func lines(size int) string {
	const line = ".0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 01234567\r\n"
	s := strings.Repeat(line, size/len(line)+1)[:size]
	return s[:size-2] + "\r\n"
}

func chunking(opts ...smtptest.Option) []smtptest.Option {
	return append([]smtptest.Option{smtptest.With("CHUNKING")}, opts...)
}

// TestChunks: what arrives by BDAT is what would have arrived by DATA.
func TestChunks(t *testing.T) {
	big := lines(3<<20 + 77)
	lf := strings.ReplaceAll(lines(1100<<10), "\r\n", "\n")
	for _, tt := range []struct {
		name    string
		content mail.Content
		want    string
		chunked bool
	}{
		{"small", text(lines(1<<20 - 1)), lines(1<<20 - 1), false},
		{"just", text(lines(1 << 20)), lines(1 << 20), true},
		{"one piece", text(big), big, true},
		{"stream", stream{big, int64(len(big)), nil}, big, true},
		{"pieces", mail.Memory{[]byte(big[:5]), []byte(big[5:70001]), []byte(big[70001:1000001]), []byte(big[1000001:])}, big, true},
		{"bare LF", text(lf), strings.ReplaceAll(lf, "\n", "\r\n"), true},
		{"CRs", text(big + "\r"), big + "\r\n", true},
		{"no line end", text(big + "x"), big + "x\r\n", true},
		{"one line", text(strings.Repeat("x", 1<<20)), strings.Repeat("x", 1<<20) + "\r\n", true},
	} {
		for _, mode := range []string{"pipelined", "lockstep", "LMTP", "TLS"} {
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				opts, o := chunking(), smtpclient.Options{}
				switch mode {
				case "lockstep":
					opts = append(opts, smtptest.Without("PIPELINING"))
				case "LMTP":
					opts, o.Protocol = append(opts, smtptest.LMTP()), mail.LMTP
				case "TLS":
					opts, o.TLS = append(opts, smtptest.TLS()), smtpclient.TLSEncrypt
				}
				s := smtptest.New(t, opts...)
				o.Addr, o.Helo = s.Addr(), "client.test"
				c := dial(t, o)
				env := envelope(t, "s@y.test", "a@x.test", "b@x.test")
				for range 2 {
					if got := outcome(c.Send(t.Context(), env, tt.content)); got != "250 2.0.0, 250 2.0.0" {
						t.Fatal(got)
					}
				}
				for _, m := range s.WaitMessages(2) {
					if string(m.Content) != tt.want || (m.Chunks > 0) != tt.chunked || m.Conn != 1 {
						t.Errorf("%d bytes in %d chunks, want %d", len(m.Content), m.Chunks, len(tt.want))
					}
				}
				if v := s.Violations(); len(v) > 0 {
					t.Error(v)
				}
			})
		}
	}
}

// TestChunkFaults: what becomes of a message when BDAT goes wrong. A fault comes
// at the n-th chunk that is not the last.
func TestChunkFaults(t *testing.T) {
	nth := func(n int, a smtptest.Action) smtptest.Option {
		return func(s *smtptest.Server) {
			seen := 0
			smtptest.On(smtptest.Chunk, func(smtptest.Event) smtptest.Action {
				if seen++; seen == n {
					return a
				}
				return smtptest.Action{}
			})(s)
		}
	}
	once := func(stage smtptest.Stage, a smtptest.Action) smtptest.Option {
		return func(s *smtptest.Server) { smtptest.On(stage, smtptest.First(1, a))(s) } // a counter for each server
	}
	last := func(a smtptest.Action) smtptest.Option { return once(smtptest.Dot, a) }
	rcpt := func(a smtptest.Action, who ...string) smtptest.Option {
		return smtptest.On(smtptest.Rcpt, smtptest.For(a, who...))
	}
	for _, tt := range []struct {
		name   string
		opts   []smtptest.Option
		size   int // of the message, MiB; 0: 2
		want   string
		orElse string
		kept   bool
	}{
		{name: "one refused", opts: []smtptest.Option{rcpt(smtptest.Reply("550 5.1.1 no"), "a@x.test")}, want: "550 5.1.1, 250 2.0.0", kept: true},
		{name: "all refused", opts: []smtptest.Option{rcpt(smtptest.Reply("550 5.1.1 no"), "a@x.test", "b@x.test")}, want: "550 5.1.1, 550 5.1.1", kept: true},
		{name: "mail refused", opts: []smtptest.Option{once(smtptest.Mail, smtptest.Reply("550 5.7.1 no"))}, want: "550 5.7.1, 550 5.7.1", kept: true},
		{name: "rcpt 421", opts: []smtptest.Option{rcpt(smtptest.Reply("421 4.3.2 no").ThenClose(), "b@x.test")}, want: "421 4.3.2, 421 4.3.2"},
		{name: "first 552", opts: []smtptest.Option{nth(1, smtptest.Reply("552 5.3.4 big"))}, want: "552 5.3.4, 552 5.3.4", kept: true},
		{name: "first 552 of many", size: 12, opts: []smtptest.Option{nth(1, smtptest.Reply("552 5.3.4 big"))}, want: "552 5.3.4, 552 5.3.4", kept: true},
		{name: "second 452", opts: []smtptest.Option{nth(2, smtptest.Reply("452 4.3.1 full"))}, want: "452 4.3.1, 452 4.3.1", kept: true},
		{name: "first 421", opts: []smtptest.Option{nth(1, smtptest.Reply("421 4.3.2 no").ThenClose())}, want: "failure at message content 421 4.3.2"},
		{name: "first 354", opts: []smtptest.Option{nth(1, smtptest.Reply("354 go"))}, want: "failure at message content 451 4.5.0"},
		{name: "first garbage", opts: []smtptest.Option{nth(1, smtptest.Garbage())}, want: "failure at message content 451 4.5.0"},
		{name: "first of many garbage", size: 12, opts: []smtptest.Option{nth(1, smtptest.Garbage())}, want: "failure at message content 451 4.5.0"},
		{
			name: "closed", size: 40, opts: []smtptest.Option{nth(1, smtptest.Close())},
			want: "failure at message content lost",
		},
		{
			name: "552 and closed", size: 40, opts: []smtptest.Option{nth(1, smtptest.Reply("552 5.3.4 big").ThenClose())},
			want: "552 5.3.4, 552 5.3.4", orElse: "failure at message content lost",
		},
		{name: "last 552", opts: []smtptest.Option{last(smtptest.Reply("552 5.2.2 full"))}, want: "552 5.2.2, 552 5.2.2", kept: true},
		{name: "last 421", opts: []smtptest.Option{last(smtptest.Reply("421 4.3.2 no"))}, want: "failure at final dot 421 4.3.2"},
		{name: "last closed", opts: []smtptest.Option{last(smtptest.Close())}, want: "failure at final dot lost uncertain"},
		{name: "last garbage", opts: []smtptest.Option{last(smtptest.Garbage())}, want: "failure at final dot 451 4.5.0 uncertain"},
		{name: "last 354", opts: []smtptest.Option{last(smtptest.Reply("354 go"))}, want: "failure at final dot 451 4.5.0 uncertain"},
		{name: "extra", opts: []smtptest.Option{last(smtptest.Extra("250 again\r\n"))}, want: "250 2.0.0, 250 2.0.0"},
		{name: "LMTP", opts: []smtptest.Option{smtptest.LMTP(), smtptest.On(smtptest.Dot, smtptest.For(smtptest.Reply("552 5.2.2 full"), "b@x.test"))}, want: "250 2.0.0, 552 5.2.2", kept: true},
		{name: "LMTP refused", opts: []smtptest.Option{smtptest.LMTP(), nth(1, smtptest.Reply("552 5.3.4 big"))}, want: "552 5.3.4, 552 5.3.4", kept: true},
		{name: "first and another", size: 1, opts: []smtptest.Option{nth(1, smtptest.Extra("250 2.0.0 again\r\n"))}, want: "failure at message content 451 4.5.0"},
		{name: "first and another, then more", size: 3, opts: []smtptest.Option{nth(1, smtptest.Extra("250 2.0.0 again\r\n"))}, want: "failure at message content 451 4.5.0"},
	} {
		for _, mode := range []string{"pipelined", "lockstep"} {
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				opts := append(chunking(), tt.opts...)
				if mode == "lockstep" { // every reply is known before the next chunk
					opts = append(opts, smtptest.Without("PIPELINING"))
					if tt.name == "552 and closed" { // of which the closing is not seen yet
						t.SkipNow()
					}
				}
				if mode == "pipelined" && tt.name == "first and another, then more" { // passes for the second one's
					t.SkipNow()
				}
				s := smtptest.New(t, opts...)
				o := options(s)
				if strings.HasPrefix(tt.name, "LMTP") {
					o.Protocol = mail.LMTP
				}
				c := dial(t, o)
				size := cmp.Or(tt.size, 2) << 20
				content := lines(size)
				res, err := c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test", "b@x.test"), text(content))
				if got := outcome(res, err); got != tt.want && (tt.orElse == "" || got != tt.orElse) {
					t.Errorf("%s, want %s (%v)", got, tt.want, err)
				}
				if c.Reusable() != tt.kept {
					t.Errorf("reusable %v", c.Reusable())
				}
				taken := 0
				for _, m := range s.Messages() {
					taken++
					if string(m.Content) != content {
						t.Errorf("%d bytes", len(m.Content))
					}
				}
				if positive := err == nil && (res.Replies[0].Positive() || res.Replies[1].Positive()); taken > 1 || positive != (taken == 1) {
					t.Errorf("the server has it %d times", taken)
				}
				if tt.kept {
					if got := outcome(c.Send(t.Context(), envelope(t, "t@y.test", "c@x.test"), text(message))); got != "250 2.0.0" {
						t.Errorf("second message: %s", got)
					}
					// Something was refused in every one of these.
					if !strings.Contains(strings.Join(s.Dialog(1), " "), " RSET MAIL") {
						t.Errorf("no RSET: %q", s.Dialog(1))
					}
				}
				if v := s.Violations(); len(v) > 0 {
					t.Error(v)
				}
			})
		}
	}
}

// TestChunksUnreadable: a content that cannot be read to its end is never ended.
func TestChunksUnreadable(t *testing.T) {
	big := lines(1 << 20)
	for name, content := range map[string]mail.Content{
		"unreadable": stream{big, int64(len(big)), errors.New("disk")},
		"short":      stream{big, int64(len(big)) + 1, nil},
		"long":       stream{big, int64(len(big)) - 1, nil},
	} {
		s := smtptest.New(t, chunking()...)
		c := dial(t, options(s))
		if got := outcome(c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), content)); got != "failure at message content lost" || c.Reusable() {
			t.Errorf("%s: %s", name, got)
		}
		s.WaitOpen(0)
		if len(s.Transactions()) > 0 {
			t.Errorf("%s: half a message was taken", name)
		}
	}
}

// TestChunksAhead: a server that stops reading when nobody reads its replies, and
// one that takes a part of a message, are no trap.
func TestChunksAhead(t *testing.T) {
	serve := func(replies func(n int, last bool) string) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(2 * time.Minute))
			fmt.Fprint(c, "220 x\r\n")
			line := func() (s string) {
				b := make([]byte, 1)
				for !strings.HasSuffix(s, "\r\n") {
					if _, err := c.Read(b); err != nil {
						return ""
					}
					s += string(b)
				}
				return s
			}
			for n := 0; ; {
				switch l := line(); {
				case l == "":
					return
				case strings.HasPrefix(l, "EHLO"):
					fmt.Fprint(c, "250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
				case strings.HasPrefix(l, "BDAT"):
					var size int64
					fmt.Sscanf(l, "BDAT %d", &size)
					io.CopyN(io.Discard, c, size)
					n++
					fmt.Fprint(c, replies(n, strings.Contains(l, "LAST")))
				default:
					fmt.Fprint(c, "250 ok\r\n")
				}
			}
		}()
		return ln.Addr().String()
	}
	long := strings.Repeat("250-"+strings.Repeat("x", 1000)+"\r\n", 60) + "250 ok\r\n"
	c := dial(t, smtpclient.Options{Addr: serve(func(int, bool) string { return long })})
	if got := outcome(c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(lines(100<<20)))); got != "250 2.0.0" {
		t.Error("long replies:", got)
	}
	c = dial(t, smtpclient.Options{Addr: serve(func(n int, _ bool) string {
		if n == 1 {
			return "451 4.3.0 no\r\n"
		}
		return "250 2.0.0 ok\r\n"
	})})
	if got := outcome(c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(lines(2<<20)))); got != "451 4.3.0" {
		t.Error("a part taken:", got)
	}
}

// TestAfterLateReply: what arrived between two messages must not pass for the
// reply to the next command. With BDAT there is no reply of another class that
// would show that replies and commands have come apart, and with DATA it shows
// only if that is not refused.
func TestAfterLateReply(t *testing.T) {
	for _, late := range []string{"250 2.0.0 again\r\n", "421 4.4.2 idle\r\n", ""} {
		for i := range 4 {
			encrypted, size := i%2 == 1, 2<<20
			if i < 2 {
				size = 100
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			certificate := smtptest.New(t, smtptest.TLS()).Certificate()
			first, sent := make(chan struct{}), make(chan struct{})
			go func() {
				raw, err := ln.Accept()
				if err != nil {
					return
				}
				defer raw.Close()
				raw.SetDeadline(time.Now().Add(time.Minute))
				c := raw
				if encrypted {
					c = tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{certificate}})
				}
				in := bufio.NewReader(c)
				fmt.Fprint(c, "220 x\r\n")
				done := false
				end := func() {
					done = true
					go func() {
						<-first
						fmt.Fprint(c, late)
						if late == "" {
							raw.(*net.TCPConn).CloseWrite()
						}
						arrived(t, raw)
						close(sent)
					}()
				}
				for {
					l, err := in.ReadString('\n')
					switch {
					case err != nil:
						return
					case strings.HasPrefix(l, "EHLO"):
						fmt.Fprint(c, "250-x\r\n250 CHUNKING\r\n")
					case strings.HasPrefix(l, "RCPT") && done:
						fmt.Fprint(c, "550 5.1.1 no\r\n")
					case strings.HasPrefix(l, "BDAT"):
						var size int64
						fmt.Sscanf(l, "BDAT %d", &size)
						io.CopyN(io.Discard, in, size)
						fmt.Fprint(c, "250 2.0.0 taken\r\n")
						if strings.Contains(l, "LAST") {
							end()
						}
					case strings.HasPrefix(l, "DATA") && done:
						fmt.Fprint(c, "554 5.5.1 no\r\n")
					case strings.HasPrefix(l, "DATA"):
						fmt.Fprint(c, "354 go\r\n")
						for l != ".\r\n" && err == nil {
							l, err = in.ReadString('\n')
						}
						fmt.Fprint(c, "250 2.0.0 taken\r\n")
						end()
					default:
						fmt.Fprint(c, "250 2.1.0 ok\r\n")
					}
				}
			}()
			c := dial(t, smtpclient.Options{Addr: ln.Addr().String(), ImplicitTLS: encrypted})
			env, body := envelope(t, "s@y.test", "a@x.test"), text(lines(size))
			if got := outcome(c.Send(t.Context(), env, body)); got != "250 2.0.0" {
				t.Fatal(got)
			}
			close(first)
			<-sent
			_, err = c.Send(t.Context(), env, body)
			var f *smtpclient.Failure
			if !errors.As(err, &f) || !f.Stale() || c.Reusable() {
				t.Errorf("%q, TLS %v, %d bytes: %v", late, encrypted, size, err)
			}
		}
	}
}

func BenchmarkContent(b *testing.B) {
	for _, size := range []int{16 << 10, 256 << 10, 1 << 20, 10 << 20} {
		for _, how := range []string{"DATA", "BDAT"} {
			b.Run(fmt.Sprintf("%s/%dKiB", how, size>>10), func(b *testing.B) {
				var opts []smtptest.Option
				if how == "BDAT" {
					opts = chunking()
				}
				s := smtptest.New(b, opts...)
				c := dial(b, options(s))
				env, body := envelope(b, "s@y.test", "a@x.test"), text(lines(size))
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if res, err := c.Send(b.Context(), env, body); err != nil || !res.Replies[0].Positive() {
						b.Fatal(res, err)
					}
				}
			})
		}
	}
}
