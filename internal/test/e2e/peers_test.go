package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/load"
	"tarishi/internal/test/load/instance"
)

// certificate makes a self-signed certificate for localhost.
func certificate(t *testing.T) (certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// startPostfix starts a Postfix of its own that ends with the test.
func startPostfix(t *testing.T, settings map[string]string, files ...string) *instance.Server {
	t.Helper()
	if !instance.HasPostfix() {
		missing(t, "postfix is not installed, or the test does not run as root")
	}
	dir := publicDir(t, "")
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := os.WriteFile(path, []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
		for key, value := range settings {
			settings[key] = strings.ReplaceAll(value, "DIR", dir)
		}
	}
	s, err := instance.Postfix(t.Context(), filepath.Join(dir, "0"), settings)
	for i := 1; i < 5 && err != nil && strings.Contains(err.Error(), "Address already in use"); i++ { // somebody was faster
		s, err = instance.Postfix(t.Context(), filepath.Join(dir, strconv.Itoa(i)), settings)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("Postfix's log:\n%s", s.Log())
		}
	})
	return s
}

// client → Tarishi → STARTTLS → Postfix → sink, relayed and queued.
func TestPostfixAsNextHop(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"relay", "queue"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := sink(t, load.SinkOptions{Keep: true})
			cert, key := certificate(t)
			p := startPostfix(t, map[string]string{
				"relayhost":                 fmt.Sprintf("[127.0.0.1]:%d", s.Port()),
				"smtpd_tls_security_level":  "encrypt", // nothing but EHLO and STARTTLS in clear
				"smtpd_tls_cert_file":       "DIR/cert.pem",
				"smtpd_tls_key_file":        "DIR/key.pem",
				"smtpd_tls_received_header": "yes",
			}, "cert.pem", cert, "key.pem", key)
			_, port, _ := net.SplitHostPort(p.Addr())
			var config map[string]string
			if way == "relay" {
				config = relayTo(0)
				config["smtp_forward.ini"] = "host=127.0.0.1\nport=" + port + "\nenable_tls=true\n"
			} else {
				var n int
				fmt.Sscan(port, &n)
				config = queueTo(t, n, "enable_tls=true")
			}
			d := Start(t, config)
			countAll(t, s, load.Load{Addr: d.Addr(), Clients: 5, Messages: 100, Recipients: 2})
			for _, m := range s.Messages() {
				if !strings.Contains(m.Content, "using TLSv1.3") {
					t.Fatalf("Postfix did not get it over TLS:\n%s", m.Content[:min(len(m.Content), 1000)])
				}
			}
			d.awaitLog(`tls=.?TLSv1\.3`)
		})
	}
}

// client → Postfix → STARTTLS → Tarishi → sink.
func TestPostfixAsClient(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{Keep: true})
	cert, key := certificate(t)
	d := Start(t, with(relayTo(s.Port()), "plugins", "tls\nrcpt_to.in_host_list\nqueue/smtp_forward\n",
		"tls_cert.pem", cert, "tls_key.pem", key))
	host, port, _ := net.SplitHostPort(d.Addr())
	p := startPostfix(t, map[string]string{
		"relayhost":               fmt.Sprintf("[%s]:%s", host, port),
		"smtp_tls_security_level": "encrypt",
		"smtp_tls_loglevel":       "1",
	})
	countAll(t, s, load.Load{Addr: p.Addr(), Clients: 5, Messages: 100, Recipients: 2})
	for _, m := range s.Messages() {
		if !strings.Contains(m.Content, "ESMTPS") {
			t.Fatalf("no trace of TLS in:\n%s", m.Content[:min(len(m.Content), 1000)])
		}
	}
	d.awaitLog(`disconnect.*tls=true`)
}

// swaks authenticates with each mechanism, in clear from loopback and over TLS.
func TestAuth(t *testing.T) {
	t.Parallel()
	need(t, "swaks")
	s := sink(t, load.SinkOptions{Keep: true})
	cert, key := certificate(t)
	const user, password = "from@client.test", "a secret of its own"
	config := queueTo(t, s.Port(), "")
	delete(config, "relay_acl_allow")
	d := Start(t, with(config, "plugins", "tls\nauth/flat_file\n", "tls_cert.pem", cert, "tls_key.pem", key,
		"auth_flat_file.ini", "[core]\nmethods=PLAIN,LOGIN\n[users]\n"+user+"="+password+"\n"))
	host, port, _ := net.SplitHostPort(d.Addr())
	arrived := 0
	for _, mechanism := range []string{"LOGIN", "PLAIN"} {
		for _, tls := range []string{"", "--tls"} {
			args := []string{"--server", host, "--port", port, "--from", user, "--to", "to@sink.test", "--auth", mechanism, "--auth-user", user}
			if tls != "" {
				args = append(args, tls)
			}
			if o := execute(t, "swaks", append(args, "--auth-password", password)...); o.exit != 0 || !strings.Contains(o.out, " 235 ") {
				t.Errorf("%s %s: exit %d\n%s", mechanism, tls, o.exit, o.out)
				continue
			}
			arrived++
			eventually(t, "the message", func() bool { return len(s.Messages()) >= arrived })
			if o := execute(t, "swaks", append(args, "--auth-password", "wrong")...); o.exit == 0 || !strings.Contains(o.out, " 535 ") {
				t.Errorf("%s %s with a wrong password: exit %d\n%s", mechanism, tls, o.exit, o.out)
			}
		}
	}
	if o := execute(t, "swaks", "--server", host, "--port", port, "--from", user, "--to", "to@sink.test"); o.exit == 0 || !strings.Contains(o.out, " 550 ") {
		t.Errorf("without AUTH: exit %d\n%s", o.exit, o.out)
	}
	if len(s.Messages()) != arrived {
		t.Errorf("%d messages arrived, want %d", len(s.Messages()), arrived)
	}
	if strings.Contains(d.Log(), password) {
		t.Error("the log has a password")
	}
}
