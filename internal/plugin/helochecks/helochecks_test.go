package helochecks

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/localaddr"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

// read reads helo.checks.ini and helo.checks.regexps.
func read(text, expressions string) (*Settings, ini.Problems) {
	s := &Settings{}
	r := ini.NewReader(fstest.MapFS{file: {Data: []byte(text)}, expressionsFile: {Data: []byte(expressions)}}, "")
	r.Load(s.Tables())
	return s, r.Problems()
}

// only is a helo.checks.ini with one check, or a few with blanks between them, which
// reject or do not.
func only(keys string, reject bool) string {
	var b strings.Builder
	b.WriteString("[check]\n")
	for _, row := range new(Settings).checkRows() {
		if row.Key != "literal_mismatch" && !slices.Contains(strings.Fields(keys), row.Key) {
			b.WriteString(row.Key + "=false\n")
		}
	}
	if reject {
		b.WriteString("[reject]\n")
		for key := range strings.FieldsSeq(keys) {
			b.WriteString(key + "=true\n")
		}
	}
	return b.String()
}

var world = &plugintest.DNS{
	Addresses: map[string][]string{
		"mx.example.com": {"2a00::7", "8.8.8.45"}, "other.example.com": {"9.9.9.9"}, "big.example.com": {"2a00::7"},
	},
	Errors: map[string]error{"broken.example.com": plugintest.ErrBroken, "slow.example.com": plugintest.ErrSlow},
}

// greet has a client greet, and returns the verdict and what was found.
func greet(t *testing.T, chain *hook.Chain, c *hook.Connection, line string) hook.Verdict {
	t.Helper()
	verb, name, _ := strings.Cut(line, " ")
	c.Hello = hook.Hello{Verb: verb, Host: name}
	p := hook.OnEhlo
	if verb == "HELO" {
		p = hook.OnHelo
	}
	return chain.Run(t.Context(), p, &hook.Event{Conn: c.View(), Host: name})
}

// client returns a connection of a client with a name in the DNS.
func client(t *testing.T, addr, rdns string) *hook.Connection {
	c, _ := plugintest.Session(t, "a@b.c")
	at := netip.MustParseAddr(addr)
	c.Remote = hook.Remote{Addr: netip.AddrPortFrom(at, 1), Host: rdns, Private: localaddr.IsPrivate(at)}
	return c
}

// found is what the plugin left, without the name and the check that is always made.
func found(c *hook.Connection) string {
	left := c.Results.Of(Name).Clone()
	left.Pass = slices.DeleteFunc(left.Pass, func(text string) bool { return text == "literal_mismatch" })
	return left.Line(result.Format{Order: []string{"fail", "pass", "msg", "err", "skip"}, Hide: []string{firstName}})
}

