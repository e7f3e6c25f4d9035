// Package dane holds a server's certificate against the TLSA records of its
// name, as SMTP does it (RFC 7672, on RFC 6698 and RFC 7671). It looks nothing up:
// the caller has the records and knows that they are secure (DNSSEC).
//
// Only the usages DANE-TA(2) and DANE-EE(3) are usable; PKIX-TA(0) and
// PKIX-EE(1) are not (RFC 7672 section 3.1.3), nor are records of unknown
// parameters, of digests of the wrong length or of data that does not parse. A
// server that has usable records must match one of them. One that has only
// unusable ones must be spoken to over TLS, without authentication (RFC 7672
// section 2.2); one that has none at all is none of this package's business.
package dane

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Record is one TLSA record (RFC 6698 section 2.1).
type Record struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}

// The values of the fields that are usable.
const (
	usageTA = 2 // DANE-TA
	usageEE = 3 // DANE-EE

	selectorCertificate = 0
	selectorKey         = 1

	matchExact  = 0
	matchSHA256 = 1
	matchSHA512 = 2
)

// Policy is what a server must show.
type Policy struct {
	records []Record
	names   []string
	key     string
}

// New returns the policy that records make for a server that may be called by
// any of names: the name under which the records were found comes first, then
// the mail exchanger's, the domain's and what that is an alias of (RFC 7672
// section 3.2.2). It is nil when none of the records is usable.
func New(records []Record, names ...string) *Policy {
	p := &Policy{names: names}
	for _, r := range records {
		if r.isUsable() {
			p.records = append(p.records, r)
		}
	}
	if len(p.records) == 0 {
		return nil
	}

	// The order of records in an answer changes. Sorted, they give one key for one policy, and so
	// share pooled connections.
	p.preferStrong()
	slices.SortFunc(p.records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Usage, b.Usage), cmp.Compare(a.Selector, b.Selector),
			cmp.Compare(a.MatchingType, b.MatchingType), bytes.Compare(a.Data, b.Data))
	})
	sum := sha256.New()
	for _, r := range p.records {
		fmt.Fprintf(sum, "%d %d %d %x\n", r.Usage, r.Selector, r.MatchingType, r.Data)
	}
	fmt.Fprintf(sum, "%q", names)
	p.key = hex.EncodeToString(sum.Sum(nil))
	return p
}

// Key is the same for policies that ask for the same, and only for those.
func (p *Policy) Key() string { return p.key }

func (r Record) isUsable() bool {
	if r.Usage != usageTA && r.Usage != usageEE {
		return false
	}
	if r.Selector != selectorCertificate && r.Selector != selectorKey {
		return false
	}

	// Data that cannot match anything must not count as usable: mail would be held back over a
	// record that RFC 7672 wants ignored.
	switch r.MatchingType {
	case matchSHA256:
		return len(r.Data) == sha256.Size
	case matchSHA512:
		return len(r.Data) == sha512.Size
	case matchExact:
		var err error
		if r.Selector == selectorCertificate {
			_, err = x509.ParseCertificate(r.Data)
		} else {
			_, err = x509.ParsePKIXPublicKey(r.Data)
		}
		return err == nil
	}
	return false
}

// preferStrong drops SHA-256 records beside SHA-512 ones of the same usage and
// selector (digest agility, RFC 7671 section 9).
func (p *Policy) preferStrong() {
	strong := func(r Record) bool {
		return slices.ContainsFunc(p.records, func(o Record) bool {
			return o.MatchingType == matchSHA512 && o.Usage == r.Usage && o.Selector == r.Selector
		})
	}
	var kept []Record
	for _, r := range p.records {
		if r.MatchingType != matchSHA256 || !strong(r) {
			kept = append(kept, r)
		}
	}
	p.records = kept
}

func (r Record) matches(c *x509.Certificate) bool {
	b := c.Raw
	if r.Selector == selectorKey {
		b = c.RawSubjectPublicKeyInfo
	}
	switch r.MatchingType {
	case matchSHA256:
		sum := sha256.Sum256(b)
		b = sum[:]
	case matchSHA512:
		sum := sha512.Sum512(b)
		b = sum[:]
	}
	return bytes.Equal(b, r.Data)
}

// Verify says why the server of a connection is not the one that the policy
// asks for, nil if it is. Its signature is that of tls.Config.VerifyConnection.
//
// With DANE-EE the leaf only has to match: its names and dates do not count
// (RFC 7672 section 3.1.1). With DANE-TA it must have one of the policy's names
// and a valid chain to a certificate that matches, which need not be self-signed
// (section 3.1.2).
func (p *Policy) Verify(cs tls.ConnectionState) error {
	return p.verify(cs.PeerCertificates, time.Now())
}

func (p *Policy) verify(shown []*x509.Certificate, now time.Time) error {
	if len(shown) == 0 {
		return errors.New("dane: the server showed no certificate")
	}

	// Usage 3 settles the question with the leaf alone. Usage 2 only yields anchors, and the chain
	// is verified after all records have been seen.
	anchors := x509.NewCertPool()
	anchored := false
	for _, r := range p.records {
		if r.Usage == usageEE {
			if r.matches(shown[0]) {
				return nil
			}
			continue
		}
		for _, c := range shown[1:] {
			if r.matches(c) {
				anchors.AddCert(c)
				anchored = true
			}
		}
		// An anchor that is in the record itself need not be shown.
		if r.MatchingType == matchExact && r.Selector == selectorCertificate {
			if c, err := x509.ParseCertificate(r.Data); err == nil {
				anchors.AddCert(c)
				anchored = true
			}
		}
	}
	if !anchored {
		return errors.New("dane: the certificate matches no TLSA record")
	}

	// Certificates that the server sent may link the leaf to an anchor, but are trusted for
	// nothing.
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	_, err := shown[0].Verify(x509.VerifyOptions{
		Roots: anchors, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("dane: no chain to what a TLSA record matches: %w", err)
	}

	// With DANE-TA the anchor may have issued certificates for anybody, so the name has to fit as
	// well.
	for _, name := range p.names {
		if isCertifiedFor(shown[0], name) {
			return nil
		}
	}
	return fmt.Errorf("dane: the certificate is for none of %s", strings.Join(p.names, ", "))
}

// isCertifiedFor reports whether c is for a host. The common name counts where a
// certificate has no DNS name (RFC 7672 section 3.2.3).
func isCertifiedFor(c *x509.Certificate, host string) bool {
	if len(c.DNSNames) == 0 && c.Subject.CommonName != "" {
		c = &x509.Certificate{DNSNames: []string{c.Subject.CommonName}}
	}
	return c.VerifyHostname(host) == nil
}
