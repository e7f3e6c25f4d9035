// Package spf checks whether a client may send mail in the name of a domain (Sender
// Policy Framework, RFC 7208).
//
// The evaluation, with its limits of ten look-ups and two that find nothing (section
// 4.6.4), is that of blitiri.com.ar/go/spf. This package asks our resolver for it,
// under one deadline, and reads each record as a whole before a part of it counts: a
// record with an error anywhere is a PermError (section 4.6). The macro %{p} is
// "unknown", and explanations (exp=) are not fetched: both are optional (sections
// 7.3 and 6.2).
package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	library "blitiri.com.ar/go/spf"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
)

// Status is the result of a check. The zero value is None.
type Status uint8

// The results of RFC 7208 section 2.6.
const (
	None      Status = iota // there is no domain, or it has no record
	Pass                    // the client may use the domain
	Fail                    // it may not
	SoftFail                // it probably may not
	Neutral                 // the domain does not say
	TempError               // the DNS could not be asked
	PermError               // the record is wrong
)

// String returns the word of RFC 7208 and RFC 8601, such as "softfail".
func (s Status) String() string {
	words := [...]string{"none", "pass", "fail", "softfail", "neutral", "temperror", "permerror"}
	if int(s) < len(words) {
		return words[s]
	}
	return fmt.Sprintf("Status(%d)", s)
}

// Result is what came of a check.
type Result struct {
	Status Status
	Domain string // that was checked, in its canonical form; "": there was none
	Reason string // the term that matched, or the error; for logs
}

// Resolver asks the DNS. Its errors are those of package dns.
type Resolver interface {
	MX(ctx context.Context, domain string) ([]dns.MX, error)
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
	PTR(ctx context.Context, addr netip.Addr) ([]string, error)
	TXT(ctx context.Context, name string) ([]string, error)
}

// Checker checks clients. It may be used by many goroutines.
type Checker struct {
	Resolver Resolver
	Timeout  time.Duration // for all look-ups of a check; 0: as long as ctx lasts
}

// CheckMail checks the domain of the reverse-path (RFC 7208 section 2.4). That of the
// null reverse-path is the client's host name, with postmaster as the local part.
func (c *Checker) CheckMail(ctx context.Context, client netip.Addr, helo string, from mail.Address) Result {
	if from.IsNull() {
		return c.CheckHello(ctx, client, helo)
	}
	return c.check(ctx, client, helo, from.Local, from.Domain)
}

// CheckHello checks the host name that a client gave with HELO or EHLO (section 2.3).
func (c *Checker) CheckHello(ctx context.Context, client netip.Addr, helo string) Result {
	return c.check(ctx, client, helo, "postmaster", helo)
}

func (c *Checker) check(ctx context.Context, client netip.Addr, helo, local, domain string) Result {
	// What has no labels has no record: nothing is asked for (RFC 7208 section 4.3).
	domain = mail.CanonicalDomain(domain)
	if !isDomain(domain) {
		return Result{Reason: "no domain"}
	}
	if c.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		ctx = limited
	}

	// The library takes the first @ for the one that matters.
	local = strings.ReplaceAll(local, "@", "=")
	client = client.Unmap().WithZone("")
	// All it needs comes with the call: it holds no state.
	word, err := library.CheckHostWithSender(client.AsSlice(), helo, local+"@"+domain, library.WithContext(ctx), library.WithResolver(adapter{c.Resolver}))
	r := Result{Domain: domain, Status: statusOf(word)}
	if err != nil {
		r.Reason = err.Error()
	}
	return r
}

func statusOf(word library.Result) Status {
	// The library has the same words, of RFC 7208.
	for s := None; s <= PermError; s++ {
		if s.String() == string(word) {
			return s
		}
	}
	return TempError // nothing follows from what nobody knows
}

// isDomain reports whether a name can have a record: labels of a domain name, at least
// two of them (RFC 7208 section 4.3).
func isDomain(name string) bool {
	if len(name) > 253 || !strings.Contains(name, ".") || strings.ContainsAny(name, "[]: ") {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return true
}

// adapter is our resolver as the library asks for it.
type adapter struct{ r Resolver }

var errSyntax = errors.New("malformed record")

// LookupTXT returns the records of a name. It is asked for policies alone: one that is
// wrong anywhere is an error.
func (a adapter) LookupTXT(ctx context.Context, name string) ([]string, error) {
	// Macros may make any name of what the client says; some cannot be asked for.
	if !isDomain(strings.TrimSuffix(name, ".")) {
		return nil, notFound(name)
	}
	texts, err := a.r.TXT(ctx, name)
	if err != nil {
		return nil, translate(err, name)
	}
	// The library stops at the first term that matches and would not see later errors.
	for _, text := range texts {
		if terms, ok := cutVersion(text); ok {
			if err := checkTerms(terms); err != nil {
				return nil, err
			}
		}
	}
	return texts, nil
}

// LookupMX returns the mail exchangers of a name.
func (a adapter) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	found, err := a.r.MX(ctx, name)
	if err != nil {
		return nil, translate(err, name)
	}
	all := make([]*net.MX, len(found))
	for i, mx := range found {
		all[i] = &net.MX{Host: mx.Host, Pref: uint16(mx.Preference)}
	}
	return all, nil
}

// LookupIPAddr returns the addresses of a name.
func (a adapter) LookupIPAddr(ctx context.Context, name string) ([]net.IPAddr, error) {
	found, err := a.r.Addrs(ctx, name)
	if err != nil {
		return nil, translate(err, name)
	}
	all := make([]net.IPAddr, len(found))
	for i, addr := range found {
		all[i] = net.IPAddr{IP: addr.AsSlice()}
	}
	return all, nil
}

// LookupAddr returns the names of an address.
func (a adapter) LookupAddr(ctx context.Context, text string) ([]string, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return nil, notFound(text)
	}
	names, err := a.r.PTR(ctx, addr)
	if err != nil {
		return nil, translate(err, text)
	}
	return names, nil
}

// translate returns an error of the resolver in the form that the library knows. A name
// that cannot be asked for, made by a macro for instance, does not exist.
func translate(err error, name string) error {
	// The library counts what it has looked up in vain, and goes on; other errors end it.
	if dns.IsNXDomain(err) || dns.IsNoData(err) || errors.Is(err, dns.ErrName) {
		return notFound(name)
	}
	return &net.DNSError{Err: err.Error(), Name: name, IsTemporary: true}
}

func notFound(name string) error {
	return &net.DNSError{Err: "no such record", Name: name, IsNotFound: true}
}
