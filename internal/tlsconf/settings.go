package tlsconf

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/ini/hostport"
	"tarishi/internal/mail"
	"tarishi/internal/tlsconf/ciphers"
)

// Settings is tls.ini. Paths are absolute.
type Settings struct {
	Key, Cert       []string // pairs by position; empty: there is none
	Folder          string   // with more pairs; "": there is none
	FolderKeys      []string // the files with private keys in it
	MinVersion      uint16   // as in crypto/tls
	Ciphers         []uint16 // suites of TLS 1.2 and before; empty: the library's choice
	NoSTARTTLSPorts []int
	NoTLSHosts      []netip.Prefix // clients to which STARTTLS is not offered
	Explicit        bool           // a pair is configured, or the default files or one in the folder exist

	RequestCert        bool     // clients are asked for a certificate
	RejectUnauthorized bool     // and refused without one that verifies
	RequireAuthorized  []int    // ports on which they are asked and refused in any case
	CA                 string   // PEM file of the authorities that clients' certificates are verified by; "": the system's
	CRL                []string // PEM files of lists of revoked ones

	Outbound  Outbound
	MutualTLS bool // the first certificate is shown to other servers too
	DANE      bool // [outbound]: RFC 7672, with DNSSEC
	MTASTS    bool // [outbound]: RFC 8461
}

// Outbound is what tls.ini, or smtp_forward.ini, says about connections to other
// servers.
type Outbound struct {
	MinVersion    uint16
	NoTLSHosts    []string // addresses, CIDRs, MX hosts or recipient domains
	ForceTLSHosts []string // likewise
	CA            string   // PEM file of the roots; "": the system's
	Key, Cert     string   // client certificate; "": none
	Ciphers       []uint16 // suites of TLS 1.2 and before; empty: the library's choice

	// RejectUnauthorized: where TLS is used, the certificate must be valid.
	RejectUnauthorized bool
	TLSRequiredHeader  bool // "TLS-Required: No" is honoured

	// ShowTo are the MX hosts or recipient domains that get to see the client
	// certificate (empty: all), HideFrom those that do not.
	ShowTo, HideFrom []string
}

// SameFiles reports whether the configurations made of two settings are the same: those
// of one may be kept for the other.
func (s *Settings) SameFiles(o *Settings) bool {
	return slices.Equal(s.Key, o.Key) && slices.Equal(s.Cert, o.Cert) && s.MinVersion == o.MinVersion && slices.Equal(s.Ciphers, o.Ciphers) &&
		s.Folder == o.Folder && s.RequestCert == o.RequestCert && s.RejectUnauthorized == o.RejectUnauthorized &&
		slices.Equal(s.RequireAuthorized, o.RequireAuthorized) && s.CA == o.CA && slices.Equal(s.CRL, o.CRL) && s.Outbound.SameFiles(&o.Outbound)
}

// AsksClients reports whether any client is asked for a certificate.
func (s *Settings) AsksClients() bool {
	return s.RequestCert || s.RejectUnauthorized || len(s.RequireAuthorized) > 0
}

// Files returns the files and folders that the settings name for connections that come in.
func (s *Settings) Files() []string {
	return slices.DeleteFunc(slices.Concat(s.Key, s.Cert, s.CRL, []string{s.CA, s.Folder}), func(path string) bool { return path == "" })
}

// SameFiles does the same for connections to other servers.
func (s *Outbound) SameFiles(o *Outbound) bool {
	return s.MinVersion == o.MinVersion && s.CA == o.CA && s.Key == o.Key && s.Cert == o.Cert && slices.Equal(s.Ciphers, o.Ciphers)
}

const file = "tls.ini"

// The reasons why keys of Haraka's do nothing here, or stop the start.
const (
	goTLS       = "has no effect: the TLS library chooses safe values"
	noOCSP      = "cannot be honoured: OCSP stapling is not supported"
	alwaysShown = "has no effect: a server always shows its certificate"
)

