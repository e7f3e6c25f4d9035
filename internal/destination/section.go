package destination

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"tarishi/internal/grant"
	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/ini/hostport"
	"tarishi/internal/oauth"
	"tarishi/internal/route"
)

// section is one section of outbound.ini while it is read or printed.
type section struct {
	Rules
	bind, helo []weighted
	host       string
	authType   string
	authUser   string
	authPass   string
	grant      grant.Grant
}

// rows are the keys of a section.
func (d *section) rows() []ini.Row {
	all := []ini.Row{
		{
			Key: "concurrency", Kind: concurrency(&d.Concurrency), Example: "2..40", Haraka: ini.None,
			Doc: `Attempts at one time: a number, or a range within which it adapts. Without it 2 at first and
				pool_concurrency_max at most.`,
		},
		{
			Key: "rate", Kind: rate(&d.Rate), Example: "600/m", Haraka: ini.None,
			Doc: "Messages per s, m, h or d. Domains with the same MX share it, as concurrency.",
		},
		{Key: "max_messages", Kind: ini.AtLeast(&d.MaxMessages, 1), Example: "20", Haraka: ini.None, Doc: "Messages on one connection."},
		{Key: "temp_fail_intervals", Kind: intervals(&d.TempFailIntervals), Example: "5m*3,1h*10", Haraka: ini.None, Doc: "The waits between attempts, as above."},
		{Key: "max_lifetime", Kind: ini.Duration(&d.MaxLifetime, time.Second), Example: "2d", Haraka: ini.None, Doc: "When a message is given up, as above."},
		{Key: "delay_warning", Kind: delayWarning(&d.DelayWarning), Example: "none", Haraka: ini.None, Doc: "When its sender is told, as above."},
		{
			Key: "bind", Kind: weights(&d.bind, checkBind), Example: "192.0.2.1@3 192.0.2.2", Haraka: ini.None,
			Doc: "Local addresses, chosen at random by the weight after @.",
		},
		{
			Key: "helo", Kind: weights(&d.helo, hostport.CheckOwnName), Example: "out1.example.org out2.example.org", Haraka: ini.None,
			Doc: "The EHLO names of these addresses: one for each, or one for all.",
		},
		{
			Key: "tls", Kind: tlsLevel(&d.TLS), Example: "encrypt", Haraka: ini.None,
			Doc: "none, may (if offered), encrypt (never without) or verify (with a valid certificate).",
		},
		{
			Key: "host", Kind: ini.Text(&d.host), Example: "smtp.example.org:587", Haraka: ini.None,
			Doc: "Smart hosts instead of the MX, in order, as host in smtp_forward.ini.",
		},
		{
			Key: "auth_type", Kind: route.Mechanisms(&d.authType), Example: "plain", Haraka: ini.None,
			Doc: `plain, login or cram-md5, or several of them, or xoauth2 or oauthbearer, or both, of which the first that the
				server offers is used; without it, what the server offers.`,
		},
		{
			Key: "auth_user", Kind: ini.Text(&d.authUser), Example: "user", Once: "auth_pass", Haraka: ini.None,
			Doc: "The name to log in with.",
		},
		{Key: "auth_pass", Kind: ini.Secret(&d.authPass), Example: "secret", Haraka: ini.None, Doc: "The password to log in with, or an access token."},
	}
	all = append(all, oauth.Rows(&d.grant)...)
	// Zero and nil stand for a missing key here, while their kinds write them
	// as values.
	unset := map[string]bool{
		"max_messages": d.MaxMessages == 0, "temp_fail_intervals": d.TempFailIntervals == nil,
		"max_lifetime": d.MaxLifetime == 0, "delay_warning": d.DelayWarning == 0,
	}
	for i := range all {
		if unset[all[i].Key] { // printed as nothing
			all[i].Kind = all[i].Kind.WithText(func() []string { return nil })
		}
	}
	return all
}

// finish reads the sections, and the waits that follow from maxTempFailures.
func (s *Settings) finish(r *ini.Reader) {
	// An explicit list wins over the one that maxTempFailures gives.
	if s.TempFailIntervals == nil {
		s.TempFailIntervals = backOff(s.MaxTempFailures)
	}
	lines := map[string]int{}
	for _, one := range r.File(File).Sections {
		if one.Name == "main" {
			continue
		}
		p := ini.Problem{File: ini.Place(File), Line: one.Line, Section: one.Name}
		name, ok := sectionName(one.Name)
		if !ok {
			p.Nearest, p.Text = ini.Nearest(one.Name, []string{"main", "default"}), "is neither a domain, nor mx:HOST, nor default"
			r.Add(p)
			continue
		}

		// A name without a dot can be a domain, but is more often a slip.
		if n := ini.Nearest(name, []string{"main", "default"}); n != "" && name != "default" && !strings.Contains(name, ".") {
			warning := p
			warning.Nearest, warning.Text, warning.Warning = n, "is read as a domain", true
			r.Add(warning)
		}

		// Two sections for one destination would count by chance.
		if s.Destinations[name] != nil {
			p.Text = fmt.Sprintf("is the same destination as the section on line %d, which counts", lines[name])
			r.Add(p)
			continue
		}
		lines[name] = one.Line
		s.Destinations[name] = s.section(r, one)
	}
}

// section reads the section of one destination.
func (s *Settings) section(r *ini.Reader, one *grammar.Section) *Rules {
	problem := func(key, text string) {
		p := ini.Problem{File: ini.Place(File), Line: one.Line, Section: one.Name, Text: text}
		if k := one.Key(key); k != nil {
			p.Line, p.Key = k.Line, k.Name
		}
		r.Add(p)
	}
	// Keys that belong together are read one by one, and joined here.
	d := &section{}
	r.Section(File, one, d.rows(), s.rows(), "destinations")
	d.pair(problem)
	d.checkGrant(r, one)
	d.resolveHosts(problem)
	return &d.Rules
}

