// Package dns resolves what mail needs: MX, addresses, PTR, TXT and TLSA, by
// asking recursive servers.
//
// Every error is an *Error of one of three kinds. Only NXDomain and NoData are
// statements of the DNS about a name, on which a permanent conclusion may rest;
// each of them comes from a complete, well-formed answer to our own question
// (or, for NXDomain, from a name that the DNS cannot hold, RFC 1035 section
// 2.3.4). Everything else is Temporary: SERVFAIL, REFUSED, time-outs, malformed
// and lame answers, CNAME loops, answers in which no record is usable.
//
// What DNSSEC vouches for is known only from servers that validate and can be
// trusted, also on the way to here (Settings.DNSSEC): from them the AD bit (RFC
// 6840 section 5.8) is believed. An answer is secure if every message was that
// led to it, along all aliases. What fails validation comes as SERVFAIL, a
// temporary failure.
//
// What a server may make us hold is bounded: 100 MX, 64 addresses, 64 names
// and 64 KiB of text per answer, and 8 MiB of cache. More than 64 TLSA records are a
// temporary failure. Answers, negative ones
// too (RFC 2308), are cached for their TTL, at least 5 s and at most an hour;
// temporary failures are not. Concurrent identical queries share one flight: a
// goroutine that ends with its answer, with its time-outs, or when nobody waits
// for it any more.
package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"tarishi/internal/mail"
)

// Bounds of one answer. A message of the DNS is at most 64 KiB by itself.
const (
	maxMX    = 100
	maxAddrs = 32 // of each family
	maxNames = 64
	maxText  = 64 << 10
	maxTLSA  = 64
)

// Resolver asks the DNS. It may be used by many goroutines.
type Resolver struct {
	servers []string
	timeout time.Duration
	tries   int
	dnssec  bool
	search  *dns.ClientConfig // of ResolvConf, for Host; nil with Settings.Servers
	hosts   hostsFile
	slots   chan struct{} // one per exchange in progress
	now     func() time.Time

	mu       sync.Mutex
	flights  map[question]*flight
	cache    cache
	silent   map[string]time.Time // servers that did not answer, and until when they are asked last
	answered map[string]time.Time // when a server answered last
	failures map[string]int       // how often a server did not answer since then
	watch    func(server string, err error)
}

// New returns a Resolver. Without Settings.Servers it reads ResolvConf now; when
// that names no server, or is missing, it asks 127.0.0.1:53. A server that is
// no IP address is an error.
func New(c Settings) (*Resolver, error) {
	r := &Resolver{
		timeout: c.Timeout,
		tries:   c.Tries,
		dnssec:  c.DNSSEC,
		hosts:   hostsFile{path: c.Hosts},
		slots:   make(chan struct{}, maxExchanges),
		now:     time.Now,
		flights: map[question]*flight{},
		silent:  map[string]time.Time{}, answered: map[string]time.Time{}, failures: map[string]int{},
		watch: func(string, error) {},
	}
	if r.timeout <= 0 {
		r.timeout = 5 * time.Second
	}
	if r.tries <= 0 {
		r.tries = 2
	}
	if r.hosts.path == "" {
		r.hosts.path = "/etc/hosts"
	}
	for _, s := range c.Servers {
		addr, err := serverAddr(s)
		if err != nil {
			return nil, err
		}
		r.servers = append(r.servers, addr)
	}
	if len(r.servers) == 0 {
		r.readSystem(c.ResolvConf)
	}
	return r, nil
}

func serverAddr(s string) (string, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, 53).String(), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return "", fmt.Errorf("dns: server %q: not an IP address with a port", s)
	}
	return a.String(), nil
}

// readSystem takes servers and search list from a resolv.conf(5) file.
func (r *Resolver) readSystem(path string) {
	if path == "" {
		path = "/etc/resolv.conf"
	}
	if c, err := dns.ClientConfigFromFile(path); err == nil {
		r.search = c
		for _, s := range c.Servers {
			if a, err := netip.ParseAddr(s); err == nil {
				r.servers = append(r.servers, netip.AddrPortFrom(a, 53).String())
			}
		}
	}
	if len(r.servers) == 0 {
		r.servers = []string{net.JoinHostPort("127.0.0.1", "53")}
	}
}

