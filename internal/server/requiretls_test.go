package server

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// TestRequireTLS: what a client demands with REQUIRETLS is demanded of the next
// server (RFC 8689).
func TestRequireTLS(t *testing.T) {
	to := smtptest.New(t, smtptest.TLS("mx.dane.test"), smtptest.With("REQUIRETLS"))
	pair := to.Certificate()
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	names := dnstest.New(t)
	mx, tlsa := "mx.dane.test", fmt.Sprintf("_%d._tcp.mx.dane.test", to.Port())
	names.MX("dane.test", 10, mx)
	names.A(mx, "127.0.0.1")
	hash := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	names.TLSA(tlsa, 3, 1, 1, hash[:])
	names.Secure("dane.test", mx, tlsa)
	stop, s := launch(t, instance(t, map[string]string{
		"me": "me.test\n", "plugins": "tls\nrelay\n", "relay_acl_allow": "127.0.0.1\n", "smtp.ini": "listen=127.0.0.1:0\n",
		"dns.ini":      "servers[]=" + names.Addr() + "\ndnssec=true\n",
		"outbound.ini": fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", to.Port()),
		"tls_key.pem":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		"tls_cert.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})),
	}))
	defer stop()

	raw, err := net.Dial("tcp", s.listener.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	c := textproto.NewConn(raw)
	read := func(code int) string {
		t.Helper()
		_, text, err := c.ReadResponse(code)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	say := func(line string, code int) string {
		t.Helper()
		if err := c.PrintfLine("%s", line); err != nil {
			t.Fatal(err)
		}
		return read(code)
	}
	read(220)
	say("EHLO client.test", 250)
	say("STARTTLS", 220)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	c = textproto.NewConn(tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: mx}))
	if offered := say("EHLO client.test", 250); !strings.Contains(offered, "\nREQUIRETLS\n") {
		t.Fatalf("offered: %q", offered)
	}
	for _, parameter := range []string{" REQUIRETLS", ""} {
		say("MAIL FROM:<from@me.test>"+parameter, 250)
		say("RCPT TO:<to@dane.test>", 250)
		say("DATA", 354)
		say("Subject:"+parameter+"\r\n\r\nbody\r\n.", 250)
	}
	for _, m := range to.WaitMessages(2) {
		want := strings.Contains(string(m.Content), "Subject: REQUIRETLS")
		if _, demanded := m.Params["REQUIRETLS"]; demanded != want {
			t.Errorf("demanded %v, MAIL with %v", want, m.Params)
		}
	}
}
