package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tarishi/internal/grant"
	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/localaddr"
	"tarishi/internal/mail"
	"tarishi/internal/oauth"
	"tarishi/internal/tlsconf"
)

// finish reads the sections of domains and addresses, and holds the keys of each
// against each other.
func (s *Settings) finish(r *ini.Reader, base *tlsconf.Outbound) {
	f := r.File(File)
	// The main part comes first: sections inherit from it.
	tls, main := f.Section("tls"), f.Section("main")
	if r.Dir != "" {
		s.TLS.FinishForward(r, File, tls, base)
	}
	s.Main.RejectUnauthorized = s.TLS.RejectUnauthorized && tls.Key("rejectUnauthorized") == nil
	s.Main.resolveHosts(r, main, s.keys, 0)
	s.checkCredentials(r, &s.Main, main)
	s.Main.settleTLS(main)
	for _, section := range f.Sections {
		if section.Name != "main" && section.Name != "tls" {
			s.section(r, section)
		}
	}
	s.Configured = len(s.Main.Hosts) > 0
	for _, one := range s.Routes {
		s.Configured = s.Configured || len(one.Hosts) > 0
	}
	for _, one := range s.All() {
		one.PassCodes = s.ReplyCodes == PassCodes
		s.checkSecurity(r, one, f.Section(one.Name))
	}
	s.keys = HostKeys{} // all are resolved: two files that say the same are the same
}

// section reads the section of one domain or address.
func (s *Settings) section(r *ini.Reader, section *grammar.Section) {
	name, ok := s.sectionName(r, section)
	if !ok {
		return
	}
	problem := func(text string, warning bool) {
		r.Add(ini.Problem{File: ini.Place(File), Line: section.Line, Section: section.Name, Text: text, Warning: warning})
	}

	// A section inherits all but where mail goes; credentials go with the host
	// that they are for.
	one := s.Main
	one.Name, one.Line, one.Hosts, one.InTurn = section.Name, section.Line, nil, false
	own := slices.ContainsFunc(section.Keys, func(k *grammar.Key) bool { return strings.HasPrefix(k.Name, "auth_") })
	if own || section.Key("host") != nil || section.Key("forwarding_host_pool") != nil {
		one.forgetCredentials()
		one.AuthInsecure = false
	}
	var keys HostKeys
	r.Section(File, section, one.rows(&keys), s.rows(), "domains")
	s.checkCredentials(r, &one, section)
	// Credentials are checked before the hosts that they are for are known:
	// their keys stand in this section in any case.
	one.settleTLS(section)

	at := section // where host stands
	switch {
	case keys.Host != "" || keys.Pool != "":
	case len(s.Main.Hosts) == 0:
		problem("has no host, and neither has the main section", false)
		return
	default:
		at = r.File(File).Section("main")
		if keys.Pool = s.keys.Pool; keys.Pool == "" {
			keys.Host = s.keys.Host
		}
		if section.Key("using_lmtp") == nil {
			keys.LMTP = s.keys.LMTP
		}
	}
	one.resolveHosts(r, at, keys, s.keys.Port)
	if len(one.Hosts) == 0 {
		return // reported already; the domain goes by main
	}
	if strings.Contains(name, "@") && s.DomainSelector != "mail_from" {
		problem("has no effect: only with domain_selector=mail_from may a section be an address", true)
	}
	s.Routes[name] = &one
}

// sectionName returns a section's name in canonical form, or reports why it is none.
func (s *Settings) sectionName(r *ini.Reader, section *grammar.Section) (string, bool) {
	// A word of Haraka's that means something else here is explained first.
	p := ini.Problem{File: ini.Place(File), Line: section.Line, Section: section.Name}
	name, ok := SectionName(section.Name)
	if why := r.OtherWord(File, section.Name); why != "" {
		p.Text = why
		r.Add(p)
		return "", false
	}
	if !ok {
		p.Nearest, p.Text = ini.Nearest(section.Name, []string{"main", "tls"}), "is neither a domain nor an address"
		r.Add(p)
		return "", false
	}
	// A name without a dot can be a domain, but is more often a slip.
	if !strings.Contains(name, ".") {
		if n := ini.Nearest(name, []string{"main", "tls"}); n != "" {
			p.Nearest, p.Text, p.Warning = n, "is read as a domain", true
			r.Add(p)
		}
	}

	// Names that differ in case or in a final dot are one domain.
	if other, ok := s.Routes[name]; ok {
		p.Nearest, p.Warning = "", false
		p.Text = fmt.Sprintf("is the same domain as [%s] on line %d, which counts", other.Name, other.Line)
		r.Add(p)
		return "", false
	}
	return name, true
}

