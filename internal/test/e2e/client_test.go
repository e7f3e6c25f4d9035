package e2e

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/smtptest"
)

// dialFrom opens a connection from a loopback address.
func dialFrom(t *testing.T, from, addr string) *dialog {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	var c net.Conn
	eventually(t, addr, func() (ok bool) {
		var err error
		c, err = d.Dial("tcp", addr)
		return err == nil
	})
	t.Cleanup(func() { c.Close() })
	return newDialog(t, c)
}

// Behind HAProxy, with either version of its protocol, the client counts: in the reply to EHLO, in
// the limits, in the log and in Received. So it does where TLS begins at once.
func TestBehindHAProxy(t *testing.T) {
	t.Parallel()
	need(t, "haproxy")
	backend := smtptest.New(t)
	plain, implicit := freePort(t), freePort(t)
	dir := folder(t, with(relayTo(backend.Port()),
		"smtp.ini", fmt.Sprintf("listen=127.0.0.1:%d,127.0.0.1:%d\nsmtps_port=%d\n", plain, implicit, implicit),
		"connection.ini", "[haproxy]\nhosts[]=127.0.0.1\n[max]\nconnections_per_ip=1\n",
		"tls.ini", "key=mx.key\ncert=mx.crt\n",
	))
	certify(t, filepath.Join(dir, "config"), "mx", "mx.test", 80*days)
	d := startIn(t, dir)

	front := map[string]int{"v1": freePort(t), "v2": freePort(t), "tls": freePort(t)}
	conf := "global\n maxconn 100\ndefaults\n mode tcp\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n"
	for name, target := range map[string]string{
		"v1": fmt.Sprintf("127.0.0.1:%d send-proxy", plain), "v2": fmt.Sprintf("127.0.0.1:%d send-proxy-v2", plain), "tls": fmt.Sprintf("127.0.0.1:%d send-proxy-v2", implicit),
	} {
		conf += fmt.Sprintf("listen %s\n bind 127.0.0.1:%d\n server one %s\n", name, front[name], target)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	writeFile(t, file, conf)
	ctx, cancel := context.WithCancel(context.Background())
	proxy := exec.CommandContext(ctx, "haproxy", "-db", "-f", file)
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = proxy.Wait() })

	for i, name := range []string{"v1", "v2", "tls"} {
		from := fmt.Sprintf("127.0.0.%d", 11+i)
		c := dialFrom(t, from, fmt.Sprintf("127.0.0.1:%d", front[name]))
		if name == "tls" {
			c = secure(c)
		}
		c.expect("220")
		c.say("EHLO client.test", "250-")
		again := dialFrom(t, from, fmt.Sprintf("127.0.0.1:%d", front["v1"]))
		again.expect("421 4.3.2 ")
		if reply := c.mail("a@client.test", "b@sink.test", oneMessage); !strings.HasPrefix(reply, "250") {
			t.Errorf("%s: %s", name, reply)
		}
		got := string(backend.WaitMessages(i + 1)[i].Content)
		if !strings.Contains(got, " ["+from+"])") {
			t.Errorf("%s: %s", name, got)
		}
		d.awaitLog(`connect .*ip=` + regexp.QuoteMeta(from) + ` .*proxy_ip=127\.0\.0\.1\b`)
	}

	// A client that is no proxy must not name another.
	c := dialFrom(t, "127.0.0.9", fmt.Sprintf("127.0.0.1:%d", plain))
	c.expect("220")
	c.say("PROXY TCP4 192.0.2.1 192.0.2.2 1000 25", "421 4.7.0 PROXY not allowed from 127.0.0.9")
	if rest := c.rest(); rest != "" {
		t.Errorf("%q", rest)
	}
	c = dialFrom(t, "127.0.0.1", fmt.Sprintf("127.0.0.1:%d", plain))
	c.say("EHLO client.test", "421 4.7.0 Invalid PROXY format")
}

