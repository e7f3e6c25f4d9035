package plugin

import "testing"

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"tls": "tls", "haraka-plugin-relay": "relay", "relay_all": "relay", "haraka-plugin-dnsbl": "dns-list", "@me/haraka-plugin-x": "@me/x", "@me/x": "@me/x",
		"queue/smtp_forward": "queue/smtp_forward", "auth/auth_ldap": "auth-ldap", "max_unrecognized_commands": "limit",
	} {
		if got := Canonical(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}
