package server

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"tarishi/internal/maillog"
	"tarishi/internal/test/smtptest"
)

// TestHealthOverTLS: tls_listen serves health with the certificate of tls.ini, and
// without a certificate it stops the start.
func TestHealthOverTLS(t *testing.T) {
	pair := smtptest.New(t, smtptest.TLS("mx.test")).Certificate()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"me": "me.test\n", "plugins": "", "smtp.ini": "listen=127.0.0.1:0\n", "http.ini": "tls_listen=127.0.0.1:0\n"}
	const complaint = "config/http.ini: tls_listen is set, but config/tls.ini names no certificate"
	cfg := instance(t, files)
	if _, err := Check(cfg); err == nil || err.Error() != complaint {
		t.Errorf("check: %v", err)
	}
	if _, err := New(cfg, Options{Log: maillog.NewWriter(io.Discard)}); err == nil || err.Error() != complaint {
		t.Errorf("start: %v", err)
	}

	files["tls.ini"] = "key=key.pem\ncert=cert.pem\n"
	files["key.pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	files["cert.pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
	stop, s := launch(t, instance(t, files))
	defer stop()
	url := s.http.URLs()[0]
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer c.CloseIdleConnections()
	res, err := c.Get(url + "/health")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "ok\n" || !strings.HasPrefix(url, "https://") {
		t.Errorf("%s: %s %v", url, body, err)
	}
}