// XCLIENT as swaks speaks it: the session is that of the client, and the user's where the peer
// may say so.
func TestXClientFromSwaks(t *testing.T) {
	t.Parallel()
	need(t, "swaks")
	backend := smtptest.New(t)
	config := with(queueTo(t, backend.Port(), ""), "plugins", "xclient\n", "xclient.hosts", "127.0.0.1\n")
	d := Start(t, config)
	o := execute(t, "swaks", "--server", d.Addr(), "--to", "a@sink.test", "--from", "b@client.test", "--ehlo", "client.test",
		"--xclient", "ADDR=192.0.2.7 NAME=mx.client.test LOGIN=alice@client.test")
	if o.exit != 0 {
		t.Fatal(o.out)
	}
	got := string(backend.WaitMessages(1)[0].Content)
	if !strings.Contains(got, "[192.0.2.7])") || !strings.Contains(got, "with ESMTPA") {
		t.Error(got)
	}
	d.awaitLog(`connect .*ip=192\.0\.2\.7 .*proxy_ip=127\.0\.0\.1 was=[0-9A-F-]{36}`)

	c := dialFrom(t, "127.0.0.2", d.Addr())
	c.expect("220")
	if offer := c.say("EHLO x", "250"); strings.Contains(offer, "XCLIENT") {
		t.Error(offer)
	}
	c.say("XCLIENT ADDR=192.0.2.7", "550 5.5.0 Not authorized")
}

// signed is a certificate with its key.
type signed struct {
	key  crypto.Signer
	leaf *x509.Certificate
}

// sign makes a certificate; of no authority it is one itself.
func sign(t *testing.T, by *signed, serial int64, name string, key crypto.Signer) *signed {
	t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(80 * days),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	s, issuer := &signed{key: key}, tmpl
	if by == nil {
		by = s
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	} else {
		issuer = by.leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	if s.leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *signed) pem(t *testing.T) string {
	t.Helper()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.leaf.Raw})) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// revoke is a list of revoked certificates.
func (s *signed) revoke(t *testing.T, serials ...int64) string {
	t.Helper()
	tmpl := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(80 * days)}
	for _, n := range serials {
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, s.leaf, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// The folder of certificates as openssl sees it: a name for each, the cheap one for those that
// take it, and new ones without a restart.
func TestCertificateFolder(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := folder(t, map[string]string{
		"plugins": "tls\n", "me": "mx.example.test\n",
		"tls/mx-rsa.pem": sign(t, nil, 1, "mx.example.test", key).pem(t), "tls/mx-ecdsa.pem": sign(t, nil, 2, "mx.example.test", nil).pem(t),
		"tls/a/wild.pem": sign(t, nil, 3, "*.example.net", nil).pem(t), "tls/broken.pem": "-----BEGIN",
	})
	if o := execute(t, binary(t), "check", "-c", dir); o.exit != 0 || !strings.Contains(o.out, "config/tls/broken.pem: warning: is not used") {
		t.Errorf("exit %d: %s", o.exit, o.out)
	}
	d := startIn(t, dir)
	shown := func(name string, args ...string) string {
		t.Helper()
		all := append([]string{"s_client", "-connect", d.Addr(), "-starttls", "smtp", "-name", "client.test", "-servername", name}, args...)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "openssl", all...)
		cmd.Stdin = strings.NewReader("QUIT\r\n")
		out, _ := cmd.CombinedOutput()
		return regexp.MustCompile(`(?m)^subject=.*CN ?= ?(\S+)`).FindString(string(out)) + regexp.MustCompile(`Server public key is \d+ bit`).FindString(string(out))
	}
	const ecdsaKey, rsaKey = "Server public key is 256 bit", "Server public key is 2048 bit"
	old := []string{"-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"}
	for _, tc := range []struct {
		name, cn, key string
		args          []string
	}{
		{"mx.example.test", "mx.example.test", ecdsaKey, nil},
		{"mx.example.test", "mx.example.test", rsaKey, old},
		{"unknown.test", "mx.example.test", ecdsaKey, nil},
		{"unknown.test", "mx.example.test", rsaKey, old},
		{"one.example.net", "*.example.net", ecdsaKey, nil},
	} {
		if got := shown(tc.name, tc.args...); !strings.Contains(got, tc.cn) || !strings.Contains(got, tc.key) {
			t.Errorf("%s %v: %q", tc.name, tc.args, got)
		}
	}
	writeFile(t, filepath.Join(dir, "config/tls/new.pem"), sign(t, nil, 4, "new.example.org", nil).pem(t))
	d.awaitLog(`new certificate files are used .*config/tls certificates=\S*new\.pem`)
	if got := shown("new.example.org"); !strings.Contains(got, "new.example.org") {
		t.Error(got)
	}
}

