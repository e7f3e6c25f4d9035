package conf

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tarishi/internal/mail"
)

const forwardFile = "smtp_forward.ini"

// hostKeys are the keys of a route that together say where it goes. Only the
// port is inherited.
type hostKeys struct {
	host, pool string
	port       int // 0: not set
	lmtp       bool
}

// routeEntries is the table of the keys that main and every section may have.
func routeEntries(r *ForwardRoute, h *hostKeys) []entry {
	const listed = "has no effect: give the section of the domain require_tls or enable_tls instead"
	return []entry{
		{key: "host", field: text(&h.host)},
		{key: "port", field: port(&h.port)},
		{key: "forwarding_host_pool", field: text(&h.pool)},
		{key: "using_lmtp", field: boolean(&h.lmtp)},
		{key: "enable_outbound", field: boolean(&r.EnableOutbound)},
		{key: "queue", field: text(&r.Queue)},
		{key: "enable_tls", field: boolean(&r.EnableTLS)},
		{key: "require_tls", field: boolean(&r.RequireTLS)},
		{key: "tls_verify", field: boolean(&r.TLSVerify)},
		{key: "auth_type", field: choice(&r.AuthType, "plain", "login")},
		{key: "auth_user", field: text(&r.AuthUser), once: "auth_pass"},
		{key: "auth_pass", field: secret(&r.AuthPass)},
		{key: "connect_timeout", field: duration(&r.ConnectTimeout, time.Second)},
		{key: "timeout", field: duration(&r.Timeout, 0)},
		{key: "command_timeout", field: duration(&r.CommandTimeout, time.Second)},
		{key: "submission_timeout", field: duration(&r.SubmissionTimeout, time.Second)},
		{key: "max_connections", field: atLeast(&r.MaxConnections, 1)},
		{key: "max_messages", field: atLeast(&r.MaxMessages, 1)},
		{key: "max_age", field: duration(&r.MaxAge, time.Second)},
		{key: "one_message_per_rcpt", field: boolean(&r.OneMessagePerRcpt)},
		{key: "dead_forwarding_host_retry_secs", note: "has no effect: every message tries the hosts in order, and an unreachable one is left alone for a while"},
		{key: "bind", note: notYet},
		{key: "bind_helo", note: notYet},
		{key: "no_tls_hosts", note: listed},
		{key: "force_tls_hosts", note: listed},
	}
}

// mainEntries are the keys that only the main section has.
func mainEntries(f *Forward) []entry {
	return []entry{
		{key: "domain_selector", field: choice(&f.DomainSelector, "rcpt_to", "mail_from")},
		{key: "check_sender", field: boolean(&f.CheckSender)},
		{key: "check_recipient", field: boolean(&f.CheckRecipient)},
	}
}

// forwardTLSEntries are the keys of [tls].
func forwardTLSEntries(f *Forward) []entry {
	entries := []entry{{section: "tls", key: "rejectUnauthorized", field: boolean(&f.Main.TLSVerify)}}
	for _, k := range []string{"requestCert", "honorCipherOrder", "dhparam", "ciphers", "minVersion", "key", "cert"} {
		entries = append(entries, entry{section: "tls", key: k, note: "has no effect here: tls.ini [outbound] holds"})
	}
	for _, k := range []string{"no_tls_hosts", "force_tls_hosts"} {
		entries = append(entries, entry{section: "tls", key: k, note: "has no effect: give the section of the domain require_tls or enable_tls instead"})
	}
	return entries
}

// forward reads smtp_forward.ini.
func (l *loader) forward() {
	f := l.parsed(forwardFile)
	c := &l.c.Forward
	var mainHost hostKeys
	schema := &schema{
		file:    forwardFile,
		entries: slices.Concat(forwardTLSEntries(c), mainEntries(c), routeEntries(&c.Main, &mainHost)),
	}
	only := &iniFile{} // what has a fixed name
	for _, s := range f.sections {
		if s.name == "main" || s.name == "tls" {
			only.sections = append(only.sections, s)
		}
	}
	l.apply(schema, only)

	main := f.section("main")
	l.hosts(&c.Main, main, mainHost, 0)
	l.auth(&c.Main, main)
	c.Main.settleTLS(main)
	for _, s := range f.sections {
		if s.name != "main" && s.name != "tls" {
			l.route(s, mainHost)
		}
	}
	c.Configured = len(c.Main.Hosts) > 0
	for _, r := range c.Routes {
		c.Configured = c.Configured || len(r.Hosts) > 0
	}
}

