package conf

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/route"
	"tarishi/internal/tlsconf"
)

// TestManualRoutes is the example of the plugin's manual.
func TestManualRoutes(t *testing.T) {
	c, texts := load(t, files{"smtp_forward.ini": `
# default SMTP host
host=1.2.3.4
# auth_type=plain

[example1.com]
host=1.2.3.5
auth_type=plain
auth_user=user
auth_pass=pass

[Example2.com]
host=1.2.3.5

[example3.com]
host=1.2.3.6

[example4.com]
enable_outbound=false
`})
	if len(texts) != 1 || !strings.Contains(texts[0], "smtp_forward.ini:8: warning: [example1.com] key auth_type: credentials do not go to 1.2.3.5 in clear") {
		t.Error(texts)
	}
	f := c.Forward
	if !f.Configured || len(f.Routes) != 4 || f.DomainSelector != "rcpt_to" {
		t.Errorf("%+v", f)
	}
	for domain, want := range map[string]string{"example1.com": "1.2.3.5:25", "example2.com": "1.2.3.5:25", "example3.com": "1.2.3.6:25", "example4.com": "1.2.3.4:25"} {
		r := f.Routes[domain]
		if r == nil || len(r.Hosts) != 1 || r.Hosts[0].String() != want || r.EnableOutbound != (domain != "example4.com") {
			t.Errorf("%s: %+v", domain, r)
		}
	}
	if r := f.Routes["example1.com"]; r.AuthType != "plain" || r.AuthUser != "user" || r.AuthPass != "pass" || r.Line != 6 || r.Name != "example1.com" {
		t.Errorf("%+v", r)
	}
	if f.Routes["example2.com"].Name != "Example2.com" {
		t.Error(f.Routes["example2.com"].Name)
	}
}

// TestBareSections: a section that does not say where its mail goes shares the
// host of main, as in the manual's example of check_recipient, and with it the
// credentials, unless it has some of its own.
func TestBareSections(t *testing.T) {
	c, texts := load(t, files{"smtp_forward.ini": `
host=192.168.0.1 192.168.0.2:2525
auth_type=plain
auth_user=u
auth_pass=p
check_recipient=true
[example.com]
[example.net]
[tls.example]
enable_tls=true
[auth.example]
auth_type=login
auth_user=other
auth_pass=q
[none.example]
auth_user=other
auth_pass=q
[queue.example]
queue=outbound
[port.example]
port=26
[lmtp.example]
using_lmtp=true
[bind.example]
bind=192.168.0.9
[off.example]
enable_outbound=false
`})
	if len(texts) != 1 || !strings.Contains(texts[0], ":16: warning: [none.example] key auth_user: no AUTH without auth_type") {
		t.Error(texts)
	}
	for name, want := range map[string]struct{ hosts, auth string }{
		"example.com":   {"192.168.0.1:25 192.168.0.2:2525", "plain u p"},
		"example.net":   {"192.168.0.1:25 192.168.0.2:2525", "plain u p"},
		"tls.example":   {"192.168.0.1:25 192.168.0.2:2525", "plain u p"},
		"auth.example":  {"192.168.0.1:25 192.168.0.2:2525", "login other q"},
		"none.example":  {"192.168.0.1:25 192.168.0.2:2525", "  "},
		"queue.example": {"192.168.0.1:25 192.168.0.2:2525", "plain u p"},
		"port.example":  {"192.168.0.1:26 192.168.0.2:2525", "plain u p"},
		"lmtp.example":  {"192.168.0.1:24 192.168.0.2:2525", "plain u p"},
		"bind.example":  {"192.168.0.1:25 192.168.0.2:2525", "plain u p"},
		"off.example":   {"192.168.0.1:25 192.168.0.2:2525", "plain u p"},
	} {
		r := c.Forward.Routes[name]
		if r == nil {
			t.Errorf("%s is no route", name)
			continue
		}
		var hosts []string
		for _, h := range r.Hosts {
			if (h.Protocol == mail.LMTP) != (name == "lmtp.example") || h.Bind.IsValid() != (name == "bind.example") {
				t.Errorf("%s: %+v", name, h)
			}
			hosts = append(hosts, h.String())
		}
		if got := strings.Join(hosts, " "); got != want.hosts {
			t.Errorf("%s goes to %s", name, got)
		}
		if got := r.AuthType + " " + r.AuthUser + " " + r.AuthPass; got != want.auth {
			t.Errorf("%s logs in with %q", name, got)
		}
	}
	pool, texts := load(t, files{"smtp_forward.ini": "host=x\nforwarding_host_pool=a b\n[example.com]\n[own.example]\nhost=c"})
	if r := pool.Forward.Routes["example.com"]; len(texts) != 1 || len(r.Hosts) != 2 || !r.InTurn || pool.Forward.Routes["own.example"].InTurn {
		t.Error(texts, r)
	}
}

