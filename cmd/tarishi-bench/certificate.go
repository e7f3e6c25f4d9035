package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"tarishi/internal/test/load/instance"
)

// keyKind is a kind of private key; "": no certificate at all.
type keyKind string

const (
	ecdsaKey keyKind = "ecdsa"
	rsaKey   keyKind = "rsa"
)

// Where a server's key and certificate are in its folder.
const (
	keyFile         = "config/tls_key.pem"
	certificateFile = "config/tls_cert.pem"
)

// writeFiles makes a key and a certificate signed with it, and writes them to dir.
func (k keyKind) writeFiles(dir string) error {
	private, err := k.generate()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "bench.test"},
		DNSNames:     []string{"bench.test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	return instance.WriteFiles(dir, map[string]string{
		keyFile:         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
		certificateFile: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})),
	})
}

func (k keyKind) generate() (crypto.Signer, error) {
	switch k {
	case ecdsaKey:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case rsaKey:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return nil, fmt.Errorf("no key of kind %q", k)
}
