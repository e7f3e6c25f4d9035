package conf

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tarishi/internal/mail"
)

const forwardFile = "smtp_forward.ini"

// hostKeys are the keys of a route that together say where it goes. A route with
// neither host nor pool has those of main.
type hostKeys struct {
	host, pool string
	port       int // 0: not set
	lmtp       bool
}

// routeEntries is the table of the keys that main and every section may have.
func routeEntries(r *ForwardRoute, h *hostKeys) []entry {
	const listed = "has no effect here, it belongs to [tls]"
	return []entry{
		{key: "host", field: text(&h.host)},
		{key: "port", field: port(&h.port)},
		{key: "forwarding_host_pool", field: text(&h.pool)},
		{key: "dead_forwarding_host_retry_secs", field: duration(&r.DeadRetry, time.Second)},
		{key: "using_lmtp", field: boolean(&h.lmtp)},
		{key: "enable_outbound", field: boolean(&r.EnableOutbound)},
		{key: "queue", field: text(&r.Queue)},
		{key: "on_failure", field: choice(&r.OnFailure, "reply", FailToQueue)},
		{key: "enable_tls", field: boolean(&r.EnableTLS)},
		{key: "require_tls", field: boolean(&r.RequireTLS)},
		{key: "tls_verify", field: boolean(&r.TLSVerify)},
		{key: "auth_type", field: mechanisms(&r.AuthType, "external", AuthForward)},
		{key: "auth_user", field: text(&r.AuthUser), once: "auth_pass"},
		{key: "auth_pass", field: secret(&r.AuthPass)},
		{key: "auth_insecure", field: boolean(&r.AuthInsecure)},
		{key: "bind", field: ipAddress(&r.Bind)},
		{key: "bind_helo", field: heloName(&r.BindHelo)},
		{key: "forward_client", field: choice(&r.ForwardClient, "none", "xforward", "xclient")},
		{key: "connect_timeout", field: duration(&r.ConnectTimeout, time.Second)},
		{key: "timeout", field: duration(&r.Timeout, 0)},
		{key: "command_timeout", field: duration(&r.CommandTimeout, time.Second)},
		{key: "submission_timeout", field: duration(&r.SubmissionTimeout, time.Second)},
		{key: "max_connections", field: atLeast(&r.MaxConnections, 1)},
		{key: "max_messages", field: atLeast(&r.MaxMessages, 1)},
		{key: "max_age", field: duration(&r.MaxAge, time.Second)},
		{key: "one_message_per_rcpt", field: boolean(&r.OneMessagePerRcpt)},
		{key: "no_tls_hosts", note: listed},
		{key: "force_tls_hosts", note: listed, stops: anything},
	}
}

// ipAddress takes one address.
func ipAddress(p *netip.Addr) field {
	return scalar(func(s string) error {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("%s is no IP address", excerpt(s))
		}
		*p = a
		return nil
	}, func() string {
		if !p.IsValid() {
			return ""
		}
		return p.String()
	})
}

// heloName takes the argument of EHLO: a host name or an address literal.
func heloName(p *string) field {
	return scalar(func(s string) error {
		a, err := mail.ParseAddress("postmaster@" + s)
		if _, literal := a.Literal(); err != nil || a.Domain != s || !literal {
			if err := ownName(s); err != nil {
				return err
			}
		}
		*p = s
		return nil
	}, func() string { return *p })
}

// mainEntries are the keys that only the main section has.
func mainEntries(f *Forward) []entry {
	return []entry{
		{key: "domain_selector", field: choice(&f.DomainSelector, "rcpt_to", "mail_from")},
		{key: "check_sender", field: boolean(&f.CheckSender)},
		{key: "check_recipient", field: boolean(&f.CheckRecipient)},
		{key: "split", field: choice(&f.Split, SplitDefer, "fanout")},
		{key: "reply_codes", field: choice(&f.ReplyCodes, "flatten", PassCodes)},
	}
}

