package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// about returns the line of the mail log that tells the fate of a domain's mail,
// once there is one.
func (l *lines) about(domain string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, " domain="+domain+" ") && (strings.Contains(line, "delivered ") || strings.Contains(line, "deferred ")) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// TestPolicies delivers to domains with TLS policies of every kind, as the
// configuration files and what is kept on disk have it.
func TestPolicies(t *testing.T) {
	to := smtptest.New(t, smtptest.TLS("mx.test"))
	cert, err := x509.ParseCertificate(to.Certificate().Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	names := dnstest.New(t)
	key := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	for domain, data := range map[string][]byte{"dane.test": key[:], "danebad.test": make([]byte, 32)} {
		mx, tlsa := "mx."+domain, fmt.Sprintf("_%d._tcp.mx.%s", to.Port(), domain)
		names.MX(domain, 10, mx)
		names.A(mx, "127.0.0.1")
		names.TLSA(tlsa, 3, 1, 1, data)
		names.Secure(domain, mx, tlsa)
	}
	names.A("mx.test", "127.0.0.1")
	for _, domain := range []string{"sts.test", "stsbad.test", "plain.test"} {
		names.MX(domain, 10, "mx.test")
	}
	kept := func(domain, mx string) string {
		return fmt.Sprintf(`{"version":1,"domain":%q,"id":"1","fetched":%q,"mode":"enforce","mx":[%q],"max_age":86400}`,
			domain, time.Now().Add(-time.Hour).Format(time.RFC3339), mx)
	}
	root := t.TempDir()
	cfg := instanceIn(t, root, map[string]string{
		"me":                            "me.test\n",
		"plugins":                       "",
		"smtp.ini":                      "listen=127.0.0.1:0\n",
		"dns.ini":                       "servers[]=" + names.Addr() + "\ndnssec=true\n",
		"outbound.ini":                  fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", to.Port()),
		"tls.ini":                       "[outbound]\nca=roots.pem\n",
		"roots.pem":                     string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})),
		"../queue/sts/sts.test.json":    kept("sts.test", "mx.test"),
		"../queue/sts/stsbad.test.json": kept("stsbad.test", "other.test"),
	})
	var log lines
	stop, s := launchTo(t, cfg, &log)
	defer stop()
	for domain, want := range map[string]string{
		"dane.test":    "delivered policy=dane verified=dane tls=TLS",
		"danebad.test": "deferred policy=dane",
		"sts.test":     "delivered policy=sts verified=pkix tls=TLS",
		"stsbad.test":  "deferred 4.7.5",
		"plain.test":   "delivered policy=may verified=no tls=TLS",
	} {
		env := &mail.Envelope{
			ID: mail.NewID(mail.NewConnectionID(), 1), Received: time.Now(), From: mail.Address{Local: "from", Domain: "me.test"},
			Recipients: []mail.Recipient{{Address: mail.Address{Local: "to", Domain: domain}}},
		}
		content := mail.Memory{[]byte("Subject: x\r\n\r\nx\r\n")}
		if err := (&late{queue: s.queue, outbound: s.outbound}).Requeue(t.Context(), env, content, nil); err != nil {
			t.Fatal(err)
		}
		line := ""
		for end := time.Now().Add(time.Minute); line == "" && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			line = log.about(domain)
		}
		flat := strings.ReplaceAll(line, `"`, "")
		for _, part := range strings.Fields(want) {
			if !strings.Contains(flat, part) {
				t.Errorf("%s: %q is not in %s", domain, part, line)
			}
		}
	}
	if n := len(to.Messages()); n != 3 {
		t.Errorf("%d messages were taken", n)
	}
}
