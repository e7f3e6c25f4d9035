package access

import (
	"net/netip"
	"slices"
	"testing"
	"testing/fstest"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

// files are the lists of the cases.
var files = map[string]string{
	"connect.rdns_access.whitelist":       "8.8.8.8\nGood.example.com\n",
	"connect.rdns_access.whitelist_regex": `.*\.friends\.example\.com` + "\n",
	"connect.rdns_access.blacklist":       "8.8.4.4\nbad.example.com\ngood.example.com\nnxdomain\n",
	"connect.rdns_access.blacklist_regex": `dsl-.*\.example\.net` + "\n",
	"mail_from.access.whitelist":          "friend@spam.example\n",
	"mail_from.access.whitelist_regex":    `list-.*@spam\.example` + "\n",
	"mail_from.access.blacklist":          "Spam@Example.com\n",
	"mail_from.access.blacklist_regex":    `.*@spam\.example` + "\n",
	"rcpt_to.access.whitelist":            "open@here.com\n",
	"rcpt_to.access.whitelist_regex":      `open-\d+@here\.com` + "\n",
	"rcpt_to.access.blacklist":            "shut@here.com\n",
	"rcpt_to.access.blacklist_regex":      `shut-\d+@here\.com` + "\n",
	"access.domains":                      "evil.com\nmail.worse.co.uk\n!friend@evil.com\n!good.evil.org\nevil.org\nperson@half.com\nno.such.suffix\n!welcome.com\n",
}

// read reads access.ini and the lists.
func read(text string, lists map[string]string) (*Settings, ini.Problems) {
	folder := fstest.MapFS{file: {Data: []byte(text)}}
	for name, content := range lists {
		folder[name] = &fstest.MapFile{Data: []byte(content)}
	}
	s := &Settings{}
	r := ini.NewReader(folder, "")
	r.Load(s.Tables())
	return s, r.Problems()
}

// ask runs a hook with what it is asked about, and returns the verdict and what was
// found about connection and transaction.
func ask(t *testing.T, s *Settings, p hook.Point, addr, what string) (v hook.Verdict, conn, tx string) {
	t.Helper()
	chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
	c, open := plugintest.Session(t, "a@b.com")
	c.Remote = hook.Remote{Addr: netip.MustParseAddrPort(addr)}
	e := &hook.Event{Conn: c.View()}
	switch p {
	case hook.OnConnect:
		c.Remote.Host = what
	case hook.OnHelo, hook.OnEhlo:
		e.Host = what
	case hook.OnMail:
		open.From, e.Tx = plugintest.Address(t, what), open.View()
	case hook.OnRcpt:
		e.Recipient, e.Tx = mail.Recipient{Address: plugintest.Address(t, what)}, open.View()
	case hook.OnDataPost:
		plugintest.Receive(t, open, what+"\n\n")
		e.Tx = open.View()
	}
	v = chain.Run(t.Context(), p, e)
	return v, c.Results.Of(Name).Line(result.Format{}), open.Results.Of(Name).Line(result.Format{})
}

// The cases are those of haraka-plugin-access 1.4.0, with the texts of its replies.
func TestLists(t *testing.T) {
	s, _ := read("[check]\nany=false\n", files)
	for _, test := range []struct {
		point      hook.Point
		addr, what string
		code       hook.Code
		text       string
		conn, tx   string
	}{
		{hook.OnConnect, "9.9.9.9:1", "mx.example.org", hook.Cont, "", "msg:unlisted(conn)", ""},
		{hook.OnConnect, "9.9.9.9:1", "", hook.Cont, "", "msg:unlisted(conn)", ""},
		{hook.OnConnect, "8.8.8.8:1", "bad.example.com", hook.Cont, "", "whitelist: true, pass:connect.rdns_access.whitelist", ""},
		{hook.OnConnect, "9.9.9.9:1", "good.example.com", hook.Cont, "", "whitelist: true, pass:connect.rdns_access.whitelist", ""},
		{hook.OnConnect, "9.9.9.9:1", "a.FRIENDS.example.com", hook.Cont, "", "whitelist: true, pass:connect.rdns_access.whitelist_regex", ""},
		{hook.OnConnect, "8.8.4.4:1", "x.org", hook.DenyDisconnect, "x.org [8.8.4.4] You are not allowed to connect", "fail:connect.rdns_access.blacklist", ""},
		{hook.OnConnect, "9.9.9.9:1", "BAD.example.com", hook.DenyDisconnect, "BAD.example.com [9.9.9.9] You are not allowed to connect", "fail:connect.rdns_access.blacklist", ""},
		{hook.OnConnect, "9.9.9.9:1", "NXDOMAIN", hook.DenyDisconnect, "NXDOMAIN [9.9.9.9] You are not allowed to connect", "fail:connect.rdns_access.blacklist", ""},
		{hook.OnConnect, "9.9.9.9:1", "dsl-1.example.net", hook.DenyDisconnect, "dsl-1.example.net [9.9.9.9] You are not allowed to connect", "fail:connect.rdns_access.blacklist_regex", ""},
		{hook.OnMail, "9.9.9.9:1", "a@b.com", hook.Cont, "", "", "msg:unlisted(mail)"},
		{hook.OnMail, "9.9.9.9:1", "", hook.Cont, "", "", "skip:null sender"},
		{hook.OnMail, "9.9.9.9:1", "Friend@spam.example", hook.Cont, "", "", "pass:mail_from.access.whitelist"},
		{hook.OnMail, "9.9.9.9:1", "list-a@spam.example", hook.Cont, "", "", "pass:mail_from.access.whitelist_regex"},
		{hook.OnMail, "9.9.9.9:1", "spam@EXAMPLE.com", hook.Deny, "spam@EXAMPLE.com That sender cannot send mail here", "", "fail:mail_from.access.blacklist"},
		{hook.OnMail, "9.9.9.9:1", "x@spam.example", hook.Deny, "x@spam.example That sender cannot send mail here", "", "fail:mail_from.access.blacklist_regex"},
		{hook.OnRcpt, "9.9.9.9:1", "a@here.com", hook.Cont, "", "", "msg:unlisted(rcpt)"},
		{hook.OnRcpt, "9.9.9.9:1", "open@here.com", hook.Cont, "", "", "pass:rcpt_to.access.whitelist"},
		{hook.OnRcpt, "9.9.9.9:1", "open-1@here.com", hook.Cont, "", "", "pass:rcpt_to.access.whitelist_regex"},
		{hook.OnRcpt, "9.9.9.9:1", "shut@here.com", hook.Deny, "shut@here.com That recipient is not allowed", "", "fail:rcpt_to.access.blacklist"},
		{hook.OnRcpt, "9.9.9.9:1", "shut-1@here.com", hook.Deny, "shut-1@here.com That recipient is not allowed", "", "fail:rcpt_to.access.blacklist_regex"},
	} {
		v, conn, tx := ask(t, s, test.point, test.addr, test.what)
		if v.Code != test.code || v.Text != test.text {
			t.Errorf("%s %s: %+v, want %s %q", test.point, test.what, v, test.code, test.text)
		}
		if conn != test.conn || tx != test.tx {
			t.Errorf("%s %s: %q and %q", test.point, test.what, conn, tx)
		}
	}
}

// Plain domains and addresses in access.domains refuse, in contrast to Haraka.
func TestDomains(t *testing.T) {
	s, _ := read("[check]\nconn=false\nmail=false\nrcpt=false\n", files)
	const unwelcome, rejected = "You are not welcome here.", "Email from that domain is not accepted here."
	for _, test := range []struct {
		point    hook.Point
		what     string
		text     string
		conn, tx string
	}{
		{hook.OnConnect, "mx.example.org", "", "msg:unlisted(connect:any)", ""},
		{hook.OnConnect, "NXDOMAIN", "", "", ""},
		{hook.OnConnect, "Unknown", "", "", ""},
		{hook.OnConnect, "DNSERROR", "", "", ""},
		{hook.OnConnect, "", "", "", ""},
		{hook.OnConnect, "mx.evil.com", unwelcome, "blacklist: true, fail:access.domains(evil.com)", ""},
		{hook.OnConnect, "mx.welcome.com", "", "whitelist: true, pass:connect:access.domains", ""},
		{hook.OnHelo, "localhost", "", "fail:invalid domain: localhost", ""},
		{hook.OnEhlo, "[192.0.2.1]", "", "", ""},
		{hook.OnEhlo, "mx.x.test", "", "", ""},
		{hook.OnHelo, "mx.EVIL.com", unwelcome, "blacklist: true, fail:access.domains(evil.com)", ""},
		{hook.OnEhlo, "a.b.worse.co.uk", unwelcome, "blacklist: true, fail:access.domains(worse.co.uk)", ""},
		{hook.OnEhlo, "good.evil.org", "", "whitelist: true, pass:ehlo:access.domains", ""},
		{hook.OnEhlo, "bad.evil.org", unwelcome, "blacklist: true, fail:access.domains(evil.org)", ""},
		{hook.OnMail, "a@evil.com", unwelcome, "blacklist: true, fail:access.domains(evil.com)", ""},
		{hook.OnMail, "Friend@evil.com", "", "whitelist: true, pass:mail:access.domains", ""},
		{hook.OnMail, "person@half.com", unwelcome, "blacklist: true, fail:access.domains(half.com)", ""},
		{hook.OnMail, "other@half.com", "", "msg:unlisted(mail:any)", ""},
		{hook.OnMail, "", "", "", ""},
		{hook.OnRcpt, "a@evil.com", unwelcome, "blacklist: true, fail:access.domains(evil.com)", ""},
		{hook.OnRcpt, "friend@evil.com", "", "whitelist: true, pass:rcpt:access.domains", ""},
		{hook.OnRcpt, "a@here.com", "", "msg:unlisted(rcpt:any)", ""},
		{hook.OnDataPost, "From: a@b.com", "", "msg:unlisted(any)", ""},
		{hook.OnDataPost, "X: y", "", "", "fail:data(missing_from)"},
		{hook.OnDataPost, "From: nobody", "", "", "fail:data(unparsable_from:nobody)"},
		{hook.OnDataPost, "From: X <a@x.test>", "", "", "fail:data(no_od_from:<a@x.test>)"},
		{hook.OnDataPost, "From: X <a@mx.evil.com>", rejected, "blacklist: true, fail:access.domains(evil.com)", ""},
		{hook.OnDataPost, "From: X <friend@evil.com>", "", "whitelist: true, pass:access.domains", ""},
		{hook.OnDataPost, "From: X <a@welcome.com>", "", "whitelist: true, pass:access.domains", ""},
	} {
		v, conn, tx := ask(t, s, test.point, "9.9.9.9:1", test.what)
		if v.Text != test.text || (v.Code == hook.Deny) != (test.text != "") || v.Code != hook.Deny && v.Code != hook.Cont {
			t.Errorf("%s %s: %+v, want %q", test.point, test.what, v, test.text)
		}
		if conn != test.conn || tx != test.tx {
			t.Errorf("%s %s: %q and %q", test.point, test.what, conn, tx)
		}
	}
}

func TestSettings(t *testing.T) {
	// A whitelisted recipient is accepted where that is wanted.
	s, _ := read("[check]\nany=false\n[rcpt]\naccept=true\n", files)
	for what, want := range map[string]hook.Code{"open@here.com": hook.OK, "open-1@here.com": hook.OK, "a@here.com": hook.Cont, "shut@here.com": hook.Deny} {
		if v, _, _ := ask(t, s, hook.OnRcpt, "9.9.9.9:1", what); v.Code != want {
			t.Errorf("%s: %+v", what, v)
		}
	}

	// The texts can be changed, in the older files too.
	s, problems := read("[deny_msg]\nconn=go away\n", map[string]string{
		"mail_from.access.blacklist": "a@b.com\n", "connect.rdns_access.blacklist": "8.8.8.8\n", "mail_from.access.ini": "[general]\ndeny_msg=not from you\n",
	})
	if v, _, _ := ask(t, s, hook.OnMail, "9.9.9.9:1", "a@b.com"); v.Text != "a@b.com not from you" {
		t.Errorf("%+v, %v", v, problems)
	}
	if v, _, _ := ask(t, s, hook.OnConnect, "8.8.8.8:1", "x"); v.Text != "x [8.8.8.8] go away" {
		t.Errorf("%+v", v)
	}

	// What is switched off asks nothing.
	s, _ = read("[check]\nany=no\nconn=no\nmail=no\nrcpt=no\n", files)
	chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
	for _, p := range hook.Points() {
		if chain.Has(p) {
			t.Errorf("it registers %s", p)
		}
	}
}

// What cannot be expressed is an error with its file and line, what matches nothing a
// warning.
func TestProblems(t *testing.T) {
	_, problems := read("", map[string]string{"mail_from.access.blacklist_regex": "ok\n(?!x).*\n", "access.domains": "evil.com\nmx.evil.com\nlocalhost\n!x\n"})
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	want := []string{
		`config/access.domains:2: warning: "mx.evil.com" stands for all of evil.com`,
		`config/access.domains:3: warning: "localhost" is below no registered domain: it matches nothing`,
		`config/mail_from.access.blacklist_regex:2: look-around such as (?=…) and (?!…) cannot be expressed here`,
	}
	if !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
	if len(problems.Errors()) != 1 {
		t.Errorf("%v", problems.Errors())
	}
}
