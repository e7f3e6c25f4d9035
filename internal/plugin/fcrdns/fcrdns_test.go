package fcrdns

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

func read(text string) (*Settings, ini.Problems) {
	s := &Settings{}
	r := ini.NewReader(fstest.MapFS{file: {Data: []byte(text)}}, "")
	r.Load(s.Tables())
	return s, r.Problems()
}

var world = &plugintest.DNS{
	Names: map[string][]string{
		"8.8.8.1": {"mx.good.com"}, "8.8.8.2": {"near.good.com"}, "8.8.8.3": {"wrong.good.com"}, "8.8.8.4": {"gone.good.com"},
		"8.8.8.5": {"mx.good.local"}, "8.8.8.6": {"mx.bad.local", "six.good.com"}, "8.8.8.7": {"host-8-7.isp.com"}, "8.8.8.9": {"host-8-9.static.isp.com"},
		"8.8.8.10": {"ten.good.com", "ten.other.org"}, "8.8.8.11": {"broken.good.com"}, "2a00::1": {"six6.good.com"}, "8.8.8.14": {"slow.good.com"},
	},
	Addresses: map[string][]string{
		"mx.good.com": {"2a00::8", "8.8.8.1"}, "near.good.com": {"8.8.8.77"}, "wrong.good.com": {"2a00::9", "9.9.9.9"}, "six.good.com": {"8.8.8.6"},
		"host-8-7.isp.com": {"8.8.8.7"}, "host-8-9.static.isp.com": {"8.8.8.9"}, "ten.good.com": {"9.9.9.10"}, "ten.other.org": {"8.8.8.10"},
		"six6.good.com": {"2a00::1"},
	},
	Errors: map[string]error{
		"8.8.8.12": plugintest.ErrBroken, "8.8.8.13": plugintest.ErrSlow, "broken.good.com": plugintest.ErrBroken, "slow.good.com": plugintest.ErrSlow,
	},
}

// connect runs the hooks of a new connection, and returns the verdict at connect.
func connect(t *testing.T, chain *hook.Chain, c *hook.Connection) hook.Verdict {
	t.Helper()
	chain.Run(t.Context(), hook.OnConnectInit, &hook.Event{Conn: c.View()})
	if v := chain.Run(t.Context(), hook.OnLookupRDNS, &hook.Event{Conn: c.View()}); v.Code != hook.Cont || v.Text != "" {
		t.Errorf("at lookup_rdns: %+v", v)
	}
	return chain.Run(t.Context(), hook.OnConnect, &hook.Event{Conn: c.View()})
}

func client(t *testing.T, addr string) *hook.Connection {
	c, _ := plugintest.Session(t, "a@b.c")
	c.Remote.Addr = netip.AddrPortFrom(netip.MustParseAddr(addr), 1)
	return c
}

// line is what was found, without the values that are empty or false.
func line(c *hook.Connection) string {
	all := c.Results.Of(Name).Line(result.Format{Hide: []string{valueRefusal}})
	for _, idle := range []string{valueMultiple, valueHasNames, valueHasAddresses, valueGeneric} {
		all = strings.ReplaceAll(all, idle+": false, ", "")
		all = strings.TrimSuffix(all, idle+": false")
	}
	return strings.TrimSuffix(all, ", ")
}

