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
	"slices"
	"sync/atomic"

	"tarishi/internal/tlsconf/selection"
)

// ErrNoCertificate is returned by Server when no file and no folder is given.
var ErrNoCertificate = errors.New("tls: no certificate is configured")

// Server makes the configuration of a server: it shows the certificate that fits the name that
// the client asks for (RFC 6066 section 3), else a standard one, and of several the cheapest
// that the client takes. The standard one is the first of the pairs of Key and Cert, in which a
// certificate file holds the leaf first and then its chain, and key and certificate may be the
// same file; without any it is the one in Folder for our name, me, or the first there.
//
// A client that offers application protocols and not "smtp" is refused, so that
// a request meant for another protocol cannot end up in a mail session.
func (f *Files) Server(o *Settings, me string) (*Server, error) {
	if len(o.Key) == 0 && len(o.Cert) == 0 && o.Folder == "" {
		return nil, ErrNoCertificate
	}
	if len(o.Key) != len(o.Cert) {
		return nil, fmt.Errorf("tls: %d key files for %d certificate files: they go in pairs", len(o.Key), len(o.Cert))
	}
	var sources []*source
	for i := range o.Key {
		sources = append(sources, f.source(place{key: o.Key[i], cert: o.Cert[i]}))
	}
	if o.Folder != "" {
		sources = append(sources, f.source(place{dir: o.Folder}))
	}

	// The clients that connect get what is current then.
	server := &Server{Config: &tls.Config{MinVersion: lowest(o.MinVersion), CipherSuites: o.Ciphers, NextProtos: []string{"smtp"}}}
	bare, asking := &atomic.Pointer[tls.Config]{}, &atomic.Pointer[tls.Config]{}
	empty := false
	err := f.use(func() {
		all := certificates(sources, len(o.Key) == 0, me)
		if empty = len(all) == 0; empty {
			return
		}
		c := server.Config.Clone()
		c.GetConfigForClient = nil // this is its answer
		c.GetCertificate = selection.New(all).Choose
		bare.Store(c)
		c = c.Clone()
		c.ClientAuth = tls.RequestClientCert // session verifies it, and says what is wrong
		asking.Store(c)
	}, sources...)
	switch {
	case err != nil:
		return nil, err
	case empty:
		return nil, fmt.Errorf("tls: %s holds no usable certificate", o.Folder)
	}

	server.Config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return bare.Load(), nil }
	if o.AsksClients() {
		config := server.Config.Clone()
		config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return asking.Load(), nil }
		server.Clients, err = f.clients(o, config)
	}
	return server, err
}

// certificates returns those of sources, the standard one first. Without files that the
// settings name it is the one for our own name.
func certificates(sources []*source, unnamed bool, me string) []tls.Certificate {
	var all []tls.Certificate
	for _, s := range sources {
		for _, p := range s.certificates() {
			all = append(all, p.Certificate)
		}
	}
	if !unnamed {
		return all
	}
	own := slices.IndexFunc(all, func(c tls.Certificate) bool { return c.Leaf.VerifyHostname(me) == nil })
	if own > 0 {
		all[0], all[own] = all[own], all[0]
	}
	return all
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
