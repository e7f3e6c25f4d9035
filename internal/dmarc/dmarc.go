// Package dmarc finds out whether the domain that readers see as a message's author
// authorized it, and the policy of that domain for messages that it did not authorize
// (Domain-based Message Authentication, Reporting, and Conformance, RFC 9989).
//
// A message passes if a domain that SPF or DKIM has authenticated is the author's, or
// belongs to the same organization. Which domains do is found in the DNS alone, by a walk
// up the tree of at most eight queries; there is no list of public suffixes. The policy
// is that of the author's domain, of its organization, or of a public suffix that has one
// (psd=y): p for the domain itself, sp for those below it and np for those that do not
// exist. A domain that tests its policy (t=y) has it applied one level below. The pct of
// RFC 7489 means nothing any more.
//
// A message with several domains in From, or with several From fields, has no certain
// author and never passes: the strictest policy of its first domains counts.
// What the DNS does not answer for now is a TempError, never a failure.
package dmarc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/mail/addresslist"
)

// Resolver asks the DNS. Its errors are those of package dns.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
}

// Status is the result of a check. The zero value is None.
type Status uint8

// The results of RFC 9989 section 9.2, with the words of RFC 8601.
const (
	None      Status = iota // the author's domain has no policy
	Pass                    // the author's domain stands behind the message
	Fail                    // it does not
	TempError               // the DNS could not be asked
	PermError               // the message does not say which domain its author has
)

// String returns the word of RFC 8601, such as "temperror".
func (s Status) String() string {
	words := [...]string{"none", "pass", "fail", "temperror", "permerror"}
	if int(s) < len(words) {
		return words[s]
	}
	return fmt.Sprintf("Status(%d)", s)
}

// Identity is the input of a check: the authors of a message, and the results of SPF and
// DKIM.
type Identity struct {
	From []string // the values of its From fields
	SPF  string   // the domain of the reverse-path, if SPF passed; ""
	DKIM []string // the domains of valid signatures
	// Unknown are the domains of those checks that could not be made for now, because
	// the DNS did not answer.
	Unknown []string
}

// Result is what came of a check.
type Result struct {
	Status Status
	Domain string // the author's, in its canonical form; "": it cannot be told
	Reason string // of an error, or why there is no pass

	// Record is the policy record that counts; nil: there is none. Policy is the
	// one for messages that fail, Disposition the one for this message: PolicyNone if it
	// passes, and one level below Policy while the domain tests it.
	Record              *Record
	Policy, Disposition Policy
	Organization        string // the author's organizational domain; "": nobody had to know
	SPF, DKIM           bool   // aligned with the author's domain
}

// Checker checks messages. It may be used by many goroutines.
type Checker struct {
	Resolver Resolver
	Timeout  time.Duration // for all look-ups of a check; 0: as long as ctx lasts
}

// maxAuthors is how many domains of a From are looked at.
const maxAuthors = 4

// Check checks a message.
func (c *Checker) Check(ctx context.Context, id Identity) Result {
	if c.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		ctx = limited
	}
	// The usual case first: one author, one domain.
	domains, err := Authors(id.From)
	if err == nil {
		return c.checkAuthor(ctx, domains[0], id)
	}

	// The domains are those that readers may take for the author's.
	worst := Result{Status: PermError, Reason: err.Error()}
	for _, domain := range domains[:min(len(domains), maxAuthors)] {
		r := c.checkAuthor(ctx, domain, Identity{})
		if r.Status == TempError {
			return r
		}
		if r.Status == Fail && (worst.Status != Fail || r.Disposition > worst.Disposition) {
			r.Reason = worst.Reason
			worst = r
		}
	}
	return worst
}

// The errors of Authors.
var (
	ErrNoAuthor = errors.New("no From field with an address")
	ErrSeveral  = errors.New("several domains or fields in From")
)