// The cases are those of haraka-plugin-helo.checks 1.1.3, with the texts of its replies.
func TestChecks(t *testing.T) {
	const dot = "HELO host must be a FQDN or address literal (RFC 5321 2.3.5)"
	for _, test := range []struct{ checks, rdns, name, want, text string }{
		{"match_re", "", "mx.example.com", "pass:match_re", ""},
		{"match_re", "", "x.EVIL", "fail:match_re", "That HELO not allowed here"},
		{"match_re", "", "x.evil.com", "pass:match_re", ""},
		{"bare_ip", "", "mx.example.com", "pass:bare_ip", ""},
		{"bare_ip", "", "[8.8.8.45]", "pass:bare_ip", ""},
		{"bare_ip", "", "8.8.8.45", "fail:bare_ip(invalid literal)", "Invalid address format in HELO"},
		{"bare_ip", "", "IPv6:2a00::1", "fail:bare_ip(invalid literal)", "Invalid address format in HELO"},
		{"dynamic", "", "host-8-45.example.com", "fail:dynamic", "HELO is dynamic"},
		{"dynamic", "", "mx.example.com", "pass:dynamic", ""},
		{"dynamic", "", "localhost", "skip:dynamic(no dots)", ""},
		{"dynamic", "", "[8.8.8.45]", "skip:dynamic(literal)", ""},
		{"dynamic", "", "8.8.8.45", "skip:dynamic(literal)", ""},
		{"big_company", "", "[8.8.8.45]", "skip:big_co(literal)", ""},
		{"big_company", "mx.x.com", "mx.example.com", "pass:big_co(not)", ""},
		{"big_company", "mx1.yahoo.co.jp", "yahoo.com", "pass:big_co", ""},
		{"big_company", "yahoo.com", "yahoo.com", "pass:big_co", ""},
		{"big_company", "notyahoo.com", "yahoo.com", "fail:big_co", "You are not who you say you are"},
		{"big_company", "NXDOMAIN", "yahoo.com", "fail:big_co", "You are not who you say you are"},
		{"big_company", "", "yahoo.com", "fail:big_co(rDNS)", "Big company w/o rDNS? Unlikely."},
		{"big_company", "Unknown", "yahoo.com", "fail:big_co(rDNS)", "Big company w/o rDNS? Unlikely."},
		{"big_company", "DNSERROR", "yahoo.com", "fail:big_co(rDNS)", "Big company w/o rDNS? Unlikely."},
		{"valid_hostname", "", "mx.example.com", "pass:valid_hostname", ""},
		{"valid_hostname", "", "[8.8.8.45]", "skip:valid_hostname(literal)", ""},
		{"valid_hostname", "", "mx.example.nosuch", "fail:valid_hostname", "HELO host name invalid"},
		{"valid_hostname", "", "co.uk", "fail:valid_hostname", "HELO host name invalid"},
		{"valid_hostname", "", "mx.example.corp", "skip:valid_hostname(corp)", ""},
		{"valid_hostname", "", "mx.example.lan", "skip:valid_hostname(lan)", ""},
		{"rdns_match", "mx.example.com", "MX.example.com", "pass:rdns_match", ""},
		{"rdns_match", "a.example.com", "mx.example.com", "pass:rdns_match(org_dom)", ""},
		{"rdns_match", "a.example.org", "mx.example.com", "fail:rdns_match", "HELO host does not match rDNS"},
		{"rdns_match", "DNSERROR", "mx.example.com", "fail:rdns_match", "HELO host does not match rDNS"},
		{"rdns_match", "NXDOMAIN", "mx.example.com", "fail:rdns_match", "HELO host does not match rDNS"},
		{"rdns_match", "NXDOMAIN", "NXDOMAIN", "fail:rdns_match", "HELO host does not match rDNS"},
		{"rdns_match", "mx.example.com", "[8.8.8.45]", "fail:rdns_match(literal)", ""},
		{"forward_dns", "", "mx.example.com", "err:forward_dns(valid_hostname disabled)", ""},
		{"host_mismatch", "", "mx.example.com", "pass:host_mismatch", ""},
		{"proto_mismatch", "", "mx.example.com", "", ""},
		{"valid_hostname forward_dns", "", "mx.example.com", "ips: 2a00::7,8.8.8.45, pass:valid_hostname, forward_dns", ""},
		{"valid_hostname forward_dns", "", "gone.example.com", "fail:forward_dns(no ips), pass:valid_hostname", ""},
		{"valid_hostname forward_dns", "", "broken.example.com", "fail:forward_dns(no ips), pass:valid_hostname, err:forward_dns(A broken.example.com: temporary failure: SERVFAIL)", ""},
		{"valid_hostname forward_dns", "", "other.example.com", "ips: 9.9.9.9, fail:forward_dns(no IP match), pass:valid_hostname", "HELO host has no forward DNS match"},
		{"valid_hostname forward_dns", "", "[8.8.8.45]", "skip:valid_hostname(literal), forward_dns(literal)", ""},
		{"valid_hostname rdns_match forward_dns", "a.example.com", "big.example.com", "ips: 2a00::7, pass:valid_hostname, rdns_match(org_dom), forward_dns(domain)", ""},
	} {
		for _, reject := range []bool{false, true} {
			s, problems := read(only(test.checks, reject)+"[skip]\ntlds[]=corp\ntlds[]=.LAN\n", "x[.]evil\n")
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{Resolver: world})
			c := client(t, "8.8.8.45", test.rdns)
			v := greet(t, chain, c, "EHLO "+test.name)
			code, text := hook.Cont, ""
			if reject && test.text != "" {
				code, text = hook.Deny, test.text
				if strings.HasSuffix(test.want, "(rDNS)") || test.rdns == "DNSERROR" {
					code = hook.DenySoft // the DNS may know a name later
				}
			}
			if v.Code != code || v.Text != text {
				t.Errorf("%s %s reject %v: %+v, want %q", test.checks, test.name, reject, v, text)
			}
			if got := found(c); got != test.want {
				t.Errorf("%s %s: %q, want %q", test.checks, test.name, got, test.want)
			}
		}
	}

	// A name may fail one check in several ways, of which the first decides.
	for name, want := range map[string]string{"localhost": dot, "mx.exämple": "501 5.5.4 HELO/EHLO argument invalid - HELO hostname contains non-ASCII characters (RFC 5321 2.3.5), closing connection"} {
		s, _ := read(only("valid_hostname", true), "")
		v := greet(t, plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{}), client(t, "8.8.8.45", ""), "EHLO "+name)
		got := v.Text
		if v.Reply != nil {
			got = v.Reply.String()
		}
		if v.Code != hook.Deny || got != want {
			t.Errorf("%s: %+v", name, v)
		}
	}
	s, _ := read(only("valid_hostname forward_dns", false), "")
	c := client(t, "8.8.8.45", "")
	greet(t, plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{}), c, "EHLO exämple")
	if got := found(c); got != "fail:valid_hostname(no_dot), valid_hostname(not_ascii), valid_hostname, forward_dns(invalid_hostname)" {
		t.Errorf("%q", got)
	}
}