// pair makes Sources of bind and helo.
func (d *section) pair(problem func(key, text string)) {
	// A source is an address with its name: one name serves all addresses, or
	// each has its own.
	n := len(d.bind)
	switch {
	case n == 0:
		n = len(d.helo)
	case len(d.helo) > 1 && len(d.helo) != n:
		problem("helo", fmt.Sprintf("%d names for %d addresses of bind: there must be one for all, or one for each", len(d.helo), n))
		d.helo = nil
	}
	for i := range n {
		var s Source
		if len(d.helo) > 0 {
			h := d.helo[min(i, len(d.helo)-1)]
			s.Helo, s.Weight = h.text, h.weight
		}
		if len(d.bind) > 0 {
			s.Bind, s.Weight = netip.MustParseAddr(d.bind[i].text), d.bind[i].weight
		}
		d.Sources = append(d.Sources, s)
	}
}

// checkGrant checks the credentials of a section with an access token.
func (d *section) checkGrant(r *ini.Reader, s *grammar.Section) {
	problem := func(key, text string, warning bool) {
		p := ini.Problem{File: ini.Place(File), Line: s.Line, Section: s.Name, Text: text, Warning: warning}
		if k := s.Key(key); k != nil {
			p.Line, p.Key = k.Line, k.Name
		}
		r.Add(p)
	}
	if d.grant == (grant.Grant{}) && !oauth.ShowsToken(d.authType) {
		return
	}

	// As with passwords, the server may choose; the program that keeps a token may begin later
	// than we do.
	if d.authType == "" && s.Key("auth_type") == nil {
		d.authType = strings.Join(oauth.Mechanisms, " ")
	}
	for key, path := range oauth.Resolve(&d.grant, r.Dir) {
		problem(key, "there is no file "+path, key == "auth_token_file")
	}
	a := oauth.Account{Type: d.authType, User: d.authUser, Pass: d.authPass, Grant: d.grant}
	if key, text := a.Mistake(); key != "" {
		problem(key, text, false)
		d.authType, d.authUser, d.authPass, d.grant = "", "", "", grant.Grant{}
	}
}

// resolveHosts makes Hosts of host and auth_*.
func (d *section) resolveHosts(problem func(key, text string)) {
	switch {
	case d.grant != (grant.Grant{}) && d.host == "":
		problem("auth_user", "has no effect without host")
	case d.grant != (grant.Grant{}):
	case d.authUser != "" && d.authPass == "":
		problem("auth_user", "auth_pass is missing")
		d.authUser = ""
	// A key without its partner is a mistake; half a login must not be tried.
	case d.authUser == "" && d.authPass != "":
		problem("auth_pass", "auth_user is missing")
	case d.authUser == "" && d.authType != "":
		problem("auth_type", "auth_user and auth_pass are missing")
	case d.authUser != "" && d.host == "":
		problem("auth_user", "has no effect without host")
	}
	if d.host == "" {
		return
	}
	// Credentials are for all hosts of the section. A server that does not
	// let us in gets no mail: they are required.
	for _, one := range strings.FieldsFunc(d.host, func(c rune) bool { return c == ',' || grammar.IsBlank(c) }) {
		hop, err := route.ParseHost(one, route.HostKeys{}, 0)
		if err != nil {
			problem("host", err.Error())
			d.Hosts = nil
			return
		}
		if d.authUser != "" {
			hop.AuthType, hop.AuthUser, hop.AuthPass, hop.AuthRequired = d.authType, d.authUser, d.authPass, true
			hop.AuthGrant = d.grant.Handle()
		}
		d.Hosts = append(d.Hosts, hop)
	}
}

// sectionName canonicalises the name of a section: a domain, *.domain for all
// below it, mx: and a host or *.host, or default.
func sectionName(s string) (string, bool) {
	prefix := ""
	name := s
	if rest, ok := strings.CutPrefix(s, "mx:"); ok {
		prefix, name = "mx:", rest
	} else if s == "default" {
		return s, true
	}
	name, ok := route.SectionName(name)
	return prefix + name, ok && !strings.Contains(name, "@")
}

// parts are the sections as they are printed.
func (s *Settings) parts() []ini.Part {
	var all []ini.Part
	for _, name := range ini.SortedKeys(s.Destinations) {
		all = append(all, ini.Part{Name: name, Rows: s.Destinations[name].written().rows()})
	}
	return all
}

// written returns rules with the keys that say them.
func (d *Rules) written() *section {
	w := &section{Rules: *d, host: route.FormatHosts(d.Hosts)}
	if len(d.Hosts) > 0 {
		first := &d.Hosts[0]
		w.authType, w.authUser, w.authPass, w.grant = first.AuthType, first.AuthUser, first.AuthPass, first.AuthGrant.Grant()
	}
	for _, one := range d.Sources {
		if one.Bind.IsValid() {
			w.bind = append(w.bind, weighted{one.Bind.String(), one.Weight})
		}
		if one.Helo == "" {
			continue
		}
		// The weight stands with the address, if there is one.
		weight := 1 // of the address, if there is one
		if !one.Bind.IsValid() {
			weight = one.Weight
		}
		w.helo = append(w.helo, weighted{one.Helo, weight})
	}
	return w
}

// Section returns the section that stands in the file under a name, nil if there is
// none or it could not be read.
func (s *Settings) Section(name string) *Rules {
	name, ok := sectionName(name)
	if !ok {
		return nil
	}
	return s.Destinations[name]
}
