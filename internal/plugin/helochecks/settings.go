package helochecks

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/pattern"
)

// Settings is helo.checks.ini and helo.checks.regexps.
type Settings struct {
	Check       Checks
	LiteralMode int // how near the address in a literal has to be to the client's
	Reject      Rejections
	Skip        Exemptions
	Companies   map[string][]string // domains in the DNS by the names of providers
	Expressions []*regexp.Regexp

	literal string            // check.literal_mismatch as it is written
	own     map[string]string // companies of the site
	lines   []string          // of helo.checks.regexps
}

// Checks are those that are made, with Haraka's names.
type Checks struct {
	ProtoMismatch, MatchRE, BareIP, Dynamic, BigCompany, ValidHostname, RDNSMatch, ForwardDNS, HostMismatch bool
}

// Rejections are the checks that a name has to pass.
type Rejections struct {
	Checks
	LiteralMismatch bool
}

// Exemptions are the clients, and the names, that are not checked.
type Exemptions struct {
	Private, Relaying bool
	TLDs              []string // lower case, perhaps with a dot in front
}

// The values of LiteralMode: each takes in what those above it do.
const (
	literalSame    = 1 // the client's address
	literalNetwork = 2 // its /24
	literalPrivate = 3 // or any private address
)

const (
	file            = "helo.checks.ini"
	expressionsFile = "helo.checks.regexps"
)

// Tables declares the keys of helo.checks.ini, and the list of expressions.
func (s *Settings) Tables() []*ini.Table {
	rows := slices.Concat(
		[]ini.Row{{Key: "dns_timeout", Note: "has no effect, in Haraka neither: look-ups take 20 s at most"}},
		ini.Within("check", s.checkRows()...), ini.Within("reject", s.rejectRows()...), ini.Within("skip", s.skipRows()...),
	)
	return []*ini.Table{
		{
			File: file, Since: "0.3.0",
			Doc:  "What the plugin helo.checks looks at in the names that clients give in HELO and EHLO.",
			Rows: rows,
			Sections: map[string]string{
				"check": "The checks that are made.", "reject": "Those that a name has to pass. Each of them refuses some valid mail.", "skip": "What is not checked.",
			},
			Free: []ini.Free{{
				Section: "bigco", Example: "example.com=example.com,example.net",
				Doc: `Names of large providers, and the domains of their hosts in the DNS, besides those that are built in:
					name=domain,domain. A name that is built in has the domains that are given here.`,
				Print: func() []string {
					var lines []string
					for _, name := range ini.SortedKeys(s.own) {
						lines = append(lines, name+"="+s.own[name])
					}
					return lines
				},
			}},
			Begin:  func(*ini.Reader) { s.own, s.Companies = map[string]string{}, maps.Clone(builtIn) },
			Finish: s.finish,
		},
		{
			File: expressionsFile, Since: "0.3.0",
			Doc: `Names that the check match_re fails, as regular expressions: the whole name must match, in any case. Look-around
				and back references cannot be expressed.`,
			Line: func(_ *ini.Reader, text string, _ int) error {
				// A line that cannot be read would let in what the site wants to keep out.
				expression, err := pattern.Whole(text)
				if err == nil {
					s.Expressions, s.lines = append(s.Expressions, expression), append(s.lines, text)
				}
				return err
			},
			Lines: func() []string { return s.lines },
		},
	}
}

func (s *Settings) checkRows() []ini.Row {
	on := func(key string, p *bool, doc string, was ...string) ini.Row {
		return ini.Row{Key: key, Kind: ini.Bool(p), Default: "true", Doc: doc, Was: was}
	}
	return []ini.Row{
		on("proto_mismatch", &s.Check.ProtoMismatch, "No HELO after EHLO, and no EHLO after HELO."),
		on("match_re", &s.Check.MatchRE, "The name matches no line of helo.checks.regexps."),
		on("bare_ip", &s.Check.BareIP, "It is no address without brackets.", file+":main:check_raw_ip"),
		on("dynamic", &s.Check.Dynamic, "It does not hold the client's address.", file+":main:check_dynamic"),
		on("big_company", &s.Check.BigCompany, "Only hosts of a large provider have the name of one."),
		on("valid_hostname", &s.Check.ValidHostname, "It has a dot and a top-level domain that there is.", file+":main:check_no_dot"),
		on("rdns_match", &s.Check.RDNSMatch, "The client's name in the DNS is the same, or in the same organisation."),
		on("forward_dns", &s.Check.ForwardDNS, "The client's address is one of the name's."),
		on("host_mismatch", &s.Check.HostMismatch, "The client gives the same name each time.", file+":check:mismatch"),
		{
			Key: "literal_mismatch", Default: "2",
			Kind: ini.Scalar("1, 2 or 3", func(text string) error {
				// In Haraka a value that is not a number acts as 1, false included.
				n, err := strconv.Atoi(text)
				if s.literal, s.LiteralMode = text, max(n, literalSame); err != nil {
					s.LiteralMode = literalSame
				}
				return nil
			}, func() string { return s.literal }),
			Doc: "An address literal is the client's address (1), in the same /24 (2), or either that or private (3). This check is always made.",
		},
	}
}

