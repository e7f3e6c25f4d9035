// Package xclient is the plugin xclient: it lets trusted peers hand on the connections of
// their clients by XCLIENT. See README.md.
//
// New settings make a new instance. The command itself is the session's.
package xclient

import (
	"context"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
)

// Name is the plugin's name in config/plugins.
const Name = "xclient"

// capability is the line of the extension in the reply to EHLO.
const capability = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	cfg := env.Settings.(*Settings)
	return plugin.Hooks(func(h plugin.Host) {
		h.Timeout(0)
		// A client that was handed on is another one, whose words a proxy may pass on as they are:
		// its own address counts from then on. connect comes again for it, connect_init does not.
		trust := func(_ context.Context, e *hook.Event) hook.Verdict {
			e.Conn.SetXClient(cfg.trust(e.Conn.Remote().Addr.Addr()))
			return hook.Proceed()
		}
		h.On(hook.OnConnectInit, "trust", 0, trust)
		h.On(hook.OnConnect, "trust_again", hook.MinPriority, trust)
		h.On(hook.OnCapabilities, "hook_capabilities", 0, offer)
	}), nil
}

// offer announces XCLIENT to those that may use it.
func offer(_ context.Context, e *hook.Event) hook.Verdict {
	if e.Conn.XClient() >= hook.XClientAddress {
		_ = e.Conn.AddCapability(capability)
	}
	return hook.Proceed()
}
