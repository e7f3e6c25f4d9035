// Package selection chooses the certificate that a client is shown: one for the name that it
// asks for (RFC 6066 section 3), and of several the cheapest to sign with that it takes.
package selection

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math"
	"slices"
	"strings"
)

// Chooser knows the certificates of a server. It never changes.
type Chooser struct {
	byName   map[string][]*tls.Certificate // in lower case; "*.example.com" stands for itself
	standard []*tls.Certificate            // for clients that ask for no name, or for another
}

// New returns a Chooser of certificates with their leaves, at least one. The standard ones are
// those with a name in common with the first.
func New(certificates []tls.Certificate) *Chooser {
	c := &Chooser{byName: map[string][]*tls.Certificate{}}
	for i := range certificates {
		for _, name := range Names(certificates[i].Leaf) {
			c.byName[name] = append(c.byName[name], &certificates[i])
		}
	}

	// The cheapest first; among equals the order is that of the settings.
	for _, all := range c.byName {
		slices.SortStableFunc(all, byCost)
	}
	first := Names(certificates[0].Leaf)
	shares := func(name string) bool { return slices.Contains(first, name) }
	for i := range certificates {
		if i == 0 || slices.ContainsFunc(Names(certificates[i].Leaf), shares) {
			c.standard = append(c.standard, &certificates[i])
		}
	}
	slices.SortStableFunc(c.standard, byCost)
	return c
}

// Names returns the names that a certificate is for, in lower case: its DNS names, and its
// common name, as Haraka has it.
func Names(leaf *x509.Certificate) []string {
	var all []string
	for _, name := range append(slices.Clone(leaf.DNSNames), leaf.Subject.CommonName) {
		if name = canonical(name); name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Choose is for tls.Config.GetCertificate.
func (c *Chooser) Choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	candidates := c.candidates(hello.ServerName)
	if len(candidates) == 1 {
		return candidates[0], nil
	}
	// The name has decided already, and need not be the one in the certificate.
	nameless := *hello
	nameless.ServerName = ""
	for _, one := range candidates {
		if nameless.SupportsCertificate(one) == nil {
			return one, nil
		}
	}
	return candidates[len(candidates)-1], nil // whose kind is the oldest
}

// candidates returns the certificates for a name, the cheapest first.
func (c *Chooser) candidates(name string) []*tls.Certificate {
	name = canonical(name)
	if name == "" {
		return c.standard
	}
	if all := c.byName[name]; all != nil {
		return all
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if all := c.byName["*."+parent]; all != nil {
			return all
		}
	}
	return c.standard
}

func byCost(a, b *tls.Certificate) int { return cost(a.Leaf) - cost(b.Leaf) }

// cost orders keys by the time that a signature takes.
func cost(leaf *x509.Certificate) int {
	switch key := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if bits := key.Params().BitSize; bits > 256 {
			return bits
		}
		return 1
	case ed25519.PublicKey:
		return 2
	case *rsa.PublicKey:
		return 1000 + key.N.BitLen()
	}
	return math.MaxInt32
}