// settleTLS makes enable_tls and require_tls agree: a key of the section
// itself wins over an inherited one, and require_tls over enable_tls.
func (r *Route) settleTLS(s *grammar.Section) {
	if !r.EnableTLS && s.Key("enable_tls") != nil && s.Key("require_tls") == nil {
		r.RequireTLS = false
	}
	r.EnableTLS = r.EnableTLS || r.RequireTLS
	r.RejectUnauthorized = r.RejectUnauthorized && s.Key("tls_verify") == nil
}

// checkCredentials checks that a route's credentials are complete.
func (s *Settings) checkCredentials(r *ini.Reader, one *Route, section *grammar.Section) {
	problem := func(key, text string, warning bool) {
		if k := section.Key(key); k != nil {
			r.Add(ini.Problem{File: ini.Place(File), Line: k.Line, Section: ini.Shown(section.Name), Key: key, Text: text, Warning: warning})
		}
	}
	if oauth.ShowsToken(one.AuthType) || one.Grant != (grant.Grant{}) {
		one.checkGrant(r.Dir, section, problem)
		return
	}

	// One problem for one mistake: the others follow from it.
	twice := false // reported already
	if k := section.Key("auth_user"); k != nil {
		twice = len(k.Lines) > 1
	}

	// Two of the types need no credentials here, and all others need both.
	user, pass := one.AuthUser != "", one.AuthPass != ""
	unused := func() { // what stands beside a type that has no use for it
		if user && one.AuthType == AuthForward {
			problem("auth_user", "has no effect with auth_type=forward", true)
			one.AuthUser = ""
		}
		if pass {
			problem("auth_pass", "has no effect with auth_type="+one.AuthType, true)
			one.AuthPass = ""
		}
	}
	switch {
	case twice:
	case one.AuthType == AuthForward:
		unused()
		if one.OnFailure == FailToQueue {
			problem("on_failure", "has no effect with auth_type=forward: the client's credentials are not kept", true)
			one.OnFailure = "reply"
		}
		return
	case one.AuthType == "external" && s.TLS.Key == "":
		problem("auth_type", "external needs a client certificate: [tls] key and cert", false)
	case one.AuthType == "external":
		unused()
		return
	case user && !pass:
		problem("auth_user", "auth_pass is missing", false)
	case !user && pass:
		problem("auth_pass", "auth_user is missing", false)
	case !user && one.AuthType != "":
		problem("auth_type", "auth_user and auth_pass are missing", false)
	case user && one.AuthType == "" && section.Key("auth_type") != nil && ini.Anything(section.Key("auth_type").Values): // none that is known
	case user && one.AuthType == "":
		problem("auth_user", "no AUTH without auth_type: set auth_type=plain or login, or remove auth_user and auth_pass", true)
	default:
		return
	}
	one.forgetCredentials()
}

// checkGrant is checkCredentials for an access token.
func (r *Route) checkGrant(dir string, section *grammar.Section, problem func(key, text string, warning bool)) {
	if r.AuthType == "" && section.Key("auth_type") != nil { // reported already
		r.forgetCredentials()
		return
	}

	// The program that keeps the token may begin later than we do.
	for key, path := range oauth.Resolve(&r.Grant, dir) {
		problem(key, "there is no file "+path, key == "auth_token_file")
	}
	a := oauth.Account{Type: r.AuthType, User: r.AuthUser, Pass: r.AuthPass, Grant: r.Grant}
	if key, text := a.Mistake(); key != "" {
		problem(key, text, false)
		r.forgetCredentials()
	}
}

// forgetCredentials leaves a route without any.
func (r *Route) forgetCredentials() {
	r.AuthType, r.AuthUser, r.AuthPass, r.Grant = "", "", "", grant.Grant{}
}

// resolveHosts resolves where a route goes, from the section that names it.
func (r *Route) resolveHosts(reader *ini.Reader, s *grammar.Section, h HostKeys, mainPort int) {
	key, value := "forwarding_host_pool", h.Pool
	if value == "" {
		key, value = "host", h.Host
	}
	if value == "" {
		return
	}
	k := s.Key(key)
	p := ini.Problem{File: ini.Place(File), Line: k.Line, Section: ini.Shown(s.Name), Key: key}
	// Haraka prefers the pool, silently.
	if h.Pool != "" && h.Host != "" {
		host := s.Key("host")
		reader.Add(ini.Problem{
			File: ini.Place(File), Line: host.Line, Section: ini.Shown(s.Name), Key: host.Name,
			Text: "has no effect beside forwarding_host_pool", Warning: true,
		})
	}

	// Haraka separates the hosts of a pool by semicolons; all others are as people write them.
	var hops []mail.NextHop
	for _, one := range strings.FieldsFunc(value, func(c rune) bool { return c == ',' || grammar.IsBlank(c) || key == "forwarding_host_pool" && c == ';' }) {
		hop, err := ParseHost(one, h, mainPort)
		if err != nil {
			p.Text = err.Error()
			reader.Add(p)
			return
		}
		hops = append(hops, hop)
	}
	if len(hops) == 0 {
		p.Text = "names no host"
		reader.Add(p)
		return
	}

	// Only a pool takes turns: hosts that are listed have an order.
	r.Hosts, r.InTurn = hops, h.Pool != ""
	r.settleHosts()
}

