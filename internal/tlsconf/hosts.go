package tlsconf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/ini/hostport"
	"tarishi/internal/mail"
)

// Forces reports whether force_tls_hosts names the next hop: by its host name,
// its address or a CIDR around it, or the recipient domain, in U-labels or
// A-labels. "" and the zero Addr match nothing.
func (o Outbound) Forces(host string, addr netip.Addr, domain string) bool {
	return listed(o.ForceTLSHosts, host, addr, domain)
}

// Excludes reports the same for no_tls_hosts.
func (o Outbound) Excludes(host string, addr netip.Addr, domain string) bool {
	return listed(o.NoTLSHosts, host, addr, domain)
}

// Shows reports whether the client certificate is for a next hop: by its host
// name or the recipient domain.
func (o Outbound) Shows(host, domain string) bool {
	host, domain = mail.CanonicalDomain(host), mail.CanonicalDomain(domain)
	named := func(s string) bool { return s == host || s == domain }
	return (len(o.ShowTo) == 0 || slices.ContainsFunc(o.ShowTo, named)) && !slices.ContainsFunc(o.HideFrom, named)
}

// HostList is a list of addresses, CIDRs, host names and recipient domains. What
// could match nothing is an error: a server that somebody meant to name here would
// get mail in clear.
func HostList(p *[]string) ini.Kind {
	return ini.Each(p, "addresses, networks, hosts or domains", func(s string) (string, error) {
		if _, err := hostport.ParsePrefix(s); err == nil {
			return s, nil
		}
		name := mail.CanonicalDomain(s)
		if !hostport.IsHost(name) || strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 }) {
			return "", fmt.Errorf("%s is none of address, CIDR block, host and domain; for several repeat the key", grammar.Quote(s))
		}
		return name, nil
	}, func(s string) string { return s })
}

func listed(list []string, host string, addr netip.Addr, domain string) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		if p, err := netip.ParsePrefix(s); err == nil {
			return p.Contains(addr)
		}
		if a, err := netip.ParseAddr(s); err == nil {
			return a == addr
		}
		s = mail.CanonicalDomain(s)
		return s != "" && (s == mail.CanonicalDomain(host) || s == mail.CanonicalDomain(domain))
	})
}
