package dmarc

import (
	"fmt"
	"net/url"
	"strings"
)

// Policy is what the owner of a domain wants to happen to messages that fail. A greater
// one is stricter.
type Policy uint8

// The policies of RFC 9989 section 4.7.
const (
	PolicyNone Policy = iota
	Quarantine
	Reject
)

// String returns the word of a record, such as "quarantine".
func (p Policy) String() string {
	words := [...]string{"none", "quarantine", "reject"}
	if int(p) < len(words) {
		return words[p]
	}
	return fmt.Sprintf("Policy(%d)", p)
}

func parsePolicy(s string) (Policy, bool) {
	switch strings.ToLower(s) {
	case "none":
		return PolicyNone, true
	case "quarantine":
		return Quarantine, true
	case "reject":
		return Reject, true
	}
	return 0, false
}

// Record is a policy record (RFC 9989 section 4.7).
type Record struct {
	Domain string // where it was found

	Policy  Policy  // p=: of the domain itself
	Below   *Policy // sp=: of the domains below it; nil: as Policy
	Missing *Policy // np=: of those below it that do not exist; nil: as Below
	Testing bool    // t=y
	PSD     PSD     // psd=

	StrictDKIM, StrictSPF bool // adkim=s, aspf=s

	// Aggregate and Failure are where reports are wanted (rua, ruf): URIs, without the
	// sizes of RFC 7489. FailureOptions is fo= as it stands; "": 0.
	Aggregate, Failure []string
	FailureOptions     string
}

// PSD says what a domain is to those above and below it.
type PSD uint8

// The values of psd=.
const (
	Undeclared   PSD = iota // u: a walk up the tree tells
	PublicSuffix            // y: domains of other organizations are registered below it
	Organization            // n: an organization's own, with all that is below it
)

// maxRecord is how many octets of a record are read.
const maxRecord = 4096

// ParseRecord reads a TXT record; ok is false if it is no policy record. Unknown tags,
// those with wrong values and further ones of the same name count as if they were not
// there.
//
// In a record that says nothing of p, or something wrong of p, sp or np, all three are
// none if it wants reports; else nothing follows from it (usable is false), but that it
// is there (RFC 9989 section 4.10.1).
func ParseRecord(text string) (rec *Record, usable, ok bool) {
	if len(text) > maxRecord {
		return nil, false, false
	}
	// Wrong tags do not spoil the others.
	rec, usable = &Record{}, true
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ";") {
		name, v, _ := strings.Cut(part, "=")
		name, v = strings.ToLower(strings.Trim(name, " \t")), strings.Trim(v, " \t")
		if len(seen) == 0 && (name != "v" || v != "DMARC1") {
			return nil, false, false
		}
		if !seen[name] {
			seen[name] = true
			usable = rec.set(name, v) && usable
		}
	}
	// A domain that asks for reports has meant to publish a policy.
	if usable && seen["p"] {
		return rec, true, true
	}
	rec.Policy, rec.Below, rec.Missing = PolicyNone, nil, nil
	return rec, len(rec.Aggregate) > 0, true
}

// set takes one tag over; ok is false if it is a policy that nobody knows.
func (rec *Record) set(name, v string) (ok bool) {
	// Other values than those that are known count as if the tag were missing (section 4.7).
	switch name {
	case "p", "sp", "np":
		p, ok := parsePolicy(v)
		if !ok {
			return false
		}
		switch name {
		case "p":
			rec.Policy = p
		case "sp":
			rec.Below = &p
		case "np":
			rec.Missing = &p
		}
	case "t":
		rec.Testing = strings.EqualFold(v, "y")
	case "psd":
		switch strings.ToLower(v) {
		case "y":
			rec.PSD = PublicSuffix
		case "n":
			rec.PSD = Organization
		}
	case "adkim":
		rec.StrictDKIM = strings.EqualFold(v, "s")
	case "aspf":
		rec.StrictSPF = strings.EqualFold(v, "s")
	case "rua":
		rec.Aggregate = parseURIs(v)
	case "ruf":
		rec.Failure = parseURIs(v)
	case "fo":
		rec.FailureOptions = v
	}
	return true
}

// parseURIs reads a list of URIs. Anything else is left out, and so is a size behind an
// exclamation mark, which the URI itself cannot have.
func parseURIs(list string) []string {
	var all []string
	// RFC 7489 let sizes stand behind the URI; records still have them.
	for text := range strings.SplitSeq(list, ",") {
		text, _, _ = strings.Cut(strings.Trim(text, " \t"), "!")
		if u, err := url.Parse(text); err == nil && u.Scheme != "" && (u.Opaque != "" || u.Host != "") {
			all = append(all, text)
		}
	}
	return all
}

// soften returns the policy to apply: one level less while the domain tests it.
func (rec *Record) soften(p Policy) Policy {
	if rec.Testing && p > PolicyNone {
		return p - 1
	}
	return p
}

// below returns the policy for a domain below the record's.
func (rec *Record) below(exists bool) Policy {
	// The most special policy that was given counts.
	switch {
	case !exists && rec.Missing != nil:
		return *rec.Missing
	case rec.Below != nil:
		return *rec.Below
	}
	return rec.Policy
}
