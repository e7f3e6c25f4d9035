package relay

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/ini/hostport"
)

// Settings is relay.ini, relay_acl_allow and relay_dest_domains.ini.
type Settings struct {
	ACL, All                  bool
	ForceRouting, DestDomains bool
	Allow                     []netip.Prefix
	Destinations              map[string]Destination // by domain, in the form of mail.CanonicalDomain
	Certs                     Certificates

	lines []entry
}

// entry is an entry of relay_acl_allow and where it stands.
type entry struct {
	prefix netip.Prefix
	line   int
}

const (
	file      = "relay.ini"
	allowFile = "relay_acl_allow"
	routeFile = "relay_dest_domains.ini"
)

// Tables declares the keys of relay.ini, and the lists.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{
		{
			File: file,
			Doc:  "Who may send mail to other domains than those in host_list, besides users who logged in.",
			Rows: ini.Within("relay",
				ini.Row{Key: "acl", Kind: ini.Bool(&s.ACL), Default: "true", Doc: "The clients listed in relay_acl_allow."},
				ini.Row{Key: "all", Kind: ini.Bool(&s.All), Default: "false", Doc: "Everybody. Only for a server that the world cannot reach."},
				ini.Row{
					Key: "force_routing", Kind: ini.Bool(&s.ForceRouting), Default: "true", Since: "0.3.0",
					Doc: "Queued mail for a domain in relay_dest_domains.ini goes to its nexthop.",
				},
				ini.Row{
					Key: "dest_domains", Kind: ini.Bool(&s.DestDomains), Default: "false", Since: "0.3.0",
					Doc: `Clients may send to the domains in relay_dest_domains.ini, as the action of each says. Recipients in other domains are
						refused, also in those of host_list unless rcpt_to.in_host_list stands before relay in config/plugins.`,
				},
			),
		},
		{
			File: allowFile,
			Doc: `Addresses and networks whose clients may send to any domain: 192.0.2.1, 192.0.2.0/24, 2001:db8::/32. A comment
				may follow an entry.`,
			Line: func(_ *ini.Reader, text string, no int) error {
				// An entry that cannot be read stops the start: its clients would be refused.
				text, _, _ = strings.Cut(text, "#") // the one list with comments behind its entries
				p, err := parsePrefix(strings.TrimSpace(text))
				if err == nil {
					s.Allow = append(s.Allow, p)
					s.lines = append(s.lines, entry{p, no})
				}
				return err
			},
			Lines:  func() []string { return hostport.FormatPrefixes(s.Allow) },
			Finish: s.checkOpen,
		},
		s.Certs.table(),
		s.routeTable(),
	}
}

// tooMuch is the share of a family's addresses beyond which a relay is open to
// strangers: an IPv4 /8, and more than any one holder's part of IPv6.
func tooMuch(a netip.Addr) float64 {
	if a.Is4() {
		return 1.0 / 256
	}
	return 1.0 / (1 << 16)
}

// inside are the networks with addresses that do not reach us from the world.
var inside = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

// mapped holds the IPv4 addresses in the form of IPv6. Clients are never known by it.
var mapped = netip.MustParsePrefix("::ffff:0:0/96")

// covers reports whether outer holds all of inner.
func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// checkOpen warns where relay_acl_allow, line by line or all together, lets so many
// in that it can hardly be meant.
func (s *Settings) checkOpen(r *ini.Reader) {
	if s.All {
		if k := r.File(file).Section("relay").Key("all"); k != nil {
			r.Add(ini.Problem{
				File: ini.Place(file), Line: k.Line, Section: "relay", Key: k.Name, Warning: true,
				Text: "every client may send mail to anywhere: an open relay, unless the world cannot reach this server",
			})
		}
	}
	if !s.ACL {
		return
	}

	// Each line by itself first, then the sum of them: many small networks open a relay as
	// well as a large one.
	for _, one := range s.lines {
		if covers(mapped, one.prefix) {
			r.Add(ini.Problem{File: ini.Place(allowFile), Line: one.line, Text: one.prefix.String() + " matches no client: write the IPv4 network by itself", Warning: true})
		}
	}
	s.checkShare(r, true)
	s.checkShare(r, false)
}

// checkShare warns of the lines with which the addresses of one family become too
// many.
func (s *Settings) checkShare(r *ini.Reader, is4 bool) {
	var counted []netip.Prefix // none of them holds another
	for _, one := range s.lines {
		p := one.prefix
		if p.Addr().Is4() != is4 || slices.ContainsFunc(inside, func(net netip.Prefix) bool { return covers(net, p) }) ||
			slices.ContainsFunc(counted, func(o netip.Prefix) bool { return covers(o, p) }) {
			continue
		}
		counted = append(slices.DeleteFunc(counted, func(o netip.Prefix) bool { return covers(p, o) }), p)

		// The share is that of all lines so far, so that the line that is too much gets the
		// warning.
		share := 0.0
		for _, o := range counted {
			share += 1 / float64(uint64(1)<<min(o.Bits(), 63))
		}
		if share <= tooMuch(p.Addr()) {
			continue
		}

		// One network alone may be too much, or the last of several.
		text := "lets %s of all %s clients send mail to anywhere: an open relay"
		if len(counted) > 1 {
			text = "and the lines before it let %s of all %s clients send mail to anywhere: an open relay"
		}
		family := "IPv6"
		if is4 {
			family = "IPv4"
		}
		r.Add(ini.Problem{
			File: ini.Place(allowFile), Line: one.line, Warning: true,
			Text: p.String() + " " + fmt.Sprintf(text, strconv.FormatFloat(share*100, 'g', 3, 64)+" %", family),
		})
	}
}

// parsePrefix reads an entry of relay_acl_allow. A /0 behind an address that is
// not all zeros was meant to be something else; Haraka reads it as that address.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := hostport.ParsePrefix(s)
	if err == nil && p.Bits() == 0 {
		if written, err := netip.ParsePrefix(s); err == nil && !written.Addr().IsUnspecified() {
			return p, fmt.Errorf("%s is every address there is: write %s/%d for one, or the length of its network", grammar.Quote(s), written.Addr(), written.Addr().BitLen())
		}
	}
	return p, err
}
