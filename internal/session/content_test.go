package session

import (
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
)

// endings are the ways in which servers were made to see an end of data where
// there is none (CVE-2023-51764 and its kin).
var endings = map[string]string{
	"LF.LF": "\n.\n", "LF.CRLF": "\n.\r\n", "CRLF.LF": "\r\n.\n", "CR.CR": "\r.\r", "CR.CRLF": "\r.\r\n", "LF.CR": "\n.\r",
	"CRLF.CR": "\r\n.\r", "CRLF NUL.CRLF": "\r\n\x00.\r\n",
}

const smuggled = "MAIL FROM:<evil@x.test>\r\nRCPT TO:<v@here.test>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n"

// TestSmuggling: after a bad ending nothing is accepted, nothing that follows is
// executed, and the connection is closed.
func TestSmuggling(t *testing.T) {
	for name, ending := range endings {
		for _, how := range []string{"DATA", "BDAT", "DATA TLS", "BDAT TLS", "DATA slow"} {
			t.Run(name+" "+how, func(t *testing.T) {
				r := newRig(t, false)
				c := r.hello()
				if strings.HasSuffix(how, "TLS") {
					c.cmd("STARTTLS", "220")
					c.startTLS(r.pool)
					c.cmd("EHLO client.test", "250-")
				}
				c.envelope()
				content := "Subject: first\r\n\r\nbody" + ending + smuggled
				if strings.HasPrefix(how, "BDAT") {
					content = "Subject: first\r\n\r\nbody" + ending
					c.send("BDAT " + strconv.Itoa(len(content)) + " LAST\r\n" + content + smuggled + "QUIT\r\n")
				} else {
					c.cmd("DATA", "354")
					content += "\r\n.\r\nQUIT\r\n"
					if how == "DATA slow" {
						for i := range len(content) {
							if _, err := io.WriteString(c.conn, content[i:i+1]); err != nil {
								break // closed, as it should be
							}
						}
					} else {
						c.send(content)
					}
				}
				if name == "CRLF NUL.CRLF" { // only content: one message, and then what follows it is seen
					c.want("250 ")
					got := r.intake.messages()
					if strings.HasPrefix(how, "BDAT") {
						c.want("250 2.1.0")
						return
					}
					if len(got) != 1 || !strings.Contains(got[0].raw, "Subject: smuggled") {
						t.Fatalf("got %d messages", len(got))
					}
					return
				}
				c.want("554 5.6.11 Bare CR or LF")
				c.closed()
				if n := len(r.intake.messages()); n != 0 || r.hooks.count(hook.OnMail) != 1 {
					t.Fatalf("%d messages, %d MAIL", n, r.hooks.count(hook.OnMail))
				}
			})
		}
	}
}

// TestBDAT: also that a CR may end one chunk and its LF begin the next, but not end
// the last.
func TestBDAT(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	chunk := func(data, last, want string) {
		t.Helper()
		c.send("BDAT " + strconv.Itoa(len(data)) + last + "\r\n" + data)
		c.want(want)
	}
	c.envelope()
	chunk("Subject: x\r", "", "250 2.0.0")
	chunk("\n\r\n.\r\nbo", "", "250 2.0.0")
	chunk("", "", "250 2.0.0")
	c.cmd("MAIL FROM:<x@y.test>", "503 5.5.1")
	c.cmd("RCPT TO:<x@y.test>", "503 5.5.1")
	c.cmd("DATA", "503 5.5.1")
	c.cmd("NOOP", "250")
	chunk("dy", " last", "250 2.0.0 Message Queued")
	if m := r.intake.messages(); len(m) != 1 || !strings.HasSuffix(m[0].raw, "\r\nSubject: x\r\n\r\n.\r\nbody\r\n") || m[0].tx.Size != 21 {
		t.Fatalf("%+v", m)
	}
	chunk("after", " LAST", "503 5.5.1 MAIL required")
	c.envelope()
	chunk("", " LAST", "250 2.0.0 Message Queued")
	c.envelope()
	chunk("a", "", "250")
	c.cmd("RSET", "250")
	chunk("b", " LAST", "503")
	c.envelope()
	chunk("a", "", "250")
	c.cmd("EHLO again", "250")
	if r.hooks.count(hook.OnResetTransaction) != 4 || r.intake.held() != 0 {
		t.Error("transactions are left")
	}
	c = r.hello()
	// A last line without its end gets one, and a header without body no empty line of a body.
	for data, want := range map[string]string{
		"Subject: x": "Subject: x\r\n\r\n", "Subject: x\r\n": "Subject: x\r\n\r\n", "Subject: x\r\n folded": "Subject: x\r\n folded\r\n\r\n",
		"Subject: x\r\n\r\n": "Subject: x\r\n\r\n", "Subject: x\r\n\r\n\r\n": "Subject: x\r\n\r\n\r\n", "Subject: x\r\n\r\ny": "Subject: x\r\n\r\ny\r\n", "y": "\r\ny\r\n",
	} {
		c.envelope()
		chunk(data, " LAST", "250 2.0.0 Message Queued")
		all := r.intake.messages()
		raw := all[len(all)-1].raw
		_, rest, _ := strings.Cut(raw, ";\r\n\t") // the date ends our trace field
		if _, got, _ := strings.Cut(rest, "\r\n"); got != want {
			t.Errorf("%q is %q, want %q", data, got, want)
		}
	}
	// Pipelined: everything is answered in order.
	c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<a@b.test>\r\nBDAT 3\r\na\r\nBDAT 2 LAST\r\n\r\nMAIL FROM:<c@b.test>\r\nQUIT\r\n")
	for _, want := range []string{"250 2.1.0", "250 2.1.5", "250 2.0.0 Continue", "250 2.0.0 Message", "250 2.1.0", "221"} {
		c.want(want)
	}
	c.closed()

	for _, bad := range []string{"BDAT", "BDAT x", "BDAT -1", "BDAT 1 FIRST", "BDAT 1 LAST x", "BDAT 99999999999999999999", "BDAT 9000000000000000000"} {
		c := r.hello()
		c.envelope()
		c.cmd(bad+"\r\nMAIL FROM:<evil@x.test>", "501 5.5.4")
		c.closed()
	}
	c = r.hello()
	c.envelope()
	chunk("x\r", " LAST", "554 5.6.11")
	c.closed()
}