func (s *Settings) rejectRows() []ini.Row {
	off := func(key string, p *bool, was ...string) ini.Row {
		return ini.Row{Key: key, Kind: ini.Bool(p), Default: "false", Doc: "Refuse a client that fails " + key + ".", Was: was}
	}
	return []ini.Row{
		off("proto_mismatch", &s.Reject.ProtoMismatch), off("match_re", &s.Reject.MatchRE), off("bare_ip", &s.Reject.BareIP),
		off("dynamic", &s.Reject.Dynamic), off("big_company", &s.Reject.BigCompany), off("valid_hostname", &s.Reject.ValidHostname),
		off("rdns_match", &s.Reject.RDNSMatch), off("forward_dns", &s.Reject.ForwardDNS),
		off("host_mismatch", &s.Reject.HostMismatch, file+":reject:mismatch"), off("literal_mismatch", &s.Reject.LiteralMismatch),
	}
}

func (s *Settings) skipRows() []ini.Row {
	return []ini.Row{
		{Key: "private_ip", Kind: ini.Bool(&s.Skip.Private), Default: "true", Doc: "Clients with a private address."},
		{Key: "relaying", Kind: ini.Bool(&s.Skip.Relaying), Default: "true", Doc: "Clients that may relay."},
		{Key: "whitelist", Note: "has no effect, in Haraka neither"},
		{
			Key: "tlds", Example: "local", Doc: "Top-level domains that valid_hostname does not know; repeat the key for more.",
			Kind: ini.Each(&s.Skip.TLDs, "top-level domains", func(text string) (string, error) { return strings.ToLower(text), nil }, func(text string) string { return text }),
		},
	}
}

// finish reads the providers, and warns of a check that cannot be switched off.
func (s *Settings) finish(r *ini.Reader) {
	// The lines of a site add to those that are built in, or replace them.
	for _, k := range r.File(file).Section("bigco").Keys {
		if len(k.Values) != 1 || k.Values[0] == "" {
			r.Add(ini.Problem{File: ini.Place(file), Line: k.Line, Section: "bigco", Key: k.Name, Text: "a provider is name=domain,domain"})
			continue
		}
		s.own[k.Name] = k.Values[0]
		s.Companies[k.Name] = strings.FieldsFunc(k.Values[0], func(c rune) bool { return c == ',' || grammar.IsBlank(c) })
	}
	if k := r.File(file).Section("check").Key("literal_mismatch"); k != nil && s.literal != strconv.Itoa(s.LiteralMode) {
		r.Add(ini.Problem{
			File: ini.Place(file), Line: k.Line, Section: "check", Key: k.Name, Warning: true,
			Text: grammar.Quote(s.literal) + " is taken for 1: the check is always made. Use 2 or 3 to make it milder",
		})
	}
}

// builtIn are the providers that are known without being configured.
var builtIn = map[string][]string{
	"msn.com": {"msn.com"}, "hotmail.com": {"hotmail.com"}, "yahoo.com": {"yahoo.com", "yahoo.co.jp"}, "yahoo.co.jp": {"yahoo.com", "yahoo.co.jp"},
	"yahoo.co.uk": {"yahoo.co.uk"}, "excite.com": {"excite.com", "excitenetwork.com"}, "mailexcite.com": {"excite.com", "excitenetwork.com"},
	"aol.com": {"aol.com"}, "compuserve.com": {"compuserve.com", "adelphia.net"}, "nortelnetworks.com": {"nortelnetworks.com", "nortel.com"},
	"earthlink.net": {"earthlink.net"}, "earthling.net": {"earthling.net"}, "google.com": {"google.com"}, "gmail.com": {"google.com", "gmail.com"},
}
