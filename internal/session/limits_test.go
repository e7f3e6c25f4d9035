package session

import (
	"testing"

	"tarishi/internal/hook"
)

// Refusals are counted over the whole session, whatever is refused, until a message
// is accepted.
func TestRefusals(t *testing.T) {
	for name, bad := range map[string]string{
		"RCPT": "RCPT TO:<nobody@here.test>", "syntax": "RCPT TO:<a@b", "parameter": "RCPT TO:<a@b.test> X=y", "MAIL": "MAIL FROM:<a@b..test>", "VRFY": "VRFY a", "DATA": "DATA x",
	} {
		r := newRig(t, false, func(o *Options) { o.MaxRefusals = 20 })
		r.hooks.set(hook.OnRcpt, func(e *hook.Event) hook.Verdict {
			switch e.Recipient.Address.Local {
			case "b":
				return hook.Answer(hook.OK, "")
			case "later":
				return hook.Answer(hook.DenySoft, "one\ntwo")
			}
			return hook.Answer(hook.Deny, "no\nsuch\nuser") // three lines are one refusal
		})
		r.hooks.answer(hook.OnVrfy, hook.Verdict{Code: hook.Deny})
		c := r.hello()
		for range 2 { // a message that is accepted begins again
			for range 20 {
				c.cmd("MAIL FROM:<a@b.test>", "250")
				c.cmd("RCPT TO:<later@here.test>", "450") // a deferral is no refusal
				c.cmd(bad, "5")
			}
			c.cmd("RSET", "250")
			c.message("\r\n.\r\n", "250")
		}
		c.cmd("MAIL FROM:<a@b.test>", "250")
		for range 20 {
			c.cmd(bad, "5")
		}
		c.cmd("NOOP", "250")
		c.cmd(bad, "5")
		if got := c.read(); got != "421 4.7.0 Too many refused commands" {
			t.Errorf("%s: %q", name, got)
		}
		c.closed()
	}
	r := newRig(t, false, func(o *Options) { o.MaxRefusals = 0 })
	r.hooks.answer(hook.OnRcpt, hook.Verdict{Code: hook.Deny})
	c := r.hello()
	c.cmd("MAIL FROM:<a@b.test>", "250")
	for range 500 {
		c.cmd("RCPT TO:<a@b.test>", "550")
	}
}

// A browser that a page made talk to us is sent away, whatever the method and
// however it is written, as long as no client has greeted us.
func TestRequestLines(t *testing.T) {
	for _, line := range []string{
		"POST / HTTP/1.1", "post / HTTP/1.1", "pOsT / http/1.1", "POST\t/\tHTTP/1.1", "GET /", "get\t/", "PROPFIND / HTTP/1.1", "MKCOL /x HTTP/1.1", "QUERY / HTTP/1.1",
		"M-SEARCH * HTTP/1.1", "VERSION-CONTROL /x HTTP/1.1", "FOO / HTTP/1.1", "BREW /pot HTTP/2", "PRI * HTTP/2.0", "options * RTSP/1.0", "MESSAGE sip:a@b SIP/2.0", "TRACE", "  POST / HTTP/1.1",
	} {
		r := newRig(t, false)
		c := r.dial()
		c.want("220")
		c.send(line + "\r\nHost: x\r\n\r\nEHLO evil\r\nMAIL FROM:<a@b.test>\r\n")
		if got := c.read(); got != "521 5.5.1 This is a mail server" {
			t.Errorf("%q: %q", line, got)
		}
		c.closed()
	}
	r := newRig(t, false)
	c := r.dial()
	c.want("220")
	c.cmd("", "500")
	c.cmd("NOOP", "250")
	c.cmd("GET / HTTP/1.1", "521") // behind an empty line too
}
