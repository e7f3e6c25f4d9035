package dmarc

import (
	"context"
	"strings"

	"tarishi/internal/mail"
)

// maxQueries is how many names a walk asks for, at most (RFC 9989 section 4.10).
const maxQueries = 8

// path returns the domains that a walk from one asks for a record: itself, its
// last seven labels at most, and so on up to the top.
func path(domain string) []string {
	names := []string{domain}
	for rest := domain; ; {
		_, above, found := strings.Cut(rest, ".")
		if !found {
			return names
		}
		if rest = above; strings.Count(rest, ".") < maxQueries-1 {
			names = append(names, rest)
		}
	}
}

// answer is what one name has.
type answer struct {
	record *Record // nil: none
	usable bool    // its policy counts
	err    error   // the DNS did not answer
}

// walker asks for records during one check, for none of them twice.
type walker struct {
	ctx      context.Context
	resolver Resolver
	known    map[string]answer
}

// ask returns the record of a domain. Several records of one domain are as good as none.
func (w *walker) ask(domain string) answer {
	if a, ok := w.known[domain]; ok {
		return a
	}
	// Other records, and those of other versions, may stand at the same name.
	texts, err := w.resolver.TXT(w.ctx, "_dmarc."+domain)
	var a answer
	switch {
	case err != nil && !noRecord(err):
		a.err = err
	case err == nil:
		found := 0
		for _, text := range texts {
			if rec, usable, ok := ParseRecord(text); ok {
				rec.Domain = domain
				a.record, a.usable = rec, usable
				found++
			}
		}
		if found > 1 {
			a = answer{}
		}
	}
	w.known[domain] = a
	return a
}

// climb walks up from a domain. It returns the organizational domain (RFC 9989 section
// 4.10.2) and, if that has no record, the public suffix above it that has one.
func (w *walker) climb(domain string) (organization string, suffix *Record, err error) {
	// The walk ends early where a domain states its kind.
	organization = domain
	for _, name := range path(domain) {
		a := w.ask(name)
		if a.err != nil {
			return "", nil, a.err
		}
		if a.record == nil {
			continue
		}
		switch {
		case a.record.PSD == PublicSuffix && name != domain:
			return childOf(name, domain), a.record, nil
		case a.record.PSD != Undeclared:
			return name, nil, nil
		}
		organization = name
	}
	return organization, nil, nil
}

// childOf returns the domain one label below above that domain is in or is.
func childOf(above, domain string) string {
	rest := strings.TrimSuffix(domain, "."+above)
	return rest[strings.LastIndexByte(rest, '.')+1:] + "." + above
}

// discover finds the policy for the author's domain (RFC 9989 section 4.10.1): its own,
// that of its organization, or that of the public suffix.
func (w *walker) discover(r *Result) error {
	own := w.ask(r.Domain)
	if own.err != nil {
		return own.err
	}
	if own.record != nil {
		if own.usable {
			r.Record, r.Policy = own.record, own.record.Policy
		} else {
			r.Reason = "a record without a policy"
		}
		return nil
	}
	// Without a policy the domain has that of its organization.
	organization, suffix, err := w.climb(r.Domain)
	if err != nil {
		return err
	}
	r.Organization = organization
	from := w.ask(organization)
	if from.record == nil && suffix != nil {
		from = w.ask(suffix.Domain)
	}
	if from.record == nil || !from.usable {
		return nil
	}

	// Whether the domain exists matters only if that makes a difference.
	r.Record = from.record
	exists := true
	if from.record.below(false) != from.record.below(true) {
		if exists, err = w.exists(r.Domain); err != nil {
			return err
		}
	}
	r.Policy = from.record.below(exists)
	return nil
}

// exists reports whether a domain has any record, or any name below it has (RFC 9989
// section 3.2.13).
func (w *walker) exists(domain string) (bool, error) {
	_, err := w.resolver.TXT(w.ctx, domain)
	switch {
	case err == nil || isNoData(err):
		return true, nil
	case noRecord(err):
		return false, nil
	}
	return false, err
}

// isAligned reports whether a domain that was authenticated is the author's, or is of the
// same organization unless the author's wants it to be the very same.
func (w *walker) isAligned(r *Result, domain string, strict bool) (bool, error) {
	domain = mail.CanonicalDomain(domain)
	if domain == "" || strict || domain == r.Domain {
		return domain != "" && domain == r.Domain, nil
	}
	if r.Organization == "" {
		organization, _, err := w.climb(r.Domain)
		if err != nil {
			return false, err
		}
		r.Organization = organization
	}

	// A domain outside of the author's organization needs no further walk.
	if domain != r.Organization && !strings.HasSuffix(domain, "."+r.Organization) {
		return false, nil
	}
	organization, _, err := w.climb(domain)
	return organization == r.Organization, err
}