// Tables declares the keys of tls.ini.
func (s *Settings) Tables() []*ini.Table {
	hosts := func(list *[]string) func() []string { return func() []string { return *list } }
	return []*ini.Table{{
		File: file,
		Doc:  "Certificates and TLS, for the plugin tls, for port 465 and for connections to other servers.",
		Rows: append(s.rows(), s.Outbound.rows(s)...),
		Sections: map[string]string{
			"outbound": "Connections to other servers. What is not set here is as above.",
		},
		Free: []ini.Free{
			{
				Section: "no_tls_hosts", Example: "192.0.2.7\n198.51.100.0/24",
				Doc:   "Clients to which STARTTLS is not offered: addresses or networks.",
				Print: func() []string { return hostport.FormatPrefixes(s.NoTLSHosts) },
			},
			{
				Section: "mutual_auth_hosts", Example: "partner.example.com", Print: hosts(&s.Outbound.ShowTo),
				Doc: `Servers that get to see our certificate, as [outbound] says, when they ask for one: names of mail hosts
					or recipient domains. Without any, all but those of the next section.`,
			},
			{
				Section: "mutual_auth_hosts_exclude", Example: "mx.example.net", Print: hosts(&s.Outbound.HideFrom),
				Doc: "Servers that do not get to see it.",
			},
		},
		Drop: map[string]string{
			"redis": "has no effect: failed handshakes are remembered in memory, for an hour",
		},
		Refuse: map[string]string{
			"inbound": "cannot be honoured: what concerns connections that come in stands in the main section",
		},
		Hosts:  "cannot be honoured: certificates have no options of their own",
		Finish: s.finish,
	}}
}

// rows are the keys of the main section.
func (s *Settings) rows() []ini.Row {
	out := &s.Outbound
	return append([]ini.Row{
		{
			Key: "key", Kind: ini.Texts(&s.Key), Example: "tls_key.pem",
			Doc: `Private key in PEM form, relative to this folder. For several pairs write key[]= and cert[]= as often.
				Without key and cert, tls_key.pem and tls_cert.pem are used if both are there. More pairs may lie in the folder
				tls. Clients get the certificate for the name that they ask for, else the first one; of an ECDSA and an RSA
				certificate for a name the cheaper one that they take. When these files, or those of [outbound], are renewed,
				the new ones are used within ten seconds.`,
		},
		{
			Key: "cert", Kind: ini.Texts(&s.Cert), Example: "tls_cert.pem",
			Doc: "The certificate chain that goes with key.",
		},
		{
			Key: "minVersion", Kind: Version(&s.MinVersion), Default: "TLSv1.2",
			Doc: "The oldest version that is spoken: TLSv1, TLSv1.1, TLSv1.2, TLSv1.3.",
		},
		{
			Key: "ciphers", Kind: ciphers.Kind(&s.Ciphers), Example: "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256",
			Doc: `Cipher suites of TLS 1.2, names as OpenSSL's with colons between. Without it the TLS library chooses, as it
				always does for TLS 1.3.`,
		},
		{
			Key: "mutual_tls", Kind: ini.Bool(&s.MutualTLS), Default: "false",
			Doc: `Whether the first certificate is shown to other servers too, when they ask for one and [outbound] names no
				other.`,
		},
		{
			Key: "no_starttls_ports", Kind: ini.Ports(&s.NoSTARTTLSPorts), Example: "2525",
			Doc: "Ports of ours on which STARTTLS is not offered; repeat the key for more.",
		},

		// What main says for connections in both directions; [outbound]
		// comes after it and wins.
		{Key: "force_tls_hosts", Kind: HostList(&out.ForceTLSHosts), Hidden: true},
		{Key: "requestOCSP", Note: noOCSP, Stops: ini.SwitchedOn},
		{Key: "enableOCSPStapling", Note: noOCSP, Stops: ini.SwitchedOn},
		{Key: "pfx", Note: "cannot be honoured: write key and certificate into PEM files, key and cert", Stops: ini.Anything},
		{Key: "passphrase", Note: "cannot be honoured: keys must not be encrypted ('openssl pkey' decrypts one)", Stops: ini.Anything},
	}, append(s.clientRows(), libraryRows()...)...)
}

