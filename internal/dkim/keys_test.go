package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func pemOf(t *testing.T, k any) string {
	t.Helper()
	var text []byte
	var err error
	switch k := k.(type) {
	case *rsa.PrivateKey:
		text, err = FormatKey(k)
	case ed25519.PrivateKey:
		text, err = FormatKey(k)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLoadKeys(t *testing.T) {
	big, small := pemOf(t, rsaKey()), pemOf(t, ed25519Key())
	old := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey())}))
	files := fstest.MapFS{}
	for name, text := range map[string]string{
		"config/dkim/Example.org/private": big, "config/dkim/Example.org/selector": "Nov2026\n", "config/dkim/Example.org/public": "any",
		"config/dkim/example.org/ed25519/private":  small, // another spelling is another folder, of the same domain
		"config/dkim/example.org/ed25519/selector": "ed",
		"config/dkim/old.example/private":          "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n" + old,
		"config/dkim/old.example/selector":         "a.b",
		"config/dkim/README":                       "no folder", "config/dkim/.git/x": "hidden",
		"config/dkim/noselector.example/private": big,
		"config/dkim/nokey.example/selector":     "s",
		"config/dkim/bad.example/private":        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "config/dkim/bad.example/selector": "s",
		"config/dkim/odd.example/private": big, "config/dkim/odd.example/selector": "two words",
		"config/dkim/text.example/private": "no PEM", "config/dkim/text.example/selector": "s",
		"config/dkim/same.example/private": big, "config/dkim/same.example/selector": "s",
		"config/dkim/same.example/b/private": small, "config/dkim/same.example/b/selector": "S",
	} {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	files["config/dkim/pipe.example/selector"] = &fstest.MapFile{Mode: fs.ModeNamedPipe}
	keys, faults := LoadKeys(files, "config/dkim")
	for domain, want := range map[string]string{"example.org": "nov2026 ed", "old.example": "a.b", "same.example": "s"} {
		var got []string
		for _, k := range keys[domain] {
			got = append(got, k.Selector)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", domain, got, want)
		}
	}
	var texts []string
	for _, err := range faults {
		texts = append(texts, err.Error())
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{
		"config/dkim/noselector.example/selector: ", "config/dkim/nokey.example/private: ", "config/dkim/bad.example/private: dkim: neither an RSA",
		`config/dkim/odd.example/selector: "two words"`, "config/dkim/text.example/private: no private key in PEM", `config/dkim/same.example/b/selector: "s" is the selector of another key`,
		"config/dkim/pipe.example/selector: it is no regular file",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not among\n%s", want, all)
		}
	}
	if len(faults) != 7 || len(keys) != 3 {
		t.Errorf("%d domains, faults\n%s", len(keys), all)
	}
	if keys, faults := LoadKeys(files, "config/none"); len(keys) > 0 || len(faults) > 0 {
		t.Error(keys, faults)
	}
}

func TestKeysFor(t *testing.T) {
	one := []Key{{"s", ed25519Key()}}
	keys := Keys{"example.org": one, "a.example.org": one, "org": one, "xn--bcher-kva.example": one}
	for domain, want := range map[string]string{
		"example.org": "example.org", "EXAMPLE.ORG.": "example.org", "a.example.org": "a.example.org", "x.b.a.example.org": "a.example.org",
		"b.example.org": "example.org", "example.net": "", "other.org": "", "org": "", "": "", "bücher.example": "xn--bcher-kva.example",
		"notexample.org": "", "[192.0.2.1]": "",
	} {
		if got, found := keys.For(domain); got != want || (len(found) > 0) != (want != "") {
			t.Errorf("%s: %q, want %q", domain, got, want)
		}
	}
}

func TestParseKey(t *testing.T) {
	tiny := "-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Qu\nKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQJAIJLixBy2qpFoS4DSmoEm\no3qGy0t6z09AIJtH+5OeRV1be+N4cDYJKffGzDa88vQENZiRm0GRq6a+HPGQMd2k\nTQIhAKMSvzIBnni7ot/OSie2TmJLY4SwTQAevXysE2RbFDYdAiEBCUEaRQnMnbp7\n9mxDXDf6AU0cN/RPBjb9qSHDcWZHGzUCIG2Es59z8ugGrDY+pxLQnwfotadxd+Uy\nv/Ow5T0q5gIJAiEAyS4RaI9YG8EWx/2w0T67ZUVAw8eOMB6BIUg0Xcu+3okCIBOs\n/5OiPgoTdSy7bcF9IGpSE8ZgGKzgYQVZeN97YE00\n-----END RSA PRIVATE KEY-----\n"
	for _, text := range []string{"", "x", tiny, "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"} {
		if k, err := ParseKey([]byte(text)); err == nil {
			t.Errorf("%q: %T", text, k)
		}
	}
	for _, kind := range []string{"rsa", "ed25519"} {
		k, err := NewKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		text, err := FormatKey(k)
		if err != nil {
			t.Fatal(err)
		}
		same, err := ParseKey(text)
		if err != nil || !same.(interface{ Equal(crypto.PrivateKey) bool }).Equal(k) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := NewKey("dsa"); err == nil {
		t.Error("a key of another kind")
	}
}

func TestRecord(t *testing.T) {
	for _, k := range bothKeys() {
		text, err := k.Record()
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Compare([]string{text}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		line, err := k.ZoneLine("example.org")
		if err != nil || !strings.HasPrefix(line, k.Selector+"._domainkey.example.org. IN TXT ( \"v=DKIM1; k=") || !strings.HasSuffix(line, "\" )") {
			t.Errorf("%s, %v", line, err)
		}
		for i, piece := range strings.Split(line, `"`) {
			if i%2 == 1 && len(piece) > maxString {
				t.Errorf("a string of %d octets", len(piece))
			}
		}
	}
	other, _ := Key{"small", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}.Record()
	for text, want := range map[string]string{
		other: "another key", "v=DKIM1; p=": "inappropriate key type", "v=DKIM1; k=ed25519; p=": "revoked", "v=spf1": "inapplicable",
	} {
		if err := (Key{"small", ed25519Key()}).Compare([]string{text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
