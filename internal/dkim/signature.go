package dkim

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/dkim/canon"
	"tarishi/internal/mail"
)

// The names of fields and algorithms.
const (
	fieldName = "DKIM-Signature"

	rsaSHA256     = "rsa-sha256"
	ed25519SHA256 = "ed25519-sha256"
)

// maxName is how many octets a domain, a selector or an identity has, at most: a local part
// of 64, an @ and a domain (RFC 5321 section 4.5.3.1).
const maxName = 64 + 1 + 255

// signature is a DKIM-Signature field that is well formed.
type signature struct {
	field          []byte // raw
	blank          [2]int // where in it the value of b= stands
	header, body   canon.Algorithm
	hashed, signed []byte // bh=, b=
}

// parseSignature reads a field and fills in what the result says of it. The error is a
// *fault.
func parseSignature(field []byte, now time.Time, skew time.Duration, r *Result) (*signature, error) {
	text := canon.Value(field)
	t, err := canon.ParseTags(text)
	if err != nil {
		return nil, permFault("header parse error")
	}

	// Results are kept: what nobody's name can be has no place in them.
	for _, name := range []string{"a", "d", "s", "i"} {
		if len(t.Text(name)) > maxName {
			return nil, permFault("header parse error")
		}
	}
	r.Domain, r.Selector = strings.ToLower(t.Text("d")), strings.ToLower(t.Text("s"))
	r.Algorithm, r.Headers = strings.ToLower(t.Text("a")), t.List("h")
	r.Start = t.Text("b")[:min(8, len(t.Text("b")))]
	// The cheap checks come first.
	if err := checkTags(t); err != nil {
		return nil, err
	}
	if err := readIdentity(t, r); err != nil {
		return nil, err
	}
	if err := readTimes(t, now, skew, r); err != nil {
		return nil, err
	}

	// The parts that the verification needs as bytes.
	s := &signature{field: field}
	if s.header, s.body, err = parseCanonicalizations(t.Text("c")); err != nil {
		return nil, permFault("unknown canonicalization")
	}
	if s.hashed, err = base64.StdEncoding.DecodeString(t.Text("bh")); err != nil {
		return nil, permFault("header parse error")
	}
	if s.signed, err = base64.StdEncoding.DecodeString(t.Text("b")); err != nil {
		return nil, permFault("header parse error")
	}
	for i, name := range r.Headers {
		r.Headers[i] = strings.ToLower(name)
	}
	if !slices.Contains(r.Headers, "from") {
		return nil, permFault("from field not signed")
	}
	// The signature does not cover the value of b=.
	b, offset := t.Find("b"), len(field)-len(text)
	s.blank = [2]int{offset + b.Start, offset + b.End}
	return s, nil
}

// checkTags reports missing tags, and tags and values that are never accepted.
func checkTags(t canon.Tags) error {
	// What could be accepted by accident is refused by name, in the order in which Haraka
	// reports it.
	switch {
	case !t.Has("v"):
		return permFault("missing version")
	case t.Text("v") != "1":
		return permFault("incompatible version")
	case t.Has("l"):
		return &fault{Policy, "length tag is unsupported"}
	}
	switch strings.ToLower(t.Text("a")) {
	case rsaSHA256, ed25519SHA256:
	case "":
		return permFault("missing algorithm")
	case "rsa-sha1":
		return permFault("rsa-sha1 is insecure and not supported")
	default:
		return permFault("invalid algorithm")
	}
	switch {
	case t.Text("b") == "":
		return permFault("signature missing")
	case t.Text("bh") == "":
		return permFault("body hash missing")
	case t.Text("d") == "":
		return permFault("domain missing")
	case t.Text("s") == "":
		return permFault("no key for signature")
	case t.Text("h") == "":
		return permFault("signed headers missing")
	case t.Has("q") && !slices.Contains(t.List("q"), "dns/txt"):
		return permFault("unknown query method")
	}
	return nil
}

// readIdentity reads i=, which must be in d= or below.
func readIdentity(t canon.Tags, r *Result) error {
	// Without i= the domain signs for everybody in it (RFC 6376 section 3.5).
	r.Identity = t.Text("i")
	if !t.Has("i") {
		r.Identity = "@" + r.Domain
	}
	at := strings.LastIndexByte(r.Identity, '@')
	if at < 0 {
		return permFault("i/d selector domain mismatch")
	}
	if of := strings.ToLower(r.Identity[at+1:]); of != r.Domain && !strings.HasSuffix(of, "."+r.Domain) {
		return permFault("i/d selector domain mismatch")
	}
	return nil
}

// readTimes reads t= and x=. A clock may be wrong by skew.
func readTimes(t canon.Tags, now time.Time, skew time.Duration, r *Result) error {
	var ok bool
	if t.Has("t") {
		if r.Created, ok = parseTime(t.Text("t")); !ok || r.Created.After(now.Add(skew)) {
			return permFault("creation date is invalid or in the future")
		}
	}
	if t.Has("x") {
		if r.Expires, ok = parseTime(t.Text("x")); !ok || r.Expires.Before(r.Created) {
			return permFault("invalid expiration date")
		}
		if now.After(r.Expires.Add(skew)) {
			return permFault("signature expired")
		}
	}
	return nil
}

// parseTime reads seconds since 1970, at most 12 digits (RFC 6376 section 3.5).
func parseTime(s string) (time.Time, bool) {
	// Longer numbers than the grammar has would be times that no clock reaches.
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || len(s) > 12 {
		return time.Time{}, false
	}
	return time.Unix(int64(n), 0), true
}

// parseCanonicalizations reads c=: that of the header, and that of the body if it is
// another than simple.
func parseCanonicalizations(s string) (header, body canon.Algorithm, err error) {
	if s == "" {
		return canon.Simple, canon.Simple, nil
	}
	first, second, both := strings.Cut(strings.ToLower(s), "/")
	if header, err = canon.ParseAlgorithm(first); err == nil && both {
		body, err = canon.ParseAlgorithm(second)
	}
	return header, body, err
}

// canonicalName returns a domain as it is looked up, or "" if it is none.
func canonicalName(domain string) string {
	// Neither an address nor a name with an empty label can be looked up.
	name := mail.CanonicalDomain(domain)
	if name == "" || strings.HasSuffix(name, ".") || strings.HasPrefix(name, "[") {
		return ""
	}
	return name
}
