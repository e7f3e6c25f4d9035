package dkim

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/dkim/canon"
	"tarishi/internal/mail"
)

// Key signs for a domain. Its public half stands in the DNS, at
// Selector._domainkey.DOMAIN.
type Key struct {
	Selector string
	Private  crypto.Signer // *rsa.PrivateKey or ed25519.PrivateKey
}

var errKeyKind = errors.New("dkim: neither an RSA nor an Ed25519 key")

// algorithm returns the a= of the key's signatures.
func (k Key) algorithm() (string, error) {
	switch k.Private.(type) {
	case *rsa.PrivateKey:
		return rsaSHA256, nil
	case ed25519.PrivateKey:
		return ed25519SHA256, nil
	}
	return "", errKeyKind
}

// Signing is how messages are signed.
type Signing struct {
	// Headers are the fields that are signed, every one of each name. From is
	// signed anyway.
	Headers []string
	// Sealed are those of Headers that nobody may add another one of: they are
	// signed once more than they occur (RFC 6376 section 8.15).
	Sealed []string
	// Header and Body are how the message is canonicalized.
	Header, Body canon.Algorithm
}

// Sign returns the DKIM-Signature fields of a message, one for each key, with their line
// ends. They belong in front of the message, which must not change any more:
// mail.WithHead(fields, c, 0). The message is read once, whatever the number of keys,
// and must have a From field.
func Sign(c mail.Content, domain string, keys []Key, p *Signing, now time.Time) (fields []byte, err error) {
	// The body is hashed once for all keys.
	var whole *canon.Section
	body := canon.NewBodyHash(p.Body, sha256.New())
	err = canon.Scan(c, func(section *canon.Section) error {
		whole = section
		return nil
	}, body.Add)
	if err != nil {
		return nil, err
	}
	if len(whole.Find("from")) == 0 {
		return nil, errNoFrom
	}

	// What the keys have in common is made once.
	names := p.signedNames(whole)
	draft := &draft{
		how: p, domain: domain, now: now, names: names,
		hashed: base64.StdEncoding.EncodeToString(body.Finish()),
	}
	picked, size := whole.Pick(names), 0
	for _, f := range picked {
		size += len(f)
	}
	draft.signed = make([]byte, 0, size) // canonical forms are seldom longer
	for _, f := range picked {
		draft.signed = p.Header.AppendField(draft.signed, f)
	}
	for _, k := range keys {
		if fields, err = draft.sign(fields, k); err != nil {
			return nil, fmt.Errorf("dkim: key %s of %s: %w", k.Selector, domain, err)
		}
	}
	return fields, nil
}

var crlf = []byte("\r\n")

var errNoFrom = errors.New("dkim: no From field")

// IsUnsignable reports whether an error of Sign is about the message itself, so that no
// other attempt fares better: it has no From, no field at all, or too many.
func IsUnsignable(err error) bool {
	return errors.Is(err, errNoFrom) || errors.Is(err, canon.ErrNoField) || errors.Is(err, canon.ErrLong)
}

// maxRepeats bounds how often a name can stand in h=: a field that occurs more often is
// not signed above that.
const maxRepeats = 100

// signedNames returns the names for h=, in lower case.
func (p *Signing) signedNames(whole *canon.Section) []string {
	var names []string
	counted := map[string]bool{}
	add := func(name string, extra int) {
		name = strings.ToLower(name)
		if counted[name] {
			return
		}
		counted[name] = true
		for range min(len(whole.Find(name)), maxRepeats) + extra {
			names = append(names, name)
		}
	}

	// A sealed name stands first wherever it is in the other list.
	for _, name := range p.Sealed {
		add(name, 1)
	}
	add("from", 0)
	for _, name := range p.Headers {
		add(name, 0)
	}
	return names
}

// draft is what the signatures of one message have in common.
type draft struct {
	how            *Signing
	domain, hashed string // d=, bh=
	names          []string
	now            time.Time
	signed         []byte // the canonical fields
}

// maxLine is how long the lines of a field become, in octets without their end.
const maxLine = 76

// sign adds the field of one key.
func (d *draft) sign(fields []byte, k Key) ([]byte, error) {
	// One draft serves keys of both kinds; only this part differs.
	algorithm, err := k.algorithm()
	if err != nil {
		return nil, err
	}
	// Lines end where receivers and people expect it, and only between the parts of a value.
	var b strings.Builder
	b.WriteString(fieldName + ": v=1; a=" + algorithm + "; c=" + d.how.Header.String() + "/" + d.how.Body.String() + ";\r\n")
	b.WriteString("\td=" + d.domain + "; s=" + k.Selector + "; t=" + strconv.FormatInt(d.now.Unix(), 10) + ";\r\n")
	b.WriteString("\th=")
	used := len("\th=")
	for i, name := range d.names {
		if i > 0 {
			b.WriteByte(':')
			used++
		}
		if used+len(name) >= maxLine {
			b.WriteString("\r\n\t ")
			used = len("\t ")
		}
		b.WriteString(name)
		used += len(name)
	}
	b.WriteString(";\r\n\tbh=" + d.hashed + ";\r\n\tb=")

	// The signature covers its own field too, with an empty b=.
	own := b.String()
	digest := sha256.New()
	digest.Write(d.signed)
	digest.Write(bytes.TrimSuffix(d.how.Header.AppendField(make([]byte, 0, len(own)+len(crlf)), []byte(own)), crlf))
	sum := digest.Sum(nil)
	hash := crypto.Hash(crypto.SHA256)
	if algorithm == ed25519SHA256 {
		hash = crypto.Hash(0) // the sum is the message that is signed: RFC 8463 section 3
	}
	signature, err := k.Private.Sign(nil, sum, hash)
	if err != nil {
		return nil, err
	}
	fields = append(fields, own...)
	return appendFolded(fields, base64.StdEncoding.EncodeToString(signature)), nil
}

// appendFolded adds the value of b= and the field's end.
func appendFolded(b []byte, text string) []byte {
	// Folds in base64 are blanks, which receivers drop.
	for n := maxLine - len("\tb="); len(text) > n; n = maxLine - 1 {
		b = append(append(b, text[:n]...), "\r\n\t"...)
		text = text[n:]
	}
	return append(append(b, text...), crlf...)
}
