package isresolvable

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"tarishi/internal/dns"
	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

// settings reads the ini file; lines is for problems.
func settings(t *testing.T, text string) (*Settings, ini.Problems) {
	t.Helper()
	s := &Settings{}
	r := ini.NewReader(fstest.MapFS{file: {Data: []byte(text)}}, "")
	r.Load(s.Tables())
	return s, r.Problems()
}

// world is the DNS of the cases.
var world = &plugintest.DNS{
	Exchangers: map[string][]string{
		"good.com": {"mx.good.com"}, "second.com": {"gone.second.com", "mx.good.com"}, "null.com": {""}, "ip.com": {"198.51.100.7"},
		"bogusip.com": {"127.0.0.1"}, "ip6.com": {"2a00::1"}, "loop.com": {"localhost.loop.com"}, "gone.com": {"gone.gone.com"},
		"six.com": {"six.good.com"}, "docs.com": {"docs.good.com"}, "broken-mx.com": {"x"}, "broken-host.com": {"broken.good.com"},
		"half.com": {"broken.good.com", "mx.good.com"}, "slow-host.com": {"slow.good.com"}, "xn--exmple-cua.com": {"mx.good.com"},
		"mixed.com": {"198.51.100.7", "gone.gone.com"}, "zero.com": {"zero.good.com"},
	},
	Addresses: map[string][]string{
		"mx.good.com": {"203.0.113.5"}, "localhost.loop.com": {"127.0.0.1"}, "implicit.com": {"203.0.113.6"}, "bogus.com": {"127.0.0.2"},
		"six.good.com": {"2a00:1450::1"}, "docs.good.com": {"2001:db8::1", "fe80::1", "fc00::1"},
	},
	Errors: map[string]error{
		"broken-mx.com": plugintest.ErrBroken, "broken.good.com": plugintest.ErrBroken, "slow.com": plugintest.ErrSlow, "slow.good.com": plugintest.ErrSlow,
		"zero.good.com": dns.ErrUnusable,
	},
}