// forwardTLSEntries are the keys of [tls].
func forwardTLSEntries(f *Forward) []entry {
	entries := []entry{
		{key: "key", field: text(&f.TLS.Key)},
		{key: "cert", field: text(&f.TLS.Cert)},
		{key: "ca", field: text(&f.TLS.CA)},
		{key: "minVersion", field: version(&f.TLS.MinVersion)},
		{key: "ciphers", field: ciphers(&f.TLS.Ciphers)},
		{key: "no_tls_hosts", field: nextHops(&f.TLS.NoTLSHosts)},
		{key: "force_tls_hosts", field: nextHops(&f.TLS.ForceTLSHosts)},
		{key: "rejectUnauthorized", field: boolean(&f.Main.TLSVerify), hidden: true},
		{key: "requestCert", note: "has no effect: a server always shows its certificate"},
		{key: "honorCipherOrder", note: goTLS},
		{key: "dhparam", note: goTLS},
	}
	for i := range entries {
		entries[i].section = "tls"
	}
	return entries
}

// forward reads smtp_forward.ini.
func (l *loader) forward() {
	f := l.parsed(forwardFile)
	c := &l.c.Forward
	c.TLS = l.c.TLS.Outbound
	c.TLS.NoTLSHosts, c.TLS.ForceTLSHosts = slices.Clone(c.TLS.NoTLSHosts), slices.Clone(c.TLS.ForceTLSHosts)
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

	l.forwardTLS(f.section("tls"))
	main := f.section("main")
	c.Main.RejectUnauthorized = c.TLS.RejectUnauthorized && f.section("tls").key("rejectUnauthorized") == nil
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
	if why := foreignWord(forwardFile, s.name); why != "" {
		problem(nil, "", why, false)
		return
	}
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
	r.Name, r.Line, r.Hosts, r.InTurn = s.name, s.line, nil, false
	own := slices.ContainsFunc(s.keys, func(k *iniKey) bool { return strings.HasPrefix(k.name, "auth_") })
	var host hostKeys
	if own || s.key("host") != nil || s.key("forwarding_host_pool") != nil { // credentials go with the host that they are for
		r.AuthType, r.AuthUser, r.AuthPass, r.AuthInsecure = "", "", "", false
	}
	l.section(forwardFile, s, routeEntries(&r, &host), mainEntries(c), "domains")
	l.auth(&r, s)
	r.settleTLS(s)
	at := s // where host stands
	switch {
	case host.host != "" || host.pool != "":
	case len(c.Main.Hosts) == 0:
		problem(nil, "", "has no host, and neither has the main section", false)
		return
	default:
		at = l.parsed(forwardFile).section("main")
		if host.pool = mainHost.pool; host.pool == "" {
			host.host = mainHost.host
		}
		if s.key("using_lmtp") == nil {
			host.lmtp = mainHost.lmtp
		}
	}
	l.hosts(&r, at, host, mainHost.port)
	if len(r.Hosts) == 0 {
		return // complained of already; the domain goes by main
	}
	if strings.Contains(name, "@") && c.DomainSelector != "mail_from" {
		problem(nil, "", "has no effect: only with domain_selector=mail_from may a section be an address", true)
	}
	c.Routes[name] = &r
}

// forwardTLS completes [tls]: absolute paths of files that are there, and a
// client certificate that is whole.
func (l *loader) forwardTLS(s *iniSection) {
	t := &l.c.Forward.TLS
	problem := func(k *iniKey, text string) {
		l.add(Problem{File: place(forwardFile), Line: k.line, Section: s.name, Key: k.name, Text: text})
	}
	l.cipherNames(forwardFile, s.name, s.key("ciphers"))
	for _, one := range []struct {
		key string
		p   *string
	}{{"key", &t.Key}, {"cert", &t.Cert}, {"ca", &t.CA}} {
		k := s.key(one.key)
		if k == nil || *one.p == "" {
			continue
		}
		if !filepath.IsAbs(*one.p) {
			*one.p = filepath.Join(l.c.ConfigDir, *one.p)
		}
		if !exists(*one.p) {
			problem(k, "there is no file "+*one.p)
		}
	}
	key, cert := s.key("key"), s.key("cert")
	if (key == nil) != (cert == nil) {
		problem(cmp.Or(key, cert), "key and cert must be set together")
		t.Key, t.Cert = l.c.TLS.Outbound.Key, l.c.TLS.Outbound.Cert
	}
}

