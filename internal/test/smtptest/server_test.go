package smtptest_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/smtp"
	"reflect"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/smtptest"
)

// TestOtherClient speaks to the server with the standard library's client.
func TestOtherClient(t *testing.T) {
	s := smtptest.New(t, smtptest.TLS(), smtptest.Credentials("u", "p"),
		smtptest.On(smtptest.Rcpt, smtptest.For(smtptest.Reply("550 5.1.1 no"), "bad@x.test")))
	c, err := smtp.Dial(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(c.Hello("client.test"))
	check(c.StartTLS(&tls.Config{ServerName: "localhost", RootCAs: s.Roots()}))
	check(c.Auth(smtp.PlainAuth("", "u", "p", "127.0.0.1")))
	check(c.Mail("s@y.test"))
	check(c.Rcpt("good@x.test"))
	if err := c.Rcpt("bad@x.test"); err == nil || !strings.HasPrefix(err.Error(), "550") {
		t.Error(err)
	}
	w, err := c.Data()
	check(err)
	io.WriteString(w, "Subject: x\r\n\r\n.dot\r\n")
	check(w.Close())
	check(c.Quit())
	s.WaitOpen(0)
	want := []smtptest.Transaction{{
		Conn: 1, Number: 1, Verb: "EHLO", Helo: "client.test", TLS: true, User: "u", From: "s@y.test",
		Params: map[string]string{"BODY": "8BITMIME", "SMTPUTF8": ""},
		Rcpts: []smtptest.Recipient{
			{Address: "good@x.test", Params: map[string]string{}, Reply: "250 2.1.5 recipient ok", Final: "250 2.0.0 queued"},
			{Address: "bad@x.test", Params: map[string]string{}, Reply: "550 5.1.1 no", Final: "250 2.0.0 queued"},
		},
		Content: []byte("Subject: x\r\n\r\n.dot\r\n"),
	}}
	got := s.WaitMessages(1)
	if !strings.HasPrefix(got[0].Remote, "127.0.0.1:") {
		t.Errorf("from %q", got[0].Remote)
	}
	got[0].Remote = ""
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := want[0].Accepted(); !reflect.DeepEqual(got, []string{"good@x.test"}) {
		t.Error(got)
	}
	if v := s.Violations(); len(v) > 0 {
		t.Error(v)
	}
}

// TestViolations: what a client does wrong is noticed.
func TestViolations(t *testing.T) {
	for said, want := range map[string]string{
		"EHLO x\r\nQUIT\r\n":  "pipelined",
		"EHLO x\n":            "bad command line",
		"LHLO x\r\n":          "LHLO",
		"MAIL FROM:<a@x>\r\n": "MAIL before EHLO",
		"EHLO x|MAIL FROM:<a@x>|MAIL FROM:<a@x>|":                  "MAIL inside",
		"EHLO x|MAIL FROM:<a@x> SIZE=1|":                           "SIZE is not offered",
		"EHLO x|MAIL FROM:a@x|":                                    "syntax",
		"EHLO x|BDAT 1\r\nx":                                       "CHUNKING is not offered",
		"EHLO x|XFORWARD NAME=x|":                                  "XFORWARD is not offered",
		"EHLO x|XCLIENT NAME=x|":                                   "XCLIENT is not offered",
		"EHLO x|FROB|":                                             "unknown command",
		"EHLO x|MAIL FROM:<>|RCPT TO:<a@x>|DATA|a\nb\r\n.\r\n":     "bare CR or LF",
		"EHLO x|MAIL FROM:<>|RCPT TO:<a@x>|DATA|a\r\n.\r\r\n.\r\n": "bare CR or LF",
		"EHLO x|MAIL FROM:<>|RCPT TO:<a@x>|DATA|a\n.\nMAIL FROM:<b>\r\n\r\n.\r\n": "bare CR or LF",
	} {
		t.Run(want, func(t *testing.T) {
			s := smtptest.New(t, smtptest.Extensions())
			c, err := net.Dial("tcp", s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			buf := make([]byte, 4096)
			c.Read(buf)
			for line := range strings.SplitAfterSeq(said, "|") {
				if line == "" {
					continue
				}
				io.WriteString(c, strings.Replace(line, "|", "\r\n", 1))
				if _, err := c.Read(buf); err != nil {
					t.Fatal(err)
				}
			}
			if v := strings.Join(s.Violations(), "; "); !strings.Contains(v, want) {
				t.Errorf("violations %q, want %q", v, want)
			}
			if n := len(s.Messages()); n > 1 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// TestChunks: what BDAT brings is a message like any other, and XCLIENT and
// XFORWARD are told about it.
func TestChunks(t *testing.T) {
	for _, tc := range []struct {
		name, said string
		want       int    // messages
		content    string // of the message
		violation  string
	}{
		{name: "one chunk", said: "BDAT 3 LAST\r\na\r\n", want: 1, content: "a\r\n"},
		{name: "three", said: "BDAT 4\r\n.\r\na|BDAT 1\r\n\r|BDAT 1 LAST\r\n\n", want: 1, content: ".\r\na\r\n"},
		{name: "empty last", said: "BDAT 3\r\na\r\n|BDAT 0 LAST\r\n", want: 1, content: "a\r\n"},
		{name: "bare LF", said: "BDAT 2 LAST\r\na\n", want: 1, content: "a\n", violation: "bare CR or LF"},
		{name: "no number", said: "BDAT x\r\n", violation: "syntax"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := smtptest.New(t, smtptest.With("CHUNKING", "XFORWARD NAME ADDR", "XCLIENT NAME LOGIN"))
			c := speak(t, s.Addr(), "EHLO x\r\n|XCLIENT NAME=[UNAVAILABLE] LOGIN=a+2Bb+40c\r\n|EHLO y\r\n|XFORWARD NAME=x.test\r\n|XFORWARD ADDR=192.0.2.1\r\n|"+
				"MAIL FROM:<a@x>\r\n|RCPT TO:<b@x>\r\n|"+tc.said)
			c.Close()
			s.WaitOpen(0)
			got := s.Messages()
			if len(got) != tc.want {
				t.Fatalf("%+v", got)
			}
			if v := strings.Join(s.Violations(), "; "); !strings.Contains(v, tc.violation) || tc.violation == "" && v != "" {
				t.Errorf("violations %q, want %q", v, tc.violation)
			}
			if tc.want == 0 {
				return
			}
			x := got[0]
			if string(x.Content) != tc.content || x.Chunks != 1+strings.Count(tc.said, "|") || x.Helo != "y" {
				t.Errorf("%+v", x)
			}
			if want := map[string]string{"NAME": "[UNAVAILABLE]", "LOGIN": "a+b@c"}; !reflect.DeepEqual(x.XClient, want) {
				t.Errorf("XCLIENT %q", x.XClient)
			}
			if want := map[string]string{"NAME": "x.test", "ADDR": "192.0.2.1"}; !reflect.DeepEqual(x.XForward, want) {
				t.Errorf("XFORWARD %q", x.XForward)
			}
		})
	}
}

// A chunk that is refused ends its transaction: what follows is refused too.
func TestRefusedChunk(t *testing.T) {
	s := smtptest.New(t, smtptest.With("CHUNKING"), smtptest.On(smtptest.Chunk, smtptest.First(1, smtptest.Reply("452 4.3.1 full"))))
	speak(t, s.Addr(), "EHLO x\r\n|MAIL FROM:<a@x>\r\n|RCPT TO:<b@x>\r\n|BDAT 1\r\na|BDAT 2 LAST\r\n\r\n|QUIT\r\n")
	s.WaitOpen(0)
	if got := s.Transactions(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// CRAM-MD5 as RFC 2195 has it.
func TestCramMD5(t *testing.T) {
	s := smtptest.New(t, smtptest.Credentials("tim", "tanstaaftanstaaf"), smtptest.Mechanisms("CRAM-MD5"))
	c, err := smtp.Dial(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Auth(smtp.CRAMMD5Auth("tim", "wrong")); err == nil || !strings.HasPrefix(err.Error(), "535") {
		t.Errorf("wrong password: %v", err)
	}
	if c, err = smtp.Dial(s.Addr()); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Auth(smtp.CRAMMD5Auth("tim", "tanstaaftanstaaf")); err != nil {
		t.Error(err)
	}
}

// speak sends the parts of said, which stand between bars, and reads something
// after each.
func speak(t *testing.T, addr, said string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 4096)
	c.Read(buf)
	for part := range strings.SplitSeq(said, "|") {
		io.WriteString(c, part)
		if _, err := c.Read(buf); err != nil {
			t.Fatalf("after %q: %v", part, err)
		}
	}
	return c
}
