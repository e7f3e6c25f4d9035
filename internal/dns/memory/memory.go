// Package memory is a resolver without a network, for tests: it answers from the records
// that were added to it.
package memory

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
)

// errInsecure is the cause of the NoData about TLSA records that are not secure.
var errInsecure = errors.New("not validated by DNSSEC")

// Resolver answers as dns.Resolver does. A name without any record is NXDomain, one
// without the wanted record NoData. The zero value is empty and ready; all methods may be
// called at any time.
type Resolver struct {
	mu      sync.Mutex
	known   map[string]bool // names with any record
	mx      map[string][]dns.MX
	addrs   map[string][]netip.Addr
	texts   map[lookup][]string // TXT and PTR
	tlsa    map[string][]dns.TLSA
	secure  map[string]bool
	failing map[lookup]dns.Kind
	counts  map[lookup]int
}

// lookup is a name and a method: "MX", "ADDR", "PTR", "TXT", "TLSA", or "".
type lookup struct{ name, method string }

// AddMX adds a mail exchanger; host "" is the null MX.
func (m *Resolver) AddMX(domain string, preference int, host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mx == nil {
		m.mx = map[string][]dns.MX{}
	}
	domain = m.know(domain)
	m.mx[domain] = append(m.mx[domain], dns.MX{Host: mail.CanonicalDomain(host), Preference: preference})
}

// AddAddr adds addresses of a host. It panics on one that does not parse.
func (m *Resolver) AddAddr(host string, ips ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.addrs == nil {
		m.addrs = map[string][]netip.Addr{}
	}
	host = m.know(host)
	for _, ip := range ips {
		m.addrs[host] = append(m.addrs[host], netip.MustParseAddr(ip))
	}
}

// AddPTR adds names of an address.
func (m *Resolver) AddPTR(ip string, names ...string) {
	m.addText(netip.MustParseAddr(ip).Unmap().String(), "PTR", names)
}

// AddTXT adds texts of a name.
func (m *Resolver) AddTXT(name string, texts ...string) { m.addText(name, "TXT", texts) }

// AddTLSA adds TLSA records of a name.
func (m *Resolver) AddTLSA(name string, records ...dns.TLSA) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tlsa == nil {
		m.tlsa = map[string][]dns.TLSA{}
	}
	name = m.know(name)
	m.tlsa[name] = append(m.tlsa[name], records...)
}

// SetSecure makes the data of names secure.
func (m *Resolver) SetSecure(names ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.secure == nil {
		m.secure = map[string]bool{}
	}
	for _, name := range names {
		m.secure[mail.CanonicalDomain(name)] = true
	}
}

func (m *Resolver) addText(name, method string, texts []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.texts == nil {
		m.texts = map[lookup][]string{}
	}
	of := lookup{m.know(name), method}
	m.texts[of] = append(m.texts[of], texts...)
}

// Fail makes lookups of name end with an error of that kind: those of one
// method, "MX", "ADDR" (Addrs, Addresses and Host), "PTR" (name is the address),
// "TXT" or "TLSA", or all with "".
func (m *Resolver) Fail(name, method string, kind dns.Kind) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failing == nil {
		m.failing = map[lookup]dns.Kind{}
	}
	m.failing[lookup{mail.CanonicalDomain(name), method}] = kind
}

// Remove forgets the records and failures of a name.
func (m *Resolver) Remove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = mail.CanonicalDomain(name)
	delete(m.known, name)
	delete(m.mx, name)
	delete(m.addrs, name)
	delete(m.tlsa, name)
	delete(m.secure, name)
	for _, method := range []string{"", "MX", "ADDR", "PTR", "TXT", "TLSA"} {
		delete(m.failing, lookup{name, method})
		delete(m.texts, lookup{name, method})
	}
}

// Count returns how many lookups of name came through a method, as in Fail.
func (m *Resolver) Count(name, method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts[lookup{mail.CanonicalDomain(name), method}]
}

// know returns name in canonical form and notes that it exists. The caller
// holds m.mu.
func (m *Resolver) know(name string) string {
	name = mail.CanonicalDomain(name)
	if m.known == nil {
		m.known = map[string]bool{}
	}
	m.known[name] = true
	return name
}

// begin counts a lookup and returns its failure, if any. found says whether the
// record exists. The caller holds m.mu.
func (m *Resolver) begin(ctx context.Context, name, method string, found bool) error {
	if m.counts == nil {
		m.counts = map[lookup]int{}
	}
	m.counts[lookup{name, method}]++
	e := &dns.Error{Name: name, Type: method}
	if err := ctx.Err(); err != nil {
		e.Cause = err
		return e
	}
	kind, failing := m.failing[lookup{name, method}]
	if !failing {
		kind, failing = m.failing[lookup{name, ""}]
	}
	switch {
	case failing:
		e.Kind = kind
	case found:
		return nil
	case m.known[name]:
		e.Kind = dns.NoData
	default:
		e.Kind = dns.NXDomain
	}
	return e
}

// MX is as dns.Resolver.MX.
func (m *Resolver) MX(ctx context.Context, domain string) ([]dns.MX, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	domain = mail.CanonicalDomain(domain)
	all := slices.Clone(m.mx[domain])
	if err := m.begin(ctx, domain, "MX", len(all) > 0); err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b dns.MX) int { return cmp.Compare(a.Preference, b.Preference) })
	for i := range all {
		all[i].Secure, all[i].Domain = m.secure[domain], domain
	}
	return all, nil
}

// Addrs is as dns.Resolver.Addrs.
func (m *Resolver) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	a, err := m.Addresses(ctx, host)
	return a.List, err
}

// Addresses is as dns.Resolver.Addresses; there are no aliases.
func (m *Resolver) Addresses(ctx context.Context, host string) (dns.Addresses, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	host = mail.CanonicalDomain(host)
	all := slices.Clone(m.addrs[host])
	if err := m.begin(ctx, host, "ADDR", len(all) > 0); err != nil {
		return dns.Addresses{}, err
	}
	slices.SortStableFunc(all, func(a, b netip.Addr) int { return cmp.Compare(b.BitLen(), a.BitLen()) })
	return dns.Addresses{List: all, Name: host, Secure: m.secure[host]}, nil
}

// TLSA is as dns.Resolver.TLSA.
func (m *Resolver) TLSA(ctx context.Context, name string) ([]dns.TLSA, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = mail.CanonicalDomain(name)
	all := slices.Clone(m.tlsa[name])
	if err := m.begin(ctx, name, "TLSA", len(all) > 0); err != nil {
		return nil, err
	}
	if !m.secure[name] {
		return nil, &dns.Error{Name: name, Type: "TLSA", Kind: dns.NoData, Cause: errInsecure}
	}
	return all, nil
}

// Host is as dns.Resolver.Host, without a hosts file.
func (m *Resolver) Host(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	return m.Addrs(ctx, host)
}

// PTR is as dns.Resolver.PTR.
func (m *Resolver) PTR(ctx context.Context, addr netip.Addr) ([]string, error) {
	return m.lookUpText(ctx, addr.Unmap().String(), "PTR")
}

// TXT is as dns.Resolver.TXT.
func (m *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	return m.lookUpText(ctx, mail.CanonicalDomain(name), "TXT")
}

// KnownTXT is as that of a Resolver without a cache.
func (m *Resolver) KnownTXT(string) (texts []string, known bool, err error) { return nil, false, nil }

func (m *Resolver) lookUpText(ctx context.Context, name, method string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Clone(m.texts[lookup{name, method}])
	if err := m.begin(ctx, name, method, len(all) > 0); err != nil {
		return nil, err
	}
	return all, nil
}
