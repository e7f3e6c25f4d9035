package inhostlist

import (
	"maps"
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
)

// withName is a configuration of the plugin on a host with a name.
func withName(s *Settings) *plugin.Config {
	c := plugintest.Own(s)
	c.Me = "MX.example.net"
	return c
}

func config() *Settings {
	return &Settings{
		Domains:  []string{"example.com", "xn--exmple-cua.com"},
		Patterns: []string{`(?:a|b)\.example\.org`, `x[0-9]+\.net|y\.net`},
	}
}

var domains = map[string]bool{
	"u@example.com": true, "u@EXAMPLE.Com": true, "u@sub.example.com": false, "u@notexample.com": false, "u@exämple.com": true,
	"u@a.example.org": true, "u@B.EXAMPLE.ORG": true, "u@c.example.org": false, "u@xa.example.org": false, "u@a.example.org.evil.com": false,
	"u@x12.net": true, "u@y.net": true, "u@x.net": false, "u@zy.net": false, "u@y.net.com": false,
	"postmaster": false, "u@[127.0.0.1]": false,
}

func TestRecipient(t *testing.T) {
	chain := plugintest.Chain(t, New, withName(config()), plugin.Services{})
	recipients := maps.Clone(domains)
	maps.Copy(recipients, map[string]bool{ // only this host's postmaster
		"postmaster@mx.example.net": true, "PostMaster@MX.Example.NET": true, "u@mx.example.net": false, "postmaster@example.net": false,
	})
	for to, want := range recipients {
		c, tx := plugintest.Session(t, "s@s.s")
		v := chain.Run(t.Context(), hook.OnRcpt, &hook.Event{Conn: c.View(), Tx: tx.View(), Recipient: mail.Recipient{Address: plugintest.Address(t, to)}})
		if (v.Code == hook.OK) != want || !want && v.Code != hook.Cont {
			t.Errorf("%s: %+v", to, v)
		}
	}
}

func TestSender(t *testing.T) {
	domains := map[string]bool{"": false}
	for a, local := range map[string]bool{"u@example.com": true, "u@a.example.org": true, "u@other.com": false} {
		domains[a] = local
	}
	for _, antiSpoof := range []bool{false, true} {
		cfg := config()
		cfg.AntiSpoof = antiSpoof
		chain := plugintest.Chain(t, New, withName(cfg), plugin.Services{})
		for from, local := range domains {
			for _, relaying := range []bool{false, true} {
				c, tx := plugintest.Session(t, from)
				tx.Relaying = relaying
				v := chain.Run(t.Context(), hook.OnMail, &hook.Event{Conn: c.View(), Tx: tx.View(), Sender: tx.From})
				refuse := antiSpoof && local && !relaying
				if (v.Code == hook.Deny) != refuse {
					t.Errorf("%q anti_spoof %v relaying %v: %+v", from, antiSpoof, relaying, v)
				}
				if got, want := tx.Notes.Bool("local_sender"), local && !refuse; got != want {
					t.Errorf("%q anti_spoof %v relaying %v: local_sender %v", from, antiSpoof, relaying, got)
				}
			}
		}
		if antiSpoof {
			c, tx := plugintest.Session(t, "u@Example.com")
			v := chain.Run(t.Context(), hook.OnMail, &hook.Event{Conn: c.View(), Tx: tx.View(), Sender: tx.From})
			if v.Reply.String() != "550 5.7.1 Mail from domain 'example.com' is not allowed from your host" {
				t.Errorf("%s", v.Reply)
			}
		}
	}
}

func TestBadExpression(t *testing.T) {
	if _, err := plugintest.Load(New, withName(&Settings{Patterns: []string{"ok", "a(?=b)"}}), plugin.Services{}); err == nil {
		t.Error("no error")
	}
}
