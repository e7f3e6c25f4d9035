package tls

import (
	"net/netip"
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/tlsconf"
)

func TestOffer(t *testing.T) {
	cfg := &tlsconf.Settings{
		NoTLSHosts:      []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		NoSTARTTLSPorts: []int{2525},
	}
	chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{TLS: cfg}}, plugin.Services{})
	for _, tc := range []struct {
		remote, local string
		want          bool
	}{
		{"198.51.100.1:1", "127.0.0.1:25", true},
		{"192.0.2.7:1", "127.0.0.1:25", false},
		{"[::ffff:192.0.2.7]:1", "127.0.0.1:25", false},
		{"[2001:db8::1]:1", "127.0.0.1:25", false},
		{"[2001:db9::1]:1", "127.0.0.1:25", true},
		{"198.51.100.1:1", "127.0.0.1:2525", false},
	} {
		c, _ := plugintest.Session(t, "")
		c.Remote.Addr, c.Local, c.OfferTLS = netip.MustParseAddrPort(tc.remote), netip.MustParseAddrPort(tc.local), !tc.want
		chain.Run(t.Context(), hook.OnConnectInit, &hook.Event{Conn: c.View()})
		if c.OfferTLS != tc.want {
			t.Errorf("%+v: %v", tc, c.OfferTLS)
		}
	}
}