// A name that is not valid has no addresses that are looked for.
func TestInvalidForward(t *testing.T) {
	s, _ := read(only("valid_hostname forward_dns", false)+"[reject]\nforward_dns=true\n", "")
	v := greet(t, plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{}), client(t, "8.8.8.45", ""), "EHLO localhost")
	if v.Code != hook.Deny || v.Text != "Invalid HELO host cannot achieve forward DNS match" {
		t.Errorf("%+v", v)
	}
}

// Name servers that do not answer in time defer a client, if its name has to have its
// address.
func TestTimeout(t *testing.T) {
	for _, reject := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := read(only("valid_hostname forward_dns", reject), "")
			c := client(t, "8.8.8.45", "")
			v := greet(t, plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{Resolver: world}), c, "EHLO slow.example.com")
			if want := map[bool]hook.Code{true: hook.DenySoft, false: hook.Cont}[reject]; v.Code != want || reject && v.Text != "DNS timeout resolving your HELO hostname" {
				t.Errorf("%+v", v)
			}
			if got := found(c); !strings.HasPrefix(got, "fail:forward_dns(ETIMEOUT), pass:valid_hostname") || strings.Contains(got, "err:") == reject {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestLiteral(t *testing.T) {
	const network, exact = "HELO IP literal not in the same /24 as your IP address", "HELO IP literal does not match your IP address"
	for _, test := range []struct{ mode, addr, name, result, text string }{
		{"1", "8.8.8.45", "[8.8.8.45]", "pass:literal_mismatch", ""},
		{"1", "8.8.8.45", "[8.8.8.44]", "fail:literal_mismatch", exact},
		{"false", "8.8.8.45", "[8.8.8.44]", "fail:literal_mismatch", exact},
		{"1", "2a00::1", "[IPv6:2a00::1]", "pass:literal_mismatch", ""},
		{"2", "8.8.8.45", "[8.8.8.44]", "pass:literal_mismatch", ""},
		{"2", "8.8.8.45", "[8.8.9.45]", "fail:literal_mismatch", network},
		{"2", "2a00::1", "[IPv6:2a00::1]", "fail:literal_mismatch", network},
		{"2", "8.8.8.45", "[192.168.0.1]", "fail:literal_mismatch", network},
		{"3", "8.8.8.45", "[192.168.0.1]", "pass:literal_mismatch(private)", ""},
		{"3", "8.8.8.45", "[9.9.9.9]", "fail:literal_mismatch", network},
		{"3", "8.8.8.45", "mx.example.com", "pass:literal_mismatch", ""},
	} {
		for _, reject := range []string{"false", "true"} {
			s, _ := read(only("", false)+"literal_mismatch="+test.mode+"\n[reject]\nliteral_mismatch="+reject+"\n", "")
			c := client(t, test.addr, "")
			v := greet(t, plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{}), c, "HELO "+test.name)
			if got := c.Results.Of(Name).Line(result.Format{Hide: []string{firstName}}); got != test.result {
				t.Errorf("%+v: %q", test, got)
			}
			text := test.text
			if reject == "false" {
				text = ""
			}
			if v.Text != text || (v.Code == hook.Deny) != (text != "") {
				t.Errorf("%+v, reject %s: %+v", test, reject, v)
			}
		}
	}
}

