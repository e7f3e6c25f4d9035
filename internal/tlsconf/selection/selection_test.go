package selection

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// made makes a certificate with a serial number by which it is known.
func made(t *testing.T, serial int64, kind, cn string, names ...string) tls.Certificate {
	t.Helper()
	var key crypto.Signer = rsaKey()
	switch kind {
	case "ecdsa":
		key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p384":
		key, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ed25519":
		_, key, _ = ed25519.GenerateKey(rand.Reader)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: names, Subject: pkix.Name{CommonName: cn}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// Clients of TLS 1.2 that take one kind of key alone.
var (
	onlyRSA   = &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	onlyECDSA = &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}
	modern    = &tls.Config{}
)

func TestChoose(t *testing.T) {
	c := New([]tls.Certificate{
		made(t, 1, "rsa", "mx.example.com", "mx.example.com", "mail.example.com"),
		made(t, 2, "ecdsa", "", "MX.example.com"),
		made(t, 3, "rsa", "", "*.example.net"),
		made(t, 4, "p384", "", "*.example.net", "one.example.net"),
		made(t, 5, "ecdsa", "", "one.example.net"),
		made(t, 6, "ed25519", "other.example", "other.example"),
		made(t, 7, "rsa", "named.example"),
	})
	for _, tc := range []struct {
		name   string
		client *tls.Config
		want   int64
	}{
		{"", modern, 2},
		{"", onlyRSA, 1},
		{"", onlyECDSA, 2},
		{"mx.example.com", modern, 2},
		{"MX.Example.com", onlyRSA, 1},
		{"mail.example.com", modern, 1},
		{"unknown.example", modern, 2},
		{"unknown.example", onlyRSA, 1},
		{"two.example.net", modern, 4},
		{"two.example.net", onlyRSA, 3},
		{"one.example.net", modern, 5},
		{"one.example.net", onlyECDSA, 5},
		{"a.two.example.net", modern, 2},
		{"example.net", modern, 2},
		{"other.example", modern, 6},
		{"named.example", modern, 7},
		{"named.example", onlyRSA, 7},
	} {
		client := tc.client.Clone()
		client.ServerName, client.InsecureSkipVerify = tc.name, true
		a, b := net.Pipe()
		server := tls.Server(b, &tls.Config{GetCertificate: c.Choose})
		done := make(chan error, 1)
		go func() { done <- server.Handshake() }()
		conn := tls.Client(a, client)
		_ = a.SetDeadline(time.Now().Add(time.Minute))
		err := conn.Handshake()
		if err == nil {
			if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != tc.want {
				t.Errorf("%q: got %d, want %d", tc.name, got, tc.want)
			}
		} else {
			t.Errorf("%q: %v", tc.name, err)
		}
		a.Close()
		<-done
		b.Close()
	}
}
