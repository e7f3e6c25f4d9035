package smtpclient_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// dialogue serves one connection: answer gets each command and what comes behind
// DATA, in lines, and returns what is said to it; with a NUL behind, it closes.
// All of it arrives at once, and what a \x01 divides in TLS records of their own.
// Each time that this has arrived at the client spoken is called, if not nil.
func dialogue(t *testing.T, encrypted bool, answer func(line string) string, spoken func()) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var config *tls.Config
	if encrypted {
		config = &tls.Config{Certificates: []tls.Certificate{smtptest.New(t, smtptest.TLS()).Certificate()}}
	}
	go func() {
		raw, err := ln.Accept()
		if err != nil {
			return
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(time.Minute))
		out := bufio.NewWriter(raw)
		c := net.Conn(corked{raw, out})
		if config != nil {
			c = tls.Server(c, config)
		}
		fmt.Fprint(c, "220 x\r\n")
		for in := bufio.NewReader(c); ; {
			l, err := in.ReadString('\n')
			if err != nil {
				return
			}
			said, closes := strings.CutSuffix(answer(strings.TrimSuffix(l, "\r\n")), "\x00")
			if said == "" {
				continue
			}
			for part := range strings.SplitSeq(said, "\x01") {
				fmt.Fprint(c, part)
			}
			out.Flush()
			arrived(t, raw)
			if closes {
				c.Close()
			}
			if spoken != nil {
				spoken()
			}
			if closes {
				return
			}
		}
	}()
	return ln.Addr().String()
}

// arrived waits until everything that was written to a connection, and its end if
// that was, is with the peer's kernel.
func arrived(t *testing.T, c net.Conn) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		left := 0
		if err := raw.Control(func(fd uintptr) { left, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil || left == 0 {
			return
		}
	}
	t.Error("it never arrived")
}

// halting is content of which there is no second half until ready is closed.
type halting struct {
	data  string
	ready <-chan struct{}
}

func (h halting) Size() int64 { return int64(len(h.data)) }
func (h halting) Open() (io.ReadCloser, error) {
	half := len(h.data) / 2
	return io.NopCloser(io.MultiReader(strings.NewReader(h.data[:half]), h, strings.NewReader(h.data[half:]))), nil
}

func (h halting) Read([]byte) (int, error) {
	<-h.ready
	return 0, io.EOF
}

// TestEarlyReply: what a server says while the message is on its way is no reply
// to the final dot. A refusal counts, whether the server then closes or goes on
// to read, since it may have none other; anything else would be believed of a
// message that may be refused yet.
func TestEarlyReply(t *testing.T) {
	for early, want := range map[string]string{
		"250 2.0.0 taken\r\n":       "failure at message content 451 4.5.0",
		"354 go on\r\n":             "failure at message content 451 4.5.0",
		"what\r\n":                  "failure at message content 451 4.5.0",
		"552 5.3.4 too big\r\n":     "552 5.3.4",
		"452 4.3.1 full\r\n":        "452 4.3.1",
		"421 4.3.2 down\r\n":        "failure at message content 421 4.3.2",
		"552 5.3.4 too big\r\n\x00": "552 5.3.4",
		"452 4.3.1 full\r\n\x00":    "452 4.3.1",
		"421 4.3.2 down\r\n\x00":    "failure at message content 421 4.3.2",
	} {
		for _, encrypted := range []bool{false, true} {
			content, ended := 0, make(chan struct{}, 1)
			said := make(chan struct{})
			end := sync.OnceFunc(func() { close(said) })
			addr := dialogue(t, encrypted, func(l string) string {
				switch {
				case l == "DATA":
					content = 1
					return "354 go\r\n"
				case content == 0:
					return "250 ok\r\n"
				case l == ".":
					ended <- struct{}{}
					return "554 5.6.0 no\r\n"
				case content == 100:
					content++
					return early
				}
				content++
				return ""
			}, func() {
				if content > 100 {
					end()
				}
			})
			body := halting{lines(1 << 20), said}
			c := dial(t, smtpclient.Options{Addr: addr, ImplicitTLS: encrypted})
			got := outcome(c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), body))
			if got != want || c.Reusable() {
				t.Errorf("%q, TLS %v: %s, want %s (reusable %v)", early, encrypted, got, want, c.Reusable())
			}
			select {
			case <-ended:
				t.Errorf("%q, TLS %v: final dot", early, encrypted)
			default:
			}
		}
	}
}

// corked is a connection on which what is written leaves before the next Read.
type corked struct {
	net.Conn
	out *bufio.Writer
}

func (c corked) Write(p []byte) (int, error) { return c.out.Write(p) }

func (c corked) Read(p []byte) (int, error) {
	if err := c.out.Flush(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// TestReplyHeldByTLS: a reply too many that arrives together with the right one,
// but in a TLS record of its own, is no reply to the next message.
func TestReplyHeldByTLS(t *testing.T) {
	addr := dialogue(t, true, func(l string) string {
		switch l {
		case "DATA":
			return "354 go\r\n"
		case ".":
			return "250 2.0.0 taken\r\n\x01" + "250 2.0.0 again\r\n"
		}
		if strings.Contains(l, ":") || strings.HasPrefix(l, "EHLO") {
			return "250 ok\r\n"
		}
		return ""
	}, nil)
	c := dial(t, smtpclient.Options{Addr: addr, ImplicitTLS: true})
	env := envelope(t, "s@y.test", "a@x.test")
	if got := outcome(c.Send(t.Context(), env, text("x\r\n"))); got != "250 2.0.0" {
		t.Fatal(got)
	}
	_, err := c.Send(t.Context(), env, text("x\r\n"))
	var f *smtpclient.Failure
	if !errors.As(err, &f) || !f.Stale() {
		t.Error(err)
	}
}

// watched counts how often somebody looks at the socket itself.
type watched struct {
	*net.TCPConn
	looks int
}

func (w *watched) SyscallConn() (syscall.RawConn, error) {
	raw, err := w.TCPConn.SyscallConn()
	return watchedRaw{raw, &w.looks}, err
}

type watchedRaw struct {
	syscall.RawConn
	looks *int
}

func (r watchedRaw) Control(f func(fd uintptr)) error {
	*r.looks++
	return r.RawConn.Control(f)
}

// TestLooks: to look whether something has arrived costs a system call. A message
// that goes out in one piece with its dot pays for one, before a connection is used
// again; the others for one more.
func TestLooks(t *testing.T) {
	s := smtptest.New(t, smtptest.Without("CHUNKING"))
	raw, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{TCPConn: raw.(*net.TCPConn)}
	c, err := smtpclient.Open(t.Context(), w, options(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	env := envelope(t, "s@y.test", "a@x.test", "b@x.test")
	for _, m := range []struct{ size, looks int }{{100, 0}, {100, 1}, {30 << 10, 1}, {100 << 10, 2}, {2 << 20, 2}} {
		w.looks = 0
		if got := outcome(c.Send(t.Context(), env, text(lines(m.size)))); !strings.HasPrefix(got, "250") || w.looks != m.looks {
			t.Errorf("%d bytes: %s, looked %d times, want %d", m.size, got, w.looks, m.looks)
		}
	}
}
