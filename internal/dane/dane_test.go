package dane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// authority is a certificate that may sign others.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate; without parent it signs itself.
func issue(t *testing.T, parent *authority, change func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
	}
	change(tmpl)
	if parent == nil {
		parent = &authority{tmpl, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent.cert, &key.PublicKey, parent.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func ca(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.KeyUsage = name, true, x509.KeyUsageCertSign
	}
}

func leaf(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

func expired(change func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		change(c)
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
}

// record is the TLSA record of a certificate.
func record(usage, selector, matching uint8, c *authority) Record {
	b := c.cert.Raw
	if selector == 1 {
		b = c.cert.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(b)
		b = sum[:]
	case 2:
		sum := sha512.Sum512(b)
		b = sum[:]
	}
	return Record{Usage: usage, Selector: selector, MatchingType: matching, Data: b}
}

// handshake connects to a server that shows chain, as smtpclient does, and
// returns how that ended.
func handshake(t *testing.T, p *Policy, chain ...*authority) error {
	t.Helper()
	shown := tls.Certificate{PrivateKey: chain[0].key}
	for _, c := range chain {
		shown.Certificate = append(shown.Certificate, c.cert.Raw)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() {
		_ = tls.Server(b, &tls.Config{Certificates: []tls.Certificate{shown}}).Handshake()
	}()
	c := tls.Client(a, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example", VerifyConnection: p.Verify})
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c.Handshake()
}

func TestVerify(t *testing.T) {
	root := issue(t, nil, ca("root"))
	middle := issue(t, root, ca("middle"))
	good := issue(t, middle, leaf("mx.example"))
	other := issue(t, nil, ca("other"))
	ofDomain := issue(t, middle, leaf("d.example"))
	wildcard := issue(t, middle, leaf("*.example"))
	foreign := issue(t, middle, leaf("evil.example"))
	common := issue(t, middle, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "mx.example"} })
	commonBeside := issue(t, middle, func(c *x509.Certificate) {
		c.Subject, c.DNSNames = pkix.Name{CommonName: "mx.example"}, []string{"evil.example"}
	})
	old := issue(t, middle, expired(leaf("mx.example")))
	oldSelf := issue(t, nil, expired(leaf("whoever")))
	oldMiddle := issue(t, root, expired(ca("old middle")))
	belowOld := issue(t, oldMiddle, leaf("mx.example"))
	client := issue(t, middle, func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"mx.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	notCA := issue(t, root, leaf("mx.example"))
	forged := issue(t, notCA, leaf("mx.example"))
	full := []*authority{good, middle, root}
	ee := func(c *authority) []Record { return []Record{record(3, 1, 1, c)} }
	ta := func(c *authority) []Record { return []Record{record(2, 0, 1, c)} }
	wrong512 := record(3, 1, 2, other)
	for _, tt := range []struct {
		name    string
		records []Record
		chain   []*authority
		want    string // in the error; "": none
	}{
		{"EE, key, SHA-256", ee(good), full, ""},
		{"EE, key, SHA-512", []Record{record(3, 1, 2, good)}, full, ""},
		{"EE, key, exact", []Record{record(3, 1, 0, good)}, full, ""},
		{"EE, certificate, SHA-256", []Record{record(3, 0, 1, good)}, full, ""},
		{"EE, certificate, SHA-512", []Record{record(3, 0, 2, good)}, full, ""},
		{"EE, certificate, exact", []Record{record(3, 0, 0, good)}, full, ""},
		{"EE, leaf alone", ee(good), full[:1], ""},
		{"EE: dates and names do not count", ee(oldSelf), []*authority{oldSelf}, ""},
		{"EE: the selector does", []Record{{Usage: 3, Selector: 0, MatchingType: 1, Data: record(3, 1, 1, good).Data}}, full, "no TLSA record"},
		{"EE mismatch", ee(other), full, "no TLSA record"},
		{"EE that matches only the authority", ee(root), full, "no TLSA record"},
		{"one of several EE, as while keys change", []Record{record(3, 1, 1, other), record(3, 1, 1, good)}, full, ""},
		{"SHA-512 beside SHA-256 of another key", append(ee(good), wrong512), full, "no TLSA record"},
		{"SHA-512 of another selector", append(ee(good), record(3, 0, 2, other)), full, ""},

		{"TA, certificate, SHA-256", ta(root), full, ""},
		{"TA, certificate, SHA-512", []Record{record(2, 0, 2, root)}, full, ""},
		{"TA, key, SHA-256", []Record{record(2, 1, 1, root)}, full, ""},
		{"TA, key, exact", []Record{record(2, 1, 0, root)}, full, ""},
		{"TA in the middle of the chain", ta(middle), full, ""},
		{"TA in the middle, nothing above it", ta(middle), full[:2], ""},
		{"TA not shown", ta(root), full[:2], "no TLSA record"},
		{"TA in the record", []Record{record(2, 0, 0, root)}, full[:2], ""},
		{"TA in the record, another's", []Record{record(2, 0, 0, other)}, full, "no chain"},
		{"TA mismatch", ta(other), full, "no TLSA record"},
		{"TA shown, with no part in the chain", ta(other), []*authority{good, middle, root, other}, "no chain"},
		{"TA that matches the leaf", ta(good), full, "no TLSA record"},
		{"TA, certificate of the domain", ta(root), []*authority{ofDomain, middle, root}, ""},
		{"TA, wildcard", ta(root), []*authority{wildcard, middle, root}, ""},
		{"TA, other name", ta(root), []*authority{foreign, middle, root}, "for none of mx.example, d.example"},
		{"TA, common name", ta(root), []*authority{common, middle, root}, ""},
		{"TA, common name beside another DNS name", ta(root), []*authority{commonBeside, middle, root}, "for none of"},
		{"TA, expired", ta(root), []*authority{old, middle, root}, "no chain"},
		{"TA, expired authority", ta(root), []*authority{belowOld, oldMiddle, root}, "no chain"},
		{"TA, certificate of a client", ta(root), []*authority{client, middle, root}, "no chain"},
		{"TA, signed by a leaf", ta(root), []*authority{forged, notCA, root}, "no chain"},
		{"TA or EE: the EE saves it", append(ta(other), ee(good)...), full, ""},

		{"usable beside unusable", append(ee(good), Record{Usage: 1, Selector: 1, MatchingType: 1, Data: make([]byte, 32)}), full, ""},
		{"unusable does not save a mismatch", append(ee(other), record(1, 1, 1, good), record(0, 0, 1, root)), full, "no TLSA record"},
	} {
		p := New(tt.records, "mx.example", "d.example")
		if p == nil {
			t.Errorf("%s: not usable", tt.name)
			continue
		}
		err := handshake(t, p, tt.chain...)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if err := New(ee(good), "mx.example").Verify(tls.ConnectionState{}); err == nil {
		t.Error("no certificate passes")
	}
}

func TestUnusable(t *testing.T) {
	c := issue(t, nil, ca("c"))
	for name, r := range map[string]Record{
		"PKIX-TA":             record(0, 0, 1, c),
		"PKIX-EE":             record(1, 1, 1, c),
		"unknown usage":       record(4, 1, 1, c),
		"private usage":       record(255, 1, 1, c),
		"unknown selector":    {Usage: 3, Selector: 2, MatchingType: 1, Data: make([]byte, 32)},
		"unknown matching":    {Usage: 3, Selector: 1, MatchingType: 3, Data: make([]byte, 32)},
		"short digest":        {Usage: 3, Selector: 1, MatchingType: 1, Data: make([]byte, 31)},
		"SHA-256 for SHA-512": {Usage: 3, Selector: 1, MatchingType: 2, Data: make([]byte, 32)},
		"no digest":           {Usage: 3, Selector: 1, MatchingType: 1},
		"no certificate":      {Usage: 2, Selector: 0, MatchingType: 0, Data: []byte("x")},
		"certificate for key": {Usage: 3, Selector: 1, MatchingType: 0, Data: c.cert.Raw},
		"key for certificate": {Usage: 3, Selector: 0, MatchingType: 0, Data: c.cert.RawSubjectPublicKeyInfo},
	} {
		if New([]Record{r}, "x") != nil {
			t.Errorf("%s is usable", name)
		}
	}
	if New(nil, "x") != nil {
		t.Error("nothing is usable")
	}
	// A digest that cannot be is no reason to leave the weaker one out.
	p := New([]Record{record(3, 1, 1, c), {Usage: 3, Selector: 1, MatchingType: 2, Data: []byte("short")}}, "x")
	if p == nil || handshake(t, p, c) != nil {
		t.Error("an unusable SHA-512 hides the SHA-256")
	}
}

func TestKey(t *testing.T) {
	c, d := issue(t, nil, ca("c")), issue(t, nil, ca("d"))
	a, b := record(3, 1, 1, c), record(3, 1, 1, d)
	one := New([]Record{a, b}, "mx", "dom").Key()
	if one != New([]Record{b, a}, "mx", "dom").Key() {
		t.Error("the order of records makes a difference")
	}
	for name, other := range map[string]*Policy{
		"fewer records": New([]Record{a}, "mx", "dom"),
		"other names":   New([]Record{a, b}, "mx", "other"),
		"other usage":   New([]Record{a, {Usage: 2, Selector: 1, MatchingType: 1, Data: b.Data}}, "mx", "dom"),
	} {
		if other.Key() == one {
			t.Errorf("%s: the same key", name)
		}
	}
}

// FuzzNew feeds records as a domain may publish them.
func FuzzNew(f *testing.F) {
	f.Add(uint8(3), uint8(1), uint8(1), make([]byte, 32))
	f.Add(uint8(2), uint8(0), uint8(0), []byte{0x30, 0x82})
	f.Add(uint8(3), uint8(1), uint8(0), []byte{0x30, 0x59, 0x30, 0x13})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	shown, err := x509.ParseCertificate(der)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(2), uint8(0), uint8(0), der)
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		p := New([]Record{{Usage: usage, Selector: selector, MatchingType: matching, Data: data}}, "mx.example")
		if p == nil {
			return
		}
		if usage != 2 && usage != 3 || p.Key() == "" {
			t.Fatalf("usable: %d %d %d %x", usage, selector, matching, data)
		}
		_ = p.Verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{shown, shown}})
	})
}