func TestInheritance(t *testing.T) {
	c, texts := load(t, files{"smtp_forward.ini": `
host=main.example
port=2500
enable_outbound=false
enable_tls=true
require_tls=true
auth_type=login
auth_user=u
auth_pass=p
auth_insecure=true
bind=192.0.2.1
bind_helo=helo.example
forward_client=xforward
on_failure=queue
dead_forwarding_host_retry_secs=9
connect_timeout=1
timeout=2
command_timeout=3
submission_timeout=4
max_connections=5
max_messages=6
max_age=7
one_message_per_rcpt=true
queue=outbound
domain_selector=mail_from
check_sender=true
check_recipient=true
[a.example]
host=a
[b.example]
host=b:26
enable_outbound=true
enable_tls=false
connect_timeout=10
max_connections=50
[c@D.example]
host=c
port=27
[ex` + "\u00e4" + `mple.com]
host=e
[tls]
rejectUnauthorized=true
`})
	if len(texts) > 0 {
		t.Error(texts)
	}
	f := c.Forward
	if f.DomainSelector != "mail_from" || !f.CheckSender || !f.CheckRecipient {
		t.Errorf("%+v", f)
	}
	to := func(host string, port int) []mail.NextHop {
		return []mail.NextHop{{Host: host, Port: port, Bind: netip.MustParseAddr("192.0.2.1"), Helo: "helo.example", Forwards: mail.XForward}}
	}
	main := route.Route{
		AuthInsecure: true, DeadRetry: 9 * time.Second, OnFailure: "queue", ForwardClient: "xforward", Bind: netip.MustParseAddr("192.0.2.1"), BindHelo: "helo.example",
		Name: "main", Hosts: to("main.example", 2500), Queue: "outbound", EnableTLS: true, RequireTLS: true, TLSVerify: true,
		AuthType: "login", AuthUser: "u", AuthPass: "p", ConnectTimeout: time.Second, Timeout: 2 * time.Second, CommandTimeout: 3 * time.Second,
		SubmissionTimeout: 4 * time.Second, MaxConnections: 5, MaxMessages: 6, MaxAge: 7 * time.Second, OneMessagePerRcpt: true,
	}
	if !reflect.DeepEqual(f.Main, main) {
		t.Errorf("%+v", f.Main)
	}
	a := main
	a.Name, a.Line, a.Hosts = "a.example", 28, to("a", 2500)
	a.AuthType, a.AuthUser, a.AuthPass, a.AuthInsecure = "", "", "", false
	if !reflect.DeepEqual(*f.Routes["a.example"], a) {
		t.Errorf("%+v", f.Routes["a.example"])
	}
	b := a
	b.Name, b.Line, b.Hosts = "b.example", 30, to("b", 26)
	b.EnableOutbound, b.EnableTLS, b.RequireTLS, b.ConnectTimeout, b.MaxConnections = true, false, false, 10*time.Second, 50
	if !reflect.DeepEqual(*f.Routes["b.example"], b) {
		t.Errorf("%+v", f.Routes["b.example"])
	}
	if r := f.Routes["c@d.example"]; r == nil || r.Hosts[0].Port != 27 {
		t.Errorf("%+v", f.Routes)
	}
	if r := f.Routes["xn--exmple-cua.com"]; r == nil || r.Hosts[0].Host != "e" {
		t.Errorf("%+v", f.Routes)
	}
}