// settleTLS makes enable_tls and require_tls agree: what the section itself
// says wins over what it inherits, and require_tls over enable_tls.
func (r *ForwardRoute) settleTLS(s *iniSection) {
	if !r.EnableTLS && s.key("enable_tls") != nil && s.key("require_tls") == nil {
		r.RequireTLS = false
	}
	r.EnableTLS = r.EnableTLS || r.RequireTLS
	r.RejectUnauthorized = r.RejectUnauthorized && s.key("tls_verify") == nil
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
		if k := s.key(key); k != nil {
			l.add(Problem{File: place(forwardFile), Line: k.line, Section: shown(s.name), Key: key, Text: text, Warning: warning})
		}
	}
	twice := false // complained of already
	if k := s.key("auth_user"); k != nil {
		twice = len(k.lines) > 1
	}
	user, pass := r.AuthUser != "", r.AuthPass != ""
	unused := func() { // what stands beside a type that has no use for it
		if user && r.AuthType == AuthForward {
			problem("auth_user", "has no effect with auth_type=forward", true)
			r.AuthUser = ""
		}
		if pass {
			problem("auth_pass", "has no effect with auth_type="+r.AuthType, true)
			r.AuthPass = ""
		}
	}
	switch {
	case twice:
	case r.AuthType == AuthForward:
		unused()
		if r.OnFailure == FailToQueue {
			problem("on_failure", "has no effect with auth_type=forward: the client's credentials are not kept", true)
			r.OnFailure = "reply"
		}
		return
	case r.AuthType == "external" && l.c.Forward.TLS.Key == "":
		problem("auth_type", "external needs a client certificate: [tls] key and cert", false)
	case r.AuthType == "external":
		unused()
		return
	case user && !pass:
		problem("auth_user", "auth_pass is missing", false)
	case !user && pass:
		problem("auth_pass", "auth_user is missing", false)
	case !user && r.AuthType != "":
		problem("auth_type", "auth_user and auth_pass are missing", false)
	case user && r.AuthType == "" && s.key("auth_type") != nil && anything(s.key("auth_type").values): // none that is known
	case user && r.AuthType == "":
		problem("auth_user", "no AUTH without auth_type: set auth_type=plain or login, or remove auth_user and auth_pass", true)
	default:
		return
	}
	r.AuthType, r.AuthUser, r.AuthPass = "", "", ""
}

