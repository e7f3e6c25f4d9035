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

	"tarishi/internal/smtptest"
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
	if got := s.WaitMessages(1); !reflect.DeepEqual(got, want) {
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
		"EHLO x|MAIL FROM:<a@x>|MAIL FROM:<a@x>|":                                 "MAIL inside",
		"EHLO x|MAIL FROM:<a@x> SIZE=1|":                                          "SIZE is not offered",
		"EHLO x|MAIL FROM:a@x|":                                                   "syntax",
		"EHLO x|FROB|":                                                            "unknown command",
		"EHLO x|MAIL FROM:<>|RCPT TO:<a@x>|DATA|a\nb\r\n.\r\n":                    "bare CR or LF",
		"EHLO x|MAIL FROM:<>|RCPT TO:<a@x>|DATA|a\r\n.\r\r\n.\r\n":                "bare CR or LF",
		"EHLO x|MAIL FROM:<>|RCPT TO:<a@x>|DATA|a\n.\nMAIL FROM:<b>\r\n\r\n.\r\n": "bare CR or LF",
	} {
		t.Run(want, func(t *testing.T) {
			s := smtptest.New(t, smtptest.Extensions())
			c, err := net.Dial("tcp", s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
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
