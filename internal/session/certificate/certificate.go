// Package certificate is what a session knows of TLS and of the certificate that its client
// has shown.
package certificate

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/hook"
)

// Describe returns what hooks see of a connection under TLS. Whether the certificate verifies
// is not known yet.
func Describe(state tls.ConnectionState) hook.TLS {
	t := hook.TLS{Enabled: true, Version: strings.Replace(tls.VersionName(state.Version), " ", "v", 1), Cipher: tls.CipherSuiteName(state.CipherSuite)}
	if len(state.PeerCertificates) > 0 {
		t.Certificate = describe(state.PeerCertificates[0])
	}
	return t
}

func describe(leaf *x509.Certificate) *hook.Certificate {
	sum := sha256.Sum256(leaf.Raw)
	c := &hook.Certificate{
		Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Fingerprint: hex.EncodeToString(sum[:]), NotAfter: leaf.NotAfter.UTC(),
	}
	for _, name := range append([]string{leaf.Subject.CommonName}, append(leaf.DNSNames, leaf.EmailAddresses...)...) {
		if name != "" {
			c.Names = append(c.Names, name)
		}
	}
	return c
}

// Check finds out whether what the client has shown verifies, and leaves that with the
// connection.
func Check(c *hook.Connection, verify func() error) {
	err := verify()
	if c.TLS.Verified = err == nil; err != nil {
		c.TLS.VerifyError = err.Error()
	}
	c.Notes["tls"] = note(c.TLS)
}

// Log logs a certificate that was shown.
func Log(log *zap.Logger, t hook.TLS) {
	if c := t.Certificate; c != nil {
		log.Info("client certificate", zap.String("subject", c.Subject), zap.String("issuer", c.Issuer), zap.String("fingerprint", c.Fingerprint),
			zap.Bool("verified", t.Verified), zap.String("reason", t.VerifyError))
	}
}

// note is the note "tls" of a connection whose client was asked for a certificate, as Haraka
// has it.
func note(t hook.TLS) map[string]any {
	note := map[string]any{
		"authorized": t.Verified, "authorizationError": t.VerifyError, "cipher": map[string]any{"name": t.Cipher, "version": t.Version},
	}
	if c := t.Certificate; c != nil {
		note["peerCertificate"] = map[string]any{"subject": c.Subject, "issuer": c.Issuer, "fingerprint256": c.Fingerprint}
	}
	return note
}
