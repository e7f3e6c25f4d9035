package clientcert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// authority signs certificates and lists.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// issue makes a certificate; of no authority it is self-signed.
func issue(t *testing.T, by *authority, serial int64, name string, isCA bool, usage ...x509.ExtKeyUsage) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour), Subject: pkix.Name{CommonName: name},
		IsCA: isCA, BasicConstraintsValid: isCA, ExtKeyUsage: usage,
	}
	if isCA {
		tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	a := &authority{t, tmpl, key}
	if by == nil {
		by = a
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// revoke makes a list that holds for an hour from a time on.
func (a *authority) revoke(from time.Time, serials ...int64) []byte {
	a.t.Helper()
	tmpl := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: from, NextUpdate: from.Add(time.Hour)}
	for _, n := range serials {
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: from})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func TestVerify(t *testing.T) {
	root := issue(t, nil, 1, "root", true)
	other := issue(t, nil, 1, "root", true) // by the same name
	middle := issue(t, root, 2, "middle", true)
	client := issue(t, middle, 3, "client", false, x509.ExtKeyUsageClientAuth)
	server := issue(t, root, 4, "server", false, x509.ExtKeyUsageServerAuth)
	plain := issue(t, root, 5, "plain", false)
	now := noon.Add(-time.Minute)

	lists := func(all ...[]byte) []byte { return bytes.Join(all, nil) }
	good := lists(root.revoke(now), middle.revoke(now))
	for name, tc := range map[string]struct {
		chain []*x509.Certificate
		crl   []byte // nil: none
		at    time.Time
		want  string
	}{
		"good":                    {[]*x509.Certificate{client.cert, middle.cert}, nil, noon, ""},
		"without a usage":         {[]*x509.Certificate{plain.cert}, nil, noon, ""},
		"none":                    {nil, nil, noon, "no certificate was shown"},
		"a link is missing":       {[]*x509.Certificate{client.cert}, nil, noon, "unknown authority"},
		"a stranger":              {[]*x509.Certificate{other.cert}, nil, noon, "x509: "},
		"a server":                {[]*x509.Certificate{server.cert}, nil, noon, "incompatible key usage"},
		"expired":                 {[]*x509.Certificate{plain.cert}, nil, noon.Add(2 * time.Hour), "has expired"},
		"on no list":              {[]*x509.Certificate{client.cert, middle.cert}, good, noon, ""},
		"revoked":                 {[]*x509.Certificate{client.cert, middle.cert}, lists(root.revoke(now), middle.revoke(now, 9, 3)), noon, "CN=client has been revoked"},
		"its authority is":        {[]*x509.Certificate{client.cert, middle.cert}, lists(root.revoke(now, 2), middle.revoke(now)), noon, "CN=middle has been revoked"},
		"the list is missing":     {[]*x509.Certificate{client.cert, middle.cert}, lists(root.revoke(now)), noon, "no list of revoked certificates of CN=middle"},
		"the list is another's":   {[]*x509.Certificate{plain.cert}, other.revoke(now), noon, "no list of revoked certificates of CN=root"},
		"the list has expired":    {[]*x509.Certificate{plain.cert}, root.revoke(noon.Add(-2 * time.Hour)), noon, "the list of revoked certificates of CN=root has expired"},
		"a newer one has not":     {[]*x509.Certificate{plain.cert}, lists(root.revoke(noon.Add(-2*time.Hour)), root.revoke(now)), noon, ""},
		"an older one knows more": {[]*x509.Certificate{plain.cert}, lists(root.revoke(noon.Add(-2*time.Hour), 5), root.revoke(now)), noon, "CN=plain has been revoked"},
		"of tomorrow":             {[]*x509.Certificate{plain.cert}, root.revoke(noon.Add(time.Minute)), noon, "no list"},
	} {
		roots := x509.NewCertPool()
		roots.AddCert(root.cert)
		var parsed []*x509.RevocationList
		if tc.crl != nil {
			var err error
			if parsed, err = ParseLists(tc.crl); err != nil {
				t.Fatal(err)
			}
		}
		err := New(roots, parsed).Verify(tc.chain, tc.at)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestParseLists(t *testing.T) {
	root := issue(t, nil, 1, "root", true)
	one := root.revoke(noon, 7)
	block, _ := pem.Decode(one)
	for in, want := range map[string]int{
		string(one): 1, string(one) + string(one): 2, string(block.Bytes): 1, "": 0, "text": 0,
		"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n": 0,
	} {
		all, err := ParseLists([]byte(in))
		if len(all) != want || (err == nil) != (want > 0) {
			t.Errorf("%.30q: %d, %v", in, len(all), err)
		}
	}
}
