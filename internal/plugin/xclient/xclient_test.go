package xclient

import (
	"net/netip"
	"slices"
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
)

func TestTrust(t *testing.T) {
	cfg := &Settings{Hosts: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("127.0.0.3/32")}}
	chain := plugintest.Chain(t, New, plugintest.Own(cfg), plugin.Services{})
	for remote, want := range map[string]hook.XClient{
		"192.0.2.1:1": hook.XClientLogin, "[::ffff:192.0.2.1]:1": hook.XClientLogin, "[2001:db8::2]:1": hook.XClientLogin, "127.0.0.3:1": hook.XClientLogin,
		"127.0.0.1:1": hook.XClientAddress, "[::1]:1": hook.XClientAddress,
		"127.0.0.2:1": hook.XClientRefused, "192.0.2.2:1": hook.XClientRefused, "[2001:db9::1]:1": hook.XClientRefused,
	} {
		c, _ := plugintest.Session(t, "")
		c.Remote.Addr = netip.MustParseAddrPort(remote)
		chain.Run(t.Context(), hook.OnConnectInit, &hook.Event{Conn: c.View()})
		chain.Run(t.Context(), hook.OnConnect, &hook.Event{Conn: c.View()})
		chain.Run(t.Context(), hook.OnCapabilities, &hook.Event{Conn: c.View()})
		if c.XClient != want || slices.Contains(c.Capabilities, capability) != (want >= hook.XClientAddress) {
			t.Errorf("%s: %v, %q", remote, c.XClient, c.Capabilities)
		}

		// The client that is handed on has its own trust, for its words may come through.
		for client, want := range map[string]hook.XClient{"203.0.113.1:1": hook.XClientRefused, "192.0.2.1:2": hook.XClientLogin} {
			c.Remote.Addr, c.Capabilities = netip.MustParseAddrPort(client), nil
			chain.Run(t.Context(), hook.OnConnect, &hook.Event{Conn: c.View()})
			chain.Run(t.Context(), hook.OnCapabilities, &hook.Event{Conn: c.View()})
			if c.XClient != want || slices.Contains(c.Capabilities, capability) != (want >= hook.XClientAddress) {
				t.Errorf("%s behind %s: %v, %q", client, remote, c.XClient, c.Capabilities)
			}
		}
	}
}
