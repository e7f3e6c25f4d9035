// Package tls is the plugin tls: it lets clients use STARTTLS. See README.md.
//
// New settings make a new instance. The certificates are the server's.
package tls

import (
	"context"
	"net/netip"
	"slices"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/tlsconf"
)

// Name is the plugin's name in config/plugins.
const Name = "tls"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	cfg := env.TLS
	return plugin.Hooks(func(h plugin.Host) {
		h.Timeout(0)
		h.On(hook.OnConnectInit, "offer", 0, func(_ context.Context, e *hook.Event) hook.Verdict {
			// Offered anew on each connection: the lists name ports and clients.
			e.Conn.SetOfferTLS(offers(cfg, e.Conn))
			return hook.Proceed()
		})
	}), nil
}

func offers(cfg *tlsconf.Settings, c hook.ConnectionView) bool {
	remote := c.Remote().Addr.Addr().Unmap()
	return !slices.Contains(cfg.NoSTARTTLSPorts, int(c.Local().Port())) &&
		!slices.ContainsFunc(cfg.NoTLSHosts, func(p netip.Prefix) bool { return p.Contains(remote) })
}