// A client that was refused is refused again, whatever it repeats, and one that was
// accepted is held to its name and its verb. A name that is repeated is looked at once.
func TestAgain(t *testing.T) {
	s, _ := read(only("proto_mismatch match_re host_mismatch", true), "x[.]evil\n")
	chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
	c := client(t, "8.8.8.45", "")
	for _, step := range []struct{ line, text string }{
		{"EHLO x.evil", "That HELO not allowed here"},
		{"EHLO x.evil", "That HELO not allowed here"},
		{"HELO x.evil", "That HELO not allowed here"},
		{"EHLO a.example.com", ""},
		{"EHLO a.example.com", ""},
		{"EHLO x.evil", "That HELO not allowed here"},
		{"EHLO b.example.com", "HELO host host_mismatch(a.example.com / b.example.com)"},
		{"EHLO b.example.com", "HELO host host_mismatch(a.example.com / b.example.com)"},
		{"HELO a.example.com", "HELO protocol mismatch"},
		{"EHLO a.example.com", ""},
	} {
		if v := greet(t, chain, c, step.line); v.Text != step.text || (v.Code == hook.Deny) != (step.text != "") {
			t.Errorf("%s: %+v, want %q", step.line, v, step.text)
		}
	}
	r := c.Results.Of(Name)
	if r.Value(firstName) != "x.evil" || !slices.Equal(r.Pass, []string{"match_re", "host_mismatch", "literal_mismatch", "match_re", "match_re"}) {
		t.Errorf("%+v", r)
	}

	c = client(t, "8.8.8.45", "")
	if v := greet(t, chain, c, "HELO a.example.com"); v.Code != hook.Cont {
		t.Errorf("%+v", v)
	}
	if v := greet(t, chain, c, "EHLO a.example.com"); v.Text != "EHLO protocol mismatch" {
		t.Errorf("%+v", v)
	}
}

// What a proxy calls itself binds none of the clients whose connections it hands on.
func TestProxy(t *testing.T) {
	s, _ := read(only("proto_mismatch host_mismatch", true), "")
	chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
	c := client(t, "192.168.0.1", "")
	for _, step := range []struct{ addr, line, text string }{
		{"192.168.0.1", "EHLO proxy.example.com", ""},
		{"8.8.8.45", "HELO a.example.com", ""},
		{"8.8.8.45", "HELO b.example.com", "HELO host host_mismatch(a.example.com / b.example.com)"},
	} {
		c.Remote = client(t, step.addr, "").Remote
		if v := greet(t, chain, c, step.line); v.Text != step.text {
			t.Errorf("%s: %+v, want %q", step.line, v, step.text)
		}
	}
	if first := c.Results.Of(Name).Value(firstName); first != "a.example.com" {
		t.Error(first)
	}
}

// Private clients and those that may relay are not checked, unless skip says otherwise.
func TestSkip(t *testing.T) {
	const keys = "proto_mismatch(%), match_re(%), bare_ip(%), dynamic(%), big_company(%), valid_hostname(%), rdns_match(%), forward_dns(%), host_mismatch(%), literal_mismatch(%)"
	for _, test := range []struct {
		addr, ini string
		relaying  bool
		want      string
	}{
		{"192.168.1.1", "", false, "skip:" + strings.ReplaceAll(keys, "%", "private")},
		{"8.8.8.8", "", true, "skip:" + strings.ReplaceAll(keys, "%", "relay")},
		{"192.168.1.1", "", true, "skip:" + strings.ReplaceAll(keys, "%", "relay")},
		{"192.168.1.1", "[skip]\nprivate_ip=false\n", false, ""},
		{"8.8.8.8", "[skip]\nrelaying=false\n", true, ""},
	} {
		s, _ := read(test.ini, "")
		c := client(t, test.addr, "")
		c.Relaying = test.relaying
		greet(t, plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{Resolver: world}), c, "EHLO mx.example.com")
		got := c.Results.Of(Name).Line(result.Format{Hide: []string{firstName}})
		if test.want != "" && got != test.want || test.want == "" && strings.Contains(got, "skip") {
			t.Errorf("%+v: %q", test, got)
		}
	}
}

func TestSettings(t *testing.T) {
	s, problems := read("check_no_dot=false\ncheck_dynamic=no\ncheck_raw_ip=0\ndns_timeout=28\n[check]\nmismatch=false\nliteral_mismatch=off\n[reject]\nmismatch=true\n[skip]\nwhitelist=true\n[bigco]\nx.com=y.com, z.com\nmsn.com=x.com\n", "a(?=b)\nok\n")
	if s.Check.ValidHostname || s.Check.Dynamic || s.Check.BareIP || s.Check.HostMismatch || !s.Reject.HostMismatch || s.LiteralMode != literalSame {
		t.Errorf("%+v", s)
	}
	if !slices.Equal(s.Companies["x.com"], []string{"y.com", "z.com"}) || !slices.Equal(s.Companies["msn.com"], []string{"x.com"}) || len(s.Companies) != 15 {
		t.Errorf("%v", s.Companies)
	}
	if bad := problems.Errors(); len(bad) != 1 || bad[0].File != "config/helo.checks.regexps" || bad[0].Line != 1 || len(s.Expressions) != 1 {
		t.Errorf("%v", bad)
	}
	if s, problems := read("", ""); len(problems) > 0 || s.Reject != (Rejections{}) || s.LiteralMode != literalNetwork || !s.Skip.Private || !s.Skip.Relaying {
		t.Errorf("%+v, %v", s, problems)
	}
}
