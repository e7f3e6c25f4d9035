package instance

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
)

// KeyKind is a kind of private key; "": no certificate at all.
type KeyKind string

const (
	ECDSAKey KeyKind = "ecdsa"
	RSAKey   KeyKind = "rsa"
)

// Where a server's key and certificate are in its folder.
const (
	KeyFile         = "config/tls_key.pem"
	CertificateFile = "config/tls_cert.pem"
)

// WriteCertificate makes a key and a certificate signed with it, and writes them to dir.
func (k KeyKind) WriteCertificate(dir string) error {
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
	return WriteFiles(dir, map[string]string{
		KeyFile:         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
		CertificateFile: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})),
	})
}

func (k KeyKind) generate() (crypto.Signer, error) {
	switch k {
	case ECDSAKey:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSAKey:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return nil, fmt.Errorf("no key of kind %q", k)
}
