package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// dialog is an SMTP conversation by hand.
type dialog struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// connect opens a connection and says nothing.
func connect(t *testing.T, addr string) *dialog {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newDialog(t, c)
}

func newDialog(t *testing.T, c net.Conn) *dialog {
	c.SetDeadline(time.Now().Add(patience))
	return &dialog{c, t, bufio.NewReader(c)}
}

// dial opens a connection and says EHLO.
func dial(t *testing.T, addr string) *dialog {
	t.Helper()
	d := connect(t, addr)
	d.expect("220")
	d.say("EHLO client.test", "250")
	return d
}

// say sends one line and expects a reply that begins with code.
func (d *dialog) say(line, code string) string {
	d.t.Helper()
	d.send(line + "\r\n")
	return d.expect(code)
}

// send writes bytes as they are. The server may close meanwhile.
func (d *dialog) send(raw string) {
	d.t.Helper()
	if _, err := io.WriteString(d, raw); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		d.t.Fatalf("the server does not read: %v", err)
	}
}

// expect reads a reply and fails unless it begins with code.
func (d *dialog) expect(code string) string {
	d.t.Helper()
	reply, err := d.reply()
	if err != nil || !strings.HasPrefix(reply, code) {
		d.t.Fatalf("reply %q (%v), want %s", reply, err, code)
	}
	return reply
}

// reply reads one whole reply.
func (d *dialog) reply() (string, error) {
	var all strings.Builder
	for {
		line, err := d.r.ReadString('\n')
		all.WriteString(line)
		if err != nil || len(line) < 4 || line[3] != '-' {
			return all.String(), err
		}
	}
}

// rest reads until the server closes and fails if it does not.
func (d *dialog) rest() string {
	d.t.Helper()
	all, err := io.ReadAll(d.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		d.t.Fatalf("the server did not close; it said %q", all)
	}
	return string(all)
}

// mail sends one message, whose content ends with CRLF, and returns the reply
// to its final dot.
func (d *dialog) mail(from, to, content string) string {
	d.t.Helper()
	d.say("MAIL FROM:<"+from+">", "250")
	d.say("RCPT TO:<"+to+">", "250")
	d.say("DATA", "354")
	d.send(content + ".\r\n")
	reply, err := d.reply()
	if err != nil {
		d.t.Fatal(err)
	}
	return reply
}

// secure does a TLS handshake and returns the conversation inside it, or nil
// when the server ended the connection instead.
func secure(d *dialog) *dialog {
	d.t.Helper()
	c := tls.Client(d.Conn, &tls.Config{InsecureSkipVerify: true}) // the certificate is the test's own
	if err := c.Handshake(); err != nil {
		d.t.Logf("no TLS: %v", err)
		return nil
	}
	return &dialog{c, d.t, bufio.NewReader(c)}
}

// letter sends one message over a session of its own and returns the first
// reply that refuses it, or that to its final dot. The content is as it goes
// over the wire. It may be called from any goroutine.
func letter(addr, to, content string) (string, error) {
	return letterFrom(addr, "127.0.0.1", "from@client.test", to, content)
}

// letterFrom is letter from another address and another sender.
func letterFrom(addr, ip, from, to, content string) (string, error) {
	local := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := local.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	d := &dialog{Conn: c, r: bufio.NewReader(c)}
	w := bufio.NewWriterSize(c, 64<<10) // large contents are not copied as a whole
	reply, err := d.reply()
	for _, step := range []struct{ say, end, want string }{
		{"EHLO client.test", "\r\n", "2"},
		{"MAIL FROM:<" + from + ">", "\r\n", "2"},
		{"RCPT TO:<" + to + ">", "\r\n", "2"},
		{"DATA", "\r\n", "2"},
		{content, ".\r\n", "3"},
	} {
		if err != nil || !strings.HasPrefix(reply, step.want) {
			return reply, err
		}
		_, _ = w.WriteString(step.say)
		_, _ = w.WriteString(step.end)
		if err = w.Flush(); err != nil {
			return "", err
		}
		reply, err = d.reply()
	}
	return reply, err
}