// rows are the keys of [outbound].
func (o *Outbound) rows(s *Settings) []ini.Row {
	return ini.Within("outbound", append([]ini.Row{
		{
			Key: "mta_sts", Kind: ini.Bool(&s.MTASTS), Default: "true", Haraka: ini.None,
			Doc: `MTA-STS (RFC 8461): a domain may publish which mail hosts are its own, and that their certificates must
				verify. Policies are kept below queue/sts.`,
		},
		{
			Key: "dane", Kind: ini.Bool(&s.DANE), Default: "true", Haraka: ini.None,
			Doc: `DANE (RFC 7672): a domain may publish certificates in its signed DNS. It has no effect unless dns.ini says
				dnssec=true.`,
		},
		{
			Key: "tls_required_header", Since: "0.3.0", Kind: ini.Bool(&o.TLSRequiredHeader), Default: "true", Haraka: ini.None,
			Doc: `Whether a message with the field "TLS-Required: No" (RFC 8689) is delivered in spite of what DANE and MTA-STS
				say: with TLS if it can be had, and without a look at the certificate. It loosens neither force_tls_hosts,
				rejectUnauthorized and the key tls of outbound.ini, nor REQUIRETLS.`,
		},
		{
			Key: "no_tls_hosts", Kind: HostList(&o.NoTLSHosts), Example: "192.0.2.8",
			Doc: "Servers that get no TLS: addresses, networks, names of mail hosts or recipient domains.",
		},
		{
			Key: "force_tls_hosts", Kind: HostList(&o.ForceTLSHosts), Example: "example.com",
			Doc: "Servers that get nothing without verified TLS, named likewise.",
		},
		{
			Key: "ca", Kind: ini.Text(&o.CA), Example: "roots.pem",
			Doc: "A PEM file of the authorities that are trusted, instead of the system's.",
		},
		{
			Key: "key", Kind: ini.Text(&o.Key), Example: "client_key.pem",
			Doc: "The key of our certificate towards servers that ask for one.",
		},
		{Key: "cert", Kind: ini.Text(&o.Cert), Example: "client_cert.pem", Doc: "That certificate."},
		{
			Key: "minVersion", Kind: Version(&o.MinVersion), Example: "TLSv1.2",
			Doc: "The oldest version, if it is not that above.",
		},
		{
			Key: "ciphers", Kind: ciphers.Kind(&o.Ciphers), Example: "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256",
			Doc: "The cipher suites, if they are not those above.",
		},
		{
			Key: "rejectUnauthorized", Since: "0.2.0", Kind: ini.Bool(&o.RejectUnauthorized), Default: "false",
			Doc: `true: a server with TLS gets mail only with a valid certificate, or the one that DANE asks for. A server
				without TLS gets it in clear: see force_tls_hosts.`,
		},
		{Key: "requestCert", Note: alwaysShown},
	}, libraryRows()...)...)
}

// ForwardRows are the keys of [tls] of smtp_forward.ini, for an o that says what
// tls.ini says. verify is what rejectUnauthorized means there.
func (o *Outbound) ForwardRows(verify *bool) []ini.Row {
	return ini.Within("tls",
		ini.Row{Key: "key", Kind: ini.Text(&o.Key), Example: "client_key.pem", Doc: "The key of the client certificate."},
		ini.Row{Key: "cert", Kind: ini.Text(&o.Cert), Example: "client_cert.pem", Doc: "The client certificate."},
		ini.Row{Key: "ca", Kind: ini.Text(&o.CA), Example: "ca.pem", Doc: "The roots to trust."},
		ini.Row{Key: "minVersion", Kind: Version(&o.MinVersion), Example: "TLSv1.2", Doc: "The oldest version that is spoken."},
		ini.Row{
			Key: "ciphers", Kind: ciphers.Kind(&o.Ciphers), Example: "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256",
			Doc: "The cipher suites below TLS 1.3.",
		},
		ini.Row{
			Key: "no_tls_hosts", Kind: HostList(&o.NoTLSHosts), Example: "192.0.2.12",
			Doc: "Hosts, addresses or networks that never get TLS.",
		},
		ini.Row{
			Key: "force_tls_hosts", Kind: HostList(&o.ForceTLSHosts), Example: "192.0.2.0/24",
			Doc: "Those that get nothing without verified TLS.",
		},
		ini.Row{Key: "rejectUnauthorized", Kind: ini.Bool(verify), Hidden: true},
		ini.Row{Key: "requestCert", Note: alwaysShown},
		ini.Row{Key: "honorCipherOrder", Note: goTLS},
		ini.Row{Key: "dhparam", Note: goTLS},
	)
}

