package smtpclient_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// FuzzClient speaks to a server that says anything: the input, of which a part
// is sent for each write of the client's. Whatever it says, there is an answer
// in time, a positive one only if the server had the whole message, and never a
// permanent one but by a reply of class 5.
func FuzzClient(f *testing.F) {
	const ehlo = "250-x\r\n250-PIPELINING\r\n250-SIZE\r\n250-CHUNKING\r\n250-XFORWARD NAME ADDR\r\n250-XCLIENT NAME\r\n250 AUTH PLAIN LOGIN CRAM-MD5\r\n"
	for _, s := range []string{
		"220 x\r\n|250 x\r\n|250 ok\r\n|250 ok\r\n|354 go\r\n|250 taken\r\n",
		"220 x\r\n|" + ehlo + "|235 ok\r\n|220 x\r\n|" + ehlo + "|235 ok\r\n|250 ok\r\n250 ok\r\n354 go\r\n|250 taken\r\n",
		"220 x\r\n|" + ehlo + "|334 \r\n|235 ok\r\n|250 ok\r\n550 no\r\n354 go\r\n|250 ok\r\n",
		"220 x\r\n|" + ehlo + "|235 ok\r\n|250 ok\r\n|250 ok\r\n|250 chunk\r\n|250 taken\r\n",
		"220 x\r\n|500 x\r\n|250 x\r\n|250 ok\r\n|250 ok\r\n|421 bye\r\n",
		"220-x\r\n220 y\r\n|250-x\r\n250 STARTTLS\r\n|220 go\r\n|\x16\x03\x01\r\n",
		"554 no\r\n", "220 x", "\x00\xff\r\n", "250 x\r\n|", "220 x\r\n|" + ehlo + "|235 ok\r\n|550 no\r\n503 no\r\n503 no\r\n|250 again\r\n",
	} {
		for _, how := range []uint8{0, 1, 2, 4, 8, 12, 24, 28, 40, 44, 30} {
			f.Add([]byte(s), how)
		}
	}
	small, big := text(message), text(lines(1<<20))
	f.Fuzz(func(t *testing.T, script []byte, how uint8) {
		synctest.Test(t, func(t *testing.T) { fuzzClient(t, script, how, small, big) })
	})
}

// refusal is what a permanent reply comes of.
var refusal = regexp.MustCompile(`(^|[\n|])5|(?i)size`)

func fuzzClient(t *testing.T, script []byte, how uint8, small, big mail.Content) {
	ours, theirs := net.Pipe()
	o := smtpclient.Options{Addr: "127.0.0.1:25", Helo: "me.test", TLS: smtpclient.TLSPolicy(how & 1), Protocol: mail.Protocol(how >> 1 & 1)}
	o.CommandTimeout, o.DataTimeout, o.BlockTimeout, o.SubmissionTimeout = time.Second, time.Second, time.Second, time.Second
	if how&4 != 0 {
		o.AuthUser, o.AuthPass = "u", "p"
	}
	body := small
	if how&8 != 0 {
		body, o.Forwards = big, mail.ForwardsOrigin(how>>4%3)
	}
	seen := make(chan []byte)
	go func() {
		var got bytes.Buffer
		defer func() { seen <- got.Bytes() }()
		defer theirs.Close()
		buf := make([]byte, 64<<10)
		for part := range bytes.SplitSeq(script, []byte("|")) {
			theirs.SetWriteDeadline(time.Now().Add(time.Second / 5))
			if _, err := theirs.Write(part); err != nil && !errors.Is(err, net.ErrClosed) {
				// The client writes too: read on.
				part = nil
			}
			theirs.SetReadDeadline(time.Now().Add(time.Second))
			for { // what is written at once, and on a pipe comes in pieces
				n, err := theirs.Read(buf)
				got.Write(buf[:n])
				if err != nil {
					break
				}
				theirs.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
			}
		}
	}()
	e := envelope(t, "s@y.test", "a@x.test", "b@x.test")
	e.Origin = &mail.Origin{Name: "far.test"}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var res smtpclient.Result
	c, err := smtpclient.Open(ctx, ours, o)
	if err == nil {
		res, err = c.Send(ctx, e, body)
		c.Close()
	}
	got := <-seen
	if ctx.Err() != nil {
		t.Fatal("no answer in time")
	}
	if err != nil {
		var f *smtpclient.Failure
		if r := reply.From(err); !errors.As(err, &f) || !r.Temporary() || r.Status()[0] != 4 || strings.ContainsAny(r.Text, "\r\x00") {
			t.Fatalf("%v", err)
		}
		return
	}
	for _, r := range res.Replies {
		switch {
		case r == nil:
			t.Fatal("a recipient without a reply")
		case r.Permanent() && !refusal.Match(script):
			t.Fatalf("%v", r)
		case r.Positive() && !bytes.Contains(got, []byte("\r\n.\r\n")) && !bytes.Contains(got, []byte("LAST\r\n")):
			t.Fatalf("%v, and the message was not sent: %q", r, got)
		}
	}
}
