package dmarc

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"tarishi/internal/dns"
	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

// zone is a resolver with policies.
type zone map[string]string

func (z zone) TXT(_ context.Context, name string) ([]string, error) {
	text, ok := z[name]
	switch {
	case text == "broken":
		return nil, &dns.Error{Name: name, Kind: dns.Temporary, Cause: errors.New("SERVFAIL")}
	case ok:
		return []string{text}, nil
	}
	return nil, &dns.Error{Name: name, Kind: dns.NXDomain}
}
func (zone) MX(context.Context, string) ([]dns.MX, error)        { return nil, &dns.Error{} }
func (zone) Addrs(context.Context, string) ([]netip.Addr, error) { return nil, &dns.Error{} }
func (zone) IPv4(context.Context, string) ([]netip.Addr, error)  { return nil, &dns.Error{} }
func (zone) PTR(context.Context, netip.Addr) ([]string, error)   { return nil, &dns.Error{} }

var policies = zone{
	"_dmarc.reject.example": "v=DMARC1; p=reject", "_dmarc.set-aside.example": "v=DMARC1; p=quarantine", "_dmarc.watch.example": "v=DMARC1; p=none",
	"_dmarc.test.example": "v=DMARC1; p=reject; t=y", "_dmarc.broken.example": "broken",
}

// spfOf sets results as the plugin spf leaves them.
func spfOf(r *result.Store, status, domain string) {
	r.For("spf").Set("result", status)
	r.For("spf").Set("domain", domain)
}

func TestCheck(t *testing.T) {
	signed := func(result, domain string) any { return map[string]any{"result": result, "domain": domain} }
	for _, c := range []struct {
		name, header, sender, helo, spf string
		dkim                            []any
		auth, reply                     string
		quarantine                      bool
	}{
		{"no policy", "From: a@none.example\n", "x@none.example", "", "Pass none.example", nil, "dmarc=none header.from=none.example", "", false},
		{"by SPF", "From: a@reject.example\n", "x@reject.example", "", "Pass reject.example", nil, "dmarc=pass (p=reject dis=none) header.from=reject.example policy.dmarc=reject", "", false},
		{"by DKIM", "From: a@reject.example\n", "x@other.example", "", "Fail other.example", []any{signed("fail", "reject.example"), signed("pass", "reject.example")}, "dmarc=pass (p=reject dis=none) header.from=reject.example policy.dmarc=reject", "", false},
		{"by HELO of the null sender", "From: a@reject.example\n", "", "Pass mail.reject.example", "", nil, "dmarc=pass (p=reject dis=none) header.from=reject.example policy.dmarc=reject", "", false},
		{"not by HELO else", "From: a@reject.example\n", "x@other.example", "Pass reject.example", "Pass other.example", nil, "dmarc=fail (p=reject dis=reject) header.from=reject.example policy.dmarc=reject", "550 5.7.26 reject.example does not stand behind this message (DMARC policy reject)", false},
		{"softfail is no pass", "From: a@set-aside.example\n", "x@set-aside.example", "", "SoftFail set-aside.example", []any{signed("invalid", "set-aside.example")}, "dmarc=fail (p=quarantine dis=quarantine) header.from=set-aside.example policy.dmarc=quarantine", "", true},
		{"nothing wanted", "From: a@watch.example\n", "x@other.example", "", "None other.example", nil, "dmarc=fail (p=none dis=none) header.from=watch.example policy.dmarc=none", "", false},
		{"testing", "From: a@test.example\n", "x@other.example", "", "None other.example", nil, "dmarc=fail (p=reject dis=quarantine) header.from=test.example policy.dmarc=reject", "", true},
		{"DNS", "From: a@broken.example\n", "x@other.example", "", "None other.example", nil, "dmarc=temperror header.from=broken.example", "451 4.4.3 DMARC policy of broken.example cannot be looked up, please try again later", false},
		{"SPF without DNS", "From: a@reject.example\n", "x@reject.example", "", "TempError reject.example", nil, "dmarc=temperror (p=reject dis=none) header.from=reject.example policy.dmarc=reject", "451 4.4.3 DMARC policy of reject.example cannot be looked up, please try again later", false},
		{"DKIM without DNS", "From: a@reject.example\n", "x@other.example", "", "None other.example", []any{signed("tempfail", "reject.example")}, "dmarc=temperror (p=reject dis=none) header.from=reject.example policy.dmarc=reject", "451 4.4.3 DMARC policy of reject.example cannot be looked up, please try again later", false},
		{"two authors", "From: a@watch.example, b@reject.example\n", "x@reject.example", "", "Pass reject.example", []any{signed("pass", "watch.example")}, "dmarc=fail (p=reject dis=reject) header.from=reject.example policy.dmarc=reject", "550 5.7.26 reject.example does not stand behind this message (DMARC policy reject)", false},
		{"two fields", "From: a@reject.example\nFrom: a@reject.example\n", "x@reject.example", "", "Pass reject.example", nil, "dmarc=fail (p=reject dis=reject) header.from=reject.example policy.dmarc=reject", "550 5.7.26 reject.example does not stand behind this message (DMARC policy reject)", false},
		{"no author", "Subject: x\n", "x@reject.example", "", "Pass reject.example", nil, "dmarc=permerror", "", false},
	} {
		for _, enforce := range []bool{false, true} {
			chain := plugintest.Chain(t, New, plugintest.Own(&Settings{Enforce: enforce}), plugin.Services{Resolver: policies})
			conn, tx := plugintest.Session(t, c.sender, "b@example.net")
			tx.Header, _, _ = mail.ParseHeader([]byte(strings.ReplaceAll(c.header, "\n", "\r\n") + "\r\n"))
			if result, domain, ok := strings.Cut(c.spf, " "); ok {
				spfOf(tx.Results, result, domain)
			}
			if result, domain, ok := strings.Cut(c.helo, " "); ok {
				spfOf(conn.Results, result, domain)
			}
			tx.Results.For("dkim")
			tx.Notes.Set("dkim_results", c.dkim)
			v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: conn.View(), Tx: tx.View()})
			got := ""
			if v.Reply != nil {
				got = v.Reply.String()
			}
			want, quarantine := c.reply, c.quarantine
			if !enforce {
				want, quarantine = "", false
			}
			if got != want || strings.Join(tx.AuthResults, "|") != c.auth || tx.Notes.Bool("quarantine") != quarantine {
				t.Errorf("%s, enforce %v: %q, %q, %v; want %q, %q", c.name, enforce, got, tx.AuthResults, tx.Notes, want, c.auth)
			}
		}
	}
}

