// Package hostname says what can be read in the name of a host: the organisational
// domain that it belongs to, and whether the address of the host is written into it.
package hostname

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/publicsuffix"

	"tarishi/internal/mail"
)

// Organisation returns the organisational domain of a name, in lower case with A-labels:
// the longest suffix in the public suffix list, of registries or private, and one label
// more. It is "" for a name below no listed suffix such as localhost and mx.test, for a
// suffix itself, and for a name with an empty label.
func Organisation(name string) string {
	// A trailing dot leaves an empty label, which no greeting and no PTR record should have.
	if name == "" || strings.HasSuffix(name, ".") {
		return ""
	}
	name = mail.CanonicalDomain(name)
	if name[0] == '.' || strings.Contains(name, "..") {
		return ""
	}

	// Without a listed suffix the package answers with the last label.
	suffix, managed := publicsuffix.PublicSuffix(name)
	if !managed && !strings.Contains(suffix, ".") || len(suffix) == len(name) {
		return ""
	}
	above := name[:len(name)-len(suffix)-1]
	return name[strings.LastIndexByte(above, '.')+1:]
}

// IsSameOrganisation reports whether two names have one organisational domain.
func IsSameOrganisation(a, b string) bool {
	org := Organisation(a)
	return org != "" && org == Organisation(b)
}

// IsWithin reports whether a name is a domain or below it, in any case. Nothing is
// within "".
func IsWithin(name, domain string) bool {
	name, domain = strings.ToLower(name), strings.ToLower(domain)
	return domain != "" && (name == domain || strings.HasSuffix(name, "."+domain))
}

// HoldsAddress reports whether the IPv4 address of a host is written into its name, as
// in the names that providers give to their customers' lines. In front of the domain it
// looks for the last two octets, for the first two, and for all four in hexadecimal,
// anywhere and in any order: 192.0.2.45 is in host-2-45.example.com.
func HoldsAddress(name string, addr netip.Addr) bool {
	// Haraka looks for addresses of IPv4 alone: those of IPv6 are written in too many ways.
	if addr = addr.Unmap(); !addr.Is4() {
		return false
	}
	host := hostPart(name)
	octets := addr.As4()
	holds := func(a, b byte) bool { return holdsBoth(host, strconv.Itoa(int(a)), strconv.Itoa(int(b))) }
	if holds(octets[2], octets[3]) || holds(octets[0], octets[1]) {
		return true
	}

	// In hexadecimal each octet is taken out of the name once it was found.
	for _, octet := range octets {
		digits := hex.EncodeToString([]byte{octet})
		at := strings.Index(host, digits)
		if at < 0 {
			return false
		}
		host = host[:at] + host[at+len(digits):]
	}
	return true
}

// hostPart returns what stands in a name in front of its domain, which is one label and
// the top-level domain; a last label that is none counts as the domain.
func hostPart(name string) string {
	labels := strings.Split(mail.CanonicalDomain(name), ".")
	if _, listed := publicsuffix.PublicSuffix("x." + labels[len(labels)-1]); listed {
		labels = labels[:len(labels)-1]
	}
	return strings.Join(labels[:max(len(labels)-1, 0)], ".")
}

// holdsBoth reports whether both texts stand in host without sharing characters; the
// longer one is looked for first.
func holdsBoth(host, a, b string) bool {
	// The longer text is harder to find by chance. It is taken out before the other is looked for.
	longer, other, find := a, b, strings.Index
	if len(b) >= len(a) {
		longer, other, find = b, a, strings.LastIndex
	}
	at := find(host, longer)
	return at >= 0 && strings.Contains(host[:at]+host[at+len(longer):], other)
}

// IsSameNetwork reports whether two IPv4 addresses are in one network of 256.
func IsSameNetwork(a, b netip.Addr) bool {
	a, b = a.Unmap(), b.Unmap()
	return a.Is4() && b.Is4() && netip.PrefixFrom(a, 24).Masked().Contains(b)
}

// Literal returns the address in an address literal such as [192.0.2.1] or
// [IPv6:2001:db8::1] (RFC 5321 section 4.1.3). The tag IPv6 may be left out.
func Literal(name string) (netip.Addr, bool) {
	if len(name) < 3 || name[0] != '[' || name[len(name)-1] != ']' {
		return netip.Addr{}, false
	}
	return Bare(name[1 : len(name)-1])
}

// Bare returns the address in a literal that lacks its brackets.
func Bare(name string) (netip.Addr, bool) {
	// The tag is required by the grammar and left out by many programs.
	if len(name) > 5 && strings.EqualFold(name[:5], "IPv6:") {
		name = name[5:]
	}
	addr, err := netip.ParseAddr(name)
	return addr, err == nil && addr.Zone() == ""
}