// The cases are those of haraka-plugin-fcrdns 1.2.1, with the texts of its replies.
func TestClients(t *testing.T) {
	for _, test := range []struct{ addr, found, iprev, key, code, text string }{
		{"8.8.8.1", "fcrdns: mx.good.com, ptr_names: mx.good.com, has_rdns: true, ptr_name_has_ips: true, pass:fcrdns, is_generic_rdns", "pass", "", "", ""},
		{"2a00::1", "fcrdns: six6.good.com, ptr_names: six6.good.com, has_rdns: true, ptr_name_has_ips: true, pass:fcrdns, is_generic_rdns", "pass", "", "", ""},
		{"8.8.8.2", "fcrdns: near.good.com, ptr_names: near.good.com, has_rdns: true, ptr_name_has_ips: true, pass:fcrdns(net), is_generic_rdns", "pass", "", "", ""},
		{"8.8.8.3", "other_ips: 2a00::9,9.9.9.9, ptr_names: wrong.good.com, has_rdns: true, ptr_name_has_ips: true, pass:is_generic_rdns", "fail", "no_fcrdns", "DENY", "Sorry, no FCrDNS match found"},
		{"8.8.8.4", "ptr_names: gone.good.com, has_rdns: true, pass:is_generic_rdns, fail:ptr_valid(gone.good.com)", "fail", "no_fcrdns", "DENY", "Sorry, no FCrDNS match found"},
		{"8.8.8.5", "invalid_tlds: mx.good.local, ptr_names: mx.good.local, has_rdns: true, fail:valid_tld(mx.good.local)", "fail", "no_fcrdns", "DENY", "Sorry, no FCrDNS match found"},
		{"8.8.8.5", "invalid_tlds: mx.good.local, ptr_names: mx.good.local, has_rdns: true, fail:valid_tld(mx.good.local)", "", "invalid_tld", "DENY", "client [8.8.8.5] rejected; invalid TLD in rDNS (mx.good.local)"},
		{"8.8.8.6", "fcrdns: six.good.com, invalid_tlds: mx.bad.local, ptr_names: mx.bad.local,six.good.com, has_rdns: true, ptr_name_has_ips: true, pass:fcrdns, is_generic_rdns, fail:valid_tld(mx.bad.local)", "pass", "", "", ""},
		{"8.8.8.7", "fcrdns: host-8-7.isp.com, ptr_names: host-8-7.isp.com, has_rdns: true, ptr_name_has_ips: true, generic_rdns: true, pass:fcrdns, fail:is_generic_rdns", "", "generic_rdns", "DENY", "client host-8-7.isp.com [8.8.8.7] rejected; generic rDNS, please use your ISPs SMTP relay"},
		{"8.8.8.9", "fcrdns: host-8-9.static.isp.com, ptr_names: host-8-9.static.isp.com, has_rdns: true, ptr_name_has_ips: true, pass:fcrdns, fail:is_generic_rdns", "pass", "", "", ""},
		{"8.8.8.10", "fcrdns: ten.other.org, other_ips: 9.9.9.10, ptr_names: ten.good.com,ten.other.org, ptr_multidomain: true, has_rdns: true, ptr_name_has_ips: true, pass:is_generic_rdns, fcrdns, is_generic_rdns", "pass", "", "", ""},
		{"8.8.8.11", "ptr_names: broken.good.com, has_rdns: true, pass:is_generic_rdns, fail:ptr_valid(broken.good.com), err:ESERVFAIL", "temperror", "no_fcrdns", "DENYSOFT", "Sorry, no FCrDNS match found"},
		{"8.8.8.12", "err:ESERVFAIL", "temperror", "no_rdns", "DENYSOFT", "client [8.8.8.12] rDNS lookup error (ESERVFAIL)"},
		{"8.8.8.13", "err:timeout", "temperror", "no_rdns", "DENYSOFT", "client [8.8.8.13] rDNS lookup timeout"},
		{"8.8.8.14", "ptr_names: slow.good.com, has_rdns: true, fail:ptr_valid(slow.good.com), err:timeout", "temperror", "no_rdns", "DENYSOFT", "client [8.8.8.14] rDNS lookup timeout"},
		{"9.9.9.9", "fail:has_rdns", "permerror", "no_rdns", "DENY", "client [9.9.9.9] rejected; no rDNS"},
		{"9.9.9.9", "fail:has_rdns", "permerror", "no_fcrdns", "CONT", ""},
	} {
		for _, reject := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				text := ""
				if reject && test.key != "" {
					text = "[reject]\n" + test.key + "=true\n"
				}
				s, problems := read(text)
				if len(problems) > 0 {
					t.Fatal(problems)
				}
				c := client(t, test.addr)
				chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{Resolver: world})
				v := connect(t, chain, c)
				if got := line(c); got != test.found {
					t.Errorf("%s: %q, want %q", test.addr, got, test.found)
				}
				code, want := "CONT", ""
				if text != "" {
					code, want = test.code, test.text
				}
				if v.Code.String() != code || v.Text != want {
					t.Errorf("%s %s: %+v, want %s %q", test.addr, text, v, code, want)
				}

				// What is refused at once has no outcome.
				iprev := test.iprev
				if iprev == "" && text == "" {
					iprev = map[bool]string{true: "pass", false: "fail"}[strings.Contains(test.found, "pass:fcrdns")]
				}
				quoted := test.addr
				if strings.Contains(quoted, ":") {
					quoted = `"` + quoted + `"`
				}
				var results []string
				if iprev != "" {
					results = []string{"iprev=" + iprev + " policy.iprev=" + quoted}
				}
				_, tx := plugintest.Session(t, "a@b.c", "d@e.f")
				plugintest.Receive(t, tx, "A: b\n\n")
				chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()})
				if !slices.Equal(tx.AuthResults, results) {
					t.Errorf("%s: %q, want %q", test.addr, tx.AuthResults, results)
				}
			})
		}
	}
}

