package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/smtptest"
)

// certify writes a certificate for name, self-signed for 90 days, to DIR/PAIR.crt and its key to
// DIR/PAIR.key, each at once as a program that renews certificates does.
func certify(t *testing.T, dir, pair, name string, left time.Duration) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(left - 90*days), NotAfter: time.Now().Add(left),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []struct {
		ext, block string
		der        []byte
	}{{".key", "PRIVATE KEY", pkcs8}, {".crt", "CERTIFICATE", cert}} {
		path := filepath.Join(dir, pair+file.ext)
		writeFile(t, path+".new", string(pem.EncodeToMemory(&pem.Block{Type: file.block, Bytes: file.der})))
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

const days = 24 * time.Hour

// Certificates that are renewed while the daemon runs are in use without a restart:
// ours as a server, and ours as a client of a relay's backend and of an MX, whose
// kept connections of the old one take no more mail. Sessions go on meanwhile.
func TestRenewedCertificates(t *testing.T) {
	t.Parallel()
	backend, mx := smtptest.New(t, smtptest.TLS()), smtptest.New(t, smtptest.TLS())
	dir := folder(t, with(queueTo(t, mx.Port(), "pool_timeout=600"),
		"plugins", "tls\nrelay\nrcpt_to.in_host_list\nqueue/smtp_forward\n",
		"host_list", "backend.test\n",
		"smtp_forward.ini", fmt.Sprintf("[tls]\nkey=relay.key\ncert=relay.crt\n[backend.test]\nhost=127.0.0.1\nport=%d\nrequire_tls=true\n", backend.Port()),
		"tls.ini", "key[]=one.key\ncert[]=one.crt\nkey[]=two.key\ncert[]=two.crt\n[outbound]\nkey=client.key\ncert=client.crt\n",
	))
	files := filepath.Join(dir, "config")
	for _, pair := range []string{"one", "two", "client", "relay"} {
		certify(t, files, pair, pair+"-old.test", 80*days)
	}
	d := startIn(t, dir)
	start := func(sni string) (*dialog, string) {
		c := dial(t, d.Addr())
		c.say("STARTTLS", "220")
		in := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, ServerName: sni}) // as whoever looks at the name later
		if err := in.Handshake(); err != nil {
			t.Fatal(err)
		}
		return &dialog{in, t, bufio.NewReader(in)}, in.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	shown := func(sni, want string) {
		t.Helper()
		if c, got := start(sni); got != want {
			t.Errorf("%q is shown %s, want %s", sni, got, want)
		} else {
			c.say("QUIT", "221")
		}
	}
	took := func(s *smtptest.Server, to string, n int, cert string) {
		t.Helper()
		if reply, err := letter(d.Addr(), to, "Subject: x\r\n\r\nx\r\n"); err != nil || !strings.HasPrefix(reply, "250") {
			t.Fatal(reply, err)
		}
		if x := s.WaitMessages(n)[n-1]; x.Certificate != cert {
			t.Errorf("%s: shown %q, want %q", to, x.Certificate, cert)
		}
	}

	session, _ := start("")
	session.say("EHLO client.test", "250")
	shown("", "one-old.test")
	shown("two-old.test", "two-old.test")
	for n := 1; n <= 2; n++ {
		took(backend, "a@backend.test", n, "relay-old.test")
		took(mx, "a@sink.test", n, "client-old.test")
	}

	certify(t, files, "two", "two-new.test", 80*days)
	certify(t, files, "relay", "relay-new.test", 80*days)
	certify(t, files, "client", "client-new.test", 80*days)
	writeFile(t, filepath.Join(files, "one.crt"), "half a certif")
	for _, pair := range []string{"two", "relay", "client"} {
		d.awaitLog(`\[INFO\].*\[tls\] new certificate files are used id=- file=\S+/config/` + pair + `\.crt names=\S*` + pair + `-new\.test\S* not_after=\d{4}-`)
	}
	d.awaitLog(`\[ERROR\].*\[tls\] new certificate files are not used, the old ones stay .*/config/one\.crt`)
	shown("two-new.test", "two-new.test")
	shown("", "one-old.test")
	took(backend, "a@backend.test", 3, "relay-new.test")
	took(mx, "a@sink.test", 3, "client-new.test")

	certify(t, files, "one", "one-new.test", 5*days)
	d.awaitLog(`\[WARN\].*\[tls\] certificate expires soon id=- file=\S+/config/one\.crt names=\S*one-new\.test`)
	shown("", "one-new.test")
	session.say("NOOP", "250")
	if n := len(regexp.MustCompile(`files are not used`).FindAllString(d.Log(), -1)); n != 1 {
		t.Errorf("%d lines about one wrong file", n)
	}
}

// check and the start tell of a certificate that is about to expire, and go on.
func TestExpiringCertificate(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"plugins": "tls\n"})
	certify(t, filepath.Join(dir, "config"), "tls", "mx.test", 3*days)
	for _, ext := range []string{"key", "cert"} {
		old := strings.Replace(ext, "cert", "crt", 1)
		if err := os.Rename(filepath.Join(dir, "config", "tls."+old), filepath.Join(dir, "config", "tls_"+ext+".pem")); err != nil {
			t.Fatal(err)
		}
	}
	o := execute(t, binary(t), "check", "-c", dir)
	if o.exit != 0 || !strings.Contains(o.out, "tls_cert.pem: warning: the certificate expires at 20") {
		t.Errorf("exit %d, %s", o.exit, o.out)
	}
	d := startIn(t, dir)
	d.awaitLog(`\[WARN\].*certificate expires soon id=- file=\S+tls_cert\.pem names=\S*mx\.test`)
}