// Authors returns the domains in the From fields of a message, each once. With any error
// nobody can tell which one is the author's; those that readers may see are returned too.
func Authors(fields []string) ([]string, error) {
	var domains []string
	add := func(host string) {
		// Beyond the bound there are several anyway.
		if host != "" && !slices.Contains(domains, host) && len(domains) <= maxAuthors {
			domains = append(domains, host)
		}
	}

	// What is malformed is shown by programs nevertheless, each in its way: a forger must not
	// escape a policy by one character.
	var malformed error
	for _, text := range fields {
		addresses, err := addresslist.Parse(text)
		for _, a := range addresses {
			add(a.Host())
		}
		switch {
		case malformed != nil:
		case err != nil:
			malformed = fmt.Errorf("field From: %w", err)
		case len(addresses) == 0:
			malformed = ErrNoAuthor
		}
		if err != nil || len(addresses) == 0 || slices.ContainsFunc(addresses, func(a mail.Address) bool { return strings.Contains(a.Local, "@") }) {
			eachDomain(text, add)
		}
	}
	switch {
	case malformed != nil:
		return domains, malformed
	case len(domains) == 0:
		return nil, ErrNoAuthor
	case len(domains) > 1 || len(fields) > 1:
		return domains, ErrSeveral
	}
	return domains, nil
}

// eachDomain yields what stands behind an at sign and could be a domain, with a dot in it.
// Blanks beside a dot or the sign do not count (RFC 5322 section 4.4).
func eachDomain(text string, yield func(domain string)) {
	for _, rest := range strings.Split(text, "@")[1:] {
		var name []byte
		gap := false
		for i := 0; i < len(rest); i++ {
			c := rest[i]
			if c == ' ' || c == '\t' || c == '\r' || c == '\n' {
				gap = len(name) > 0
				continue
			}
			isLetter := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c >= utf8.RuneSelf
			if c != '.' && (!isLetter || gap && name[len(name)-1] != '.') || len(name) > maxDomain {
				break
			}
			name, gap = append(name, c), false
		}

		// Bytes that are no text are cut off: they end what programs read as the name.
		valid, _, _ := strings.Cut(strings.ToValidUTF8(string(name), "\xff"), "\xff")
		if domain := mail.CanonicalDomain(strings.Trim(valid, ".")); strings.Contains(domain, ".") {
			yield(domain)
		}
	}
}

// maxDomain is how many octets of a domain are read: those of the longest (RFC 1035 section
// 2.3.4).
const maxDomain = 253

// checkAuthor checks a message for one domain of its author.
func (c *Checker) checkAuthor(ctx context.Context, domain string, id Identity) Result {
	r := Result{Domain: domain}
	// An address has no owner that could have published anything.
	if strings.HasPrefix(domain, "[") {
		r.Reason = "an address, not a domain"
		return r
	}
	w := &walker{ctx: ctx, resolver: c.Resolver, known: map[string]answer{}}
	if err := w.discover(&r); err != nil {
		return r.fail(err)
	}
	if r.Record == nil {
		return r
	}

	// One aligned domain is enough, whatever is not known of others.
	var trouble error
	var err error
	if r.SPF, err = w.isAligned(&r, id.SPF, r.Record.StrictSPF); err != nil {
		trouble = err
	}
	for _, d := range unique(id.DKIM) {
		aligned, err := w.isAligned(&r, d, r.Record.StrictDKIM)
		if r.DKIM = r.DKIM || aligned; err != nil {
			trouble = err
		}
	}
	switch {
	case r.SPF || r.DKIM:
		r.Status = Pass
		return r
	case trouble != nil:
		return r.fail(trouble)
	}
	// A check that is still open might have made it pass: that is no failure yet.
	for _, d := range unique(id.Unknown) {
		aligned, err := w.isAligned(&r, d, false)
		if err != nil {
			return r.fail(err)
		}
		if aligned {
			return r.fail(errUnchecked)
		}
	}
	r.Status, r.Disposition, r.Reason = Fail, r.Record.soften(r.Policy), "no aligned domain"
	return r
}

var errUnchecked = errors.New("SPF or DKIM of an aligned domain could not be checked")

// fail ends a check that the DNS did not let come to an end.
func (r *Result) fail(err error) Result {
	// No policy is applied to a message that may be genuine.
	r.Status, r.Reason, r.Disposition = TempError, err.Error(), PolicyNone
	return *r
}

// unique returns the domains of a list in their canonical form, each once.
func unique(list []string) []string {
	var all []string
	// Each domain may cost a walk through the DNS: a message can have many signatures of one.
	for _, d := range list {
		if d = mail.CanonicalDomain(d); d != "" && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}

// noRecord reports whether an error of the DNS says that there is no record.
func noRecord(err error) bool {
	return dns.IsNXDomain(err) || isNoData(err) || errors.Is(err, dns.ErrName)
}

func isNoData(err error) bool { return dns.IsNoData(err) }
