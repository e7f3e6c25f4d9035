package conf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tarishi/internal/mail"
)

func tlsINI(c *Config) *schema {
	s, out := &c.TLS, &c.TLS.Outbound
	f := &schema{
		file: "tls.ini",
		entries: []entry{
			{key: "key", field: texts(&s.Key)},
			{key: "cert", field: texts(&s.Cert)},
			{key: "minVersion", field: version(&s.MinVersion)},
			{key: "no_starttls_ports", field: ports(&s.NoSTARTTLSPorts)},
			// What main says for connections in both directions; [outbound]
			// comes after it in this table and wins.
			{key: "ca", field: text(&out.CA), hidden: true},
			{key: "rejectUnauthorized", field: boolean(&out.RejectUnauthorized), hidden: true},
			{key: "force_tls_hosts", field: nextHops(&out.ForceTLSHosts), hidden: true},
			{key: "requestCert", note: noClients},
			{key: "requireAuthorized", note: noAuthorized, stops: anything},
			{key: "requestOCSP", note: noOCSP, stops: switchedOn},
			{key: "enableOCSPStapling", note: noOCSP, stops: switchedOn},
			{key: "ciphers", field: ciphers(&s.Ciphers)},
			{key: "mutual_tls", field: boolean(&s.MutualTLS)},
			{key: "pfx", note: "cannot be honoured: write key and certificate into PEM files, key and cert", stops: anything},
			{key: "passphrase", note: "cannot be honoured: keys must not be encrypted ('openssl pkey' decrypts one)", stops: anything},
			{key: "crl", note: "cannot be honoured: lists of revoked certificates are not supported", stops: anything},
		},
		free: []string{"no_tls_hosts", "mutual_auth_hosts", "mutual_auth_hosts_exclude"},
		idle: map[string]string{
			"redis": "has no effect: failed handshakes are remembered in memory, for an hour",
		},
		refused: map[string]string{
			"inbound": "cannot be honoured: what concerns connections that come in stands in the main section",
		},
		perName: "cannot be honoured: certificates have no options of their own",
	}
	f.entries = append(f.entries, libraryEntries("")...)
	f.entries = append(f.entries,
		entry{section: "outbound", key: "key", field: text(&out.Key)},
		entry{section: "outbound", key: "cert", field: text(&out.Cert)},
		entry{section: "outbound", key: "ca", field: text(&out.CA)},
		entry{section: "outbound", key: "minVersion", field: version(&out.MinVersion)},
		entry{section: "outbound", key: "ciphers", field: ciphers(&out.Ciphers)},
		entry{section: "outbound", key: "dane", field: boolean(&s.DANE)},
		entry{section: "outbound", key: "mta_sts", field: boolean(&s.MTASTS)},
		entry{section: "outbound", key: "rejectUnauthorized", field: boolean(&out.RejectUnauthorized)},
		entry{section: "outbound", key: "no_tls_hosts", field: nextHops(&out.NoTLSHosts)},
		entry{section: "outbound", key: "force_tls_hosts", field: nextHops(&out.ForceTLSHosts)},
		entry{section: "outbound", key: "requestCert", note: "has no effect: a server always shows its certificate"},
	)
	f.entries = append(f.entries, libraryEntries("outbound")...)
	return f
}

// libraryEntries are the keys of a section of tls.ini that OpenSSL knows and Go's
// library decides by itself. Those that could ask for more than it does stop the
// start.
func libraryEntries(section string) []entry {
	all := []entry{
		{key: "dhparam", note: "has no effect: keys are exchanged over elliptic curves, never with such parameters"},
		{key: "honorCipherOrder", note: goTLS},
		{key: "ALPNProtocols", note: goTLS},
		{key: "maxVersion", note: goTLS},
		{key: "ecdhCurve", note: "cannot be honoured: the TLS library chooses the curves", stops: otherThan("auto")},
		{key: "sigalgs", note: "cannot be honoured: the TLS library chooses the algorithms of signatures", stops: anything},
		{key: "secureProtocol", note: "cannot be honoured: use minVersion", stops: anything},
		{key: "secureOptions", note: "cannot be honoured: use minVersion", stops: anything},
	}
	for i := range all {
		all[i].section = section
	}
	return all
}

