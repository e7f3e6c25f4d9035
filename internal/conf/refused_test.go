package conf

import (
	"strings"
	"testing"
)

// TestRefused: a setting that protects something and cannot be honoured is an
// error, which stops the start; what asks for no more than there is, is not.
func TestRefused(t *testing.T) {
	for _, test := range []struct {
		name    string
		in      files
		refused string // the error says "…: cannot be honoured"; "": there is none
	}{
		{"PROXY", files{"connection.ini": "[haproxy]\nhosts[]=192.0.2.1\nhosts[]=2001:db8::/64"}, ""},
		{"PROXY, old", files{"haproxy_hosts": "# ours\n192.0.2.1\n"}, ""},
		{"PROXY, Haraka's own", files{"connection.ini": "[haproxy]\nenabled=true\nhosts[] ="}, ""},
		{"client certificates on a port", files{"tls.ini": "requireAuthorized[]=465"}, "config/tls.ini:1: key requireAuthorized"},
		{"client certificates on one port", files{"tls.ini": "requireAuthorized=2465"}, "config/tls.ini:1: key requireAuthorized"},
		{"no port", files{"tls.ini": "requireAuthorized[]="}, ""},
		{"crl", files{"tls.ini": "crl=revoked.pem"}, "config/tls.ini:1: key crl"},
		{"pfx", files{"tls.ini": "pfx=key.pfx"}, "config/tls.ini:1: key pfx"},
		{"passphrase", files{"tls.ini": "passphrase=secret"}, "config/tls.ini:1: key passphrase"},
		{"OCSP", files{"tls.ini": "requestOCSP=true"}, "config/tls.ini:1: key requestOCSP"},
		{"no OCSP", files{"tls.ini": "requestOCSP=false\nenableOCSPStapling=no"}, ""},
		{"OpenSSL's versions", files{"tls.ini": "secureProtocol=TLSv1_2_method"}, "config/tls.ini:1: key secureProtocol"},
		{"OpenSSL's options", files{"tls.ini": "[outbound]\nsecureOptions=67108864"}, "config/tls.ini:2: [outbound] key secureOptions"},
		{"curves", files{"tls.ini": "ecdhCurve=secp521r1"}, "config/tls.ini:1: key ecdhCurve"},
		{"Node's curves", files{"tls.ini": "ecdhCurve=auto"}, ""},
		{"signatures", files{"tls.ini": "sigalgs=ECDSA+SHA512"}, "config/tls.ini:1: key sigalgs"},
		{"inbound", files{"tls.ini": "[inbound]\nminVersion=TLSv1.3"}, "config/tls.ini:1: section [inbound]"},
		{"options of a certificate", files{"tls.ini": "[mx.example.com]\nminVersion=TLSv1.3"}, "config/tls.ini:1: section [mx.example.com]"},
		{"Haraka's own", files{"tls.ini": "requestCert=true\nhonorCipherOrder=true\ndhparam=dhparams.pem\n[outbound]\nrequestCert=true\nhonorCipherOrder=true\ndhparam=dhparams.pem"}, ""},
		{"Haraka's own, relayed", files{"smtp_forward.ini": "host=a\n[tls]\nrequestCert=true\nhonorCipherOrder=true\ndhparam=dhparams.pem"}, ""},
		{"rejectUnauthorized", files{"tls.ini": "rejectUnauthorized=true\n[outbound]\nrejectUnauthorized=true"}, ""},
		{"forced routes", files{"plugins": "relay", "relay_dest_domains.ini": "[domains]\nexample.com={\"nexthop\":\"192.0.2.1:x\"}"}, "config/relay_dest_domains.ini:2: [domains] key example.com"},
		{
			"forced routes with a password",
			files{"plugins": "relay_force_routing", "relay_dest_domains.ini": "[domains]\nexample.com={\"nexthop\":\"smtp://user:secret@192.0.2.1\"}"},
			"config/relay_dest_domains.ini:2: [domains] key example.com: nexthop: credentials belong into a section of outbound.ini",
		},
		{
			"forced routes, off",
			files{"plugins": "relay", "relay.ini": "[relay]\nforce_routing=false\ndest_domains=false", "relay_dest_domains.ini": "[domains]\nexample.com={\"nexthop\":\"192.0.2.1\"}"},
			"",
		},
		{"forced TLS in the wrong place", files{"smtp_forward.ini": "host=a\nforce_tls_hosts[]=a"}, "config/smtp_forward.ini:2: key force_tls_hosts"},
		{"forced TLS in a section", files{"smtp_forward.ini": "[b.example]\nhost=a\nforce_tls_hosts[]=a"}, "config/smtp_forward.ini:3: [b.example] key force_tls_hosts"},
		{"certificates in a folder", files{"tls/mx.pem": ""}, "config/tls:"},
		{"notes in a folder", files{"tls/README": ""}, ""},
		{"suites", files{"tls.ini": "ciphers=ECDHE-RSA-AES128-GCM-SHA256:KYBER:!aNULL"}, ""},
		{"the usual classes", files{"tls.ini": "ciphers=HIGH:!aNULL:!MD5:!3DES:!DES-CBC3-SHA:@STRENGTH"}, ""},
		{"a class that is chosen otherwise", files{"tls.ini": "ciphers=HIGH:!aNULL:!SHA1"}, "config/tls.ini:1: key ciphers"},
		{"a suite that is excluded", files{"tls.ini": "ciphers=DEFAULT:!ECDHE-RSA-AES128-SHA"}, "config/tls.ini:1: key ciphers"},
		{"all that is named is excluded", files{"tls.ini": "ciphers=AES128-SHA:!AES128-SHA"}, "config/tls.ini:1: key ciphers"},
		{"unknown ones only", files{"smtp_forward.ini": "host=a\n[tls]\nciphers=CHACHA20"}, "config/smtp_forward.ini:3: [tls] key ciphers"},
		{"suites of TLS 1.3 only", files{"tls.ini": "[outbound]\nciphers=TLS_AES_256_GCM_SHA384"}, "config/tls.ini:2: [outbound] key ciphers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, texts := load(t, test.in)
			var errs []string
			for _, text := range texts {
				if !strings.Contains(text, ": warning: ") {
					errs = append(errs, text)
				}
			}
			switch {
			case test.refused == "":
				if len(errs) > 0 {
					t.Error("refused:", errs)
				}
			case len(errs) != 1 || !strings.HasPrefix(errs[0], test.refused):
				t.Errorf("%q, want %s…", errs, test.refused)
			}
		})
	}
}

