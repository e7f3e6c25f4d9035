package tlspolicy

import (
	"net/netip"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/route"
	"tarishi/internal/smtpclient"
)

// TestPolicyNames: the policies of the relay have the names that log lines of queued
// mail have; TLS from the first byte is encrypted whatever the route says.
func TestPolicyNames(t *testing.T) {
	for _, tt := range []struct {
		hop        mail.NextHop
		route      route.Route
		requireTLS bool
		want       string
		policy     smtpclient.TLSPolicy
	}{
		{want: "none", policy: smtpclient.TLSNone},
		{route: route.Route{EnableTLS: true}, want: "may", policy: smtpclient.TLSMay},
		{route: route.Route{EnableTLS: true, RejectUnauthorized: true}, want: "may-verify", policy: smtpclient.TLSMayVerify},
		{route: route.Route{RequireTLS: true}, want: "encrypt", policy: smtpclient.TLSEncrypt},
		{hop: mail.NextHop{ImplicitTLS: true}, route: route.Route{TLSVerify: true}, want: "verify", policy: smtpclient.TLSVerify},
		{hop: mail.NextHop{ImplicitTLS: true}, want: "encrypt", policy: smtpclient.TLSNone},
		{hop: mail.NextHop{ImplicitTLS: true}, route: route.Route{EnableTLS: true}, want: "encrypt", policy: smtpclient.TLSMay},
		{requireTLS: true, want: "verify", policy: smtpclient.TLSVerify},
	} {
		level := route.Level(&route.Settings{}, &tt.route, tt.hop, netip.MustParseAddr("192.0.2.1"))
		got := OfRoute(level, tt.hop.ImplicitTLS, tt.requireTLS)
		if got.Wanted != tt.want || got.TLS != tt.policy {
			t.Errorf("%+v: %s, %v", tt, got.Wanted, got.TLS)
		}
	}
}
