package e2e

import (
	"fmt"
	"strings"
	"testing"

	"tarishi/internal/test/smtptest"
)

// TestLimits: a server that announces limits (RFC 9422) gets no recipient and no message too many, and
// recipients that wait for the next transaction are not deferred. We announce our own.
func TestLimits(t *testing.T) {
	t.Parallel()
	s := smtptest.New(t, smtptest.Extensions("PIPELINING", "8BITMIME", "LIMITS MAILMAX=1 RCPTMAX=2"))
	d := Start(t, with(queueTo(t, s.Port(), ""), "connection.ini", "[max]\nrecipients=5\n"))
	c := dial(t, d.Addr())
	if hello := c.say("EHLO client.test", "250"); !strings.Contains(hello, "LIMITS RCPTMAX=5") {
		t.Errorf("the answer to EHLO is %q", hello)
	}
	c.say("MAIL FROM:<from@client.test>", "250")
	for i := range 5 {
		c.say(fmt.Sprintf("RCPT TO:<to%d@sink.test>", i), "250")
	}
	c.say("DATA", "354")
	c.say(oneMessage+".", "250")
	for _, x := range s.WaitMessages(3) {
		if n := len(x.Accepted()); n > 2 {
			t.Errorf("%d recipients at once", n)
		}
	}
	if n := s.Connections(); n != 3 || len(recipients(s)) != 5 {
		t.Errorf("%d connections, %q", n, recipients(s))
	}
	if log := d.Log(); strings.Contains(log, "deferred") {
		t.Error("a recipient was deferred")
	}
}
