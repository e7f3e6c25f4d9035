package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"tarishi/internal/conf"
)

// Client makes the configuration of connections to other servers: the roots to
// trust (the system's unless CA names a PEM file), the pair of PEM files to show
// to servers that ask for a client certificate, the lowest version (0: TLS 1.2)
// and the cipher suites below TLS 1.3. The lists of hosts, and whether a server's
// certificate is verified at all, are the caller's policy.
func Client(o conf.TLSOutbound) (*tls.Config, error) {
	c := &tls.Config{MinVersion: o.MinVersion, CipherSuites: o.Ciphers}
	if c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS12
	}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: %s holds no certificate", o.CA)
		}
	}
	if o.Key != "" || o.Cert != "" {
		pair, err := load(o.Key, o.Cert)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