// The cases are those of haraka-plugin-mail_from.is_resolvable 1.3.0 and its sheet, with
// the texts of its replies.
func TestSender(t *testing.T) {
	const (
		noMX      = "902 No MX for your FROM address"
		noValidMX = "902 No valid MX for your FROM address"
		softMX    = "903 No MX for your FROM address"
		softValid = "903 No valid MX for your FROM address"
		allow     = "allow_mx_ip=true\n"
	)
	for _, test := range []struct{ from, ini, want, results string }{
		{"", "", "900 ", "skip:null host"},
		{"postmaster", "", "900 ", "skip:null host"},
		{"a@[203.0.113.9]", "", "900 ", "skip:literal"},
		{"a@good.com", "", "900 ", "pass:has_fwd_dns"},
		{"a@GOOD.com", "", "900 ", "pass:has_fwd_dns"},
		{"a@exämple.com", "", "900 ", "pass:has_fwd_dns"},
		{"a@second.com", "", "900 ", "pass:has_fwd_dns"},
		{"a@six.com", "", "900 ", "pass:has_fwd_dns"},
		{"a@docs.com", "", noValidMX, "fail:has_fwd_dns"},
		{"a@nowhere.com", "", noMX, "fail:has_fwd_dns"},
		{"a@nowhere.com", "[reject]\nno_mx=no\n", "900 ", "fail:has_fwd_dns"},
		{"a@nowhere.com", "[reject]\nno_mx=false\n", softMX, "fail:has_fwd_dns"},
		{"a@nowhere.com", "[reject]\nno_mx=defer\n", softMX, "fail:has_fwd_dns"},
		{"a@nowhere.com", "[reject]\nno_mx=denysoft\n", noMX, "fail:has_fwd_dns"},
		{"a@loop.com", "", noValidMX, "fail:has_fwd_dns"},
		{"a@loop.com", "re_bogus_ip=^10[.]\n", "900 ", "pass:has_fwd_dns"},
		{"a@loop.com", "[reject]\nno_mx=defer\n", softValid, "fail:has_fwd_dns"},
		{"a@loop.com", "[reject]\nno_mx=no\n", "900 ", "fail:has_fwd_dns"},
		{"a@gone.com", "", noValidMX, "fail:has_fwd_dns"},
		{"a@zero.com", "", noValidMX, "fail:has_fwd_dns"},
		{"a@null.com", "", "902 550 5.7.27 Null MX: null.com does not send mail", "fail:null_mx"},
		{"a@null.com", "[reject]\nno_mx=defer\n", "902 550 5.7.27 Null MX: null.com does not send mail", "fail:null_mx"},
		{"a@null.com", "[reject]\nno_mx=no\n", "900 ", "fail:null_mx"},
		{"a@implicit.com", "", noValidMX, "fail:has_fwd_dns"},
		{"a@implicit.com", allow, "900 ", "pass:implicit_mx"},
		{"a@bogus.com", allow, noValidMX, "fail:has_fwd_dns"},
		{"a@ip.com", "", noValidMX, "fail:has_fwd_dns"},
		{"a@ip.com", allow, "900 ", "pass:implicit_mx"},
		{"a@ip6.com", allow, "900 ", "pass:implicit_mx"},
		{"a@bogusip.com", allow, noValidMX, "fail:has_fwd_dns"},
		{"a@mixed.com", allow, "900 ", "pass:implicit_mx"},
		{"a@mixed.com", "", noValidMX, "fail:has_fwd_dns"},
		{"a@broken-mx.com", "", "903 Temp. resolver error (ESERVFAIL)", "err:MX broken-mx.com: temporary failure: SERVFAIL"},
		{"a@broken-mx.com", "[reject]\nno_mx=no\n", "903 Temp. resolver error (ESERVFAIL)", "err:MX broken-mx.com: temporary failure: SERVFAIL"},
		{"a@slow.com", "timeout_ms=1\n", "903 Temp. resolver error (ETIMEOUT)", "err:MX slow.com: temporary failure: context deadline exceeded"},
		{"a@broken-host.com", "", "903 Temp. resolver error (ESERVFAIL)", "err:A broken.good.com: temporary failure: SERVFAIL"},
		{"a@half.com", "", "900 ", "pass:has_fwd_dns"},
		{"a@slow-host.com", "timeout_ms=1\n", "903 Temp. resolver error (ETIMEOUT)", "err:A slow.good.com: temporary failure: context deadline exceeded"},
	} {
		s, _ := settings(t, test.ini)
		chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{Resolver: world})
		c, tx := plugintest.Session(t, test.from)
		v := chain.Run(t.Context(), hook.OnMail, &hook.Event{Conn: c.View(), Tx: tx.View()})
		got := v.Text
		if v.Reply != nil {
			got = v.Reply.String()
		}
		if got = codeOf(v.Code) + " " + got; got != test.want {
			t.Errorf("%s %q: %q, want %q", test.from, test.ini, got, test.want)
		}
		if got := tx.Results.Of(Name).Line(result.Format{}); got != test.results {
			t.Errorf("%s %q: results %q, want %q", test.from, test.ini, got, test.results)
		}
	}
}

func codeOf(c hook.Code) string {
	return map[hook.Code]string{hook.Cont: "900", hook.Deny: "902", hook.DenySoft: "903"}[c]
}

func TestSettings(t *testing.T) {
	s, problems := settings(t, "")
	if len(problems) > 0 || s.Timeout != 5*time.Second || s.NoMX != reject || s.AllowIP || !s.Bogus.MatchString("127.1.1.1") {
		t.Errorf("%+v, %v", s, problems)
	}
	if s, problems = settings(t, "timeout_ms=0\n"); len(problems) > 0 || s.Timeout != 5*time.Second {
		t.Errorf("%+v, %v", s, problems)
	}
	if _, problems = settings(t, "[reject]\nno_mx=denysoft\n"); len(problems) != 1 || !problems[0].Warning || problems[0].Line != 2 {
		t.Errorf("%v", problems)
	}
	if _, problems = settings(t, "re_bogus_ip=^(?!10)\n"); len(problems.Errors()) != 1 || problems[0].Line != 1 {
		t.Errorf("%v", problems)
	}
	var b strings.Builder
	ini.Print(&b, s.Tables())
	if !strings.Contains(b.String(), "timeout_ms=5000\n") {
		t.Errorf("%s", b.String())
	}
}
