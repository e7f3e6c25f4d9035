package e2e

import (
	"fmt"
	"strings"
	"testing"

	"tarishi/internal/test/load"
)

// endings are what careless servers take for the end of the content, and what
// follows them for commands. The last is no line end at all.
var endings = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\n.\r", "\r\n.\r", "\r\n\x00.\r\n",
}

// No ending but CRLF.CRLF ends a message, on any way through the daemon: at
// most one message arrives, whose bytes hold no lone CR or LF, and the
// connection of one who tries is closed.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"relay", "queue"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := sink(t, load.SinkOptions{Keep: true})
			config := relayTo(s.Port())
			if way == "queue" {
				config = queueTo(t, s.Port(), "")
			}
			d := Start(t, config)
			for i, ending := range endings {
				for _, pipelined := range []bool{false, true} {
					before := len(s.Messages())
					name := fmt.Sprintf("%q, pipelined %v", ending, pipelined)
					c := dial(t, d.Addr())
					said := smuggle(c, ending, pipelined)
					lone := i < len(endings)-1
					if lone && !strings.HasPrefix(said, "5") {
						t.Errorf("%s: the server said %q", name, said)
					}
					if taken := strings.Count("\n"+said, "\n250"); taken > 1 { // an identifier may have a 250 as well
						t.Errorf("%s: more than one message was taken: %q", name, said)
					}
					if strings.HasPrefix(said, "250") {
						eventually(t, "the message", func() bool { return len(s.Messages()) > before })
					}
					if lone && len(s.Messages()) != before {
						t.Errorf("%s: a message with a lone CR or LF arrived", name)
					}
				}
			}
			// What was smuggled would have gone to this sink, before this message.
			c := dial(t, d.Addr())
			if reply := c.mail("from@client.test", "last@sink.test", oneMessage); !strings.HasPrefix(reply, "250") {
				t.Fatalf("a good message: %q", reply)
			}
			eventually(t, "the last message", func() bool {
				m := s.Messages()
				return len(m) > 0 && m[len(m)-1].Recipients[0] == "last@sink.test"
			})
			for _, m := range s.Messages() {
				if strings.Contains(m.From, "smuggler") || strings.Contains(strings.Join(m.Recipients, " "), "smuggled") {
					t.Errorf("smuggled: %+v", m)
				}
				if loneCRLF(m.Content) {
					t.Errorf("lone CR or LF relayed: %q", m.Content)
				}
			}
		})
	}
}

// smuggle sends a message with another behind a false ending and returns what
// the server said to it, up to the end of the connection.
func smuggle(c *dialog, ending string, pipelined bool) string {
	c.t.Helper()
	content := "Subject: outer\r\n\r\nouter" + ending +
		"MAIL FROM:<smuggler@client.test>\r\nRCPT TO:<smuggled@sink.test>\r\nDATA\r\nSubject: smuggled\r\n\r\ninner\r\n.\r\nQUIT\r\n"
	if pipelined {
		c.send("MAIL FROM:<from@client.test>\r\nRCPT TO:<to@sink.test>\r\nDATA\r\n")
		c.expect("250")
		c.expect("250")
		c.expect("354")
	} else {
		c.say("MAIL FROM:<from@client.test>", "250")
		c.say("RCPT TO:<to@sink.test>", "250")
		c.say("DATA", "354")
	}
	c.send(content)
	return c.rest()
}

// BDAT counts bytes, so that no ending can be smuggled into it; but what it
// carries goes out with DATA and must hold no lone CR or LF there.
func TestSmugglingWithBDAT(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{Keep: true})
	d := Start(t, relayTo(s.Port()))
	for _, ending := range endings {
		c := dial(t, d.Addr())
		c.say("MAIL FROM:<from@client.test>", "250")
		c.say("RCPT TO:<to@sink.test>", "250")
		content := "Subject: outer\r\n\r\nouter" + ending + "MAIL FROM:<smuggler@client.test>\r\nRCPT TO:<smuggled@sink.test>\r\nDATA\r\nx\r\n.\r\n"
		c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(content), content))
		reply, _ := c.reply()
		t.Logf("%q: %q", ending, reply)
		if !strings.HasPrefix(reply, "250") && !strings.HasPrefix(reply, "5") {
			t.Errorf("%q: the server said %q", ending, reply)
		}
	}
	for _, m := range s.Messages() {
		if strings.Contains(m.From, "smuggler") || loneCRLF(m.Content) {
			t.Errorf("relayed: %q", m)
		}
	}
}

// Plaintext that comes in one segment with STARTTLS is never executed inside
// the encrypted session (CVE-2011-0411).
func TestCommandsBehindSTARTTLS(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{Keep: true})
	cert, key := certificate(t)
	d := Start(t, with(relayTo(s.Port()), "plugins", "tls\nrcpt_to.in_host_list\nqueue/smtp_forward\n",
		"tls_cert.pem", cert, "tls_key.pem", key))
	c := dial(t, d.Addr())
	c.send("STARTTLS\r\nMAIL FROM:<injected@client.test>\r\nRCPT TO:<to@sink.test>\r\n")
	if reply, err := c.reply(); err != nil || !strings.HasPrefix(reply, "220") {
		t.Logf("refused: %q %v", reply, err) // closing is as good
		return
	}
	if n := c.r.Buffered(); n > 0 {
		t.Fatalf("%d bytes of replies to the injected commands", n)
	}
	secured := secure(c)
	if secured == nil {
		return // it ended the connection
	}
	secured.say("EHLO client.test", "250")
	secured.say("RCPT TO:<to@sink.test>", "50") // no MAIL survived
	if strings.Contains(d.Log(), "injected") {
		t.Error("the injected MAIL was executed")
	}
}

// loneCRLF reports whether a CR or LF stands without the other.
func loneCRLF(s string) bool {
	return strings.ContainsAny(strings.ReplaceAll(s, "\r\n", ""), "\r\n")
}
