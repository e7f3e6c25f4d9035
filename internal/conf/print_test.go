package conf

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"tarishi/internal/ini"
)

func printed(c *Config) string {
	var b bytes.Buffer
	c.Print(&b)
	return b.String()
}

// unprint takes what Print wrote apart into files.
func unprint(text string) files {
	f := files{}
	name := ""
	for _, line := range strings.Split(text, "\n") {
		if n, ok := strings.CutPrefix(line, "; config/"); ok {
			f[name] = strings.TrimSuffix(f[name], "\n") // the blank line before a heading
			name = n
			continue
		}
		if name != "" {
			f[name] += line + "\n"
		}
	}
	f[name] = strings.TrimSuffix(f[name], "\n")
	delete(f, "")
	return f
}

func TestPrintRoundTrip(t *testing.T) {
	for name, in := range map[string]files{
		"defaults": {},
		"much": {
			"me": "mx.example.com", "plugins": "haraka-plugin-relay\nqueue/smtp_forward\n", "queue/smtp_forward.timeout": "900", "plugin_timeout": "0",
			"smtp.ini":       "listen=25,[::1]:587\npublic_ip=192.0.2.1\nuser=tarishi\ngroup=8\ngraceful_shutdown=on",
			"connection.ini": "[message]\ngreeting[]=one ; two\ngreeting[]=\"q\"\n[max]\nbytes=1", "log.ini": "level=3",
			"tls.ini": "key[]=a.pem\ncert[]=a.pem\nminVersion=TLSv1.3\nno_starttls_ports[]=25\n[no_tls_hosts]\n::1\n10.0.0.0/8\n[outbound]\nforce_tls_hosts[]=a\nforce_tls_hosts[]=b\ndane=false\nciphers=ECDHE-RSA-AES128-GCM-SHA256\n[mutual_auth_hosts]\na.example\n[mutual_auth_hosts_exclude]\nb.example\nc.example",
			"dns.ini": "servers[]=::1\ntimeout=1.5s\ndnssec=true", "outbound.ini": "temp_fail_intervals=1m*3,1h,2h,2h\nmax_lifetime=2d\ndelay_warning=none\n[example.com]\nconcurrency=2..40\nbind=192.0.2.1@3 ::1\nhelo=a.example b.example\ntls=verify\nhost=a b:26\nauth_user=u\nauth_pass=s3cret\n[mx:*.example.net]\nrate=20/s\ntemp_fail_intervals=none\n[default]\ndelay_warning=none",
			"relay.ini": "[relay]\nacl=0", "relay_acl_allow": "::1\n10.0.0.0/8", "host_list": "A.example", "host_list_regex": ".*\\.example", "host_list.anti_spoof": "1",
			"auth_flat_file.ini": "[users]\na=b\nc@d=e",
			"smtp_forward.ini": "domain_selector=mail_from\nsplit=fanout\nreply_codes=pass\nbind=::1\nbind_helo=a.example\nforward_client=xclient\nhost=a:26 tls://b lmtp://c lmtp+unix:/d\nauth_type=plain\nauth_user=u\nauth_pass=s3cret\n[x.example]\nforwarding_host_pool=[::1]:2500 b\nrequire_tls=true\n" +
				"[u@x.example]\nenable_outbound=false\nauth_type=plain\nauth_user=v\nauth_pass=s3cret\n[tls]\nrejectUnauthorized=true\nciphers=ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA\nkey=a.pem\ncert=a.pem\nforce_tls_hosts[]=z\nminVersion=TLSv1.3",
			"outbound.bounce_message": "Subject: a\n\nb\n", "a.pem": "",
		},
		"no retries": {"outbound.ini": "temp_fail_intervals=none"},
	} {
		t.Run(name, func(t *testing.T) {
			c, texts := load(t, in)
			if len(texts) > 0 {
				t.Fatal(texts)
			}
			text := printed(c)
			if strings.Contains(text, "s3cret") {
				t.Error("a secret is printed")
			}
			again, texts := load(t, unprint(text))
			texts = slices.DeleteFunc(texts, func(s string) bool { return strings.Contains(s, "many clients wait") }) // it stands there now
			if len(texts) > 0 {
				t.Error(texts)
			}
			mask(c)
			again.Dir, again.ConfigDir, again.PluginsDir = c.Dir, c.ConfigDir, c.PluginsDir
			again.Plugins.Listed, c.Plugins.Listed = nil, nil // As and Line may differ
			for k, r := range again.Forward.Routes {
				r.Name, r.Line = c.Forward.Routes[k].Name, c.Forward.Routes[k].Line
			}
			if !sameSettings(c, again) {
				t.Errorf("\n got %+v\nwant %+v\ntext %s", again, c, text)
			}
		})
	}
}

// mask does to a Config what Print and Load do to its secrets.
func mask(c *Config) {
	_, _, users := mine(c)
	for user := range users.Users {
		users.Users[user] = ini.Masked
	}
	for _, d := range c.Outbound.Destinations {
		for i := range d.Hosts {
			d.Hosts[i].AuthPass = ini.Masked
		}
	}
	for _, r := range c.Forward.All() {
		if r.AuthPass != "" {
			r.AuthPass = ini.Masked
		}
	}
}
