package session

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// aliasChain has a plugin that knows aliases, and one behind it that accepts here.test and
// refuses no@here.test.
func aliasChain(t *testing.T, asked *[]string) *hook.Chain {
	aliases := map[string]string{
		"one": "a@here.test", "two": "a@here.test b@here.test", "self": "self@here.test a@here.test", "away": "x@away.test",
		"both": "a@here.test x@away.test", "bad": "a@here.test no@here.test", "drop": "", "stopped": "stop@here.test", "utf8": "gr\u00fc\u00df@here.test",
	}
	on := func(p hook.Point, plugin string, h func(e *hook.Event) hook.Verdict) hook.Registration {
		return hook.Registration{Point: p, Plugin: plugin, Handler: func(_ context.Context, e *hook.Event) hook.Verdict { return h(e) }}
	}
	return hook.NewChain([]hook.Registration{
		on(hook.OnMail, "relay", func(e *hook.Event) hook.Verdict {
			e.Tx.SetRelaying(e.Sender.Local == "relaying")
			return hook.Proceed()
		}),
		on(hook.OnRcpt, "before", func(e *hook.Event) hook.Verdict {
			*asked = append(*asked, "before "+e.Recipient.Address.String())
			return hook.Proceed()
		}),
		on(hook.OnRcpt, "aliases", func(e *hook.Event) hook.Verdict {
			to, known := aliases[e.Recipient.Address.Local]
			if !known {
				return hook.Proceed()
			}
			alias := &hook.Alias{}
			for one := range strings.FieldsSeq(to) {
				a, err := mail.ParseAddress(one)
				if err != nil {
					t.Error(err)
				}
				alias.To = append(alias.To, a)
			}
			return hook.Verdict{Code: hook.Cont, Alias: alias}
		}),
		on(hook.OnRcpt, "behind", func(e *hook.Event) hook.Verdict {
			*asked = append(*asked, "behind "+e.Recipient.Address.String())
			switch {
			case e.Recipient.Address.Local == "no":
				return hook.Answer(hook.Deny, "no such user")
			case e.Recipient.Address.Local == "stop":
				return hook.Answer(hook.Stop, "")
			case e.Recipient.Address.Domain == "here.test":
				return hook.Answer(hook.OK, "")
			}
			return hook.Proceed()
		}),
		on(hook.OnRcptOK, "behind", func(e *hook.Event) hook.Verdict {
			*asked = append(*asked, "ok "+e.Recipient.Address.String())
			return hook.Proceed()
		}),
	}, zap.NewNop())
}

