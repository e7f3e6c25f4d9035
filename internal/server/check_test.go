package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a start fails with, a check has to tell: here files that are there and
// hold no certificate.
func TestCheckCertificates(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"authorities":            {"tls.ini": "[outbound]\nca=bad.pem\n"},
		"client certificate":     {"tls.ini": "[outbound]\nkey=bad.pem\ncert=bad.pem\n"},
		"backends' authorities":  {"smtp_forward.ini": "host=127.0.0.1\n[tls]\nca=bad.pem\n"},
		"certificate of ours":    {"tls.ini": "key=bad.pem\ncert=bad.pem\n"},
		"certificate for theirs": {"smtp_forward.ini": "host=127.0.0.1\n[tls]\nkey=bad.pem\ncert=bad.pem\n"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			files["smtp.ini"] = "listen=127.0.0.1:0\n"
			files["bad.pem"] = "no certificate"
			if err := os.Mkdir(filepath.Join(root, "config"), 0o700); err != nil {
				t.Fatal(err)
			}
			for file, text := range files {
				if err := os.WriteFile(filepath.Join(root, "config", file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cfg, problems := Load(root)
			if errs := problems.Errors(); len(errs) > 0 {
				t.Fatal(errs)
			}
			if _, err := Check(cfg); err == nil || !strings.Contains(err.Error(), "bad.pem") {
				t.Error(err)
			}
		})
	}
}