// hosts resolves where a route goes.
func (l *loader) hosts(r *ForwardRoute, s *iniSection, h hostKeys, mainPort int) {
	key, value := "forwarding_host_pool", h.pool
	if value == "" {
		key, value = "host", h.host
	}
	if value == "" {
		return
	}
	k := s.key(key)
	p := Problem{File: place(forwardFile), Line: k.line, Section: shown(s.name), Key: key}
	if h.pool != "" && h.host != "" {
		host := s.key("host")
		l.add(Problem{
			File: place(forwardFile), Line: host.line, Section: shown(s.name), Key: host.name,
			Text: "has no effect beside forwarding_host_pool", Warning: true,
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
	r.Hosts, r.InTurn = hops, h.pool != ""
	r.settleHosts()
}

// settleHosts gives each host what the route says for all of them.
func (r *ForwardRoute) settleHosts() {
	for i := range r.Hosts {
		h := &r.Hosts[i]
		h.Bind, h.Helo = r.Bind, r.BindHelo
		switch r.ForwardClient {
		case "xforward":
			h.Forwards = mail.XForward
		case "xclient":
			h.Forwards = mail.XClient
		default:
			h.Forwards = mail.ForwardsNothing
		}
	}
}

// checkForward looks for routes that lead nowhere: to a queue plugin that is not
// there, or with credentials past any encryption.
func (l *loader) checkForward() {
	c := l.c
	for _, r := range c.Forward.all() {
		s := l.parsed(forwardFile).section(r.Name)
		problem := func(key, text string) {
			if k := s.key(key); k != nil {
				l.add(Problem{File: place(forwardFile), Line: k.line, Section: shown(s.name), Key: key, Text: text})
			}
		}
		loaded := slices.ContainsFunc(c.Plugins, func(p PluginName) bool {
			return p.Name == r.Queue || strings.TrimPrefix(p.Name, "queue/") == r.Queue
		})
		if r.Queue != "" && r.Queue != "smtp_forward" && r.Queue != "outbound" && len(c.Plugins) > 0 && !loaded {
			problem("queue", excerpt(r.Queue)+" is no plugin of "+place("plugins"))
		}
		encrypted := r.EnableTLS || r.TLSVerify || len(c.Forward.TLS.ForceTLSHosts) > 0 ||
			slices.ContainsFunc(r.Hosts, func(h mail.NextHop) bool { return h.ImplicitTLS })
		if r.AuthType == "external" && !encrypted {
			p := Problem{File: place(forwardFile), Line: r.Line, Section: shown(s.name), Text: "auth_type=external shows a client certificate, which needs TLS: set require_tls"}
			if k := s.key("auth_type"); k != nil {
				p.Line, p.Key, p.Text = k.line, k.name, strings.TrimPrefix(p.Text, "auth_type=")
			}
			l.add(p)
		}
		if k, text := s.key("auth_type"), c.Forward.exposure(r); k != nil && text != "" {
			l.add(Problem{File: place(forwardFile), Line: k.line, Section: shown(s.name), Key: k.name, Text: text, Warning: true})
		}
		l.checkPatience(r, s)
	}
}

// clientPatience is how long a client waits for the reply to its message (RFC 5321
// section 4.5.3.2.6); many wait no longer.
const clientPatience = 10 * time.Minute

// checkPatience warns of a route that waits for a backend's reply to a message for
// longer than the client, or than the plugin may: they give up what the backend
// may have taken, and it comes twice.
func (l *loader) checkPatience(r *ForwardRoute, s *iniSection) {
	const plugin = "queue/smtp_forward"
	k := s.key("submission_timeout")
	if k != nil && r.SubmissionTimeout > clientPatience {
		l.add(Problem{
			File: place(forwardFile), Line: k.line, Section: shown(s.name), Key: k.name, Warning: true,
			Text: fmt.Sprintf("is more than the %s seconds that many clients wait for this reply: such a client sends again what the backend may have taken", formatDuration(clientPatience)),
		})
	}
	limit := l.c.PluginTimeouts[plugin]
	if limit > 0 && limit < r.SubmissionTimeout && len(r.Hosts) > 0 && (k != nil || r == &l.c.Forward.Main) {
		l.add(Problem{
			File: place(plugin + ".timeout"), Warning: true,
			Text: fmt.Sprintf("ends the plugin after %s seconds, while submission_timeout of [%s] allows %s: the client is told to send again what the backend may have taken", formatDuration(limit), r.Name, formatDuration(r.SubmissionTimeout)),
		})
	}
}

// exposure tells what is not obvious of a route that shows a password to a host
// which may be public, where nothing is said of how safe that has to be: what
// only offers TLS gets no mail without it, and its certificate is not looked at.
func (f *Forward) exposure(r *ForwardRoute) string {
	if r.AuthType == "" || r.AuthType == "external" || r.AuthInsecure || r.RequireTLS || r.TLSVerify {
		return ""
	}
	for _, h := range r.Hosts {
		addr, err := netip.ParseAddr(h.Host)
		near := addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast() || strings.EqualFold(h.Host, "localhost")
		switch {
		case h.Path != "" || h.ImplicitTLS || near || f.TLS.Forces(h.Host, addr, ""):
		case r.EnableTLS && !f.TLS.Excludes(h.Host, addr, ""):
			return fmt.Sprintf("credentials for %s, unless its address is private, go only through TLS, and whoever has any certificate may get them: set tls_verify, or require_tls if that will do", h.Host)
		case err == nil:
			return fmt.Sprintf("credentials do not go to %s in clear, so that it gets no mail: set tls_verify or require_tls", h.Host)
		}
	}
	return ""
}

// all returns main and the sections.
func (f *Forward) all() []*ForwardRoute {
	routes := []*ForwardRoute{&f.Main}
	for _, r := range f.Routes {
		routes = append(routes, r)
	}
	return routes
}
