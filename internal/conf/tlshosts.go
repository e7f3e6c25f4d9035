package conf

import (
	"net/netip"
	"slices"
	"strings"
)

// Forces reports whether force_tls_hosts names the next hop: by its host name,
// its address or a CIDR around it, or the recipient domain. "" and the zero
// Addr match nothing.
func (t TLSOutbound) Forces(host string, addr netip.Addr, domain string) bool {
	return listed(t.ForceTLSHosts, host, addr, domain)
}

// Excludes reports the same for no_tls_hosts.
func (t TLSOutbound) Excludes(host string, addr netip.Addr, domain string) bool {
	return listed(t.NoTLSHosts, host, addr, domain)
}

// Shows reports whether the client certificate is for a next hop: by its host
// name or the recipient domain.
func (t TLSOutbound) Shows(host, domain string) bool {
	named := func(s string) bool { return s == host || s == domain }
	return (len(t.ShowTo) == 0 || slices.ContainsFunc(t.ShowTo, named)) && !slices.ContainsFunc(t.HideFrom, named)
}

func listed(list []string, host string, addr netip.Addr, domain string) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		if p, err := netip.ParsePrefix(s); err == nil {
			return p.Contains(addr)
		}
		if a, err := netip.ParseAddr(s); err == nil {
			return a == addr
		}
		return host != "" && strings.EqualFold(s, host) || domain != "" && strings.EqualFold(s, domain)
	})
}
