package conf

import (
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/grant"
)

// TestGrants: where access tokens come from, in sections that inherit and in those that must not; names of
// files are below config/.
func TestGrants(t *testing.T) {
	c, texts := load(t, files{
		"smtp_forward.ini": "host=127.0.0.1\nauth_type=XOAUTH2\nauth_user=box\nauth_token_url=https://login.example/t\nauth_client_id=id\n" +
			"auth_client_secret_file=secret.txt\nauth_refresh_token=r3fresh\nauth_scope=a b\n[same.example]\n[other.example]\nhost=127.0.0.2\n",
		"outbound.ini": "[a.example]\nhost=b.example c.example\nauth_user=box\nauth_token_file=/run/none\n[d.example]\nhost=e.example\n" +
			"auth_type=oauthbearer\nauth_user=box\nauth_pass=abc\n",
		"secret.txt": "s",
	})
	if len(texts) != 1 || !strings.Contains(texts[0], "config/outbound.ini:4: warning: [a.example] key auth_token_file: there is no file /run/none") {
		t.Errorf("%q", texts)
	}
	want := grant.Grant{
		URL: "https://login.example/t", ClientID: "id", ClientSecretFile: filepath.Join(c.ConfigDir, "secret.txt"), RefreshToken: "r3fresh", Scope: "a b",
	}
	f := c.Forward
	if f.Main.Grant != want || f.Main.AuthType != "xoauth2" || f.Routes["same.example"].Grant != want {
		t.Errorf("%+v\n%+v", f.Main.Grant, f.Routes["same.example"].Grant)
	}
	if r := f.Routes["other.example"]; r.Grant != (grant.Grant{}) || r.AuthType != "" || r.AuthUser != "" {
		t.Errorf("another host has the credentials too: %+v", r.Grant)
	}
	for i, hop := range c.Outbound.Destinations["a.example"].Hosts {
		if g := hop.AuthGrant.Grant(); g != (grant.Grant{TokenFile: "/run/none"}) || hop.AuthType != "xoauth2 oauthbearer" || !hop.AuthRequired || hop.AuthUser != "box" {
			t.Errorf("%d: %+v %q", i, g, hop.AuthType)
		}
	}
	if hop := c.Outbound.Destinations["d.example"].Hosts[0]; !hop.AuthGrant.IsZero() || hop.AuthPass != "abc" {
		t.Errorf("%+v", hop.AuthGrant)
	}
	if _, texts := load(t, files{"outbound.ini": "[a.example]\nhost=b\nauth_user=u\nauth_token_url=https://x.example/t\nauth_client_id=i\nauth_client_secret_file=/run/none"}); len(texts) != 1 ||
		!strings.Contains(texts[0], "outbound.ini:6: [a.example] key auth_client_secret_file: there is no file /run/none") {
		t.Errorf("%q", texts)
	}
}