// Hosts that are listed may vouch for a message, as long as they alone have had it since.
func TestSealers(t *testing.T) {
	seal := func(domain, result, from string) any {
		return map[string]any{"domain": domain, "dmarc": result, "from": from}
	}
	good := seal("list.example", "pass", "Reject.example")
	for _, c := range []struct {
		name, from string
		seals      []any
		sealer     string
	}{
		{"none", "a@reject.example", nil, ""},
		{"listed", "a@reject.example", []any{good}, "list.example"},
		{"through a listed one", "a@reject.example", []any{good, seal("next.example", "fail", "reject.example")}, "list.example"},
		{"behind a stranger", "a@reject.example", []any{seal("stranger.example", "fail", ""), good}, "list.example"},
		{"through a stranger", "a@reject.example", []any{good, seal("stranger.example", "pass", "reject.example")}, ""},
		{"another From", "a@reject.example", []any{seal("list.example", "pass", "other.example")}, ""},
		{"no pass", "a@reject.example", []any{seal("list.example", "fail", "reject.example")}, ""},
		{"several authors", "a@reject.example, b@other.example", []any{good}, ""},
		{"no seal", "a@reject.example", []any{"x"}, ""},
	} {
		cfg := &Settings{Enforce: true, Sealers: []string{"list.example", "next.example"}}
		chain := plugintest.Chain(t, New, plugintest.Own(cfg), plugin.Services{Resolver: policies})
		conn, tx := plugintest.Session(t, "x@other.example", "b@example.net")
		tx.Header, _, _ = mail.ParseHeader([]byte("From: " + c.from + "\r\n\r\n"))
		spfOf(tx.Results, "None", "other.example")
		tx.Results.For("dkim")
		tx.Notes.Set("arc_seals", c.seals)
		v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: conn.View(), Tx: tx.View()})
		want := "dmarc=fail (p=reject dis=reject) header.from=reject.example policy.dmarc=reject"
		if c.sealer != "" {
			want = "dmarc=fail (p=reject dis=none arc=" + c.sealer + ") header.from=reject.example policy.dmarc=reject"
		}
		if (v.Code == hook.Cont) != (c.sealer != "") || strings.Join(tx.AuthResults, "|") != want {
			t.Errorf("%s: %v, %q", c.name, v.Code, tx.AuthResults)
		}
	}
}

func TestNotChecked(t *testing.T) {
	for name, change := range map[string]func(*hook.Connection, *hook.Transaction){
		"relaying":                   func(_ *hook.Connection, tx *hook.Transaction) { tx.Relaying = true },
		"private_ip":                 func(c *hook.Connection, _ *hook.Transaction) { c.Remote.Private = true },
		"no results of spf and dkim": func(_ *hook.Connection, tx *hook.Transaction) { tx.Results = new(result.Store) },
	} {
		chain := plugintest.Chain(t, New, plugintest.Own(&Settings{Enforce: true}), plugin.Services{Resolver: policies})
		conn, tx := plugintest.Session(t, "x@other.example", "b@example.net")
		tx.Header, _, _ = mail.ParseHeader([]byte("From: a@reject.example\r\n\r\n"))
		spfOf(tx.Results, "None", "other.example")
		tx.Results.For("dkim")
		change(conn, tx)
		v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: conn.View(), Tx: tx.View()})
		if skip := tx.Results.For(Name).Skip; v.Code != hook.Cont || len(tx.AuthResults) > 0 || len(skip) != 1 || skip[0] != name {
			t.Errorf("%s: %+v, %q, %q", name, v, tx.AuthResults, skip)
		}
	}
}

func TestSettings(t *testing.T) {
	s := &Settings{}
	r := ini.NewReader(fstest.MapFS{"dmarc.ini": {Data: []byte("enforce=true\ntimeout=3\nsealers[]=List.example\n")}}, "")
	r.Load(s.Tables())
	if p := r.Problems(); len(p) > 0 || !s.Enforce || s.Timeout.Seconds() != 3 || strings.Join(s.Sealers, " ") != "list.example" {
		t.Errorf("%+v, %v", s, p)
	}
}
