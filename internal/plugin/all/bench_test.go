package all

import (
	"net/netip"
	"testing"
	"testing/fstest"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
)

// BenchmarkChecks measures what the plugins that check mail cost for a connection with
// one message, with the DNS answering at once and the log switched off.
func BenchmarkChecks(b *testing.B) {
	var r plugin.Registry
	Register(&r)
	c, problems := read(&r, fstest.MapFS{
		"plugins":      {Data: []byte("access\nrelay\ndns-list\nfcrdns\nhelo.checks\nmail_from.is_resolvable\nbounce\nheaders\n")},
		"dns-list.ini": {Data: []byte("zones=one.example two.example\nperiodic_checks=0\n")},
	})
	if len(problems.Errors()) > 0 {
		b.Fatal(problems)
	}
	loader := plugin.Loader{Registry: &r, Services: plugin.Services{Log: zap.NewNop(), Resolver: &plugintest.DNS{
		Exchangers: map[string][]string{"example.com": {"mx.example.com"}}, Addresses: map[string][]string{"mx.example.com": {"8.8.8.8"}},
		Names: map[string][]string{"8.8.8.8": {"mx.example.com"}},
	}}}
	set, err := loader.Load(c)
	if err != nil {
		b.Fatal(err)
	}
	chain := hook.NewChain(set.Registrations(), zap.NewNop())
	to := mail.Recipient{Address: plugintest.Address(b, "b@here.com")}

	b.ReportAllocs()
	for b.Loop() {
		c, tx := plugintest.Session(b, "a@example.com", "b@here.com")
		c.Remote = hook.Remote{Addr: netip.MustParseAddrPort("8.8.8.8:1"), Host: "mx.example.com"}
		c.Hello = hook.Hello{Verb: "EHLO", Host: "mx.example.com"}
		for _, p := range []hook.Point{hook.OnConnectInit, hook.OnLookupRDNS, hook.OnConnect} {
			chain.Run(b.Context(), p, &hook.Event{Conn: c.View()})
		}
		chain.Run(b.Context(), hook.OnEhlo, &hook.Event{Conn: c.View(), Host: c.Hello.Host})
		chain.Run(b.Context(), hook.OnMail, &hook.Event{Conn: c.View(), Tx: tx.View()})
		chain.Run(b.Context(), hook.OnRcpt, &hook.Event{Conn: c.View(), Tx: tx.View(), Recipient: to})
		chain.Run(b.Context(), hook.OnData, &hook.Event{Conn: c.View(), Tx: tx.View()})
		plugintest.Receive(b, tx, "Received: a\nReceived: b\nFrom: A <a@example.com>\nTo: b@here.com\nDate: Mon, 30 Nov 2026 10:00:00 +0000\nMessage-ID: <1@example.com>\nSubject: x\nUser-Agent: y\n\nbody\n")
		if v := chain.Run(b.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code.Denies() {
			b.Fatal(v)
		}
	}
}
