// Package plugintest runs one plugin in a real hook chain, for the tests of
// plugins.
package plugintest

import (
	"testing"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
)

// Chain builds the plugin with what s offers; Config and Log may be left out. The
// plugin is started, and closed at the end of the test.
func Chain(t testing.TB, f plugin.Factory, s plugin.Services) *hook.Chain {
	t.Helper()
	set, err := Load(f, s)
	if err == nil {
		err = set.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	log := s.Log
	if log == nil {
		log = zap.NewNop()
	}
	return hook.NewChain(set.Registrations(), log)
}

// Load makes a set of the plugin alone, which is not started.
func Load(f plugin.Factory, s plugin.Services) (*plugin.Set, error) {
	if s.Log == nil {
		s.Log = zap.NewNop()
	}
	if s.Config == nil {
		s.Config, _ = conf.Load("")
	}
	listed := *s.Config
	listed.Plugins = []conf.PluginName{{Name: "tested", As: "tested"}}
	var r plugin.Registry
	r.Register("tested", f)
	return (&plugin.Loader{Registry: &r, Services: s}).Load(&listed)
}

// Address parses an address, or fails the test.
func Address(t testing.TB, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return a
}

// Session returns a connection and, on it, a transaction from one address to
// others.
func Session(t testing.TB, from string, to ...string) (*hook.Connection, *hook.Transaction) {
	t.Helper()
	c := &hook.Connection{ID: "C", Notes: mail.Notes{}, Results: hook.NewResults()}
	tx := &hook.Transaction{Results: hook.NewResults()}
	tx.ID, tx.Notes, tx.From = "C.1", mail.Notes{}, Address(t, from)
	for _, a := range to {
		tx.Recipients = append(tx.Recipients, mail.Recipient{Address: Address(t, a)})
	}
	return c, tx
}