// MX is one mail exchanger.
type MX struct {
	Host       string // lower case, A-labels, no trailing dot; an address; "" is the null MX (RFC 7505)
	Preference int
	Secure     bool   // the answer that named it was
	Domain     string // where the aliases of the domain that was asked for end, in the form of Host
}

// MX returns the mail exchangers of a domain, lowest preference first, each
// host once. Where an address stands in place of a name, against RFC 1035 section
// 3.3.9, the host is that address. Other targets that are no host names are left
// out; if none remains the error is temporary. A null MX is the only element.
// An address literal is not a domain: the error is temporary.
func (r *Resolver) MX(ctx context.Context, domain string) ([]MX, error) {
	a := r.lookup(ctx, domain, dns.TypeMX)
	return slices.Clone(a.mx), a.failure()
}

// Addrs returns the addresses of a host: IPv6, then IPv4, asked for in
// parallel, and each in random order, so that no cached answer sends everybody
// to the same one. When one family fails in any way and the other answers, those
// are the result. IPv4-mapped addresses come as IPv4; unspecified and multicast
// ones are left out.
func (r *Resolver) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	a, err := r.Addresses(ctx, host)
	return a.List, err
}

// IPv4 returns the A records of a name, in the order of the answer: lists in the DNS
// give their findings in that form (RFC 5782 section 2.1), and have no others.
func (r *Resolver) IPv4(ctx context.Context, name string) ([]netip.Addr, error) {
	a := r.lookup(ctx, name, dns.TypeA)
	return slices.Clone(a.addrs), a.failure()
}

// Addresses is what the DNS says about a host.
type Addresses struct {
	List []netip.Addr
	// Name is where the aliases of the host end, in lower case without a
	// trailing dot: the host itself if it is no alias.
	Name   string
	Secure bool // every answer with an address was
	// Alias is set when the host is an alias and the record that says so is
	// secure, be its target or not.
	Alias bool
}

// Addresses is Addrs with what DNSSEC says of them.
func (r *Resolver) Addresses(ctx context.Context, host string) (Addresses, error) {
	a, err := r.addresses(ctx, host)
	v4 := max(0, slices.IndexFunc(a.List, netip.Addr.Is4))
	for _, family := range [][]netip.Addr{a.List[:v4], a.List[v4:]} {
		rand.Shuffle(len(family), func(i, k int) { family[i], family[k] = family[k], family[i] })
	}
	return a, err
}

// addresses is Addresses in the order of the answers.
func (r *Resolver) addresses(ctx context.Context, host string) (Addresses, error) {
	var a4 *answer
	done := make(chan struct{})
	go func() {
		defer close(done)
		a4 = r.lookup(ctx, host, dns.TypeA)
	}()
	a6 := r.lookup(ctx, host, dns.TypeAAAA)
	<-done
	all := Addresses{List: slices.Concat(a6.addrs, a4.addrs), Secure: true}
	if len(all.List) == 0 {
		return Addresses{}, worse(a6.err, a4.err)
	}
	for _, a := range []*answer{a6, a4} {
		if len(a.addrs) > 0 {
			all.Secure = all.Secure && a.secure
			all.Name = strings.TrimSuffix(a.name, ".")
		}
	}
	if all.Name != mail.CanonicalDomain(host) {
		all.Alias = all.Secure || r.dnssec && r.lookup(ctx, host, dns.TypeCNAME).secure
	}
	return all, nil
}

// TLSA is one record of RFC 6698; the fields mean what its section 2.1 says.
type TLSA struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}

// TLSA returns the TLSA records of a name such as "_25._tcp.mx.example.com".
// Records that are not secure do not count: that is NoData. Data is shared and
// must not be changed.
func (r *Resolver) TLSA(ctx context.Context, name string) ([]TLSA, error) {
	if !r.dnssec {
		return nil, &Error{Name: name, Type: "TLSA", Kind: NoData, Cause: errInsecure}
	}
	a := r.lookup(ctx, name, dns.TypeTLSA)
	if a.err == nil && !a.secure {
		return nil, &Error{Name: name, Type: "TLSA", Kind: NoData, Cause: errInsecure}
	}
	return slices.Clone(a.tlsa), a.failure()
}

