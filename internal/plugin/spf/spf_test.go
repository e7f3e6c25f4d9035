package spf

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

// zone is a resolver with policies; the client's address is 203.0.113.9 unless a test says
// another.
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

func (zone) MX(context.Context, string) ([]dns.MX, error) {
	return nil, &dns.Error{Kind: dns.NXDomain}
}

func (zone) Addrs(context.Context, string) ([]netip.Addr, error) {
	return nil, &dns.Error{Kind: dns.NXDomain}
}

func (zone) IPv4(context.Context, string) ([]netip.Addr, error) {
	return nil, &dns.Error{Kind: dns.NXDomain}
}

func (zone) PTR(context.Context, netip.Addr) ([]string, error) {
	return nil, &dns.Error{Kind: dns.NXDomain}
}

var policies = zone{
	"pass.example": "v=spf1 ip4:203.0.113.0/24 ip6:2001:db8::/32 -all", "fail.example": "v=spf1 -all", "soft.example": "v=spf1 ~all",
	"neutral.example": "v=spf1 ?all", "wrong.example": "v=spf1 nonsense", "broken.example": "broken", "ours.example": "v=spf1 ip4:198.51.100.1 -all",
}

// all switches every refusal on.
const all = "helo_none=true\nhelo_softfail=true\nhelo_fail=true\nhelo_permerror=true\nmfrom_none=true\nmfrom_softfail=true\nmfrom_fail=true\nmfrom_permerror=true\n"

const defers = "helo_temperror=true\nmfrom_temperror=true\n"

func load(t *testing.T, text string) *Settings {
	t.Helper()
	s := &Settings{}
	r := ini.NewReader(fstest.MapFS{"spf.ini": {Data: []byte(text)}}, "")
	r.Load(s.Tables())
	if p := r.Problems(); len(p) > 0 {
		t.Fatal(p)
	}
	return s
}

// talk is a client that says HELO and MAIL.
type talk struct {
	chain *hook.Chain
	conn  *hook.Connection
	tx    *hook.Transaction
}

func newTalk(t *testing.T, config, from string) *talk {
	t.Helper()
	c, tx := plugintest.Session(t, from, "b@example.net")
	c.Me, c.Remote.Addr, c.Local = "mx.example.net", netip.MustParseAddrPort("203.0.113.9:1000"), netip.MustParseAddrPort("198.51.100.1:25")
	return &talk{plugintest.Chain(t, New, plugintest.Own(load(t, config)), plugin.Services{Resolver: policies}), c, tx}
}

func (k *talk) hello(t *testing.T, host string) hook.Verdict {
	k.conn.Hello = hook.Hello{Verb: "EHLO", Host: host}
	return k.chain.Run(t.Context(), hook.OnEhlo, &hook.Event{Conn: k.conn.View(), Host: host})
}

func (k *talk) mail(t *testing.T) string {
	v := k.chain.Run(t.Context(), hook.OnMail, &hook.Event{Conn: k.conn.View(), Tx: k.tx.View()})
	if v.Reply != nil {
		return v.Reply.String()
	}
	if v.Code == hook.Cont {
		return ""
	}
	return v.Code.String() + " " + v.Text
}

