package session

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"tarishi/internal/dns"
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
		{"MAIL FROM:<a@b_c.test>", "501 5.1.7", "", ""},
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
		{"MAIL FROM:<a@b.test> X=y", "500", "", ""},
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
type credulous struct{ dns.Memory }

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

func FuzzMailbox(f *testing.F) {
	for _, s := range []string{`<"a@b"@c.d>`, `<@r:u@h>`, `a@b`, `<"\"">`, `<a@b@c>`, `<"a"@b@c> X=<d@e>`} {
		f.Add(s, "a@b@c")
	}
	f.Fuzz(func(t *testing.T, path, flat string) {
		a, err := mailbox(path, flat)
		if err == nil && a.Local+"@"+a.Domain != flat && flat != "" {
			t.Fatalf("%q %q: %+v", path, flat, a)
		}
		if err == nil && strings.ContainsAny(a.Path(), "\r\n\x00") {
			t.Fatalf("%q passes", a.Path())
		}
		_ = parameters(path)
	})
}
