package dns

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"

	"tarishi/internal/mail"
)

// Memory is a Resolver without a network, for the tests of those who use one:
// it answers from what was added. A name of which nothing is known is NXDomain,
// one without the wanted record NoData. The zero value is empty and ready; all
// methods may be called at any time.
type Memory struct {
	mu      sync.Mutex
	known   map[string]bool // names with any record
	mx      map[string][]MX
	addrs   map[string][]netip.Addr
	text    map[question][]string // TXT and PTR
	tlsa    map[string][]TLSA
	secure  map[string]bool
	failing map[memoryKey]Kind
	counts  map[memoryKey]int
}

// memoryKey is a name and a method: "MX", "ADDR", "PTR", "TXT", "TLSA", or "".
type memoryKey struct{ name, method string }

// AddMX adds a mail exchanger; host "" is the null MX.
func (m *Memory) AddMX(domain string, preference int, host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mx == nil {
		m.mx = map[string][]MX{}
	}
	domain = m.know(domain)
	m.mx[domain] = append(m.mx[domain], MX{Host: mail.CanonicalDomain(host), Preference: preference})
}

// AddAddr adds addresses of a host. It panics on one that does not parse.
func (m *Memory) AddAddr(host string, ips ...string) {
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
func (m *Memory) AddPTR(ip string, names ...string) {
	m.addText(netip.MustParseAddr(ip).Unmap().String(), "PTR", names)
}

// AddTXT adds texts of a name.
func (m *Memory) AddTXT(name string, texts ...string) { m.addText(name, "TXT", texts) }

// AddTLSA adds TLSA records of a name.
func (m *Memory) AddTLSA(name string, records ...TLSA) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tlsa == nil {
		m.tlsa = map[string][]TLSA{}
	}
	name = m.know(name)
	m.tlsa[name] = append(m.tlsa[name], records...)
}

// SetSecure makes what is known of names secure.
func (m *Memory) SetSecure(names ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.secure == nil {
		m.secure = map[string]bool{}
	}
	for _, name := range names {
		m.secure[mail.CanonicalDomain(name)] = true
	}
}

func (m *Memory) addText(name, method string, texts []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.text == nil {
		m.text = map[question][]string{}
	}
	q := question{m.know(name), textTypes[method]}
	m.text[q] = append(m.text[q], texts...)
}

var textTypes = map[string]uint16{"TXT": 16, "PTR": 12}

// Fail makes lookups of name end with an error of that kind: those of one
// method, "MX", "ADDR" (Addrs, Addresses and Host), "PTR" (name is the address),
// "TXT" or "TLSA", or all with "".
func (m *Memory) Fail(name, method string, kind Kind) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failing == nil {
		m.failing = map[memoryKey]Kind{}
	}
	m.failing[memoryKey{mail.CanonicalDomain(name), method}] = kind
}

// Remove forgets the records and failures of a name.
func (m *Memory) Remove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = mail.CanonicalDomain(name)
	delete(m.known, name)
	delete(m.mx, name)
	delete(m.addrs, name)
	delete(m.tlsa, name)
	delete(m.secure, name)
	for _, t := range textTypes {
		delete(m.text, question{name, t})
	}
	for _, method := range []string{"", "MX", "ADDR", "PTR", "TXT", "TLSA"} {
		delete(m.failing, memoryKey{name, method})
	}
}

// Count returns how many lookups of name came through a method, as in Fail.
func (m *Memory) Count(name, method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts[memoryKey{mail.CanonicalDomain(name), method}]
}

// know returns name in canonical form and notes that it exists. The caller
// holds m.mu.
func (m *Memory) know(name string) string {
	name = mail.CanonicalDomain(name)
	if m.known == nil {
		m.known = map[string]bool{}
	}
	m.known[name] = true
	return name
}

// begin counts a lookup and returns its failure, if any. found says whether the
// record exists. The caller holds m.mu.
func (m *Memory) begin(ctx context.Context, name, method string, found bool) error {
	if m.counts == nil {
		m.counts = map[memoryKey]int{}
	}
	m.counts[memoryKey{name, method}]++
	e := &Error{Name: name, Type: method}
	if err := ctx.Err(); err != nil {
		e.Cause = err
		return e
	}
	kind, failing := m.failing[memoryKey{name, method}]
	if !failing {
		kind, failing = m.failing[memoryKey{name, ""}]
	}
	switch {
	case failing:
		e.Kind = kind
	case found:
		return nil
	case m.known[name]:
		e.Kind = NoData
	default:
		e.Kind = NXDomain
	}
	return e
}

// MX is as Resolver.MX.
func (m *Memory) MX(ctx context.Context, domain string) ([]MX, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	domain = mail.CanonicalDomain(domain)
	all := slices.Clone(m.mx[domain])
	if err := m.begin(ctx, domain, "MX", len(all) > 0); err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b MX) int { return cmp.Compare(a.Preference, b.Preference) })
	for i := range all {
		all[i].Secure, all[i].Domain = m.secure[domain], domain
	}
	return all, nil
}

// Addrs is as Resolver.Addrs.
func (m *Memory) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	a, err := m.Addresses(ctx, host)
	return a.List, err
}

// Addresses is as Resolver.Addresses; there are no aliases.
func (m *Memory) Addresses(ctx context.Context, host string) (Addresses, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	host = mail.CanonicalDomain(host)
	all := slices.Clone(m.addrs[host])
	if err := m.begin(ctx, host, "ADDR", len(all) > 0); err != nil {
		return Addresses{}, err
	}
	slices.SortStableFunc(all, func(a, b netip.Addr) int { return cmp.Compare(b.BitLen(), a.BitLen()) })
	return Addresses{List: all, Name: host, Secure: m.secure[host]}, nil
}

// TLSA is as Resolver.TLSA.
func (m *Memory) TLSA(ctx context.Context, name string) ([]TLSA, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = mail.CanonicalDomain(name)
	all := slices.Clone(m.tlsa[name])
	if err := m.begin(ctx, name, "TLSA", len(all) > 0); err != nil {
		return nil, err
	}
	if !m.secure[name] {
		return nil, &Error{Name: name, Type: "TLSA", Kind: NoData, Cause: errInsecure}
	}
	return all, nil
}

// Host is as Resolver.Host, without a hosts file.
func (m *Memory) Host(ctx context.Context, host string) ([]netip.Addr, error) {
	if addrs := hostLiteral(host); addrs != nil {
		return addrs, nil
	}
	return m.Addrs(ctx, host)
}

// PTR is as Resolver.PTR.
func (m *Memory) PTR(ctx context.Context, addr netip.Addr) ([]string, error) {
	return m.texts(ctx, addr.Unmap().String(), "PTR")
}

// TXT is as Resolver.TXT.
func (m *Memory) TXT(ctx context.Context, name string) ([]string, error) {
	return m.texts(ctx, mail.CanonicalDomain(name), "TXT")
}

// KnownTXT is as that of a Resolver without a cache.
func (m *Memory) KnownTXT(string) (texts []string, known bool, err error) { return nil, false, nil }

func (m *Memory) texts(ctx context.Context, name, method string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Clone(m.text[question{name, textTypes[method]}])
	if err := m.begin(ctx, name, method, len(all) > 0); err != nil {
		return nil, err
	}
	return all, nil
}