// Every value is there before the search, and whatever comes of it.
func TestValues(t *testing.T) {
	s, _ := read("")
	chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{Resolver: world})
	c := client(t, "192.168.0.1")
	c.Remote.Private = true
	if v := connect(t, chain, c); v.Code != hook.Cont {
		t.Errorf("%+v", v)
	}
	want := map[string]any{
		"fcrdns": []string{}, "invalid_tlds": []string{}, "other_ips": []string{}, "ptr_names": []string{}, "ptr_multidomain": false, "has_rdns": false,
		"ptr_name_has_ips": false, "ptr_name_to_ip": map[string]any{}, "generic_rdns": false,
	}
	r := c.Results.Of(Name)
	if !reflect.DeepEqual(r.Values(), want) || !slices.Equal(r.Skip, []string{"private_ip"}) {
		t.Errorf("%+v", r)
	}
	c = client(t, "8.8.8.10")
	connect(t, chain, c)
	if got, want := c.Results.Of(Name).Value(valueAddresses), (map[string]any{"ten.good.com": []string{"9.9.9.10"}, "ten.other.org": []string{"8.8.8.10"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

// A client that the plugin access lets in is not refused.
func TestLetIn(t *testing.T) {
	s, _ := read("[reject]\nno_rdns=true\n")
	c := client(t, "9.9.9.9")
	c.Results.For("access").Set("whitelist", true)
	if v := connect(t, plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{Resolver: world}), c); v.Code != hook.Cont {
		t.Errorf("%+v", v)
	}
}

func TestFields(t *testing.T) {
	s, _ := read("")
	chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{Resolver: world})
	for addr, want := range map[string]string{
		"8.8.8.10": "X-Haraka-FCrDNS: ten.other.org\r\nX-Haraka-rDNS-OtherIPs: 9.9.9.10\r\nReceived: us\r\nA: b\r\n\r\n",
		"8.8.8.1":  "X-Haraka-FCrDNS: mx.good.com\r\nReceived: us\r\nA: b\r\n\r\n",
		"9.9.9.9":  "Received: us\r\nA: b\r\n\r\n",
	} {
		c := client(t, addr)
		connect(t, chain, c)
		_, tx := plugintest.Session(t, "a@b.c", "d@e.f")
		plugintest.Receive(t, tx, "Received: us\nX-Haraka-FCrDNS: forged.com\nA: b\nx-haraka-rdns-otherips: 1\n\nbody\n")
		if v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code != hook.Cont || string(tx.Header.Bytes()) != want {
			t.Errorf("%s: %+v, %q", addr, v, tx.Header.Bytes())
		}
	}
}

func TestSettings(t *testing.T) {
	if s, problems := read(""); len(problems) > 0 || s.Timeout != 29*time.Second || s.Reject != (Rejections{}) {
		t.Errorf("%+v, %v", s, problems)
	}
}
