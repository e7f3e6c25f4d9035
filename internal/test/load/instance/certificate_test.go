package instance

import (
	"crypto/tls"
	"path/filepath"
	"testing"
)

func TestCertificates(t *testing.T) {
	for _, kind := range []KeyKind{ECDSAKey, RSAKey} {
		dir := t.TempDir()
		if err := kind.WriteCertificate(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := tls.LoadX509KeyPair(filepath.Join(dir, CertificateFile), filepath.Join(dir, KeyFile)); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if err := KeyKind("dsa").WriteCertificate(t.TempDir()); err == nil {
		t.Error("a key of no kind")
	}
}