// TestPatience: a submission_timeout holds as it is, and a warning says who may give
// up before.
func TestPatience(t *testing.T) {
	const forward = "config/smtp_forward.ini:"
	for _, test := range []struct {
		ini, plugin string
		main, a     time.Duration
		want        []string
	}{
		{"host=h\n[a.example]\nhost=a\n", "", 12 * time.Minute, 12 * time.Minute, nil},
		{"host=h\nsubmission_timeout=10m\n[a.example]\nhost=a\n", "0", 10 * time.Minute, 10 * time.Minute, nil},
		{"host=h\nsubmission_timeout=12m\n[a.example]\nhost=a\nsubmission_timeout=1m\n", "", 12 * time.Minute, time.Minute, []string{
			forward + "2: warning: key submission_timeout: is more than the 600 seconds that many clients wait for this reply: such a client sends again what the backend may have taken",
		}},
		{"host=h\nsubmission_timeout=1m\n[a.example]\nhost=a\nsubmission_timeout=2h\n", "90", time.Minute, 2 * time.Hour, []string{
			"config/queue/smtp_forward.timeout: warning: ends the plugin after 90 seconds, while submission_timeout of [a.example] allows 7200: the client is told to send again what the backend may have taken",
			forward + "5: warning: [a.example] key submission_timeout: is more than the 600 seconds that many clients wait for this reply: such a client sends again what the backend may have taken",
		}},
	} {
		given := files{"plugins": "queue/smtp_forward\n", "smtp_forward.ini": test.ini}
		if test.plugin != "" {
			given["queue/smtp_forward.timeout"] = test.plugin
		}
		c, texts := load(t, given)
		if got := c.Forward.Main.SubmissionTimeout; got != test.main {
			t.Errorf("%q: %v", test.ini, got)
		}
		if got := c.Forward.Routes["a.example"].SubmissionTimeout; got != test.a {
			t.Errorf("%q: %v", test.ini, got)
		}
		if !slices.Equal(texts, test.want) {
			t.Errorf("%q:\n got %q\nwant %q", test.ini, texts, test.want)
		}
	}
}

func TestNextHop(t *testing.T) {
	for _, test := range []struct {
		main, section string // before and in [d.example]
		want          []mail.NextHop
	}{
		{"", "host=h", []mail.NextHop{{Host: "h", Port: 25}}},
		{"port=26", "host=h", []mail.NextHop{{Host: "h", Port: 26}}},
		{"port=26", "host=h\nport=27", []mail.NextHop{{Host: "h", Port: 27}}},
		{"port=26", "host=h:28 g\nport=27", []mail.NextHop{{Host: "h", Port: 28}, {Host: "g", Port: 27}}},
		{"", "host=1.2.3.4, [::1]:26 ,::1", []mail.NextHop{{Host: "1.2.3.4", Port: 25}, {Host: "::1", Port: 26}, {Host: "::1", Port: 25}}},
		{"port=26", "host=tls://h TLS://g:466 smtps://[::1]/", []mail.NextHop{{Host: "h", Port: 465, ImplicitTLS: true}, {Host: "g", Port: 466, ImplicitTLS: true}, {Host: "::1", Port: 465, ImplicitTLS: true}}},
		{"port=26", "host=smtp://h tcp://g:30", []mail.NextHop{{Host: "h", Port: 26}, {Host: "g", Port: 30}}},
		{"", "host=lmtp://h lmtp://g:2400 lmtp+unix:/run/l lmtp+unix:///run/m", []mail.NextHop{
			{Host: "h", Port: 24, Protocol: mail.LMTP},
			{Host: "g", Port: 2400, Protocol: mail.LMTP},
			{Path: "/run/l", Protocol: mail.LMTP},
			{Path: "/run/m", Protocol: mail.LMTP},
		}},
		{"", "host=h\nusing_lmtp=true", []mail.NextHop{{Host: "h", Port: 24, Protocol: mail.LMTP}}},
		{"", "forwarding_host_pool=h:26; g", []mail.NextHop{{Host: "h", Port: 26}, {Host: "g", Port: 25}}},
	} {
		c, texts := load(t, files{"smtp_forward.ini": test.main + "\n[d.example]\n" + test.section})
		r := c.Forward.Routes["d.example"]
		if r == nil || !reflect.DeepEqual(r.Hosts, test.want) || !c.Forward.Configured || len(texts) > 0 || r.InTurn != strings.Contains(test.section, "pool") {
			t.Errorf("%q %q: %+v %v", test.main, test.section, r, texts)
		}
	}
}

