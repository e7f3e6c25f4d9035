package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Client makes the configuration of connections to other servers. ca is a PEM
// file of the roots to trust instead of the system's, "": the system's. key and
// cert are a pair of PEM files to show to servers that ask for a client
// certificate; both "": none. minVersion is as for Server. Whether a server's
// certificate is verified at all is the caller's policy.
func Client(ca, key, cert string, minVersion uint16) (*tls.Config, error) {
	if minVersion == 0 {
		minVersion = tls.VersionTLS12
	}
	c := &tls.Config{MinVersion: minVersion}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: %s holds no certificate", ca)
		}
	}
	if key != "" || cert != "" {
		pair, err := load(key, cert)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
