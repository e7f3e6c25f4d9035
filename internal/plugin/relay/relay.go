// Package relay is the plugin relay: it lets clients send mail to any domain. See
// README.md.
//
// New settings make a new instance, which holds nothing but its list.
package relay

import (
	"context"
	"net/netip"
	"slices"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
)

// Name is the plugin's name in config/plugins.
const Name = "relay"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	cfg := env.Settings.(*Settings)
	if cfg.All {
		env.Log.Warn("relay.ini [relay] all=true: every client may send to every domain")
	}
	return &clients{acl: cfg.ACL, allow: cfg.Allow, certs: cfg.Certs, all: cfg.All}, nil
}

// clients says which of them may relay.
type clients struct {
	acl   bool // those of allow
	allow []netip.Prefix
	certs Certificates
	all   bool
}

// Register implements plugin.Plugin.
func (c *clients) Register(h plugin.Host) {
	h.Timeout(0)
	if c.acl {
		h.On(hook.OnConnectInit, "acl", 0, c.matchACL)
		h.On(hook.OnConnect, "pass_relaying", 0, passRelaying)
	}
	if len(c.certs.Fingerprints) > 0 || len(c.certs.Names) > 0 {
		for _, p := range []hook.Point{hook.OnConnectInit, hook.OnHelo, hook.OnEhlo} {
			h.On(p, "certificate", 0, c.certs.matchCertificate)
		}
	}
	if c.all {
		h.On(hook.OnRcpt, "all", 0, acceptAll)
	}
}

// matchACL lets clients relay if the list allows their address.
func (c *clients) matchACL(_ context.Context, e *hook.Event) hook.Verdict {
	if contains(c.allow, e.Conn.Remote().Addr.Addr()) {
		e.Conn.SetRelaying(true)
		e.Conn.Results().Pass(Name, "acl")
	}
	return hook.Proceed()
}

// acceptAll accepts any recipient of any client.
func acceptAll(_ context.Context, e *hook.Event) hook.Verdict {
	e.Tx.SetRelaying(true)
	return hook.Answer(hook.OK, "")
}

// passRelaying spares clients that may relay the checks of later plugins.
func passRelaying(_ context.Context, e *hook.Event) hook.Verdict {
	if e.Conn.Relaying() {
		return hook.Answer(hook.OK, "")
	}
	return hook.Proceed()
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}