// Every reply, for strangers and for clients that may relay.
func TestReplies(t *testing.T) {
	for _, c := range []struct{ from, hello, want, openspf string }{
		{"a@pass.example", "x", "", ""},
		{"a@neutral.example", "x", "", ""},
		{"a@none.example", "x", "DENY sender <a@none.example> SPF record not found", "550 5.7.1 http://www.openspf.org/Why?s=mfrom&id=a@none.example&ip=203.0.113.9"},
		{"a@soft.example", "x", "DENY sender <a@soft.example> SPF SoftFail", "550 5.7.23 http://www.openspf.org/Why?s=mfrom&id=a@soft.example&ip=203.0.113.9"},
		{"a@fail.example", "x", "DENY sender <a@fail.example> SPF Fail", "550 5.7.23 http://www.openspf.org/Why?s=mfrom&id=a@fail.example&ip=203.0.113.9"},
		{"a@wrong.example", "x", "550 5.7.23 sender <a@wrong.example> SPF Permanent Error", "550 5.7.23 sender <a@wrong.example> SPF Permanent Error"},
		{"a@broken.example", "x", "451 4.7.24 sender <a@broken.example> SPF Temporary Error", "451 4.7.24 sender <a@broken.example> SPF Temporary Error"},
		{"", "pass.example", "", ""},
		{"", "none.example", "DENY sender <> via none.example SPF record not found", "550 5.7.1 http://www.openspf.org/Why?s=helo&id=none.example&ip=203.0.113.9"},
		{"", "soft.example", "DENY sender <> via soft.example SPF SoftFail", "550 5.7.23 http://www.openspf.org/Why?s=helo&id=soft.example&ip=203.0.113.9"},
		{"", "fail.example", "DENY sender <> via fail.example SPF Fail", "550 5.7.23 http://www.openspf.org/Why?s=helo&id=fail.example&ip=203.0.113.9"},
		{"", "wrong.example", "550 5.7.23 sender <> via wrong.example SPF Permanent Error", "550 5.7.23 sender <> via wrong.example SPF Permanent Error"},
		{"", "broken.example", "451 4.7.24 sender <> via broken.example SPF Temporary Error", "451 4.7.24 sender <> via broken.example SPF Temporary Error"},
		{"a@pass.example", "fail.example", "", ""}, // the name in HELO counts for the null sender alone
	} {
		for _, relaying := range []bool{false, true} {
			of := ""
			if relaying {
				of = "_relay"
			}
			for config, want := range map[string]string{
				"[deny" + of + "]\n" + all + "[defer" + of + "]\n" + defers:                    c.want,
				"[deny" + of + "]\nopenspf_text=true\n" + all + "[defer" + of + "]\n" + defers: c.openspf,
				"": "",
			} {
				k := newTalk(t, config, c.from)
				k.conn.Relaying, k.tx.Relaying = relaying, relaying
				if v := k.hello(t, c.hello); v.Code != hook.Cont {
					t.Errorf("HELO %s: %v", c.hello, v)
				}
				if got := k.mail(t); got != want {
					t.Errorf("<%s> after HELO %s, relaying %v: %q, want %q", c.from, c.hello, relaying, got, want)
				}
			}
		}
	}
}

func TestResults(t *testing.T) {
	k := newTalk(t, "", "a@Pass.example")
	for range 2 {
		k.hello(t, "fail.example")
	}
	k.mail(t)
	hello, sender := k.conn.Results.For(Name), k.tx.Results.For(Name)
	if hello.Value("scope") != "helo" || hello.Value("result") != "Fail" || hello.Value("domain") != "fail.example" || k.conn.Notes.Get("spf_helo") != 3 {
		t.Errorf("%+v, %v", hello, k.conn.Notes)
	}
	if sender.Value("scope") != "mfrom" || sender.Value("result") != "Pass" || strings.Join(sender.Pass, " ") != "Pass.example" || k.tx.Notes.Get("spf_mail_result") != "Pass" {
		t.Errorf("%+v, %v", sender, k.tx.Notes)
	}
	if strings.Join(k.tx.AuthResults, "|") != "spf=pass smtp.mailfrom=Pass.example" {
		t.Errorf("%q", k.tx.AuthResults)
	}

	// The fields stand on top when the message has come.
	raw := []byte("From: a@pass.example\r\n\r\n")
	k.tx.Header, _, _ = mail.ParseHeader(raw)
	k.tx.Content = mail.Memory{raw}
	k.chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: k.conn.View(), Tx: k.tx.View()})
	want := "Received-SPF: Pass\r\n\t(domain of Pass.example designates 203.0.113.9 as permitted sender)\r\n\treceiver=mx.example.net;\r\n" +
		"\tidentity=mailfrom; client-ip=203.0.113.9; helo=fail.example;\r\n\tenvelope-from=\"a@Pass.example\"\r\n" +
		"Received-SPF: Fail\r\n\t(domain of fail.example does not designate 203.0.113.9 as permitted sender)\r\n\treceiver=mx.example.net;\r\n" +
		"\tidentity=helo; client-ip=203.0.113.9; helo=fail.example;\r\n\tenvelope-from=\"a@Pass.example\"\r\nFrom: a@pass.example\r\n\r\n"
	if got := string(k.tx.Header.Bytes()); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}

	// Mail with the null sender has the result of HELO.
	k = newTalk(t, "", "")
	k.hello(t, "pass.example")
	k.mail(t)
	if strings.Join(k.tx.AuthResults, "|") != "spf=pass smtp.helo=pass.example" || (k.tx.Results.Of(Name) != nil) {
		t.Errorf("%q", k.tx.AuthResults)
	}
}

