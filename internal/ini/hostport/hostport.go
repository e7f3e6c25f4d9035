// Package hostport is the form in which settings name hosts, their ports, and blocks of
// addresses.
package hostport

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"tarishi/internal/ini/grammar"
)

// Split reads host[:port]; an IPv6 address with a port stands in
// brackets.
func Split(s string, defaultPort int) (host string, port int, err error) {
	bad := fmt.Errorf("%s is no address: host, ip, host:port or [ipv6]:port", grammar.Quote(s))
	port = defaultPort
	host, rest := s, ""
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if host, rest, ok = strings.Cut(inner, "]"); !ok {
			return "", 0, bad
		}
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
			return "", 0, bad
		}
	} else if strings.Count(s, ":") == 1 {
		i := strings.IndexByte(s, ':')
		host, rest = s[:i], s[i:]
	}

	// What follows the host can only be a port.
	if rest != "" {
		n, err := strconv.ParseUint(strings.TrimPrefix(rest, ":"), 10, 16)
		if rest[0] != ':' || err != nil {
			return "", 0, bad
		}
		port = int(n)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.String(), port, nil
	}
	if !IsHost(host) {
		return "", 0, bad
	}
	return host, port, nil
}

// Join writes host:port, an IPv6 address in brackets.
func Join(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(port)
}

// IsHost reports whether s can be the name of a host. All-digit names and
// dotted numbers are addresses with a mistake.
func IsHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	// The last label decides between a name and an address with a mistake.
	last := ""
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool {
				return r < 0x80 && r != '-' && r != '_' && !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
			}) {
			return false
		}
		last = label
	}
	return strings.Trim(last, "0123456789") != ""
}

// CheckOwnName checks a name that we give ourselves. Underscores are for the names
// of others: many servers refuse a greeting with one.
func CheckOwnName(s string) error {
	switch {
	case !IsHost(s):
		return fmt.Errorf("%s is no host name", grammar.Quote(s))
	case strings.Contains(s, "_"):
		return fmt.Errorf("%s has an underscore, which is not allowed in a name of this host", grammar.Quote(s))
	}
	return nil
}

// ParsePrefix reads an address or a CIDR block; an address alone is a block of
// one.
func ParsePrefix(s string) (netip.Prefix, error) {
	// Clients are known by their IPv4 addresses, not by mapped ones.
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%s is neither an address nor a CIDR block", grammar.Quote(s))
	}
	return p.Masked(), nil
}

// FormatPrefixes writes blocks as list files have them.
func FormatPrefixes(prefixes []netip.Prefix) []string {
	var all []string
	for _, p := range prefixes {
		if p.IsSingleIP() {
			all = append(all, p.Addr().String())
		} else {
			all = append(all, p.String())
		}
	}
	return all
}