// Certificates of clients: asked for, verified, good for relaying, taken back by a list, and
// required on a port.
func TestCertificatesOfClients(t *testing.T) {
	t.Parallel()
	backend := smtptest.New(t)
	ca := sign(t, nil, 1, "ca.test", nil)
	named, pinned, nobody := sign(t, ca, 2, "client.test", nil), sign(t, nil, 3, "pinned.test", nil), sign(t, ca, 4, "nobody.test", nil)
	sum := sha256.Sum256(pinned.leaf.Raw)
	strict := freePort(t)
	dir := folder(t, with(queueTo(t, backend.Port(), ""),
		"plugins", "tls\nrelay\n", "relay_acl_allow", "", "relay_cert_allow", "client.test # by name\n"+hex.EncodeToString(sum[:])+"\n",
		"smtp.ini", fmt.Sprintf("listen=127.0.0.1:0,127.0.0.1:%d\n", strict),
		"tls.ini", fmt.Sprintf("key=mx.key\ncert=mx.crt\nrequestCert=true\nrequireAuthorized[]=%d\nca=ca.pem\ncrl=revoked.pem\n", strict),
		"revoked.pem", ca.revoke(t), "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.leaf.Raw})),
	))
	certify(t, filepath.Join(dir, "config"), "mx", "mx.test", 80*days)
	s := startIn(t, dir)
	secureAs := func(addr string, who *signed) *dialog {
		t.Helper()
		c := dial(t, addr)
		c.say("STARTTLS", "220")
		config := &tls.Config{InsecureSkipVerify: true} // the certificate is the test's own
		if who != nil {
			config.Certificates = []tls.Certificate{{Certificate: [][]byte{who.leaf.Raw}, PrivateKey: who.key}}
		}
		in := tls.Client(c.Conn, config)
		if err := in.Handshake(); err != nil {
			t.Fatal(err)
		}
		return &dialog{in, t, bufio.NewReader(in)}
	}
	relays := func(who *signed, code string) {
		t.Helper()
		c := secureAs(s.Addr(), who)
		c.say("EHLO client.test", "250")
		c.say("MAIL FROM:<a@client.test>", "250")
		c.say("RCPT TO:<b@sink.test>", code)
		if code == "250" {
			c.say("DATA", "354")
			c.send("Subject: x\r\n\r\nx\r\n.\r\n")
			c.expect("250")
		}
		c.say("QUIT", "221")
	}
	relays(nil, "550")
	relays(nobody, "550")
	relays(pinned, "250")
	relays(named, "250")
	both := string(backend.WaitMessages(2)[0].Content) + string(backend.WaitMessages(2)[1].Content)
	if !strings.Contains(both, "(client=client.test verify=OK)") || !strings.Contains(both, "(client=pinned.test verify=FAIL)") {
		t.Error(both)
	}
	s.awaitLog(`client certificate .*subject=\S*CN=client\.test.* verified=true`)

	// A port on which they have to.
	port := fmt.Sprintf("127.0.0.1:%d", strict)
	c := dial(t, port)
	c.say("MAIL FROM:<a@client.test>", "530 5.7.0 Must issue a STARTTLS")
	c = secureAs(port, named)
	c.say("EHLO client.test", "250")
	c.say("MAIL FROM:<a@client.test>", "250")
	for _, who := range []*signed{nil, pinned} {
		c = secureAs(port, who)
		c.expect("554 5.7.0 A client certificate that verifies is required")
	}

	// The list takes it back.
	writeFile(t, filepath.Join(dir, "config/revoked.pem"), ca.revoke(t, 2))
	s.awaitLog(`new certificate files are used .*config/revoked\.pem`)
	relays(named, "550")
	relays(pinned, "250")
}
