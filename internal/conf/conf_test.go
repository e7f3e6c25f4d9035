package conf

import (
	"crypto/tls"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/config"
	"tarishi/internal/conf/record"
	"tarishi/internal/destination"
	"tarishi/internal/dns"
	"tarishi/internal/dsn"
	"tarishi/internal/ini"
	"tarishi/internal/listener"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/metrics"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/all"
	"tarishi/internal/plugin/flatfile"
	"tarishi/internal/plugin/inhostlist"
	"tarishi/internal/plugin/relay"
	"tarishi/internal/session/policy"
	"tarishi/internal/store/disk"
	"tarishi/internal/tlsconf"
	"tarishi/internal/web"
)

// files are configuration files by name below config/.
type files map[string]string

func instance(t testing.TB, f files) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "config"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range f {
		write(t, dir, name, text)
	}
	if _, given := f["me"]; !given { // whatever this host is called
		write(t, dir, "me", "mx.example.com\n")
	}
	return dir
}

// write writes one file below config/.
func write(t testing.TB, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, "config", name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// own are the settings of the built-in plugins.
func own() map[string]ini.Declarer {
	var r plugin.Registry
	all.Register(&r)
	return r.Declared()
}

// mine returns the settings of the plugins that the tests look at.
func mine(c *Config) (hosts *inhostlist.Settings, clients *relay.Settings, users *flatfile.Settings) {
	return c.Own[inhostlist.Name].(*inhostlist.Settings), c.Own[relay.Name].(*relay.Settings), c.Own[flatfile.Name].(*flatfile.Settings)
}

func load(t testing.TB, f files) (*Config, []string) {
	t.Helper()
	c, problems := Load(instance(t, f), own())
	var all []string
	for _, p := range problems {
		all = append(all, strings.ReplaceAll(p.String(), c.Dir, "DIR"))
	}
	return c, all
}

func TestDefaults(t *testing.T) {
	built, problems := Load("", own())
	if len(problems) > 0 || built.Me == "" {
		t.Fatal(problems)
	}
	c, texts := load(t, nil)
	if len(texts) > 0 {
		t.Error(texts)
	}
	if c.QueueDir != filepath.Join(c.Dir, "queue") || c.PluginsDir != filepath.Join(c.Dir, "plugins") || c.ConfigDir != filepath.Join(c.Dir, "config") {
		t.Error(c.QueueDir, c.PluginsDir, c.ConfigDir)
	}
	c.Dir, c.ConfigDir, c.QueueDir, c.PluginsDir, c.Me = built.Dir, built.ConfigDir, built.QueueDir, built.PluginsDir, built.Me
	if !sameSettings(c, built) {
		t.Errorf("an empty folder gives\n%+v\nnothing gives\n%+v", c, built)
	}
	waits := built.Outbound.TempFailIntervals
	if len(waits) != 12 || waits[0] != 64*time.Second || waits[11] != 131072*time.Second {
		t.Error(waits)
	}
}

func TestLoadFS(t *testing.T) {
	c, problems := LoadFS(config.FS, ".", own())
	problems = slices.DeleteFunc(problems, func(p ini.Problem) bool { return p.File == "config/me" }) // there is none, and this host may have any name
	hosts, _, _ := mine(c)
	if len(problems) > 0 || names(c.Plugins.Listed) == "" || !filepath.IsAbs(c.Dir) || len(hosts.Domains) != 1 {
		t.Errorf("%+v %v", c, problems)
	}
}

func TestNoFolder(t *testing.T) {
	c, problems := Load(filepath.Join(t.TempDir(), "typo"), own())
	if c == nil || len(problems.Errors()) != 1 || !strings.HasPrefix(problems[0].String(), "config: there is no such folder in /") {
		t.Error(problems)
	}
}

// TestShipped holds the shipped files to the defaults: no complaint, and what
// stands uncommented changes nothing.
func TestShipped(t *testing.T) {
	dir := t.TempDir()
	wrote, kept, err := Init(dir, config.FS, own())
	if err != nil || len(kept) > 0 {
		t.Fatal(kept, err)
	}
	if len(wrote) < 16 {
		t.Error(wrote)
	}
	built, _ := Load("", own())
	if me, err := os.ReadFile(filepath.Join(dir, "config", "me")); err != nil || string(me) != built.Me+"\n" {
		t.Errorf("%q, %v", me, err)
	}
	built.Me = "mx.example.com"
	write(t, dir, "me", built.Me)
	c, problems := Load(dir, own())
	if len(problems) > 0 {
		t.Error(problems)
	}
	if got := names(c.Plugins.Listed); got != "relay auth/flat_file rcpt_to.in_host_list queue/test" {
		t.Error(got)
	}
	hosts, _, _ := mine(c)
	if len(hosts.Domains) != 1 || hosts.Domains[0] != "localhost" {
		t.Error(hosts.Domains)
	}
	if m := strings.Join(c.Bounce.Message, "\n"); !strings.HasPrefix(m, "Date: {date}\nFrom: ") || !strings.Contains(m, "\n\n") || !strings.Contains(m, "{extended_reason}") {
		t.Error(m)
	}
	c.Dir, c.ConfigDir, c.QueueDir, c.PluginsDir = built.Dir, built.ConfigDir, built.QueueDir, built.PluginsDir
	if m := strings.Join(c.Bounce.HTML, "\n"); !strings.HasPrefix(m, "<!DOCTYPE html>") || !strings.Contains(m, "{extended_reason}") {
		t.Error(m)
	}
	c.Plugins.Listed, hosts.Domains, c.Bounce = nil, nil, dsn.Templates{}
	if !sameSettings(c, built) {
		t.Errorf("shipped\n%+v\nbuilt in\n%+v", c, built)
	}
	// What is commented out must be right as well when the mark is taken away.
	for _, name := range []string{"smtp_forward.ini", "outbound.ini", "smtp.ini", "dns.ini", "connection.ini", "auth_flat_file.ini", "relay.ini", "log.ini", "http.ini"} {
		data, err := config.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, line := range strings.Split(string(data), "\n") {
			if after, ok := strings.CutPrefix(line, ";"); ok && !strings.HasPrefix(after, " ") {
				line = after
			}
			lines = append(lines, line)
		}
		if _, texts := load(t, files{name: strings.Join(lines, "\n"), "client_key.pem": "", "client_cert.pem": "", "ca.pem": ""}); len(texts) > 0 && name != "smtp.ini" && name != "smtp_forward.ini" {
			t.Error(texts)
		} else if name == "smtp_forward.ini" && (len(texts) != 2 || !strings.Contains(texts[0], "beside forwarding_host_pool") || !strings.Contains(texts[1], "many clients wait")) {
			t.Error(texts)
		}
	}
}

func names(plugins []plugin.Listed) string {
	var all []string
	for _, p := range plugins {
		all = append(all, p.Name)
	}
	return strings.Join(all, " ")
}

func TestInitKeeps(t *testing.T) {
	dir := instance(t, files{"smtp.ini": "listen=25\n", "me": "mine.example\n"})
	wrote, kept, err := Init(dir, config.FS, own())
	if err != nil || strings.Join(kept, " ") != "config/smtp.ini config/me" || len(wrote) < 14 {
		t.Fatal(wrote, kept, err)
	}
	if data, _ := os.ReadFile(filepath.Join(dir, "config/smtp.ini")); string(data) != "listen=25\n" {
		t.Errorf("%s", data)
	}
	for _, folder := range []string{"plugins", "queue"} {
		if info, err := os.Stat(filepath.Join(dir, folder)); err != nil || !info.IsDir() {
			t.Error(folder, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "config/auth_flat_file.ini")); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if _, _, err := Init(filepath.Join(dir, "config/me"), config.FS, own()); err == nil {
		t.Error("a file is no instance")
	}
}

// TestUnderscores: hosts and domains of others may have underscores, in every place
// that names one. Names of this host may not.
func TestUnderscores(t *testing.T) {
	c, texts := load(t, files{
		"host_list": "web_01.test\n", "outbound.ini": "[web_01.test]\nhost=mx_1.test\n[*._dmarc.test]\nrate=1/s\n[mx:mx_1.test]\nconcurrency=1",
		"smtp_forward.ini": "host=back_end:2525\n[web_01.test]\nhost=smtp://a_b.test:25\n[*.web_02.test]\nhost=c_\n", "plugins": "queue/smtp_forward\n",
		"tls.ini": "force_tls_hosts[]=web_01.test\n[outbound]\nno_tls_hosts[]=mx_1.test\n", "smtp.ini": "listen=web_01:25",
	})
	if len(texts) > 0 {
		t.Error(strings.Join(texts, "\n"))
	}
	hosts, _, _ := mine(c)
	if len(hosts.Domains) != 1 || hosts.Domains[0] != "web_01.test" || c.Forward.Routes["web_01.test"] == nil || c.Outbound.Destinations["web_01.test"] == nil {
		t.Errorf("%v %v %v", hosts.Domains, c.Forward.Routes, c.Outbound.Destinations)
	}
	_, texts = load(t, files{
		"me": "web_01.test\n", "outbound.ini": "[a.test]\nhelo=my_host.test", "smtp_forward.ini": "host=a\nbind_helo=my_host",
	})
	for i, want := range []string{
		`config/me:1: "web_01.test" has an underscore, which is not allowed in a name of this host`,
		`config/outbound.ini:2: [a.test] key helo: "my_host.test" has an underscore, which is not allowed in a name of this host`,
		`config/smtp_forward.ini:2: key bind_helo: "my_host" has an underscore, which is not allowed in a name of this host`,
	} {
		if i >= len(texts) || texts[i] != want {
			t.Errorf("%q, want %s", texts, want)
		}
	}
}

// TestKeys sets every key of every file to something else than its default.
func TestKeys(t *testing.T) {
	c, texts := load(t, files{
		"me": "mx.example.com\n", "queue_dir": "spool\n", "plugin_timeout": "10\n",
		"plugins": "# order\n tls\nqueue/smtp_forward\nmine\n", "queue/smtp_forward.timeout": "0\n", "mine.timeout": "2m",
		"smtp.ini": "listen=25, [::1]:587,mail.example.com,192.0.2.1:0,2001:db8::1\nsmtps_port=4465\ninactivity_timeout=1m\ngraceful_shutdown=yes\n" +
			"force_shutdown_timeout=0\nshutdown_reply_timeout=3\npublic_ip=192.0.2.9\nuser=tarishi\ngroup=mail",
		"connection.ini": "spool_after=4096\nstrict_rfc1869=ON\nstrict_domains=yes\npostel=1\nauth_insecure=on\nsmtputf8=false\n[headers]\nadd_received=no\nclean_auth_results=off\n" +
			"show_version=0\nmax_received=6\n[max]\nbytes=0\nline_length=512\nrecipients=8\nconnections=9\n" +
			"connections_per_ip=0\nrefusals=0\nauth_failures=7\nmin_rate=0\ntransaction_time=90m\nmemory=5\n[message]\ngreeting[]=one\ngreeting[]=two\nhelo=hi\nclose=bye\n[uuid]\nbanner_chars=0\ndeny_chars=1",
		"log.ini": "level=DEBUG\ntimestamps=false\nformat=json",
		"tls.ini": "key[]=a.pem\nkey[]=/dev/null/b.pem\ncert[]=c.pem\ncert[]=d.pem\nminVersion=TLSv1.3\nno_starttls_ports[]=2525\nno_starttls_ports[]=26\n" +
			"mutual_tls=true\nforce_tls_hosts[]=f.example\n[no_tls_hosts]\n192.0.2.1\n2001:db8::1/32\n[outbound]\nca=ca.pem\nno_tls_hosts[]=n.example\nkey=a.pem\ncert=c.pem\n" +
			"dane=false\nmta_sts=false\nciphers=ECDHE-RSA-AES128-GCM-SHA256\n[mutual_auth_hosts]\nS.example\n[mutual_auth_hosts_exclude]\nh.example",
		"a.pem": "", "c.pem": "", "d.pem": "", "ca.pem": "",
		"dns.ini": "servers[]=192.0.2.53\nservers[]=[::1]:5353\ntimeout=250ms\ntries=3\ndnssec=true",
		"outbound.ini": "disabled=true\nconcurrency_max=1\nenable_tls=false\nalways_split=true\nreceived_header=disabled\nconnect_timeout=1\npool_timeout=0\n" +
			"pool_concurrency_max=2\nlocal_mx_ok=true\ninet_prefer=v4\nnext_mx_on_deferral=false\nmaxTempFailures=4\nport=26\nmax_lifetime=1d12h\nmin_free=2% 1G\ndelay_warning=none\ndsn_wait=0\ndsn_rate=none\ndsn_return=full\njitter=5%\nipv6_enabled=false\nenvelope_timeout=2m\nmin_rate=0",
		"http.ini":        "listen=9000,[::1],127.0.0.1:0\ntls_listen=192.0.2.1\ndestinations=7",
		"relay.ini":       "[relay]\nacl=false\nall=true",
		"relay_acl_allow": "192.0.2.1\n192.0.2.77/24 # net\n::1\n2001:db8::/32\n",
		"host_list":       "Example.COM\nexämple.com\nexample.com\n", "host_list_regex": "(.*\\.)?example\\.net\n", "host_list.anti_spoof": "1",
		"auth_flat_file.ini":      "[core]\nmethods= login , PLAIN\nconstrain_sender=false\n[users]\na@b=x = \"y\" ; z\nbob=pw",
		"outbound.bounce_message": "Subject: x\n\n# body\n", "outbound.bounce_message_html": "<p>\n", "outbound.bounce_message_image": "i",
		"smtp_forward.ini": "host=192.0.2.10",
	})
	if len(texts) != 3 || !strings.HasPrefix(texts[0], "config/relay.ini:3: warning: [relay] key all: every client") ||
		texts[1] != "config/relay_acl_allow: warning: has no effect: the plugin relay is not listed in config/plugins" || texts[2] != "config/tls.ini:1: key key: there is no file /dev/null/b.pem" {
		t.Error(strings.Join(texts, "\n"))
	}
	want, _ := Load("", own())
	in := func(name string) string { return filepath.Join(c.Dir, "config", name) }
	want.Dir, want.ConfigDir, want.QueueDir, want.PluginsDir = c.Dir, filepath.Join(c.Dir, "config"), filepath.Join(c.Dir, "spool"), filepath.Join(c.Dir, "plugins")
	want.Me, want.Plugins.Timeout = "mx.example.com", 10*time.Second
	want.Plugins.Listed = []plugin.Listed{
		{Name: "tls", As: "tls", File: "config/plugins", Line: 2},
		{Name: "queue/smtp_forward", As: "queue/smtp_forward", File: "config/plugins", Line: 3},
		{Name: "mine", As: "mine", File: "config/plugins", Line: 4},
	}
	want.Plugins.Timeouts = map[string]time.Duration{"queue/smtp_forward": 0, "mine": 2 * time.Minute}
	want.Listener = listener.Settings{
		Addrs:     []string{"[::]:25", "[::1]:587", "mail.example.com:25", "192.0.2.1:0", "[2001:db8::1]:25"},
		SMTPSPort: 4465, MaxConnections: 9, PROXY: true,
	}
	want.ForceShutdownTimeout, want.ShutdownReplyTimeout, want.User, want.Group = 0, 3*time.Second, "tarishi", "mail"
	want.Queue = disk.Settings{SpoolAfter: 4096, MinFree: disk.MinFree{Bytes: 1 << 30, Percent: 2}}
	want.Session = policy.Settings{
		InactivityTimeout: time.Minute,
		StrictRFC1869:     true, StrictDomains: true, Postel: true, AuthInsecure: true, MaxReceived: 6, MaxLine: 512,
		MaxAuthFailures: 7,
		MaxRecipients:   8, TransactionTimeout: 90 * time.Minute, Memory: 5, Greeting: []string{"one", "two"}, Helo: "hi", Close: "bye", DenyChars: 1,
	}
	want.Log = maillog.Settings{Level: "debug", Format: "json"}
	want.TLS = tlsconf.Settings{
		Key: []string{in("a.pem"), "/dev/null/b.pem"}, Cert: []string{in("c.pem"), in("d.pem")}, MinVersion: tls.VersionTLS13, NoSTARTTLSPorts: []int{2525, 26},
		NoTLSHosts: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32")}, Explicit: true, MutualTLS: true,
		Outbound: tlsconf.Outbound{MinVersion: tls.VersionTLS13, NoTLSHosts: []string{"n.example"}, ForceTLSHosts: []string{"f.example"}, CA: in("ca.pem"), Key: in("a.pem"), Cert: in("c.pem"), Ciphers: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, TLSRequiredHeader: true, ShowTo: []string{"s.example"}, HideFrom: []string{"h.example"}},
	}
	want.Forward.TLS = want.TLS.Outbound
	want.HTTP = web.Settings{Listen: []string{"[::]:9000", "[::1]:9825", "127.0.0.1:0"}, TLSListen: []string{"192.0.2.1:9826"}}
	want.Metrics = metrics.Settings{Destinations: 7}
	want.DNS = dns.Settings{Servers: []string{"192.0.2.53:53", "[::1]:5353"}, Timeout: 250 * time.Millisecond, Tries: 3, DNSSEC: true}
	want.Outbound = destination.Settings{
		Disabled: true, ConcurrencyMax: 1, AlwaysSplit: true, ReceivedHeader: "disabled", ConnectTimeout: time.Second,
		PoolConcurrencyMax: 2, LocalMXOK: true, InetPrefer: "v4", MaxTempFailures: 4,
		TempFailIntervals: []time.Duration{64 * time.Second, 128 * time.Second, 256 * time.Second},
		Port:              26, MaxLifetime: 36 * time.Hour, DelayWarning: -1, DSNReturn: "full", Jitter: 5,
		Destinations: map[string]*destination.Rules{}, EnvelopeTimeout: 2 * time.Minute, PublicIP: "192.0.2.9",
	}
	_, clients, _ := mine(c)
	if clients.ACL || !clients.All || !slices.Equal(clients.Allow, []netip.Prefix{
		netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("2001:db8::/32"),
	}) {
		t.Errorf("%+v", clients)
	}
	for name, want := range map[string]ini.Declarer{
		inhostlist.Name: &inhostlist.Settings{Domains: []string{"example.com", "xn--exmple-cua.com"}, Patterns: []string{`(.*\.)?example\.net`}, AntiSpoof: true},
		flatfile.Name:   &flatfile.Settings{Methods: []string{"LOGIN", "PLAIN"}, Users: map[string]string{"a@b": `x = "y" ; z`, "bob": "pw"}},
	} {
		if !reflect.DeepEqual(c.Own[name], want) {
			t.Errorf("%s: %+v", name, c.Own[name])
		}
	}
	want.Own = c.Own
	want.Bounce = dsn.Templates{Message: []string{"Subject: x", "", "# body"}, HTML: []string{"<p>"}, Image: []string{"i"}}
	want.Forward.Main.Hosts, want.Forward.Configured = []mail.NextHop{{Host: "192.0.2.10", Port: 25}}, true
	if !sameSettings(c, want) {
		t.Errorf("\n got %+v\nwant %+v", c, want)
	}
}

func TestBooleans(t *testing.T) {
	for word, want := range map[string]bool{
		"true": true, "Yes": true, "OK": true, "enabled": true, "on": true, "1": true,
		"false": false, "no": false, "off": false, "0": false, "disabled": false, "": false,
	} {
		c, texts := load(t, files{"outbound.ini": "enable_tls=" + word, "relay.ini": "[relay]\nacl=" + word})
		_, clients, _ := mine(c)
		if c.Outbound.EnableTLS != want || clients.ACL != want || len(texts) > 0 {
			t.Errorf("%q: %v %v %v", word, c.Outbound.EnableTLS, clients.ACL, texts)
		}
	}
}

func TestListen(t *testing.T) {
	for _, test := range []struct{ ini, want string }{
		{"", "127.0.0.1:2525"},
		{"listen=", "127.0.0.1:2525"},
		{"listen=[::0]:25", "[::]:25"},
		{"listen=0.0.0.0:25,,[::1]", "0.0.0.0:25 [::1]:25"},
		{"listen=localhost:0", "localhost:0"},
		{"port=2500", "[::]:2500"},
		{"port=2500\nlisten_host=127.0.0.1", "127.0.0.1:2500"},
		{"port=2500\nlisten_host=::1\nlisten=127.0.0.1:26", "[::1]:2500 127.0.0.1:26"},
		{"listen_host=127.0.0.1", "127.0.0.1:2525"},
	} {
		c, _ := load(t, files{"smtp.ini": test.ini})
		if got := strings.Join(c.Listener.Addrs, " "); got != test.want {
			t.Errorf("%q: %s", test.ini, got)
		}
	}
}

func TestTLSDefaultFiles(t *testing.T) {
	c, texts := load(t, files{"tls_key.pem": "", "tls_cert.pem": ""})
	if !c.TLS.Explicit || len(c.TLS.Key) != 1 || c.TLS.Cert[0] != filepath.Join(c.ConfigDir, "tls_cert.pem") || len(texts) > 0 {
		t.Errorf("%+v %v", c.TLS, texts)
	}
	c, texts = load(t, files{"tls.ini": "key=tls_key.pem\n[outbound]\nminVersion=TLSv1.2", "tls_key.pem": "", "tls_cert.pem": ""})
	if !c.TLS.Explicit || len(c.TLS.Cert) != 1 || len(texts) > 0 {
		t.Errorf("%+v %v", c.TLS, texts)
	}
}

func TestNoRetries(t *testing.T) {
	if c, _ := load(t, files{"outbound.ini": "temp_fail_intervals=none"}); c.Outbound.TempFailIntervals == nil || len(c.Outbound.TempFailIntervals) > 0 {
		t.Error(c.Outbound.TempFailIntervals)
	}
	if c, _ := load(t, files{"outbound.ini": "maxTempFailures=1"}); c.Outbound.TempFailIntervals == nil || len(c.Outbound.TempFailIntervals) > 0 {
		t.Error(c.Outbound.TempFailIntervals)
	}
}

// sameSettings compares all but the files that the settings were read from.
func sameSettings(a, b *Config) bool {
	x, y := *a, *b
	x.read, y.read = nil, nil
	x.contents, y.contents, x.look, y.look = record.Digest{}, record.Digest{}, look{}, look{}
	return reflect.DeepEqual(x, y)
}