// worse returns the error from which less can be concluded.
func worse(a, b *Error) error {
	if rank := func(e *Error) int {
		switch e.Kind {
		case NXDomain:
			return 0
		case NoData:
			return 1
		}
		return 2
	}; rank(b) > rank(a) {
		return b
	}
	return a
}

// PTR returns the names of an address; those that are no host names are left
// out, and if none remains the error is temporary. A loopback address is
// "localhost" without a query: the DNS knows nothing of it (RFC 6303, RFC 6761).
func (r *Resolver) PTR(ctx context.Context, addr netip.Addr) ([]string, error) {
	if addr.Unmap().IsLoopback() {
		return []string{"localhost"}, nil
	}
	reverse, err := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil {
		return nil, &Error{Name: addr.String(), Type: "PTR", Kind: Temporary, Cause: err}
	}
	a := r.lookup(ctx, reverse, dns.TypePTR)
	return slices.Clone(a.text), a.failure()
}

// TXT returns the texts of a name, the strings of each record joined. They are
// raw bytes as the peer chose them.
func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	a := r.lookup(ctx, name, dns.TypeTXT)
	return slices.Clone(a.text), a.failure()
}

// KnownTXT is TXT without a wait: known is false if the cache has no answer.
func (r *Resolver) KnownTXT(name string) (texts []string, known bool, err error) {
	qname, _, err := queryName(name)
	if err != nil {
		return nil, false, nil // TXT returns the error
	}
	r.mu.Lock()
	a := r.cache.get(question{qname, dns.TypeTXT}, r.now())
	r.mu.Unlock()
	if a == nil {
		return nil, false, nil
	}
	return slices.Clone(a.text), true, a.failure()
}

// Kind says what an Error means.
type Kind uint8

// The kinds of errors.
const (
	Temporary Kind = iota // nothing is known; may be different next time
	NXDomain              // the name does not exist
	NoData                // the name exists without such a record
)

// String returns "NXDOMAIN", "NODATA" or "temporary failure".
func (k Kind) String() string {
	switch k {
	case NXDomain:
		return "NXDOMAIN"
	case NoData:
		return "NODATA"
	}
	return "temporary failure"
}

// Error is why there is no answer.
type Error struct {
	Name  string // what was asked for, without trailing dot
	Type  string // "MX", "AAAA", …
	Kind  Kind
	Cause error // nil with most NXDomain and NoData
}

// Error returns "TYPE NAME: KIND: cause".
func (e *Error) Error() string {
	s := e.Type + " " + e.Name + ": " + e.Kind.String()
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// IsNXDomain reports whether err says that a name does not exist.
func IsNXDomain(err error) bool { return isKind(err, NXDomain) }

// IsNoData reports whether err says that a name exists without such a record.
func IsNoData(err error) bool { return isKind(err, NoData) }

func isKind(err error, k Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == k
}

// ErrUnusable is the cause of the temporary error about an answer of which no record can be
// used, such as the address 0.0.0.0.
var ErrUnusable = errors.New("no usable record in the answer")

// ErrName is the cause of the temporary error about a name that the DNS cannot be asked
// for: an address, or one with characters that no name has.
var ErrName = errors.New("an address or a malformed name, not a domain")

var (
	errInsecure = errors.New("not validated by DNSSEC")
	errLength   = errors.New("longer than a domain name can be, or with an empty label")
)

// queryName returns name as the DNS is asked for it: A-labels, lower case, with
// the trailing dot.
func queryName(name string) (string, Kind, error) {
	name = mail.CanonicalDomain(name)
	if len(name) > 253 {
		return "", NXDomain, errLength
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", NXDomain, errLength
		}
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= ' ' || c > '~' || strings.IndexByte(`\[]"();:@,<>`, c) >= 0 {
			return "", Temporary, ErrName
		}
	}
	return name + ".", 0, nil
}

// hostName returns the name that a record points to if it can be a host's:
// letters, digits, hyphens and, seen in the wild, underscores.
func hostName(target string) (string, bool) {
	name := strings.ToLower(strings.TrimSuffix(target, "."))
	if name == "" || len(name) > 253 {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		for i := 0; i < len(label); i++ {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", false
			}
		}
	}
	_, err := netip.ParseAddr(name)
	return name, err != nil
}
