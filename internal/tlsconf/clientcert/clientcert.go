// Package clientcert verifies the certificates that clients show: by the authorities that are
// trusted with that, and by lists of revoked certificates (RFC 5280).
package clientcert

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Verifier verifies certificates. It never changes.
type Verifier struct {
	roots *x509.CertPool
	lists []list
	crl   bool
}

// list is a list of revoked certificates.
type list struct {
	*x509.RevocationList
	revoked map[string]struct{} // serial numbers
}

// ErrNone is the error of a client that shows no certificate.
var ErrNone = errors.New("no certificate was shown")

// New returns a Verifier with authorities; nil: the system's. If lists is not nil, a
// certificate counts only when a list of its authority that has not expired says nothing
// against it, and so does one for each authority between it and the root.
func New(roots *x509.CertPool, lists []*x509.RevocationList) *Verifier {
	v := &Verifier{roots: roots, crl: lists != nil}
	for _, one := range lists {
		l := list{one, make(map[string]struct{}, len(one.RevokedCertificateEntries))}
		for i := range one.RevokedCertificateEntries {
			l.revoked[string(one.RevokedCertificateEntries[i].SerialNumber.Bytes())] = struct{}{}
		}
		v.lists = append(v.lists, l)
	}
	return v
}

// Verify returns nil if a chain, the client's own certificate first, is good for a client at a
// time.
func (v *Verifier) Verify(chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return ErrNone
	}
	between := x509.NewCertPool()
	for _, one := range chain[1:] {
		between.AddCert(one)
	}
	ways, err := chain[0].Verify(x509.VerifyOptions{
		Roots: v.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil || !v.crl {
		return err
	}

	// One way to a root without a revoked certificate is enough.
	for _, way := range ways {
		if err = v.checkRevocation(way, now); err == nil {
			return nil
		}
	}
	return err
}

// checkRevocation looks for each certificate on the way to a root into the lists of its
// authority.
func (v *Verifier) checkRevocation(way []*x509.Certificate, now time.Time) error {
	for i, one := range way[:len(way)-1] {
		err := fmt.Errorf("there is no list of revoked certificates of %s", one.Issuer)
		for _, l := range v.lists {
			if !bytes.Equal(l.RawIssuer, one.RawIssuer) || l.CheckSignatureFrom(way[i+1]) != nil || now.Before(l.ThisUpdate) {
				continue
			}
			// What was revoked once stays so, even if the list is too old to say that others are not.
			if _, revoked := l.revoked[string(one.SerialNumber.Bytes())]; revoked {
				return fmt.Errorf("the certificate of %s has been revoked", one.Subject)
			}
			if !l.NextUpdate.IsZero() && now.After(l.NextUpdate) {
				if err != nil {
					err = fmt.Errorf("the list of revoked certificates of %s has expired", one.Issuer)
				}
				continue
			}
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ParseLists reads lists of revoked certificates, in PEM form or one in DER.
func ParseLists(data []byte) ([]*x509.RevocationList, error) {
	var all []*x509.RevocationList
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		one, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	if len(all) > 0 {
		return all, nil
	}
	one, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, errors.New("no list of revoked certificates (X509 CRL)")
	}
	return []*x509.RevocationList{one}, nil
}
