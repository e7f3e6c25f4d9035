package relay

import (
	"net/netip"
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

func TestACL(t *testing.T) {
	cfg := &Settings{ACL: true, Allow: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("203.0.113.5/32"), netip.MustParsePrefix("2001:db8::/32"),
	}}
	chain := plugintest.Chain(t, New, plugintest.Own(cfg), plugin.Services{})
	for remote, want := range map[string]bool{
		"192.0.2.1:1": true, "192.0.3.1:1": false, "203.0.113.5:1": true, "203.0.113.6:1": false, "[::ffff:192.0.2.1]:1": true,
		"[2001:db8::1%eth0]:1": true, "[::1]:1": false, "127.0.0.1:1": false,
	} {
		c, tx := plugintest.Session(t, "a@b.c")
		c.Remote.Addr = netip.MustParseAddrPort(remote)
		chain.Run(t.Context(), hook.OnConnectInit, &hook.Event{Conn: c.View()})
		v := chain.Run(t.Context(), hook.OnConnect, &hook.Event{Conn: c.View()})
		found := map[bool]string{true: "pass:acl", false: "skip:acl(unlisted)"}[want]
		if line := c.Results.Of(Name).Line(result.Format{}); c.Relaying != want || (v.Code == hook.OK) != want || line != found {
			t.Errorf("%s: relaying %v, connect %v, found %q", remote, c.Relaying, v, line)
		}
		if v := chain.Run(t.Context(), hook.OnRcpt, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code != hook.Cont || tx.Relaying {
			t.Errorf("%s: rcpt %v", remote, v)
		}
	}
}

func TestAll(t *testing.T) {
	chain := plugintest.Chain(t, New, plugintest.Own(&Settings{All: true}), plugin.Services{})
	c, tx := plugintest.Session(t, "a@b.c")
	if v := chain.Run(t.Context(), hook.OnRcpt, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code != hook.OK || !tx.Relaying || c.Relaying {
		t.Errorf("verdict %+v, relaying %v", v, tx.Relaying)
	}
	if chain.Has(hook.OnConnectInit) {
		t.Error("the ACL is on")
	}
}

func TestOff(t *testing.T) {
	chain := plugintest.Chain(t, New, plugintest.Own(&Settings{}), plugin.Services{})
	for _, p := range hook.Points() {
		if chain.Has(p) {
			t.Errorf("registers %s", p)
		}
	}
}