// finishTLS completes what tls.ini's table cannot say: defaults that depend on
// files, absolute paths, inheritance.
func (l *loader) finishTLS() {
	t := &l.c.TLS
	f := l.parsed("tls.ini")
	main, out := f.section("main"), f.section("outbound")
	if out.key("minVersion") == nil {
		t.Outbound.MinVersion = t.MinVersion
	}
	if out.key("ciphers") == nil {
		t.Outbound.Ciphers = t.Ciphers
	}
	if k := main.key("rejectUnauthorized"); k != nil && isTrue(strings.Join(k.values, "")) {
		l.add(Problem{
			File: place("tls.ini"), Line: k.line, Key: k.name, Warning: true,
			Text: "holds for connections to other servers: clients are not asked for certificates. In [outbound] it says just that",
		})
	}
	for _, k := range f.section("no_tls_hosts").keys {
		p, err := parsePrefix(k.name)
		if err != nil {
			l.add(Problem{File: place("tls.ini"), Line: k.line, Section: "no_tls_hosts", Text: err.Error()})
			continue
		}
		t.NoTLSHosts = append(t.NoTLSHosts, p)
	}
	l.cipherNames("tls.ini", "main", main.key("ciphers"))
	l.cipherNames("tls.ini", "outbound", out.key("ciphers"))
	t.Outbound.ShowTo = l.mutualHosts(f.section("mutual_auth_hosts"))
	t.Outbound.HideFrom = l.mutualHosts(f.section("mutual_auth_hosts_exclude"))
	t.Key, t.Cert = l.paths(main, "key", t.Key), l.paths(main, "cert", t.Cert)
	defaultKey, defaultCert := filepath.Join(l.c.ConfigDir, "tls_key.pem"), filepath.Join(l.c.ConfigDir, "tls_cert.pem")
	switch {
	case len(t.Key) == 0 && len(t.Cert) == 0:
		key, cert := exists(defaultKey), exists(defaultCert)
		if key && cert {
			t.Key, t.Cert, t.Explicit = []string{defaultKey}, []string{defaultCert}, true
		} else if key != cert {
			found, missing := "tls_key.pem", "tls_cert.pem"
			if cert {
				found, missing = missing, found
			}
			l.add(Problem{File: place(found), Text: "is not used: there is no " + missing + " beside it", Warning: true})
		}
	default:
		t.Explicit = true
		if len(t.Key) == 0 {
			t.Key = l.paths(&iniSection{}, "key", []string{defaultKey})
		}
		if len(t.Cert) == 0 {
			t.Cert = l.paths(&iniSection{}, "cert", []string{defaultCert})
		}
		if len(t.Key) != len(t.Cert) {
			at := main.key("key")
			if at == nil {
				at = main.key("cert")
			}
			l.add(Problem{
				File: place("tls.ini"), Line: at.line, Key: at.name,
				Text: fmt.Sprintf("%d keys and %d certificates: they must come in pairs", len(t.Key), len(t.Cert)),
			})
			n := min(len(t.Key), len(t.Cert))
			t.Key, t.Cert = t.Key[:n], t.Cert[:n]
		}
	}
	for _, one := range []struct {
		key string
		p   *string
	}{{"key", &t.Outbound.Key}, {"cert", &t.Outbound.Cert}, {"ca", &t.Outbound.CA}} {
		if *one.p != "" {
			s := out
			if s.key(one.key) == nil {
				s = main
			}
			*one.p = l.paths(s, one.key, []string{*one.p})[0]
		}
	}
	if t.Outbound.Key == "" && t.Outbound.Cert == "" && (t.MutualTLS || len(t.Outbound.ShowTo) > 0) {
		if len(t.Key) > 0 && len(t.Cert) > 0 {
			t.Outbound.Key, t.Outbound.Cert = t.Key[0], t.Cert[0]
		} else {
			p := Problem{File: place("tls.ini"), Text: "there is no certificate to show: set [outbound] key and cert", Warning: true}
			if k := main.key("mutual_tls"); k != nil {
				p.Line, p.Key = k.line, k.name
			} else {
				p.Line, p.Section = f.section("mutual_auth_hosts").line, "mutual_auth_hosts"
			}
			l.add(p)
		}
	}
	if (t.Outbound.Key == "") != (t.Outbound.Cert == "") {
		k := out.key("key")
		if k == nil {
			k = out.key("cert")
		}
		l.add(Problem{File: place("tls.ini"), Line: k.line, Section: "outbound", Key: k.name, Text: "key and cert must be set together"})
		t.Outbound.Key, t.Outbound.Cert = "", ""
	}
}

// mutualHosts returns the keys of a section of tls.ini that lists hosts.
func (l *loader) mutualHosts(s *iniSection) []string {
	var hosts []string
	for _, k := range s.keys {
		hosts = append(hosts, mail.CanonicalDomain(k.name))
		if value := strings.Join(k.values, ""); value != "" && !k.bare {
			l.add(Problem{
				File: place("tls.ini"), Line: k.line, Section: s.name, Key: k.name, Warning: true,
				Text: "the name of a certificate has no effect: there is one, [outbound] key and cert",
			})
		}
	}
	return hosts
}

// paths makes names absolute below config/ and complains of those that are not
// there.
func (l *loader) paths(s *iniSection, key string, names []string) []string {
	line := 0
	if k := s.key(key); k != nil {
		line = k.line
	}
	var all []string
	for _, name := range names {
		p := name
		if !filepath.IsAbs(p) {
			p = filepath.Join(l.c.ConfigDir, p)
		}
		if !exists(p) {
			section := s.name
			if section == "main" {
				section = ""
			}
			l.add(Problem{File: place("tls.ini"), Line: line, Section: section, Key: key, Text: "there is no file " + p})
		}
		all = append(all, p)
	}
	return all
}

func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}