// route reads the section of one domain or address.
func (l *loader) route(s *iniSection, mainHost hostKeys) {
	c := &l.c.Forward
	problem := func(k *iniKey, nearest, text string, warning bool) {
		p := Problem{File: place(forwardFile), Line: s.line, Section: s.name, Nearest: nearest, Text: text, Warning: warning}
		if k != nil {
			p.Line, p.Key = k.line, k.name
		}
		l.add(p)
	}
	name, ok := routeName(s.name)
	if !ok {
		problem(nil, Nearest(s.name, []string{"main", "tls"}), "is neither a domain nor an address", false)
		return
	}
	if !strings.Contains(name, ".") {
		if n := Nearest(name, []string{"main", "tls"}); n != "" {
			problem(nil, n, "is read as a domain", true)
		}
	}
	if other, ok := c.Routes[name]; ok {
		problem(nil, "", fmt.Sprintf("is the same domain as [%s] on line %d, which counts", other.Name, other.Line), false)
		return
	}
	r := c.Main // inherits all but where it goes
	r.Name, r.Line, r.Hosts = s.name, s.line, nil
	r.AuthType, r.AuthUser, r.AuthPass = "", "", ""
	var host hostKeys
	entries := routeEntries(&r, &host)
	for i := range entries {
		entries[i].section = s.name
		if k := s.key(entries[i].key); k != nil {
			l.key(forwardFile, &entries[i], k)
		}
	}
	for _, k := range s.keys {
		known := func(e entry) bool { return e.key == k.name }
		switch {
		case slices.ContainsFunc(entries, known):
		case slices.ContainsFunc(mainEntries(c), known):
			problem(k, "", "belongs above the first section: it holds for all domains", false)
		default:
			var names []string
			for _, e := range entries {
				names = append(names, e.key)
			}
			problem(k, Nearest(k.name, names), "unknown", false)
		}
	}
	l.auth(&r, s)
	r.settleTLS(s)
	switch {
	case host.host != "" || host.pool != "":
		l.hosts(&r, s, host, mainHost.port)
		if len(r.Hosts) == 0 {
			return // complained of already; the domain goes by main
		}
	case s.key("enable_outbound") == nil:
		problem(nil, "", "has no host", false)
		return
	case len(c.Main.Hosts) == 0:
		problem(nil, "", "has no host, and neither has the main section", false)
		return
	default:
		r.Hosts = c.Main.Hosts
		if host.port != 0 {
			problem(s.key("port"), "", "has no effect without host", true)
		}
		if c.Main.AuthUser != "" && r.AuthUser == "" {
			problem(nil, "", "uses the main section's host but not its credentials: auth_type, auth_user and auth_pass are never inherited", true)
		}
	}
	c.Routes[name] = &r
}

// settleTLS makes enable_tls and require_tls agree: what the section itself
// says wins over what it inherits, and require_tls over enable_tls.
func (r *ForwardRoute) settleTLS(s *iniSection) {
	if !r.EnableTLS && s.key("enable_tls") != nil && s.key("require_tls") == nil {
		r.RequireTLS = false
	}
	r.EnableTLS = r.EnableTLS || r.RequireTLS
}

// routeName canonicalises the name of a section: a domain, *.domain for all
// below it, or an address in lower case.
func routeName(s string) (string, bool) {
	if parent, ok := strings.CutPrefix(s, "*."); ok {
		name, ok := routeName(parent)
		return "*." + name, ok && !strings.ContainsAny(name, "@*")
	}
	if strings.Contains(s, "@") {
		a, err := mail.ParseAddress(s)
		if err != nil || a.Domain == "" {
			return "", false
		}
		a.Local, a.Domain = strings.ToLower(a.Local), a.Host()
		return a.String(), true
	}
	if a, err := mail.ParseAddress("postmaster@" + s); err != nil || a.Domain != s {
		return "", false
	}
	return mail.CanonicalDomain(s), true
}

