// Package tlsconf makes TLS configurations out of certificate files and follows
// the files: what replaces them is in use for the next handshake. Every error
// names the file that is at fault.
package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// ErrNoCertificate is returned by Server when no file is given.
var ErrNoCertificate = errors.New("tls: no certificate is configured")

// Server loads pairs of PEM files, keys[i] with certs[i], and returns the
// configuration of a server that shows one of them: the one that fits the name
// the client asks for (RFC 6066 section 3), else the first. A certificate file
// holds the leaf first and then its chain; key and certificate may be the same
// file. minVersion is a tls.VersionTLS constant; 0 is TLS 1.2. ciphers are the suites
// of TLS 1.2 and before; none leaves them to the library.
//
// A client that offers application protocols and not "smtp" is refused, so that
// a request meant for another protocol cannot end up in a mail session.
func (f *Files) Server(keys, certs []string, minVersion uint16, ciphers []uint16) (*tls.Config, error) {
	if len(keys) == 0 && len(certs) == 0 {
		return nil, ErrNoCertificate
	}
	if len(keys) != len(certs) {
		return nil, fmt.Errorf("tls: %d key files for %d certificate files: they go in pairs", len(keys), len(certs))
	}
	pairs := make([]*source, len(keys))
	for i := range keys {
		pairs[i] = f.source(keys[i], certs[i], "")
	}
	config := &tls.Config{MinVersion: lowest(minVersion), CipherSuites: ciphers, NextProtos: []string{"smtp"}}
	current := &atomic.Pointer[tls.Config]{}
	err := f.use(func() {
		c := config.Clone()
		c.GetConfigForClient = nil // this is its answer
		for _, s := range pairs {
			c.Certificates = append(c.Certificates, s.pair)
		}
		current.Store(c)
	}, pairs...)
	if err != nil {
		return nil, err
	}
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil }
	return config, nil
}

func lowest(version uint16) uint16 {
	if version == 0 {
		return tls.VersionTLS12
	}
	return version
}

// load reads one pair. The parts are checked one after the other so that the
// error can say which file is wrong.
func load(key, cert string) (tls.Certificate, error) {
	keyPEM, err := os.ReadFile(key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls key: %w", err)
	}
	certPEM, err := os.ReadFile(cert)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls certificate: %w", err)
	}
	if !hasBlock(certPEM, func(t string) bool { return t == "CERTIFICATE" }) {
		return tls.Certificate{}, fmt.Errorf("tls certificate: %s holds no PEM block CERTIFICATE", cert)
	}
	if !hasBlock(keyPEM, func(t string) bool {
		return t == "PRIVATE KEY" || t == "RSA PRIVATE KEY" || t == "EC PRIVATE KEY"
	}) {
		return tls.Certificate{}, fmt.Errorf("tls key: %s holds no unencrypted PEM private key", key)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls: %s and %s do not make a pair: %w", key, cert, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return tls.Certificate{}, fmt.Errorf("tls certificate: %s: %w", cert, err)
		}
	}
	return pair, nil
}

func authorities(file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("tls ca: %s holds no certificate", file)
	}
	return roots, nil
}

func hasBlock(b []byte, is func(blockType string) bool) bool {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return false
		}
		if is(block.Type) {
			return true
		}
	}
}
