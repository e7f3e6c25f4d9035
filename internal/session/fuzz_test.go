package session

import (
	"bytes"
	"context"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"tarishi/internal/hook"
)

// exchanged is what a session made of some input.
type exchanged struct {
	transcript string
	messages   string
	hooks      string
}

var uuid = regexp.MustCompile(`[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}`)

// converse sends input in pieces of the sizes in cut over a loopback socket,
// says that no more comes, and collects everything.
func converseWith(t *testing.T, l net.Listener, input, cut []byte) exchanged {
	r := prepare(t, func(o *Options) { o.TLSConfig, o.AddReceived, o.BannerChars = nil, false, 0 })
	r.hooks.set(hook.OnCapabilities, func(e *hook.Event) hook.Verdict {
		e.Conn.OfferAuth(users{mechs: []string{"PLAIN", "LOGIN"}})
		return hook.Proceed()
	})
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = client.SetDeadline(time.Now().Add(time.Minute))
	served := make(chan struct{})
	go func() {
		defer close(served)
		r.srv.Serve(context.Background(), server, false)
	}()
	go func() {
		for i := 0; len(input) > 0; i++ {
			n := len(input)
			if len(cut) > 0 {
				n = min(n, int(cut[i%len(cut)])+1)
			}
			if _, err := client.Write(input[:n]); err != nil {
				return
			}
			input = input[n:]
		}
		_ = client.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(client)
	if err != nil {
		t.Fatalf("after %q: %v", got, err)
	}
	<-served
	var x exchanged
	x.transcript = uuid.ReplaceAllString(string(got), "UUID")
	for _, m := range r.intake.messages() {
		x.messages += m.tx.From.Path() + "|" + m.raw + "\x00"
	}
	for _, p := range r.hooks.trail() {
		x.hooks += string(p) + " "
	}
	r.finish()
	for line := range strings.SplitSeq(strings.TrimSuffix(x.transcript, "\r\n"), "\r\n") {
		if len(line) < 4 || line[0] < '2' || line[0] > '5' || strings.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("%q is no reply line", line)
		}
	}
	return x
}

// FuzzSession: what a session does with a byte stream does not depend on how
// the stream is cut into segments, and it neither panics nor leaves anything.
func FuzzSession(f *testing.F) {
	const env = "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
	for _, e := range endings {
		f.Add([]byte(env+"DATA\r\nA: b\r\n\r\nx"+e+smuggled+"\r\n.\r\nQUIT\r\n"), []byte{0, 3, 1})
	}
	for _, s := range []string{
		env + "BDAT 5\r\na\r\nb\rBDAT 3 LAST\r\n\nc\nMAIL FROM:<x@y.test>\r\nQUIT\r\n",
		env + "BDAT 4\r\na\r\n\rBDAT 1 LAST\r\n\nNOOP\r\n" + env + "BDAT 9 LAST\r\nshort",
		env + env + "RSET\r\nDATA\r\nNOOP\r\nBDAT 0 LAST\r\nBDAT 3\r\nabcBDAT x\r\nNOOP\r\n",
		"GET / HTTP/1.1\r\n" + env, "\x16\x03\x01", env + "\x16NOOP\r\n", strings.Repeat("x", 3000),
		"EHLO x\r\nAUTH LOGIN\r\nDATA\r\nQUIT\r\nAUTH PLAIN\r\n*\r\nAUTH PLAIN AHVzZXIAc2VjcmV0\r\n" + env + "DATA\r\n.\r\n",
		"HELO x\r\nMAIL FROM:<\xff@y>\r\nVRFY \xff\r\nEXPN\r\n\r\n \r\nX\r\nSTARTTLS\r\n" + env + "RCPT TO:<\"a\\\"b\"@c.test>\r\nDATA\r\n..\r\n.\r\n",
		env + "DATA\r\n" + strings.Repeat("A: b\r\n", 20) + ".\r\n.\r\n.\r\n", "NOOP\nNOOP\r\r\nNOOP\r\n\r\n\r\n", "X\r\rB\r\n\x01\x02\x03\x04\r\nQUIT\r\nNOOP\r\n",
	} {
		f.Add([]byte(s), []byte{0})
		f.Add([]byte(s), []byte{6, 0, 2})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, input, cut []byte) {
		if len(input) > 4096 {
			return
		}
		whole := converseWith(t, l, input, nil)
		if pieces := converseWith(t, l, input, cut); whole != pieces {
			t.Fatalf("%q\nin one piece: %+v\ncut by %v: %+v", input, whole, cut, pieces)
		}
	})
}

// FuzzVerbs: any order of commands leaves the session in order.
func FuzzVerbs(f *testing.F) {
	lines := []string{
		"EHLO x\r\n", "HELO x\r\n", "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<c@d.test>\r\n", "DATA\r\n", "DATA\r\nA: b\r\n\r\nx\r\n.\r\n", "BDAT 2\r\n\r\n",
		"BDAT 2 LAST\r\n\r\n", "BDAT 0 LAST\r\n", "BDAT 1\r\n\r", "BDAT 1\r\n\n", "RSET\r\n", "NOOP\r\n", "AUTH LOGIN\r\n", "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n", "*\r\n",
		"STARTTLS\r\n", "VRFY x\r\n", ".\r\n", "QUIT\r\n", "LHLO x\r\n", "MAIL FROM:<>\r\n", "RCPT TO:<postmaster>\r\n", "\xff\r\n",
	}
	f.Add([]byte{0, 2, 3, 5, 2, 3, 6, 7, 8, 11, 2, 3, 9, 10, 8, 19})
	f.Add([]byte{0, 13, 4, 15, 14, 14, 2, 3, 9, 7})
	f.Add([]byte{0, 14, 0, 2, 19, 2, 3, 5, 19, 19})
	f.Add([]byte{1, 2, 3, 6, 0, 7, 2, 3, 6, 2, 3, 5, 4, 18})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, order []byte) {
		var input bytes.Buffer
		for _, i := range order[:min(len(order), 100)] {
			input.WriteString(lines[int(i)%len(lines)])
		}
		converseWith(t, l, input.Bytes(), nil)
	})
}