// TestForwardTLS: [tls] wins over tls.ini's [outbound], key by key.
func TestForwardTLS(t *testing.T) {
	c, texts := load(t, files{
		"tls.ini":          "[outbound]\nkey=a.pem\ncert=a.pem\nminVersion=TLSv1.3\nno_tls_hosts[]=n.example\nforce_tls_hosts[]=f.example",
		"smtp_forward.ini": "host=h\n[tls]\nminVersion=TLSv1.1\nca=ca.pem\nforce_tls_hosts[]=g.example\nforce_tls_hosts[]=192.0.2.0/24\nciphers=ecdhe-rsa-aes128-gcm-sha256:TLS_RSA_WITH_AES_128_CBC_SHA:AES128-SHA\n",
		"a.pem":            "", "ca.pem": "",
	})
	if len(texts) > 0 {
		t.Error(texts)
	}
	in := func(name string) string { return filepath.Join(c.ConfigDir, name) }
	want := tlsconf.Outbound{
		MinVersion: tls.VersionTLS11, NoTLSHosts: []string{"n.example"}, ForceTLSHosts: []string{"g.example", "192.0.2.0/24"},
		CA: in("ca.pem"), Key: in("a.pem"), Cert: in("a.pem"),
		Ciphers: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA},
	}
	got := c.Forward.TLS
	if got.MinVersion != want.MinVersion || got.CA != want.CA || got.Key != want.Key || got.Cert != want.Cert ||
		!slices.Equal(got.NoTLSHosts, want.NoTLSHosts) || !slices.Equal(got.ForceTLSHosts, want.ForceTLSHosts) || !slices.Equal(got.Ciphers, want.Ciphers) {
		t.Errorf("%+v", got)
	}
	if out := c.TLS.Outbound; out.MinVersion != tls.VersionTLS13 || len(out.ForceTLSHosts) != 1 || out.CA != "" || len(out.Ciphers) > 0 {
		t.Errorf("tls.ini is changed: %+v", out)
	}
}