// settleHosts gives each host what the route says for all of them.
func (r *Route) settleHosts() {
	// Hosts carry all that the connection needs, so that routes can be
	// compared by them.
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

// clientPatience is how long a client waits for the reply to its message (RFC 5321
// section 4.5.3.2.6); many wait no longer. A route that waits longer for a backend's
// makes them give up what the backend may have taken, and it comes twice.
const clientPatience = 10 * time.Minute

// checkSecurity reports credentials that go past any encryption, and waiting that
// clients do not share.
func (s *Settings) checkSecurity(r *ini.Reader, one *Route, section *grammar.Section) {
	// Without TLS there is nothing to show the certificate in.
	encrypted := one.EnableTLS || one.TLSVerify || len(s.TLS.ForceTLSHosts) > 0 ||
		slices.ContainsFunc(one.Hosts, func(h mail.NextHop) bool { return h.ImplicitTLS })
	k := section.Key("auth_type")

	// That is an error and no warning: no message would ever be let in.
	if one.AuthType == "external" && !encrypted {
		p := ini.Problem{
			File: ini.Place(File), Line: one.Line, Section: ini.Shown(section.Name),
			Text: "auth_type=external shows a client certificate, which needs TLS: set require_tls",
		}
		if k != nil {
			p.Line, p.Key, p.Text = k.Line, k.Name, strings.TrimPrefix(p.Text, "auth_type=")
		}
		r.Add(p)
	}

	// The default is longer too, on purpose: only a value that was chosen deserves a warning.
	if k := section.Key("submission_timeout"); k != nil && one.SubmissionTimeout > clientPatience {
		r.Add(ini.Problem{
			File: ini.Place(File), Line: k.Line, Section: ini.Shown(section.Name), Key: k.Name, Warning: true,
			Text: fmt.Sprintf("is more than the %s seconds that many clients wait for this reply: such a client sends again what the backend may have taken", ini.FormatDuration(clientPatience)),
		})
	}
	if text := s.exposure(one); k != nil && text != "" {
		r.Add(ini.Problem{File: ini.Place(File), Line: k.Line, Section: ini.Shown(section.Name), Key: k.Name, Text: text, Warning: true})
	}
}

// exposure warns of a route that shows a password to a host which may be public,
// where no key says how safe that has to be: a host that only offers TLS gets no mail
// without it, and its certificate is not verified.
func (s *Settings) exposure(r *Route) string {
	if r.AuthType == "" || r.AuthType == "external" || r.AuthInsecure || r.RequireTLS || r.TLSVerify {
		return ""
	}
	for _, h := range r.Hosts {
		// Passwords in a private network are that network's business.
		addr, err := netip.ParseAddr(h.Host)
		near := localaddr.IsNear(addr) || strings.EqualFold(h.Host, "localhost")
		switch {
		case h.Path != "" || h.ImplicitTLS || near || s.TLS.Forces(h.Host, addr, ""):
		case r.EnableTLS && !s.TLS.Excludes(h.Host, addr, ""):
			return fmt.Sprintf("credentials for %s, unless its address is private, go only through TLS, and whoever has any certificate may get them: set tls_verify, or require_tls if that will do", h.Host)
		case err == nil:
			return fmt.Sprintf("credentials do not go to %s in clear, so that it gets no mail: set tls_verify or require_tls", h.Host)
		}
	}
	return ""
}

// All returns main and the sections.
func (s *Settings) All() []*Route {
	routes := []*Route{&s.Main}
	for _, r := range s.Routes {
		routes = append(routes, r)
	}
	return routes
}

// HasSection reports whether a section is for a domain, by its name or by that of
// a domain above it.
func (s *Settings) HasSection(domain string) bool { return byDomain(s, domain) != nil }

// parts are the sections as they are printed.
func (s *Settings) parts() []ini.Part {
	var all []ini.Part
	for _, name := range ini.SortedKeys(s.Routes) {
		r := s.Routes[name]
		all = append(all, ini.Part{Name: name, Rows: r.printed()})
	}
	return all
}

// printed are the rows of a section with the hosts as they were resolved, in place of
// the keys that led to them.
func (r *Route) printed() []ini.Row {
	var h HostKeys
	if h.Host = FormatHosts(r.Hosts); r.InTurn {
		h.Host, h.Pool = "", h.Host
	}
	return slices.DeleteFunc(r.rows(&h), func(row ini.Row) bool {
		return row.Key == "port" || row.Key == "using_lmtp" || row.Key == "tls_verify" && r.RejectUnauthorized // which stands in tls.ini
	})
}