// TestRejectUnauthorized: [outbound] inherits what stands above, and a relay
// inherits that unless it says something itself.
func TestRejectUnauthorized(t *testing.T) {
	for _, test := range []struct {
		tls, relay           string
		outbound, main, deep bool // deep is that of [b.example]
	}{
		{"", "", false, false, false},
		{"rejectUnauthorized=true", "", true, true, true},
		{"[outbound]\nrejectUnauthorized=true", "", true, true, true},
		{"rejectUnauthorized=true\n[outbound]\nrejectUnauthorized=false", "", false, false, false},
		{"rejectUnauthorized=true", "[tls]\nrejectUnauthorized=false", true, false, false},
		{"rejectUnauthorized=true", "tls_verify=false", true, false, false},
		{"rejectUnauthorized=true", "[b.example]\ntls_verify=false", true, true, false},
	} {
		c, texts := load(t, files{"tls.ini": test.tls, "smtp_forward.ini": "host=a\n[b.example]\nhost=b\n" + "[main]\n" + test.relay})
		got := c.Forward.Routes["b.example"]
		if c.TLS.Outbound.RejectUnauthorized != test.outbound || c.Forward.Main.RejectUnauthorized != test.main || got.RejectUnauthorized != test.deep {
			t.Errorf("%q, %q: %v %v %v", test.tls, test.relay, c.TLS.Outbound.RejectUnauthorized, c.Forward.Main.RejectUnauthorized, got.RejectUnauthorized)
		}
		for _, text := range texts {
			if !strings.Contains(text, "warning: key rejectUnauthorized: without ca every public authority") {
				t.Error(text)
			}
		}
	}
}
