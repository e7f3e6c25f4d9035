package folder

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair makes a certificate and its key in PEM form.
func pair(t *testing.T, name string, isCA bool) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}, IsCA: isCA, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return block("CERTIFICATE", der), block("EC PRIVATE KEY", sec1)
}

// write writes files below a folder.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// show describes contents in words: NAME/LENGTH of each pair, and the files of problems.
func show(dir string, c Contents) string {
	var all []string
	for _, p := range c.Pairs {
		name, _ := filepath.Rel(dir, p.File)
		all = append(all, name+"="+p.Leaf.DNSNames[0]+strings.Repeat("+", len(p.Certificate.Certificate)-1))
	}
	for _, p := range c.Problems {
		name, _ := filepath.Rel(dir, p.File)
		all = append(all, "!"+name)
	}
	return strings.Join(all, " ")
}

func TestRead(t *testing.T) {
	certA, keyA := pair(t, "a.test", false)
	certB, keyB := pair(t, "b.test", false)
	ca, _ := pair(t, "ca.test", true)
	locked := "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
	for name, tc := range map[string]struct {
		files map[string]string
		want  string
	}{
		"one file":                {map[string]string{"a.pem": keyA + certA + ca}, "a.pem=a.test+"},
		"two files of any name":   {map[string]string{"x": certA, "y": keyA, "z.crt": certB, "_.b.key": keyB}, "x=a.test z.crt=b.test"},
		"as certbot has it":       {map[string]string{"a/cert.pem": certA, "a/chain.pem": ca, "a/fullchain.pem": certA + ca, "a/privkey.pem": keyA, "a/README": "hello"}, "a/fullchain.pem=a.test+"},
		"several in one file":     {map[string]string{"all.pem": certA + ca + certB + keyB + keyA}, "all.pem=a.test+ all.pem=b.test"},
		"hidden":                  {map[string]string{".a.pem": "x", "..data/a.pem": "x"}, ""},
		"a key without":           {map[string]string{"a.pem": keyA}, "!a.pem"},
		"a certificate without":   {map[string]string{"a.pem": certA, "b.pem": certB + keyB}, "b.pem=b.test !a.pem"},
		"another key":             {map[string]string{"a.crt": certA, "a.key": keyB}, "!a.crt !a.key"},
		"encrypted":               {map[string]string{"a.crt": certA, "a.key": locked}, "!a.crt !a.key"},
		"empty":                   {map[string]string{"a.pem": "", "notes.txt": ""}, "!a.pem"},
		"broken":                  {map[string]string{"a.pem": strings.Replace(certA, "M", "N", 1), "b.pem": certB + keyB}, "b.pem=b.test !a.pem"},
		"broken key":              {map[string]string{"a.key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, "!a.key"},
		"larger than any of them": {map[string]string{"a.pem": strings.Repeat("x", maxSize+1)}, "!a.pem"},
	} {
		dir := t.TempDir()
		write(t, dir, tc.files)
		if got := show(dir, Read(dir, nil)); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// A renewal that goes wrong costs nothing while the file is there.
func TestReadAgain(t *testing.T) {
	dir := t.TempDir()
	certA, keyA := pair(t, "a.test", false)
	certB, keyB := pair(t, "b.test", false)
	certC, keyC := pair(t, "c.test", false)
	write(t, dir, map[string]string{"a.crt": certA, "a.key": keyA, "b.pem": certB + keyB})
	now := Read(dir, nil)
	for _, step := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"a.crt": certC}, "a.crt=a.test b.pem=b.test !a.crt !a.key"},
		{map[string]string{"a.crt": "", "b.pem": certB + keyB}, "a.crt=a.test b.pem=b.test !a.crt !a.key"},
		{map[string]string{"a.crt": certC, "a.key": keyC}, "a.crt=c.test b.pem=b.test"},
	} {
		write(t, dir, step.files)
		if now = Read(dir, now.Pairs); show(dir, now) != step.want {
			t.Errorf("%s, want %s", show(dir, now), step.want)
		}
	}
	if err := os.Remove(filepath.Join(dir, "b.pem")); err != nil {
		t.Fatal(err)
	}
	if now = Read(dir, now.Pairs); show(dir, now) != "a.crt=c.test" {
		t.Errorf("%s", show(dir, now))
	}
}