// TestTooBig: the session goes on, and the transaction is gone.
func TestTooBig(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	big := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 16<<10)
	c.message(big+".\r\n", "552 5.3.4 Message too big!")
	c.cmd("DATA", "503")
	c.cmd("RCPT TO:<a@b.test>", "503")
	c.envelope()
	c.send("BDAT " + strconv.Itoa(len(big)) + "\r\n" + big)
	c.want("552 5.3.4")
	c.cmd("BDAT 2 LAST\r\n", "503")
	c.envelope()
	half := big[:700<<10]
	for _, want := range []string{"250 2.0.0", "552 5.3.4"} {
		c.send("BDAT " + strconv.Itoa(len(half)) + "\r\n" + half)
		c.want(want)
	}
	c.message("Subject: x\r\n\r\n"+strings.Repeat("y", 900<<10)+"\r\n.\r\n", "250") // one long line
	if len(r.intake.messages()) != 1 || r.hooks.count(hook.OnMaxDataExceeded) != 3 {
		t.Error("not as expected")
	}
}

// TestVanish: a client that leaves in the middle of content leaves nothing.
func TestVanish(t *testing.T) {
	for name, part := range map[string]string{
		"DATA": "DATA\r\nSubject: x\r\n\r\nhalf\r\n", "DATA dot": "DATA\r\nSubject: x\r\n\r\nhalf\r\n.", "BDAT": "BDAT 100 LAST\r\nSubject: x\r\n\r\nhalf\r\n",
		"between chunks": "BDAT 2\r\n\r\n", "command": "MAIL FROM:<x", "DATA dot CR": "DATA\r\n.\r",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, false)
			c := r.hello()
			c.envelope()
			c.send(part)
			c.conn.Close()
			for r.hooks.count(hook.OnDisconnect) == 0 {
				pause()
			}
			if n := r.hooks.count(hook.OnResetTransaction); n != 1 || len(r.intake.messages()) != 0 {
				t.Errorf("%d resets, %d messages", n, len(r.intake.messages()))
			}
		})
	}
}

// received is the trace field of this server, wherever it stands on the earth.
var received = regexp.MustCompile(`^Received: from client\.test [^\r]*(?:\r\n\t[^\r]*)*, \d+ [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\r\n`)

func TestHeaderSection(t *testing.T) {
	for name, tc := range map[string]struct{ in, want, reply string }{
		"plain":          {"A: b\r\n\r\nbody\r\n", "A: b\r\n\r\nbody\r\n", ""},
		"no body":        {"A: b\r\n", "A: b\r\n\r\n", ""},
		"empty":          {"", "\r\n", ""},
		"only the line":  {"\r\n", "\r\n", ""},
		"no header":      {"hello\r\nworld\r\n", "\r\nhello\r\nworld\r\n", ""},
		"no empty line":  {"A: b\r\nhello\r\n\r\nworld\r\n", "A: b\r\n\r\nhello\r\n\r\nworld\r\n", ""},
		"fold first":     {" x\r\nA: b\r\n\r\nbody\r\n", "\r\n x\r\nA: b\r\n\r\nbody\r\n", ""},
		"auth results":   {"Authentication-Results: mx.test; spf=pass\r\nB: c\r\n\r\n", "B: c\r\nOriginal-Authentication-Results: mx.test; spf=pass\r\n\r\n", ""},
		"loop":           {strings.Repeat("Received: x\r\n", 100) + "\r\n", "", "550 5.4.6"},
		"almost a loop":  {strings.Repeat("Received: x\r\n", 99) + "\r\n", strings.Repeat("Received: x\r\n", 99) + "\r\n", ""},
		"endless header": {strings.Repeat("A: "+strings.Repeat("b", 900)+"\r\n", 1200), "", "552 5.3.4"},
		"long, no empty line": {
			"A: b\r\n" + strings.Repeat(strings.Repeat("b", 900)+"\r\n", 1300), "A: b\r\n\r\n" + strings.Repeat(strings.Repeat("b", 900)+"\r\n", 1300), "",
		},
	} {
		for _, add := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, false, func(o *Options) { o.MaxBytes = 10 << 20; o.AddReceived = add })
				if !add && name == "loop" {
					tc.in = "Received: x\r\n" + tc.in
				}
				c := r.hello()
				if tc.reply != "" {
					c.message(strings.ReplaceAll(tc.in, "\r\n.", "\r\n..")+".\r\n", tc.reply)
					c.message("\r\n.\r\n", "250")
					return
				}
				c.message(tc.in+".\r\n", "250")
				m := r.intake.messages()[0]
				got := m.raw
				if add {
					trace := received.FindString(got)
					if trace == "" || !m.tx.Header.Has("Received") {
						t.Fatalf("no trace in %.1000q", got)
					}
					got = got[len(trace):]
				}
				if got != tc.want {
					t.Errorf("got %.300q, want %.300q", got, tc.want)
				}
				if h, n, complete := mail.ParseHeader([]byte(m.head)); !complete || n != len(m.head) || h.Len() != m.tx.Header.Len() {
					t.Errorf("HeaderSize cuts at %.200q", m.head)
				}
			})
		}
	}
}