// Each address that an alias stands for is asked about behind the plugin that knows it;
// one that nobody answers for needs somebody who accepts mail for the alias.
func TestAliases(t *testing.T) {
	const ok, foreign = "250 2.1.5 recipient <%> OK", "550 5.7.1 I cannot deliver mail for <%>"
	for _, tc := range []struct {
		from, to, reply string
		asked           string // without those before the aliases
		rcpts, away     string
		dropped         int
	}{
		{"u", "plain@here.test", ok, "behind plain@here.test, ok plain@here.test", "plain@here.test", "", 0},
		{"u", "one@here.test", ok, "behind a@here.test, ok a@here.test", "a@here.test", "", 0},
		{"u", "one@elsewhere.test", ok, "behind a@here.test, ok a@here.test", "a@here.test", "", 0},
		{"u", "two@here.test", ok, "behind a@here.test, behind b@here.test, ok a@here.test", "a@here.test b@here.test", "", 0},
		{"u", "self@here.test", ok, "behind self@here.test, behind a@here.test, ok self@here.test", "self@here.test a@here.test", "", 0},
		{"u", "away@here.test", ok, "behind x@away.test, behind away@here.test, ok away@here.test", "x@away.test", "x@away.test", 0},
		{"u", "away@elsewhere.test", foreign, "behind x@away.test, behind away@elsewhere.test", "", "", 0},
		{"relaying", "away@elsewhere.test", ok, "behind x@away.test, ok x@away.test", "x@away.test", "", 0},
		{"u", "both@here.test", ok, "behind a@here.test, behind x@away.test, behind both@here.test, ok a@here.test", "a@here.test x@away.test", "x@away.test", 0},
		{"u", "both@elsewhere.test", foreign, "behind a@here.test, behind x@away.test, behind both@elsewhere.test", "", "", 0},
		{"u", "bad@here.test", "550 5.7.1 no such user", "behind a@here.test, behind no@here.test", "", "", 0},
		{"u", "stopped@here.test", foreign, "behind stop@here.test", "", "", 0},
		{"u", "drop@here.test", ok, "behind drop@here.test, ok drop@here.test", "", "", 1},
		{"u", "drop@elsewhere.test", foreign, "behind drop@elsewhere.test", "", "", 0},
		{"relaying", "drop@elsewhere.test", ok, "behind drop@elsewhere.test, ok drop@elsewhere.test", "", "", 1},
	} {
		var asked []string
		r := newRig(t, false, func(o *Options) { o.Chain = aliasChain(t, &asked) })
		var took *hook.Transaction
		r.intake.accept = func(tx *hook.Transaction) (*reply.Reply, bool) {
			took = tx
			return nil, false
		}
		c := r.dial()
		c.want("220 ")
		c.cmd("EHLO client.test", "250")
		c.cmd("MAIL FROM:<"+tc.from+"@client.test>", "250")
		want := strings.ReplaceAll(tc.reply, "%", tc.to)
		c.cmd("RCPT TO:<"+tc.to+">", want)
		if !strings.HasPrefix(want, "250") {
			c.cmd("DATA", "554 5.5.1 No valid recipients")
		} else {
			c.cmd("DATA", "354")
			c.cmd("A: b\r\n\r\n.", "250")
		}
		c.cmd("QUIT", "221")
		if got := strings.Join(asked[1:], ", "); asked[0] != "before "+tc.to || got != tc.asked {
			t.Errorf("%s from %s: asked %q", tc.to, tc.from, asked)
		}
		if took == nil {
			took = &hook.Transaction{}
		}
		var rcpts, away []string
		for _, r := range took.Recipients {
			rcpts = append(rcpts, r.Address.String())
		}
		for _, a := range took.Forwarded {
			away = append(away, a.String())
		}
		if strings.Join(rcpts, " ") != tc.rcpts || strings.Join(away, " ") != tc.away || took.Dropped != tc.dropped {
			t.Errorf("%s from %s: recipients %q, forwarded %q, %d dropped", tc.to, tc.from, rcpts, away, took.Dropped)
		}
	}
}

// One recipient that is dropped costs the others nothing, an address that comes twice gets
// one copy, and the DSN parameters go with the addresses.
func TestSeveralAliases(t *testing.T) {
	var asked []string
	r := newRig(t, false, func(o *Options) { o.Chain = aliasChain(t, &asked) })
	c := r.dial()
	c.want("220 ")
	c.cmd("EHLO client.test", "250")
	c.cmd("MAIL FROM:<u@client.test>", "250")
	for _, to := range []string{"a@here.test", "drop@here.test", "two@here.test", "self@here.test", "utf8@here.test"} {
		parameters := ""
		if to == "two@here.test" {
			parameters = " NOTIFY=NEVER"
		}
		c.cmd("RCPT TO:<"+to+">"+parameters, "250")
	}
	c.cmd("RCPT TO:<b2@here.test>", "452 4.5.3 Too many recipients")
	c.cmd("DATA", "354")
	c.cmd("A: b\r\n\r\n.", "250")
	c.cmd("QUIT", "221")
	got := r.intake.messages()
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	tx := got[0].tx
	want := []mail.Recipient{
		{Address: mail.Address{Local: "a", Domain: "here.test"}},
		{Address: mail.Address{Local: "b", Domain: "here.test"}, Notify: mail.NotifyNever, ORCPT: "rfc822;two@here.test"},
		{Address: mail.Address{Local: "self", Domain: "here.test"}, ORCPT: "rfc822;self@here.test"},
		{Address: mail.Address{Local: "gr\u00fc\u00df", Domain: "here.test"}, ORCPT: "rfc822;utf8@here.test"},
	}
	for i, r := range want {
		if len(tx.Recipients) != len(want) || tx.Recipients[i] != r {
			t.Fatalf("recipients %+v", tx.Recipients)
		}
	}
	if tx.Dropped != 1 || !tx.UTF8 || tx.Rcpts.Accepted != 5 {
		t.Errorf("%d dropped, SMTPUTF8 %v, %+v", tx.Dropped, tx.UTF8, tx.Rcpts)
	}
}
