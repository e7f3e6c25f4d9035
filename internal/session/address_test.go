package session

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"tarishi/internal/dns/memory"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
)

func TestAddresses(t *testing.T) {
	var from mail.Address
	var to mail.Recipient
	var params map[string]string
	r := newRig(t, false)
	r.hooks.set(hook.OnMail, func(e *hook.Event) hook.Verdict {
		from, params = e.Sender, e.Params
		return hook.Proceed()
	})
	r.hooks.set(hook.OnRcpt, func(e *hook.Event) hook.Verdict {
		to, params = e.Recipient, e.Params
		return hook.Verdict{Code: hook.OK}
	})
	long := strings.Repeat("l", 64) + "@" + strings.Repeat("d.", 100) + "test"
	for _, tc := range []struct {
		line, reply, local, domain string
	}{
		{"MAIL FROM:<>", "250", "", ""},
		{"MAIL FROM:<a@b.test>", "250", "a", "b.test"},
		{"mail from: a@B.test", "250", "a", "B.test"},
		{`MAIL FROM:<"a b"@c.test>`, "250", "a b", "c.test"},
		{`MAIL FROM:<"a@b"@c.test>`, "250", "a@b", "c.test"},
		{`MAIL FROM:<"\"x\""@c.test>`, "250", `"x"`, "c.test"},
		{`MAIL FROM:<"<a@b>"@c.test> SIZE=1`, "250", "<a@b>", "c.test"},
		{"MAIL FROM:<@r.test,@s.test:a@b.test>", "250", "a", "b.test"},
		{"MAIL FROM:<a@[127.0.0.1]>", "250", "a", "[127.0.0.1]"},
		{"MAIL FROM:<`${run{id}}`@b.test>", "250", "`${run{id}}`", "b.test"},
		{"MAIL FROM:<" + long + ">", "501 5.1.7", "", ""},
		{"MAIL FROM:<a@b@c.test>", "501 5.1.7", "", ""},
		{`MAIL FROM:<"a"@b@c.test>`, "501 5.1.7", "", ""},
		{"MAIL FROM:<a@b..test>", "501 5.1.7", "", ""},
		{"MAIL FROM:<a@b_c.test>", "250", "a", "b_c.test"},
		{"MAIL FROM:<a\x01@b.test>", "501 5.1.7", "", ""},
		{"MAIL FROM:<\"a\t\"@b.test>", "501 5.1.7", "", ""},
		{"MAIL FROM:<\xff@b.test>", "501 5.1.7", "", ""},
		{"MAIL FROM:<\xff@b.test> SMTPUTF8", "501 5.1.7", "", ""},
		{"MAIL FROM:<é@b.test>", "553 5.6.7", "", ""},
		{"MAIL FROM:<a@é.test>", "553 5.6.7", "", ""},
		{"MAIL FROM:<é@é.test> SMTPUTF8", "250", "é", "é.test"},
		{"MAIL FROM:<nobody>", "501", "", ""},
		{"MAIL TO:<a@b.test>", "501", "", ""},
		{"MAIL FROM:<a@b.test> BODY=BINARYMIME", "504", "", ""},
		{"MAIL FROM:<a@b.test> REQUIRETLS", "504", "", ""},
		{"MAIL FROM:<a@b.test> X=y", "555", "", ""},
		{"MAIL FROM:<a@b.test> BODY=8BITMIME RET=HDRS ENVID=q+2Bq SIZE=10", "250 2.1.0", "a", "b.test"},
	} {
		c := r.hello()
		from, params = mail.Address{Local: "unset"}, nil
		c.cmd(tc.line, tc.reply)
		if tc.reply[0] == '2' && (from.Local != tc.local || from.Domain != tc.domain) {
			t.Errorf("%s: hook saw %+v", tc.line, from)
		}
	}
	if params["BODY"] != "8BITMIME" || params["ENVID"] != "q+2Bq" || params["SIZE"] != "10" {
		t.Errorf("parameters %v", params)
	}
	for _, tc := range []struct{ line, reply, local, orcpt string }{
		{"RCPT TO:<postmaster>", "250 2.1.5 recipient <postmaster@mx.test>", "postmaster", ""},
		{"RCPT TO:<PostMaster> NOTIFY=NEVER", "250", "postmaster", ""},
		{"RCPT TO:<b@c.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;d+2Be@f.test", "250", "b", "rfc822;d+e@f.test"},
		{`RCPT TO:<"b\\"@c.test> ORCPT=utf-8;\x{E9}@f.test`, "250", `b\`, "utf-8;é@f.test"},
		{`RCPT TO:<b@c.test> ORCPT=utf-8;\x{03}@f.test`, "501", "", ""},
		{"RCPT TO:<b@c.test> ORCPT=rfc822;a+0D+0Ab", "501", "", ""},
		{"RCPT TO:<>", "501", "", ""},
		{"RCPT TO:<é@c.test>", "553 5.6.7", "", ""},
		{"RCPT TO:<b@-c.test>", "501 5.1.3", "", ""},
		{"RCPT TO:<b@c.test> NOTIFY=NEVER,DELAY", "501", "", ""},
	} {
		c := r.hello()
		c.cmd("MAIL FROM:<>", "250")
		to = mail.Recipient{}
		c.cmd(tc.line, tc.reply)
		if tc.reply[0] == '2' && (to.Address.Local != tc.local || to.ORCPT != tc.orcpt) {
			t.Errorf("%s: hook saw %+v", tc.line, to)
		}
	}
	c := r.hello()
	c.cmd("MAIL FROM:<é@b.test> SMTPUTF8 BODY=8BITMIME RET=FULL ENVID=x", "250 2.1.0 sender <é@b.test> OK")
	c.cmd("RCPT TO:<é@c.test> NOTIFY=SUCCESS,FAILURE,DELAY", "250")
	c.cmd("RCPT TO:<b@c.test> NOTIFY=NEVER", "250")
	c.cmd("DATA", "354")
	c.send("\r\n.\r\n")
	c.want("250")
	e := r.intake.messages()[0].tx.Envelope
	if !e.UTF8 || e.Body != "8BITMIME" || e.Return != "FULL" || e.EnvelopeID != "x" || len(e.Recipients) != 2 ||
		e.Recipients[0].Notify != mail.NotifySuccess|mail.NotifyFailure|mail.NotifyDelay || e.Recipients[1].Notify != mail.NotifyNever {
		t.Errorf("%+v", e)
	}
	if raw := r.intake.messages()[0].raw; !strings.Contains(raw, "with UTF8SMTP id") {
		t.Errorf("%q", raw)
	}
}

func TestAddressOptions(t *testing.T) {
	r := newRig(t, false, func(o *Options) { o.Postel, o.StrictRFC1869, o.SMTPUTF8 = true, true, false })
	c := r.hello()
	c.cmd("MAIL FROM:<"+strings.Repeat("l", 400)+"@b.test>", "250")
	c.cmd("MAIL FROM: <a@b.test>", "501 5.5.2")
	c.cmd("MAIL FROM:a@b.test", "501 5.5.2")
	c.cmd("RCPT TO: <a@b.test>", "501 5.5.2")
	c.cmd("RCPT TO:<a@b.test>", "250")
	c.cmd("MAIL FROM:<a@b.test> SMTPUTF8", "504")
}

// credulous is a Resolver that has the address of a client for every name.
type credulous struct{ memory.Resolver }

func (*credulous) Host(context.Context, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

// TestTraceInjection: nothing a client or resolver says makes a line of ours.
func TestTraceInjection(t *testing.T) {
	r := newRig(t, false, func(o *Options) { o.Resolver = &credulous{} })
	r.hooks.answer(hook.OnLookupRDNS, hook.Answer(hook.OK, "evil\r\nX-Evil: 1 (\x00"))
	c := r.dial()
	c.want("220")
	if got := c.cmd("EHLO <x>(;\\", "250-"); strings.Contains(got, "X-Evil: 1 (") {
		t.Errorf("%q", got)
	}
	c.message("\r\n.\r\n", "250")
	head := r.intake.messages()[0].head
	if strings.Contains(head, "\nX-Evil") || !strings.Contains(head, "from ?x???? (evil??X-Evil:?1??? [127.0.0.1])") {
		t.Errorf("%q", head)
	}
}

// wireReplies runs MAIL or RCPT commands, each on a fresh transaction of one session.
func wireReplies(t *testing.T, c *client, lines map[string]string) {
	t.Helper()
	for line, want := range lines {
		c.cmd("RSET", "250")
		if strings.HasPrefix(line, "RCPT") {
			c.cmd("MAIL FROM:<a@b.test> SMTPUTF8", "250")
		}
		c.send(line + "\r\n")
		if got := c.read(); !strings.HasPrefix(got, want) {
			t.Errorf("%.120q: %s, want %s", line, got, want)
		}
	}
}

// Every parameter is checked for its value, or for having none, for its length,
// for a second time, and for the blank before it.
func TestParameters(t *testing.T) {
	r := newRig(t, false)
	c := r.dial()
	c.want("220")
	c.cmd("EHLO x.test", "250")
	c.cmd("STARTTLS", "220")
	c.startTLS(r.pool)
	c.cmd("EHLO x.test", "250")
	const from, to = "MAIL FROM:<a@b.test>", "RCPT TO:<a@b.test>"
	long := strings.Repeat("x", 600)
	wireReplies(t, c, map[string]string{
		from + " SIZE=1": "250", from + " SIZE=00000000000000000001": "250", from + "\tsize=1": "250", from + "  BODY=7bit  ": "250",
		from + " BODY=8bitmime RET=full ENVID=a+2Bb AUTH=<> REQUIRETLS SMTPUTF8 SIZE=9": "250",
		from + " AUTH=a+2Bc@d.test": "250", from + " AUTH=" + long[:493] + "@d.test": "250", from + " ENVID=" + long[:100]: "250",
		"MAIL FROM:<\"a> SIZE=x\"@b.test> SIZE=1": "250", "MAIL FROM:<> RET=HDRS": "250", "MAIL FROM: a@b.test SIZE=1": "250",

		from + " SIZE": "501 5.5.4", from + " SIZE=": "501 5.5.4", from + " SIZE=-1": "501 5.5.4", from + " SIZE=+1": "501 5.5.4", from + " SIZE=1k": "501 5.5.4",
		from + " SIZE=0x1": "501 5.5.4", from + " SIZE=000000000000000000001": "501 5.5.4", from + " SIZE=1=2": "501 5.5.4",
		from + " SIZE=99999999999999999999": "552 5.3.4", from + " SIZE=5000000000": "552 5.3.4",
		from + " BODY": "501 5.5.4", from + " BODY=": "501 5.5.4", from + " BODY=9BIT": "501 5.5.4", from + " BODY=BINARYMIME": "504 5.5.4",
		from + " SMTPUTF8=1": "501 5.5.4", from + " SMTPUTF8=": "501 5.5.4", from + " SMTPUTF8=yes": "501 5.5.4",
		from + " REQUIRETLS=1": "501 5.5.4", from + " REQUIRETLS=": "501 5.5.4",
		from + " RET": "501 5.5.4", from + " RET=": "501 5.5.4", from + " RET=BODY": "501 5.5.4",
		from + " ENVID": "501 5.5.4", from + " ENVID=": "501 5.5.4", from + " ENVID=" + long[:101]: "501 5.5.4", from + " ENVID=a+0D": "501 5.5.4",
		from + " ENVID=" + strings.Repeat("+2B", 34): "501 5.5.4", from + " ENVID=a+2": "501 5.5.4", from + " ENVID=a+2b": "501 5.5.4", from + " ENVID=\u00e9": "501 5.5.4",
		from + " AUTH": "501 5.5.4", from + " AUTH=": "501 5.5.4", from + " AUTH=nobody": "501 5.5.4", from + " AUTH=<a@b.test>": "501 5.5.4", from + " AUTH=a+00@b.test": "501 5.5.4",
		from + " AUTH=" + long[:494] + "@d.test": "501 5.5.4",
		from + " SIZE=1 SIZE=1":                  "501 5.5.4", from + " SMTPUTF8 smtputf8": "501 5.5.4", from + " BODY=7BIT Body=8BITMIME": "501 5.5.4", from + " REQUIRETLS REQUIRETLS": "501 5.5.4",
		from + " RET=FULL RET=HDRS": "501 5.5.4", from + " ENVID=a ENVID=b": "501 5.5.4", from + " AUTH=<> AUTH=<>": "501 5.5.4",
		from + "SIZE=1": "501 5.5.2", "MAIL FROM:<>SIZE=1": "501 5.5.2", from + "BODY=7BIT SIZE=1": "501 5.5.2", from + ">": "501 5.5.2", "MAIL FROM:<a@b.test": "501",
		from + " X=y": "555 5.5.4", from + " X": "555 5.5.4", from + " NOTIFY=NEVER": "555 5.5.4", from + " =1": "501 5.5.4", from + " -X=1": "501 5.5.4", from + " \u00e9=1": "501 5.5.4",
		from + " SIZE=1\u00a0BODY=7BIT": "501 5.5.4",

		to + " NOTIFY=NEVER": "250", to + " notify=success,DELAY,Failure": "250",
		to + " NOTIFY": "501 5.5.4", to + " NOTIFY=": "501 5.5.4", to + " NOTIFY=NEVER,DELAY": "501 5.5.4", to + " NOTIFY=DELAY,DELAY": "501 5.5.4", to + " NOTIFY=DELAY,": "501 5.5.4",
		to + " NOTIFY=ALWAYS": "501 5.5.4", to + " NOTIFY=DELAY NOTIFY=DELAY": "501 5.5.4", to + "NOTIFY=NEVER": "501 5.5.2", to + " SIZE=1": "555 5.5.4",

		to + " ORCPT=rfc822;a+2Bb@c.test": "250", to + " ORCPT=x400;/S=a/O=b/": "501 5.5.4", to + " ORCPT=X400;/S+3Da/O+3Db/": "250", to + " ORCPT=unknown;a": "250",
		to + " ORCPT=x-my_type;+20a": "250", to + " ORCPT=utf-8;\\x{E9}\\x{5C}\\x{1F44B}@c.test": "250", to + " ORCPT=utf-8;\u00e9@c.test": "250",
		to + " ORCPT=rfc822;" + long[:493]: "250", to + " ORCPT=rfc822;" + long[:494]: "501 5.5.4", to + " ORCPT=x;" + long: "501 5.5.4",
		to + " ORCPT": "501 5.5.4", to + " ORCPT=": "501 5.5.4", to + " ORCPT=a@b.test": "501 5.5.4", to + " ORCPT=;a@b.test": "501 5.5.4", to + " ORCPT=rfc822;": "501 5.5.4",
		to + " ORCPT=rfc 822;a": "501 5.5.4", to + " ORCPT=rfc(822);a": "501 5.5.4", to + " ORCPT=" + long[:65] + ";a": "501 5.5.4", to + " ORCPT=x400;a+0Ab": "501 5.5.4",
		to + " ORCPT=rfc822;\u00e9@c.test": "501 5.5.4", to + " ORCPT=x400;\u00e9": "501 5.5.4", to + " ORCPT=rfc822;a+C3+A9": "501 5.5.4",
		to + " ORCPT=utf-8;\\x{41}": "501 5.5.4", to + " ORCPT=utf-8;\\x{0E9}": "501 5.5.4", to + " ORCPT=utf-8;\\x{e9}": "501 5.5.4", to + " ORCPT=utf-8;\\x{D800}": "501 5.5.4",
		to + " ORCPT=utf-8;\\x{110000}": "501 5.5.4", to + " ORCPT=utf-8;\\x{E9": "501 5.5.4", to + " ORCPT=utf-8;\\a": "501 5.5.4", to + " ORCPT=utf-8;\\x{}": "501 5.5.4",
		to + " ORCPT=utf-8;a\\x{85}": "501 5.5.4", to + " ORCPT=utf-8;a\\x{202E}": "501 5.5.4", to + " ORCPT=utf-8;a\u202e": "501 5.5.4", to + " ORCPT=utf-8;a\xff": "501 5.5.4",
		"RCPT :a X=y": "555", "RCPT a": "501", "RCPT :": "501", "MAIL :a X=y": "555", "MAIL": "501",
		to + " ORCPT=rfc822;a ORCPT=rfc822;a": "501 5.5.4", to + "ORCPT=rfc822;a": "501 5.5.2",
	})
}

// What an ORCPT of any type says reaches the envelope decoded.
func TestOtherORCPT(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	c.cmd("MAIL FROM:<a@b.test>", "250")
	c.cmd("RCPT TO:<a@b.test> ORCPT=X400;/S+3Da/O+3Db/ NOTIFY=SUCCESS", "250")
	c.cmd("RCPT TO:<b@b.test> ORCPT=utf-8;\u00e9@c.test", "501 5.5.4") // raw UTF-8 is for SMTPUTF8
	c.cmd("DATA", "354")
	c.send("\r\n.\r\n")
	c.want("250")
	if to := r.intake.messages()[0].tx.Recipients; len(to) != 1 || to[0].ORCPT != "x400;/S=a/O=b/" || to[0].Notify != mail.NotifySuccess {
		t.Errorf("%+v", to)
	}
}

// Addresses with what cannot be seen, or turns text around, are refused; ordinary
// ones beyond ASCII are not.
func TestHiddenCharacters(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	lines := map[string]string{"MAIL FROM:<\u7528\u6237@\u4f8b\u5b50.test> SMTPUTF8": "250", "RCPT TO:<jos\u00e9@b.test>": "250"}
	for _, hidden := range "\u0080\u0085\u009b\u00a0\u00ad\u061c\u200b\u200d\u200f\u2028\u2029\u202a\u202e\u2060\u2066\u2069\ufe0f\ufeff\U000e0041" {
		h := string(hidden)
		lines["MAIL FROM:<a"+h+"b@c.test> SMTPUTF8"] = "501 5.1.7"
		lines["MAIL FROM:<\"a"+h+"b\"@c.test> SMTPUTF8"] = "501 5.1.7"
		lines["MAIL FROM:<a@c"+h+"d.test> SMTPUTF8"] = "501 5.1.7"
		lines["RCPT TO:<a"+h+"b@c.test>"] = "501 5.1.3"
		lines["RCPT TO:<a@c"+h+"d.test>"] = "501 5.1.3"
		lines["RCPT TO:<a@c"+h+".test>"] = "501 5.1.3"
	}
	wireReplies(t, c, lines)
}

func TestUnderscores(t *testing.T) {
	for strict, want := range map[bool]string{false: "250", true: "501 5.1."} {
		r := newRig(t, false, func(o *Options) { o.StrictDomains = strict })
		wireReplies(t, r.hello(), map[string]string{
			"MAIL FROM:<root@web_01.test>": want, "RCPT TO:<root@web_01.test>": want, "MAIL FROM:<a@_x.\u00e9.test> SMTPUTF8": want,
			"MAIL FROM:<a_b@c.test>": "250", "RCPT TO:<a_b@[192.0.2.1]>": "250", "MAIL FROM:<>": "250", "RCPT TO:<postmaster>": "250", "RCPT TO:<a@\u00e9.test>": "250",
		})
	}
}