// Names of sections are domains in either form and any case, or below one.
func TestSectionNames(t *testing.T) {
	c, texts := load(t, files{"smtp_forward.ini": "domain_selector=mail_from\n[ExÄmple.COM]\nhost=a\n[*.exämple.com]\nhost=b\n[*.XN--BCHER-KVA.example]\nhost=c\n[Joe@BÜCHER.example]\nhost=d"})
	if len(texts) > 0 {
		t.Error(texts)
	}
	for name, host := range map[string]string{
		"xn--exmple-cua.com": "a", "*.xn--exmple-cua.com": "b", "*.xn--bcher-kva.example": "c", "joe@xn--bcher-kva.example": "d",
	} {
		if r := c.Forward.Routes[name]; r == nil || r.Hosts[0].Host != host {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestExposedCredentials: whoever gives a password to a public host and does not
// say how safe that must be is told what will happen.
func TestExposedCredentials(t *testing.T) {
	const auth, offered, clear = "\nauth_type=plain\nauth_user=u\nauth_pass=p", "through TLS", "in clear"
	for _, tt := range []struct{ section, want string }{
		{"host=mx.example" + auth + "\nenable_tls=true", offered},
		{"host=10.0.0.1 192.0.2.1" + auth + "\nenable_tls=true", offered},
		{"host=mx.example\nenable_tls=true\nauth_type=forward", offered},
		{"host=192.0.2.1" + auth, clear},
		{"host=192.0.2.1" + auth + "\nenable_tls=true\n[tls]\nno_tls_hosts[]=192.0.2.0/24", clear},
		{"host=mx.example" + auth, ""}, // which may be near
		{"host=mx.example\nenable_tls=true", ""},
		{"host=mx.example" + auth + "\nrequire_tls=true", ""},
		{"host=mx.example" + auth + "\nenable_tls=true\ntls_verify=true", ""},
		{"host=mx.example" + auth + "\nenable_tls=true\nauth_insecure=true", ""},
		{"host=tls://mx.example" + auth + "\nenable_tls=true", ""},
		{"host=10.0.0.1 ::1 localhost" + auth + "\nenable_tls=true", ""},
		{"host=lmtp+unix:/run/x" + auth + "\nenable_tls=true", ""},
		{"host=mx.example" + auth + "\nenable_tls=true\n[tls]\nforce_tls_hosts[]=mx.example", ""},
	} {
		_, texts := load(t, files{"smtp_forward.ini": "[d.example]\n" + tt.section})
		got := strings.Join(texts, "\n")
		if tt.want == "" && got == "" {
			continue
		}
		if line := 1 + strings.Count(tt.section[:strings.Index(tt.section+"auth_type", "auth_type")], "\n") + 1; tt.want == "" ||
			len(texts) != 1 || !strings.Contains(got, tt.want) || !strings.Contains(got, fmt.Sprintf("smtp_forward.ini:%d: ", line)) {
			t.Errorf("%q: %q", tt.section, got)
		}
	}
}

// TestMechanisms: the forms in which manuals write what may be used to log in.
func TestMechanisms(t *testing.T) {
	for value, want := range map[string]string{
		"plain": "plain", "[plain login]": "plain login", "plain|login": "plain login", "Login, PLAIN": "login plain",
		"[cram-md5]": "cram-md5", "plain plain": "plain", "external": "external", "[forward]": "forward",
	} {
		c, texts := load(t, files{"smtp_forward.ini": "host=127.0.0.1\nenable_tls=true\nauth_type=" + value + "\nauth_user=u\nauth_pass=p\n[tls]\nkey=a.pem\ncert=a.pem", "a.pem": ""})
		if c.Forward.Main.AuthType != want {
			t.Errorf("%s: %q, %q", value, c.Forward.Main.AuthType, texts)
		}
	}
	c, texts := load(t, files{"outbound.ini": "[a.example]\nhost=b\nauth_type=login|cram-md5\nauth_user=u\nauth_pass=p"})
	if hop := c.Outbound.Destinations["a.example"].Hosts[0]; len(texts) > 0 || hop.AuthType != "login cram-md5" {
		t.Error(hop, texts)
	}
}

// TestSockets: hosts that are sockets on this host.
func TestSockets(t *testing.T) {
	c, texts := load(t, files{
		"smtp_forward.ini": "host=unix:///run/a unix:/b lmtp+unix:///c\n[d.example]\nhost=unix:///run/a\nusing_lmtp=true",
		"outbound.ini":     "[e.example]\nhost=unix:///e",
	})
	smtp := func(path string) mail.NextHop { return mail.NextHop{Path: path} }
	lmtp := func(path string) mail.NextHop { return mail.NextHop{Path: path, Protocol: mail.LMTP} }
	if got, want := c.Forward.Main.Hosts, []mail.NextHop{smtp("/run/a"), smtp("/b"), lmtp("/c")}; len(texts) > 0 || !slices.Equal(got, want) {
		t.Error(got, texts)
	}
	if got := c.Forward.Routes["d.example"].Hosts; !slices.Equal(got, []mail.NextHop{lmtp("/run/a")}) {
		t.Error(got)
	}
	if got := c.Outbound.Destinations["e.example"].Hosts; !slices.Equal(got, []mail.NextHop{smtp("/e")}) {
		t.Error(got)
	}
	for _, value := range []string{"unix:run/a", "unix://run/a"} {
		if _, texts := load(t, files{"smtp_forward.ini": "host=" + value}); len(texts) != 1 || !strings.Contains(texts[0], "the path of the socket must be absolute") {
			t.Errorf("%s: %q", value, texts)
		}
	}
}
