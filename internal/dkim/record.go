package dkim

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"tarishi/internal/dkim/canon"
	"tarishi/internal/dns"
)

// The accepted sizes of RSA keys, in bits (RFC 8301 section 3.2).
// The work that a larger one costs is its owner's to choose.
const (
	minKeyBits = 1024
	maxKeyBits = 8192
)

// PublicKey is what a key record holds (RFC 6376 section 3.6.1).
type PublicKey struct {
	Bits    int              // of an RSA key
	Testing bool             // t=y
	strict  bool             // t=s: i= has the very domain of d=
	key     crypto.PublicKey // *rsa.PublicKey or ed25519.PublicKey
}

// parseKeys reads the records at the name of a key. One of them must be a key record:
// others may stand there by a wildcard. The error is a *fault.
func parseKeys(records []string, algorithm string) (*PublicKey, error) {
	// A wildcard record may answer for the name too.
	var found []canon.Tags
	for _, text := range records {
		if t, err := canon.ParseTags(text); err == nil && t.Has("p") {
			found = append(found, t)
		}
	}
	switch {
	case len(found) == 1:
		return readKey(found[0], algorithm)
	case len(found) > 1:
		return nil, permFault("multiple DNS records found")
	case len(records) == 0:
		return nil, permFault("no key for signature")
	}
	return nil, permFault("inapplicable key")
}

// readKey reads a key record that a signature of that algorithm refers to.
func readKey(t canon.Tags, algorithm string) (*PublicKey, error) {
	// The version is optional, but where it is given it stands first (RFC 6376 section 3.6.1).
	if t.Has("v") && (t.Text("v") != "DKIM1" || t[0].Name != "v") {
		return nil, permFault("invalid version")
	}
	// A key is for the signatures that its owner meant it for.
	kind := strings.ToLower(t.Text("k"))
	if kind == "" {
		kind = "rsa"
	}
	uses, hashes := t.List("s"), t.List("h")
	switch {
	case uses != nil && !slices.Contains(uses, "*") && !slices.Contains(uses, "email"):
		return nil, permFault("inapplicable key")
	case hashes != nil && !slices.Contains(hashes, "sha256"):
		return nil, permFault("inappropriate hash algorithm")
	case kind+"-sha256" != algorithm:
		return nil, permFault("inappropriate key type")
	case t.Text("p") == "":
		return nil, permFault("key revoked")
	}

	// The two kinds have different forms.
	der, err := base64.StdEncoding.DecodeString(t.Text("p"))
	if err != nil {
		return nil, permFault("invalid key")
	}
	flags := t.List("t")
	k := &PublicKey{Testing: slices.Contains(flags, "y"), strict: slices.Contains(flags, "s")}
	if kind == "ed25519" {
		if len(der) != ed25519.PublicKeySize { // the bare key, RFC 8463 section 4
			return nil, permFault("invalid key")
		}
		k.key = ed25519.PublicKey(der)
		return k, nil
	}
	return k, k.readRSA(der)
}

// readRSA reads an RSA key in the form of PKIX or, as erratum 3017 of RFC 6376 has it,
// that of PKCS #1.
func (k *PublicKey) readRSA(der []byte) error {
	// The example of the RFC and its grammar differ, and keys of both kinds are in use.
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		if parsed, err = x509.ParsePKCS1PublicKey(der); err != nil {
			return permFault("invalid key")
		}
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return permFault("inappropriate key type")
	}
	// Too short a key can be broken, too long a one is work for every receiver.
	k.key, k.Bits = key, key.N.BitLen()
	if k.Bits < minKeyBits {
		return &fault{Policy, "key is too short"}
	}
	if k.Bits > maxKeyBits {
		return &fault{Policy, "key is too long"}
	}
	return nil
}

// Verify reports whether signed is the key's signature of what has that hash.
func (k *PublicKey) Verify(sum [sha256.Size]byte, signed []byte) bool {
	// The hash is made by the caller, once for all keys that are tried.
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signed) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, sum[:], signed) // of the hash: RFC 8463 section 3
	}
	return false
}

// LookupKey returns the key that a signature of some algorithm refers to, such as
// "rsa-sha256". StatusOf tells what an error is.
func LookupKey(ctx context.Context, resolver Resolver, selector, domain, algorithm string) (*PublicKey, error) {
	name := canonicalName(domain)
	if name == "" {
		return nil, permFault("no key for signature")
	}
	// A name that cannot be asked for has no key, and that will not change.
	records, err := resolver.TXT(ctx, selector+"._domainkey."+name)
	switch {
	case err == nil:
		return parseKeys(records, algorithm)
	case dns.IsNXDomain(err) || dns.IsNoData(err):
		return nil, permFault("no key for signature")
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &fault{TempError, "DNS timeout"}
	}
	return nil, &fault{TempError, "key unavailable"}
}
