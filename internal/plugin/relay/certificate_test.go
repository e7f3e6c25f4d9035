package relay

import (
	"strings"
	"testing"
	"testing/fstest"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
)

const fingerprint = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func TestCertificates(t *testing.T) {
	var c Certificates
	for _, line := range []string{fingerprint, "client.example.com", "ops@example.com"} {
		if err := c.add(line); err != nil {
			t.Fatal(err)
		}
	}
	chain := plugintest.Chain(t, New, plugintest.Own(&Settings{Certs: c}), plugin.Services{})
	shown := func(print string, names ...string) *hook.Certificate {
		return &hook.Certificate{Fingerprint: print, Names: names}
	}
	for name, tc := range map[string]struct {
		tls  hook.TLS
		want bool
	}{
		"in clear":             {hook.TLS{}, false},
		"none":                 {hook.TLS{Enabled: true, Verified: true}, false},
		"pinned":               {hook.TLS{Enabled: true, Certificate: shown(fingerprint)}, true},
		"another":              {hook.TLS{Enabled: true, Verified: true, Certificate: shown("ff" + fingerprint[2:])}, false},
		"a name":               {hook.TLS{Enabled: true, Verified: true, Certificate: shown("", "x", "Client.Example.Com")}, true},
		"an address":           {hook.TLS{Enabled: true, Verified: true, Certificate: shown("", "ops@example.com")}, true},
		"a name of nobody's":   {hook.TLS{Enabled: true, Certificate: shown("", "client.example.com")}, false},
		"another name":         {hook.TLS{Enabled: true, Verified: true, Certificate: shown("", "a.client.example.com")}, false},
		"a name as that print": {hook.TLS{Enabled: true, Verified: true, Certificate: shown("", fingerprint)}, false},
	} {
		for _, p := range []hook.Point{hook.OnConnectInit, hook.OnEhlo, hook.OnHelo} {
			conn, _ := plugintest.Session(t, "")
			conn.TLS = tc.tls
			chain.Run(t.Context(), p, &hook.Event{Conn: conn.View()})
			if conn.Relaying != tc.want {
				t.Errorf("%s at %s: %v", name, p, conn.Relaying)
			}
		}
	}
}

func TestCertificateSettings(t *testing.T) {
	for _, tc := range []struct{ list, tls, want string }{
		{"# ours\n" + strings.ToUpper(fingerprint) + "\nclient.example.com # one\n00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff\n", "requestCert=true", ""},
		{"client.example.com\n", "requireAuthorized[]=465", ""},
		{"client.example.com\n", "requestCert=false", "requestCert"},
		{"client.example.com\n", "", "requestCert"},
		{"", "", ""},
		{"*.example.com\n", "requestCert=true", "config/relay_cert_allow:1: "},
		{"\nda39a3ee5e6b4b0d3255bfef95601890afd80709\n", "requestCert=true", "config/relay_cert_allow:2: "},
	} {
		var s Settings
		r := ini.NewReader(fstest.MapFS{certFile: {Data: []byte(tc.list)}, "tls.ini": {Data: []byte(tc.tls)}}, "")
		r.Load(s.Tables())
		s.Check(r)
		var all []string
		for _, p := range r.Problems() {
			all = append(all, p.String())
		}
		if got := strings.Join(all, "\n"); (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.list, got, tc.want)
		}
		if tc.tls == "requestCert=true" && tc.want == "" && (len(s.Certs.Fingerprints) != 2 || s.Certs.Fingerprints[0] != s.Certs.Fingerprints[1] || len(s.Certs.Names) != 1) {
			t.Errorf("%+v", s.Certs)
		}
	}
}
