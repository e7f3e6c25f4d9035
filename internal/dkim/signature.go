package dkim

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

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
	header, body   Canonicalization
	hashed, signed []byte // bh=, b=
}

// parseSignature reads a field and fills in what the result says of it. The error is a
// *fault.
func parseSignature(field []byte, now time.Time, skew time.Duration, r *Result) (*signature, error) {
	text := value(field)
	t, err := parseTags(text)
	if err != nil {
		return nil, permFault("header parse error")
	}

	// Results are kept: what nobody's name can be has no place in them.
	for _, name := range []string{"a", "d", "s", "i"} {
		if len(t.text(name)) > maxName {
			return nil, permFault("header parse error")
		}
	}
	r.Domain, r.Selector = strings.ToLower(t.text("d")), strings.ToLower(t.text("s"))
	r.Algorithm, r.Headers = strings.ToLower(t.text("a")), t.list("h")
	r.Start = t.text("b")[:min(8, len(t.text("b")))]
	if err := checkTags(t); err != nil {
		return nil, err
	}
	if err := readIdentity(t, r); err != nil {
		return nil, err
	}
	if err := readTimes(t, now, skew, r); err != nil {
		return nil, err
	}

	// What is signed, and how.
	s := &signature{field: field}
	if s.header, s.body, err = parseCanonicalizations(t.text("c")); err != nil {
		return nil, permFault("unknown canonicalization")
	}
	if s.hashed, err = base64.StdEncoding.DecodeString(t.text("bh")); err != nil {
		return nil, permFault("header parse error")
	}
	if s.signed, err = base64.StdEncoding.DecodeString(t.text("b")); err != nil {
		return nil, permFault("header parse error")
	}
	for i, name := range r.Headers {
		r.Headers[i] = strings.ToLower(name)
	}
	if !slices.Contains(r.Headers, "from") {
		return nil, permFault("from field not signed")
	}
	b, offset := t.find("b"), len(field)-len(text)
	s.blank = [2]int{offset + b.start, offset + b.end}
	return s, nil
}

// checkTags reports what is missing in a signature, and what is never accepted.
func checkTags(t tags) error {
	switch {
	case !t.has("v"):
		return permFault("missing version")
	case t.text("v") != "1":
		return permFault("incompatible version")
	case t.has("l"):
		return &fault{Policy, "length tag is unsupported"}
	}
	switch strings.ToLower(t.text("a")) {
	case rsaSHA256, ed25519SHA256:
	case "":
		return permFault("missing algorithm")
	case "rsa-sha1":
		return permFault("rsa-sha1 is insecure and not supported")
	default:
		return permFault("invalid algorithm")
	}
	switch {
	case t.text("b") == "":
		return permFault("signature missing")
	case t.text("bh") == "":
		return permFault("body hash missing")
	case t.text("d") == "":
		return permFault("domain missing")
	case t.text("s") == "":
		return permFault("no key for signature")
	case t.text("h") == "":
		return permFault("signed headers missing")
	case t.has("q") && !slices.Contains(t.list("q"), "dns/txt"):
		return permFault("unknown query method")
	}
	return nil
}

// readIdentity reads i=, which must be in d= or below.
func readIdentity(t tags, r *Result) error {
	r.Identity = t.text("i")
	if !t.has("i") {
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
func readTimes(t tags, now time.Time, skew time.Duration, r *Result) error {
	var ok bool
	if t.has("t") {
		if r.Created, ok = parseTime(t.text("t")); !ok || r.Created.After(now.Add(skew)) {
			return permFault("creation date is invalid or in the future")
		}
	}
	if t.has("x") {
		if r.Expires, ok = parseTime(t.text("x")); !ok || r.Expires.Before(r.Created) {
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
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || len(s) > 12 {
		return time.Time{}, false
	}
	return time.Unix(int64(n), 0), true
}

// parseCanonicalizations reads c=: that of the header, and that of the body if it is
// another than simple.
func parseCanonicalizations(s string) (header, body Canonicalization, err error) {
	if s == "" {
		return Simple, Simple, nil
	}
	first, second, both := strings.Cut(strings.ToLower(s), "/")
	if header, err = ParseCanonicalization(first); err == nil && both {
		body, err = ParseCanonicalization(second)
	}
	return header, body, err
}

// signedHeader returns what the signature was made of: the canonical fields, and its own
// without the value of b= and without a line end.
func (s *signature) signedHeader(fields [][]byte) []byte {
	size := len(s.field)
	for _, f := range fields {
		size += len(f)
	}
	b := make([]byte, 0, size)
	for _, f := range fields {
		b = s.header.appendField(b, f)
	}
	own := append(s.field[:s.blank[0]:s.blank[0]], s.field[s.blank[1]:]...)
	b = s.header.appendField(b, own)
	return trimLineEnd(b)
}

func trimLineEnd(b []byte) []byte {
	if n := len(b); n >= 2 && b[n-2] == '\r' && b[n-1] == '\n' {
		return b[:n-2]
	}
	return b
}

// canonicalName returns a domain as it is looked up, or "" if it is none.
func canonicalName(domain string) string {
	name := mail.CanonicalDomain(domain)
	if name == "" || strings.HasSuffix(name, ".") || strings.HasPrefix(name, "[") {
		return ""
	}
	return name
}
