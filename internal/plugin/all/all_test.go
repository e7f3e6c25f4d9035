package all

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/plugin"
	"tarishi/internal/route"
	"tarishi/internal/tlsconf"
)

// Every folder with a manual page is a plugin that is registered.
func TestRegister(t *testing.T) {
	var r plugin.Registry
	Register(&r)
	pages, err := filepath.Glob("../*/README.md")
	if err != nil || len(pages) == 0 || len(pages) != len(r.Names()) {
		t.Errorf("%d plugins are registered, %d folders have a manual page, %v", len(r.Names()), len(pages), err)
	}
}

// Every plugin of Haraka's, whether of its own or installed with it, is built in,
// or passed over with a notice, or refused with a sentence of its own. No other
// plugin is suggested in place of one that somebody chose.
func TestHarakasNames(t *testing.T) {
	var r plugin.Registry
	Register(&r)
	for _, name := range strings.Fields(`auth/auth_base auth/flat_file auth/auth_proxy auth/auth_bridge auth/auth_vpopmaild block_me data.signatures
		delay_deny prevent_credential_leaks process_title profile queue/deliver queue/discard queue/lmtp queue/qmail-queue queue/quarantine
		queue/smtp_bridge queue/smtp_forward queue/smtp_proxy queue/test rcpt_to.host_list_base rcpt_to.in_host_list record_envelope_addresses
		reseed_rng status tarpit tls toobusy xclient access aliases asn attachment bounce clamd dcc dkim dns-list early_talker fcrdns geoip
		greylist headers helo.checks karma known-senders limit mail_from.is_resolvable messagesniffer qmail-deliverable redis relay rspamd
		spamassassin spf syslog uribl avg elasticsearch esets p0f recipient-routes watch auth-ldap rcpt-ldap
		test_queue deliver dkim_sign dkim_verify dnsbl dnswl backscatterer auth/auth_ldap connect.asn connect.fcrdns connect.geoip connect.p0f
		connect.rdns_access mail_from.access mail_from.blocklist rcpt_to.access rcpt_to.blocklist rdns.regexp data.headers data.nomsgid
		data.noreceived data.rfc5322_header_checks data.uribl log.syslog mail_from.nobounces max_unrecognized_commands rate_limit
		rcpt_to.max_count rcpt_to.ldap rcpt_to.qmail_deliverable rcpt_to.routes relay_acl relay_all haraka-plugin-spf
		auth-enc-file auth-imap ldap dovecot wildduck mailauth opendkim srs batv-srs vmta accounting_files outbound-logger queue/rabbitmq
		queue/rabbitmq_amqplib queue/kafka queue/mongodb rcpt-postgresql milter save-sent`) {
		c, problems := read(&r, fstest.MapFS{"plugins": {Data: []byte(name + "\n")}})
		problems = slices.DeleteFunc(problems, func(p ini.Problem) bool { return p.Key != name || p.Nearest != "" })
		_, err := (&plugin.Loader{Registry: &r, Services: plugin.Services{Log: zap.NewNop()}}).Load(c)
		switch {
		case len(c.Listed) == 0 && err == nil:
			if len(problems) != 1 || !problems[0].Warning || len(problems[0].Text) < 20 {
				t.Errorf("%s is passed over without a word: %v", name, problems)
			}
		case err == nil:
		case !strings.HasPrefix(err.Error(), "config/plugins:1: there is no plugin ") || !strings.Contains(err.Error(), name) ||
			strings.Count(err.Error(), ": ") < 2 || strings.Contains(err.Error(), "did you mean"):
			t.Errorf("%s: %v", name, err)
		case len(problems) > 0:
			t.Errorf("%s: %v stands beside %v", name, problems, err)
		}
	}
}

// read reads what plugins declare from files.
func read(r *plugin.Registry, files fs.FS) (*plugin.Config, ini.Problems) {
	c := &plugin.Config{Own: r.Declared()}
	c.Me, c.Routes, c.TLS = "mx.example.com", &route.Settings{}, &tlsconf.Settings{}
	tables := c.Tables()
	for _, s := range c.Own {
		tables = append(tables, s.Tables()...)
	}
	reader := ini.NewReader(files, "")
	reader.Load(tables)
	return c, reader.Problems()
}

// Every built-in plugin can be built from defaults and without services, as a
// check of the configuration does.
func TestBuildAll(t *testing.T) {
	var r plugin.Registry
	Register(&r)
	c, _ := read(&r, fstest.MapFS{})
	for _, n := range r.Names() {
		c.Listed = append(c.Listed, plugin.Listed{Name: n, As: n})
	}
	set, err := (&plugin.Loader{Registry: &r, Services: plugin.Services{Log: zap.NewNop()}}).Load(c)
	if err != nil {
		t.Fatal(err)
	}
	regs := set.Registrations()
	chain := hook.NewChain(regs, zap.NewNop())
	for _, p := range []hook.Point{hook.OnConnectInit, hook.OnCapabilities, hook.OnMail, hook.OnRcpt, hook.OnDataPost, hook.OnQueue, hook.OnQueueOutbound, hook.OnGetMX} {
		if !chain.Has(p) {
			t.Errorf("nobody is at %s", p)
		}
	}
	// These never wait: a timeout would cost each call a goroutine for nothing.
	instant := []string{
		"access", "auth/flat_file", "headers", "queue/discard", "queue/smtp_forward", "queue/test", "rcpt_to.in_host_list",
		"record_envelope_addresses", "relay", "tls",
	}
	for _, reg := range regs {
		if reg.Timeout != 0 && slices.Contains(instant, reg.Plugin) {
			t.Errorf("%s %s costs a goroutine", reg.Plugin, reg.Point)
		}
	}
}

// Every built-in plugin goes through a reload with the settings that it has: the next
// generation has the same handlers, and the one before can end.
func TestReload(t *testing.T) {
	var r plugin.Registry
	Register(&r)
	for _, name := range r.Names() {
		c, _ := read(&r, fstest.MapFS{})
		c.Listed = []plugin.Listed{{Name: name, As: name}}
		loader := &plugin.Loader{Registry: &r, Services: plugin.Services{Log: zap.NewNop()}}
		first, err := loader.Load(c)
		if err == nil {
			err = first.Start(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}

		next, err := loader.Prepare(t.Context(), first, c)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		next.Commit()
		if n, m := len(first.Registrations()), len(next.Registrations()); n != m {
			t.Errorf("%s: %d handlers, after a reload %d", name, n, m)
		}
		if err := first.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := next.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each plugin's folder has a manual page that begins with the plugin's name.
func TestManualPages(t *testing.T) {
	var r plugin.Registry
	Register(&r)
	described := map[string]bool{}
	err := fs.WalkDir(os.DirFS(".."), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "README.md" {
			page, err := os.ReadFile(filepath.Join("..", path))
			if err != nil {
				return err
			}
			first, _, _ := strings.Cut(string(page), "\n")
			described[strings.TrimPrefix(first, "# ")] = true
			for _, section := range []string{"\n## Name\n", "\n## Hooks\n", "\n## Configuration\n", "\n## See also\n"} {
				if !strings.Contains(string(page), section) {
					t.Errorf("%s has no section %q", path, strings.TrimSpace(section))
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range r.Names() {
		if !described[n] {
			t.Errorf("%s has no manual page", n)
		}
	}
}