// The result of a name counts neither for the next one nor for another client: a proxy says
// the name by XCLIENT, and no hook sees it.
func TestAnotherHello(t *testing.T) {
	k := newTalk(t, "[deny]\n"+all, "")
	k.hello(t, "pass.example")
	k.hello(t, "[203.0.113.9]")
	k.mail(t)
	if len(k.tx.AuthResults) > 0 {
		t.Errorf("an address literal has %q", k.tx.AuthResults)
	}

	k = newTalk(t, "[deny]\n"+all, "")
	k.hello(t, "pass.example")
	k.conn.Results, k.conn.Hello.Host = new(result.Store), "fail.example"
	if got := k.mail(t); got != "DENY sender <> via fail.example SPF Fail" {
		t.Errorf("%q", got)
	}
}

// Who is not checked, and what the address is that is.
func TestSkips(t *testing.T) {
	refuse := "[deny]\n" + all + "[deny_relay]\n" + all
	for _, c := range []struct {
		name, config, from, hello    string
		relaying, private            bool
		user                         string
		reply, helloSkip, senderSkip string
	}{
		{"private", refuse, "a@fail.example", "fail.example", false, true, "", "", "helo(private_ip)", ""},
		{"private, relaying", refuse, "a@fail.example", "fail.example", true, true, "", "", "helo(private_ip)", "host(private_ip)"},
		{"relaying", refuse + "[skip]\nrelaying=true\n", "a@fail.example", "fail.example", true, false, "", "", "helo(relay)", "host(relay)"},
		{"user", refuse + "[skip]\nauth=true\n", "a@fail.example", "fail.example", true, false, "u", "", "helo(auth)", "host(auth)"},
		{"user, not skipped", refuse, "a@fail.example", "x", true, false, "u", "DENY sender <a@fail.example> SPF Fail", "", ""},
		{"literal", refuse, "", "[203.0.113.9]", false, false, "", "", "helo(ip_literal)", ""},
		{"myself", refuse + "[relay]\ncontext=myself\n", "a@ours.example", "x", true, true, "", "", "helo(private_ip)", ""},
		{"myself, not ours", refuse + "[relay]\ncontext=myself\n", "a@fail.example", "x", true, true, "", "DENY sender <a@fail.example> SPF Fail", "helo(private_ip)", ""},
	} {
		k := newTalk(t, c.config, c.from)
		k.conn.Relaying, k.conn.Remote.Private, k.conn.AuthUser = c.relaying, c.private, c.user
		k.hello(t, c.hello)
		got := k.mail(t)
		hello, sender := k.conn.Results.For(Name), k.tx.Results.For(Name)
		if got != c.reply || strings.Join(hello.Skip, " ") != c.helloSkip || strings.Join(sender.Skip, " ") != c.senderSkip {
			t.Errorf("%s: %q, skips %q and %q", c.name, got, hello.Skip, sender.Skip)
		}
	}
}

func TestIPv6Field(t *testing.T) {
	k := newTalk(t, "", "a@pass.example")
	k.conn.Remote.Addr = netip.MustParseAddrPort("[2001:db8::1]:1000")
	k.mail(t)
	k.tx.Header, _, _ = mail.ParseHeader([]byte("A: b\r\n\r\n"))
	k.tx.Content = mail.Memory{}
	k.chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: k.conn.View(), Tx: k.tx.View()})
	if got := k.tx.Header.Get("Received-SPF"); !strings.Contains(got, `designates 2001:db8::1 as`) || !strings.Contains(got, `client-ip="2001:db8::1"; helo=;`) {
		t.Errorf("%q", got)
	}
}