// libraryRows are the keys of a section of tls.ini that OpenSSL knows and Go's
// library decides by itself. Those that could ask for more than it does stop the
// start.
func libraryRows() []ini.Row {
	return []ini.Row{
		{Key: "dhparam", Note: "has no effect: keys are exchanged over elliptic curves, never with such parameters"},
		{Key: "honorCipherOrder", Note: goTLS},
		{Key: "ALPNProtocols", Note: goTLS},
		{Key: "maxVersion", Note: goTLS},
		{Key: "ecdhCurve", Note: "cannot be honoured: the TLS library chooses the curves", Stops: ini.OtherThan("auto")},
		{Key: "sigalgs", Note: "cannot be honoured: the TLS library chooses the algorithms of signatures", Stops: ini.Anything},
		{Key: "secureProtocol", Note: "cannot be honoured: use minVersion", Stops: ini.Anything},
		{Key: "secureOptions", Note: "cannot be honoured: use minVersion", Stops: ini.Anything},
	}
}

// finish completes what rows cannot say: defaults that depend on files, absolute
// paths, inheritance.
func (s *Settings) finish(r *ini.Reader) {
	// [outbound] inherits the version and the suites of main.
	f := r.File(file)
	main, out := f.Section("main"), f.Section("outbound")
	if out.Key("minVersion") == nil {
		s.Outbound.MinVersion = s.MinVersion
	}
	if out.Key("ciphers") == nil {
		s.Outbound.Ciphers = s.Ciphers
	}
	for _, k := range f.Section("no_tls_hosts").Keys {
		p, err := hostport.ParsePrefix(k.Name)
		if err != nil {
			r.Add(ini.Problem{File: ini.Place(file), Line: k.Line, Section: "no_tls_hosts", Text: err.Error()})
			continue
		}
		s.NoTLSHosts = append(s.NoTLSHosts, p)
	}
	ciphers.Check(r, file, "main", main.Key("ciphers"))
	ciphers.Check(r, file, "outbound", out.Key("ciphers"))
	s.Outbound.ShowTo = mutualHosts(r, f.Section("mutual_auth_hosts"))
	s.Outbound.HideFrom = mutualHosts(r, f.Section("mutual_auth_hosts_exclude"))
	s.clientCertificates(r, main, out)
	if r.Dir != "" {
		s.pairs(r, main)
		s.readFolder(r)
		s.clientFiles(r, main, out)
	}
	s.clientPair(r, f)
	if k := main.Key("requireAuthorized"); len(s.RequireAuthorized) > 0 && !s.Explicit {
		r.Add(ini.Problem{File: ini.Place(file), Line: k.Line, Key: k.Name, Text: "cannot be honoured: without a certificate of ours there is no TLS"})
	}
}

// pairs finds the keys and certificates that clients are shown.
func (s *Settings) pairs(r *ini.Reader, main *grammar.Section) {
	s.Key, s.Cert = paths(r, main, "key", s.Key), paths(r, main, "cert", s.Cert)
	// Haraka finds its default files without being asked.
	defaultKey, defaultCert := filepath.Join(r.Dir, "tls_key.pem"), filepath.Join(r.Dir, "tls_cert.pem")
	if len(s.Key) == 0 && len(s.Cert) == 0 {
		key, cert := exists(defaultKey), exists(defaultCert)
		if key && cert {
			s.Key, s.Cert, s.Explicit = []string{defaultKey}, []string{defaultCert}, true
		} else if key != cert {
			found, missing := "tls_key.pem", "tls_cert.pem"
			if cert {
				found, missing = missing, found
			}
			r.Add(ini.Problem{File: ini.Place(found), Text: "is not used: there is no " + missing + " beside it", Warning: true})
		}
		return
	}

	// One of the two alone goes with the other's default file.
	s.Explicit = true
	if len(s.Key) == 0 {
		s.Key = paths(r, &grammar.Section{}, "key", []string{defaultKey})
	}
	if len(s.Cert) == 0 {
		s.Cert = paths(r, &grammar.Section{}, "cert", []string{defaultCert})
	}
	if len(s.Key) != len(s.Cert) {
		at := main.Key("key")
		if at == nil {
			at = main.Key("cert")
		}
		r.Add(ini.Problem{
			File: ini.Place(file), Line: at.Line, Key: at.Name,
			Text: fmt.Sprintf("%d keys and %d certificates: they must come in pairs", len(s.Key), len(s.Cert)),
		})
		// The pairs that are whole stay in use until the daemon is refused its
		// start.
		n := min(len(s.Key), len(s.Cert))
		s.Key, s.Cert = s.Key[:n], s.Cert[:n]
	}
}

