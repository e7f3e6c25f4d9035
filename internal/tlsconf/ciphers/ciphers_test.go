package ciphers

import (
	"crypto/tls"
	"testing"
)

func TestSuiteOf(t *testing.T) {
	for name, id := range openSSL {
		if got, ok := suiteOf(tls.CipherSuiteName(id)); !ok || got != id {
			t.Errorf("%s is not %s", name, tls.CipherSuiteName(id))
		}
	}
	for _, name := range []string{"", "HIGH", "TLS_AES_128_GCM_SHA256", "@STRENGTH", "!aNULL", "AES128"} {
		if id, ok := suiteOf(name); ok {
			t.Errorf("%q is %s", name, tls.CipherSuiteName(id))
		}
	}
}
