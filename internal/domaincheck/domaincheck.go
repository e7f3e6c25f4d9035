// Package domaincheck looks at a mail domain as the world sees it: the hosts that take its
// mail and their certificates, the addresses that its mail leaves from, and what it says of
// its senders (SPF, DKIM, DMARC) and of its servers (MTA-STS, DANE, TLS reports).
//
// It asks the DNS and, for a policy, the domain's web server; with a Dial it also connects
// to each mail exchanger and upgrades the connection to TLS. No mail is sent.
package domaincheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"

	"tarishi/internal/dkim"
	"tarishi/internal/dns"
	"tarishi/internal/mtasts"
)

// Level says how much a Finding matters. A greater one is worse.
type Level uint8

// The levels of findings.
const (
	Good    Level = iota
	Note          // it can stay so
	Warning       // some receivers, or some senders, will mind
	Error         // mail is lost, refused, or can be forged
)

// String returns the word that stands in front of a Finding.
func (l Level) String() string { return [...]string{"ok", "note", "warning", "error"}[min(l, Error)] }

// MarshalText writes the word.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is one thing that was seen. Texts from the DNS and from servers stand in it as
// they came.
type Finding struct {
	Level Level  `json:"level"`
	About string `json:"about"` // "MX", "PTR", "SPF", "DKIM", "DMARC", "MTA-STS", "TLSRPT", "DANE", "TLS"
	Text  string `json:"text"`
}

// Resolver asks the DNS; *dns.Resolver does.
type Resolver interface {
	MX(ctx context.Context, domain string) ([]dns.MX, error)
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
	Addresses(ctx context.Context, host string) (dns.Addresses, error)
	PTR(ctx context.Context, addr netip.Addr) ([]string, error)
	TXT(ctx context.Context, name string) ([]string, error)
	TLSA(ctx context.Context, name string) ([]dns.TLSA, error)
	KnownTXT(name string) (texts []string, known bool, err error)
}

// Policies fetches what domains publish about their servers; *mtasts.Cache does.
type Policies interface {
	Policy(ctx context.Context, domain string) (*mtasts.Policy, *mtasts.Fetch)
}

// Checker is what a check works with.
type Checker struct {
	Resolver Resolver
	Policies Policies
	DNSSEC   bool // Resolver reports it

	Me        string       // the host name that we say in EHLO
	Addresses []netip.Addr // that our mail leaves from; none: those that Me has
	Keys      []dkim.Key   // that sign for the domain
	Selectors []string     // of keys that others sign with

	// Dial connects to a mail exchanger; nil: no connection is made. Roots are the
	// authorities of certificates; nil: the system's.
	Dial  func(ctx context.Context, address string) (net.Conn, error)
	Roots *x509.CertPool
}

// check is the check of one domain.
type check struct {
	*Checker
	ctx    context.Context
	domain string
	found  []Finding

	exchangers []exchanger
	policy     *mtasts.Policy
}

// exchanger is a host that takes the domain's mail.
type exchanger struct {
	host      string
	addresses dns.Addresses
	secure    bool // DNSSEC vouches for its name and its addresses
	records   []dns.TLSA
	session   *tls.ConnectionState // nil: not known
}

// Check looks at a domain, in its canonical form, until ctx ends. Its findings are in the
// order in which one would mend them.
func (c *Checker) Check(ctx context.Context, domain string) []Finding {
	k := &check{Checker: c, ctx: ctx, domain: domain}
	k.checkExchangers()
	k.checkSenders()
	k.checkKeys()
	k.checkAlignment()
	k.checkPolicy()
	k.checkReports()
	k.checkServers()
	return k.found
}

func (k *check) add(level Level, about, format string, args ...any) {
	k.found = append(k.found, Finding{Level: level, About: about, Text: fmt.Sprintf(format, args...)})
}

// isMissing reports whether an error means that there is no such record, rather than that
// the DNS did not answer.
func isMissing(err error) bool { return dns.IsNXDomain(err) || dns.IsNoData(err) }