// clientFiles makes the paths of [outbound] absolute.
func (s *Settings) clientFiles(r *ini.Reader, main, out *grammar.Section) {
	for _, one := range []struct {
		key string
		p   *string
	}{{"key", &s.Outbound.Key}, {"cert", &s.Outbound.Cert}, {"ca", &s.Outbound.CA}} {
		if *one.p != "" {
			// A key of main holds for both directions.
			at := out
			if at.Key(one.key) == nil {
				at = main
			}
			*one.p = paths(r, at, one.key, []string{*one.p})[0]
		}
	}
}

// clientPair settles which certificate other servers get to see.
func (s *Settings) clientPair(r *ini.Reader, f *grammar.File) {
	main, out, o := f.Section("main"), f.Section("outbound"), &s.Outbound
	if o.Key == "" && o.Cert == "" && (s.MutualTLS || len(o.ShowTo) > 0) {
		if len(s.Key) > 0 && len(s.Cert) > 0 {
			o.Key, o.Cert = s.Key[0], s.Cert[0]
		} else {
			p := ini.Problem{File: ini.Place(file), Text: "there is no certificate to show: set [outbound] key and cert", Warning: true}
			if k := main.Key("mutual_tls"); k != nil {
				p.Line, p.Key = k.Line, k.Name
			} else {
				p.Line, p.Section = f.Section("mutual_auth_hosts").Line, "mutual_auth_hosts"
			}
			r.Add(p)
		}
	}
	if (o.Key == "") != (o.Cert == "") {
		k := out.Key("key")
		if k == nil {
			k = out.Key("cert")
		}
		r.Add(ini.Problem{File: ini.Place(file), Line: k.Line, Section: "outbound", Key: k.Name, Text: "key and cert must be set together"})
		o.Key, o.Cert = "", ""
	}
}

// FinishForward completes [tls] of smtp_forward.ini in o: absolute paths of files
// that are there, and a client certificate that is whole; else that of base.
func (o *Outbound) FinishForward(r *ini.Reader, name string, s *grammar.Section, base *Outbound) {
	problem := func(k *grammar.Key, text string) {
		r.Add(ini.Problem{File: ini.Place(name), Line: k.Line, Section: s.Name, Key: k.Name, Text: text})
	}
	ciphers.Check(r, name, s.Name, s.Key("ciphers"))
	for _, one := range []struct {
		key string
		p   *string
	}{{"key", &o.Key}, {"cert", &o.Cert}, {"ca", &o.CA}} {
		k := s.Key(one.key)
		if k == nil || *one.p == "" {
			continue
		}
		if !filepath.IsAbs(*one.p) {
			*one.p = filepath.Join(r.Dir, *one.p)
		}
		if !exists(*one.p) {
			problem(k, "there is no file "+*one.p)
		}
	}
	// Half a pair cannot be shown: the pair of tls.ini stays.
	key, cert := s.Key("key"), s.Key("cert")
	if (key == nil) != (cert == nil) {
		problem(cmp.Or(key, cert), "key and cert must be set together")
		o.Key, o.Cert = base.Key, base.Cert
	}
}

// mutualHosts returns the keys of a section that lists hosts.
func mutualHosts(r *ini.Reader, s *grammar.Section) []string {
	var hosts []string
	for _, k := range s.Keys {
		hosts = append(hosts, mail.CanonicalDomain(k.Name))
		if value := strings.Join(k.Values, ""); value != "" && !k.Bare {
			r.Add(ini.Problem{
				File: ini.Place(file), Line: k.Line, Section: s.Name, Key: k.Name, Warning: true,
				Text: "the name of a certificate has no effect: there is one, [outbound] key and cert",
			})
		}
	}
	return hosts
}

// paths makes names absolute below the configuration folder and complains of those
// that are not there.
func paths(r *ini.Reader, s *grammar.Section, key string, names []string) []string {
	line := 0
	if k := s.Key(key); k != nil {
		line = k.Line
	}
	var all []string
	for _, name := range names {
		p := name
		if !filepath.IsAbs(p) {
			p = filepath.Join(r.Dir, p)
		}
		if !exists(p) {
			r.Add(ini.Problem{File: ini.Place(file), Line: line, Section: ini.Shown(s.Name), Key: key, Text: "there is no file " + p})
		}
		all = append(all, p)
	}
	return all
}

func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}
