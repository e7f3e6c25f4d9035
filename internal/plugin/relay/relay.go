// Package relay is the plugin relay: it tells which clients may send mail to
// any domain. See README.md.
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
func New(s plugin.Services, h plugin.Host) error {
	cfg := s.Config.Relay
	h.Timeout(0)
	if cfg.ACL {
		h.On(hook.OnConnectInit, "acl", 0, func(_ context.Context, e *hook.Event) hook.Verdict {
			if contains(cfg.Allow, e.Conn.Remote.Addr.Addr()) {
				e.Conn.Relaying = true
				e.Conn.Results.For(Name).Pass = append(e.Conn.Results.For(Name).Pass, "acl")
			}
			return hook.Proceed()
		})
		h.On(hook.OnConnect, "pass_relaying", 0, passRelaying)
	}
	if cfg.All {
		s.Log.Warn("relay.ini [relay] all=true: every client may send to every domain")
		h.On(hook.OnRcpt, "all", 0, func(_ context.Context, e *hook.Event) hook.Verdict {
			e.Tx.Relaying = true
			return hook.Answer(hook.OK, "")
		})
	}
	return nil
}

// passRelaying spares clients that may relay the checks of later plugins.
func passRelaying(_ context.Context, e *hook.Event) hook.Verdict {
	if e.Conn.Relaying {
		return hook.Answer(hook.OK, "")
	}
	return hook.Proceed()
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}