// auth checks that a route's credentials are complete.
func (l *loader) auth(r *ForwardRoute, s *iniSection) {
	problem := func(key, text string, warning bool) {
		l.add(Problem{File: place(forwardFile), Line: s.key(key).line, Section: shown(s.name), Key: key, Text: text, Warning: warning})
	}
	twice := false // complained of already
	if k := s.key("auth_user"); k != nil {
		twice = len(k.lines) > 1
	}
	switch {
	case twice:
	case r.AuthUser != "" && r.AuthPass == "":
		problem("auth_user", "auth_pass is missing", false)
	case r.AuthUser == "" && r.AuthPass != "":
		problem("auth_pass", "auth_user is missing", false)
	case r.AuthUser == "" && r.AuthType != "":
		problem("auth_type", "auth_user and auth_pass are missing", false)
	case r.AuthUser != "" && r.AuthType == "" && s.key("auth_type") == nil:
		problem("auth_user", "has no effect without auth_type=plain or auth_type=login", true)
		return
	default:
		return
	}
	r.AuthType, r.AuthUser, r.AuthPass = "", "", ""
}

// hosts resolves where a route goes.
func (l *loader) hosts(r *ForwardRoute, s *iniSection, h hostKeys, mainPort int) {
	key, value := "host", h.host
	if value == "" {
		key, value = "forwarding_host_pool", h.pool
	}
	if value == "" {
		return
	}
	k := s.key(key)
	p := Problem{File: place(forwardFile), Line: k.line, Section: shown(s.name), Key: key}
	switch {
	case key == "forwarding_host_pool":
		warn := p
		warn.Text, warn.Warning = "is read as host: its hosts are tried in order, not at random", true
		l.add(warn)
	case h.pool != "":
		pool := s.key("forwarding_host_pool")
		l.add(Problem{
			File: place(forwardFile), Line: pool.line, Section: shown(s.name), Key: pool.name,
			Text: "has no effect beside host: put all hosts there", Warning: true,
		})
	}
	var hops []mail.NextHop
	for _, one := range strings.FieldsFunc(value, func(c rune) bool { return c == ',' || isBlank(c) || key == "forwarding_host_pool" && c == ';' }) {
		hop, err := nextHop(one, h, mainPort)
		if err != nil {
			p.Text = err.Error()
			l.add(p)
			return
		}
		hops = append(hops, hop)
	}
	if len(hops) == 0 {
		p.Text = "names no host"
		l.add(p)
		return
	}
	r.Hosts = hops
}

// nextHop reads one host of a route: host[:port], [ipv6]:port, or a URL with
// one of the schemes smtp, tcp, tls, smtps, lmtp, lmtp+unix. The port is the
// host's own, or the section's, or the scheme's if it has one, or the main
// section's, or 25.
func nextHop(s string, h hostKeys, mainPort int) (mail.NextHop, error) {
	var hop mail.NextHop
	if h.lmtp {
		hop.Protocol = mail.LMTP
	}
	scheme, rest, isURL := strings.Cut(s, "://")
	if path, ok := strings.CutPrefix(s, "lmtp+unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if !filepath.IsAbs(path) {
			return hop, fmt.Errorf("%s: the path of the socket must be absolute", excerpt(s))
		}
		return mail.NextHop{Path: path, Protocol: mail.LMTP}, nil
	}
	schemePort := 0
	if isURL {
		switch strings.ToLower(scheme) {
		case "smtp", "tcp":
		case "tls", "smtps":
			hop.ImplicitTLS, schemePort = true, 465
		case "lmtp":
			hop.Protocol = mail.LMTP
		default:
			return hop, fmt.Errorf("%s: the scheme is none of smtp, tls, lmtp, lmtp+unix", excerpt(s))
		}
		s = strings.TrimSuffix(rest, "/")
		if strings.Contains(s, "@") {
			return hop, fmt.Errorf("credentials stand in auth_user and auth_pass, not in host")
		}
	}
	if hop.Protocol == mail.LMTP {
		schemePort = hop.DefaultPort()
	}
	usual := 25
	for _, p := range []int{mainPort, schemePort, h.port} {
		if p != 0 {
			usual = p
		}
	}
	host, port, err := splitEndpoint(s, usual)
	if err != nil {
		return hop, err
	}
	if port == 0 || port > math.MaxUint16 {
		return hop, fmt.Errorf("%s: port 0 cannot be reached", excerpt(s))
	}
	hop.Host, hop.Port = host, port
	return hop, nil
}
