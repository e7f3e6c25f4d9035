package tlsconf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair writes a self-signed certificate for name and its key.
func pair(t *testing.T, dir, name string) (key, cert string) {
	t.Helper()
	key, cert = filepath.Join(dir, name+".key"), filepath.Join(dir, name+".crt")
	keyPEM, certPEM := made(t, name, 0, time.Hour)
	write(t, key, keyPEM)
	write(t, cert, certPEM)
	return key, cert
}

// made makes a self-signed certificate for name, of this age and with that much of
// its life left, and its key.
func made(t *testing.T, name string, age, left time.Duration) (key, cert []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-age), NotAfter: time.Now().Add(left), DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// shown does a handshake and returns the name on the certificate that c shows.
func shown(t *testing.T, c *tls.Config, client *tls.Config) (string, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() { _ = tls.Server(b, c).Handshake() }()
	client.InsecureSkipVerify = true
	conn := tls.Client(a, client)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if err := conn.Handshake(); err != nil {
		return "", err
	}
	return conn.ConnectionState().PeerCertificates[0].DNSNames[0], nil
}

// serverOf makes the configuration of a server with pairs.
func serverOf(f *Files, keys, certs []string, minVersion uint16, ciphers []uint16) (*tls.Config, error) {
	s, err := f.Server(&Settings{Key: keys, Cert: certs, MinVersion: minVersion, Ciphers: ciphers}, "mx.test")
	if err != nil {
		return nil, err
	}
	return s.Config, nil
}

func TestServer(t *testing.T) {
	dir := t.TempDir()
	keyA, certA := pair(t, dir, "a.test")
	keyB, certB := pair(t, dir, "b.test")
	c, err := serverOf(New(nil), []string{keyA, keyB}, []string{certA, certB}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.MinVersion != tls.VersionTLS12 {
		t.Errorf("minimum version %x", c.MinVersion)
	}
	for sni, want := range map[string]string{"a.test": "a.test", "b.test": "b.test", "": "a.test", "other.test": "a.test", `x\`: "a.test"} {
		if got, err := shown(t, c, &tls.Config{ServerName: sni}); got != want {
			t.Errorf("%q: got %q, %v", sni, got, err)
		}
	}
	if _, err := shown(t, c, &tls.Config{NextProtos: []string{"smtp"}}); err != nil {
		t.Error(err)
	}
	if _, err := shown(t, c, &tls.Config{NextProtos: []string{"h2"}}); err == nil {
		t.Error("a client of another protocol came in")
	}
	strict, err := serverOf(New(nil), []string{keyA}, []string{certA}, tls.VersionTLS13, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shown(t, strict, &tls.Config{MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("the minimum version does not hold")
	}
	one, err := serverOf(New(nil), []string{keyA}, []string{certA}, 0, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384})
	if err != nil {
		t.Fatal(err)
	}
	for suite, want := range map[uint16]bool{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: true, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: false} {
		if _, err := shown(t, one, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}}); (err == nil) != want {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		}
	}
}

func TestServerSaysWhichFile(t *testing.T) {
	dir := t.TempDir()
	keyA, certA := pair(t, dir, "a.test")
	keyB, _ := pair(t, dir, "b.test")
	empty, missing := filepath.Join(dir, "empty"), filepath.Join(dir, "missing")
	write(t, empty, nil)
	broken := filepath.Join(dir, "broken")
	write(t, broken, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))
	for name, tc := range map[string]struct {
		keys, certs []string
		want        []string
	}{
		"missing key":  {[]string{missing}, []string{certA}, []string{"tls key", missing}},
		"missing cert": {[]string{keyA}, []string{missing}, []string{"tls certificate", missing}},
		"empty key":    {[]string{empty}, []string{certA}, []string{empty, "private key"}},
		"empty cert":   {[]string{keyA}, []string{empty}, []string{empty, "CERTIFICATE"}},
		"swapped":      {[]string{certA}, []string{keyA}, []string{keyA, "CERTIFICATE"}},
		"other key":    {[]string{keyB}, []string{certA}, []string{keyB, certA, "pair"}},
		"broken cert":  {[]string{keyA}, []string{broken}, []string{broken}},
		"odd":          {[]string{keyA, keyB}, []string{certA}, []string{"2 key files for 1"}},
	} {
		_, err := serverOf(New(nil), tc.keys, tc.certs, 0, nil)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q in it", name, err, w)
			}
		}
	}
	if _, err := serverOf(New(nil), nil, nil, 0, nil); !errors.Is(err, ErrNoCertificate) {
		t.Error(err)
	}
}

func TestClient(t *testing.T) {
	dir := t.TempDir()
	key, cert := pair(t, dir, "a.test")
	server, err := serverOf(New(nil), []string{key}, []string{cert}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if server, err = server.GetConfigForClient(nil); err != nil {
		t.Fatal(err)
	}
	talk := func(o Outbound, most uint16) (tls.ConnectionState, int, error) {
		t.Helper()
		client, err := New(nil).Client(o)
		if err != nil {
			t.Fatal(err)
		}
		c := client.Config(true).Clone()
		c.ServerName = "a.test"
		s := server.Clone()
		s.ClientAuth = tls.RequestClientCert
		s.MaxVersion = most
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		shownCerts := make(chan int, 1)
		go func() {
			b, err := l.Accept()
			if err != nil {
				shownCerts <- -1
				return
			}
			defer b.Close()
			peer := tls.Server(b, s)
			_ = b.SetDeadline(time.Now().Add(time.Minute))
			_ = peer.Handshake()
			shownCerts <- len(peer.ConnectionState().PeerCertificates)
		}()
		a, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(a, c)
		_ = a.SetDeadline(time.Now().Add(time.Minute))
		err = conn.Handshake()
		a.Close()
		return conn.ConnectionState(), <-shownCerts, err
	}
	state, certs, err := talk(Outbound{CA: cert, Ciphers: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA}}, tls.VersionTLS12)
	if err != nil || state.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA || certs != 0 {
		t.Errorf("%s, %d certificates, %v", tls.CipherSuiteName(state.CipherSuite), certs, err)
	}
	if _, certs, err = talk(Outbound{CA: cert, Key: key, Cert: cert}, tls.VersionTLS12); err != nil || certs != 1 {
		t.Errorf("%d certificates, %v", certs, err)
	}
	if _, _, err = talk(Outbound{CA: cert, MinVersion: tls.VersionTLS13}, tls.VersionTLS12); err == nil {
		t.Error("the minimum version does not hold")
	}
	if _, _, err = talk(Outbound{}, 0); err == nil {
		t.Error("an unknown certificate verifies")
	}
	for _, o := range []Outbound{{CA: key}, {CA: dir + "/none"}, {Key: key}, {Cert: cert}} {
		if _, err := New(nil).Client(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}
