// Package plugintest runs one plugin in a real hook chain, for the tests of
// plugins.
package plugintest

import (
	"strings"
	"testing"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/result"
)

// Own is a configuration with nothing but the settings that the plugin declared.
func Own(settings ini.Declarer) *plugin.Config {
	return &plugin.Config{Own: map[string]ini.Declarer{name: settings}}
}

// name is that of the plugin in its chain.
const name = "tested"

// Chain builds the plugin with c (nil: no settings) and what s offers; Log may be left out. The
// plugin is started, and closed at the end of the test.
func Chain(t testing.TB, f plugin.Factory, c *plugin.Config, s plugin.Services) *hook.Chain {
	t.Helper()
	set, err := Load(f, c, s)
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
func Load(f plugin.Factory, c *plugin.Config, s plugin.Services) (*plugin.Set, error) {
	if s.Log == nil {
		s.Log = zap.NewNop()
	}
	listed := plugin.Config{}
	if c != nil {
		listed = *c
	}
	listed.Listed = []plugin.Listed{{Name: name, As: name}}
	var r plugin.Registry
	r.Register(name, f)
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
	c := &hook.Connection{ID: "C", Notes: mail.Notes{}, Results: new(result.Store)}
	tx := &hook.Transaction{Results: new(result.Store)}
	tx.ID, tx.Notes, tx.From = "C.1", mail.Notes{}, Address(t, from)
	for _, a := range to {
		tx.Recipients = append(tx.Recipients, mail.Recipient{Address: Address(t, a)})
	}
	return c, tx
}

// Receive gives a transaction the message that its client has sent, with LF or CRLF
// as line ends.
func Receive(t testing.TB, tx *hook.Transaction, text string) {
	t.Helper()
	raw := []byte(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n"))
	header, size, _ := mail.ParseHeader(raw)
	tx.Header, tx.HeaderSize, tx.Content, tx.Size = header, int64(size), mail.Memory{raw}, int64(len(raw))
	tx.Bodies = lender{}
}

// lender lends memory.
type lender struct{}

// NewBody implements hook.Lender.
func (lender) NewBody() hook.Body { return &body{} }

// body is a hook.Body in memory.
type body struct{ text []byte }

// Write implements io.Writer.
func (b *body) Write(p []byte) (int, error) {
	b.text = append(b.text, p...)
	return len(p), nil
}

// Content implements hook.Body.
func (b *body) Content() (mail.Content, error) { return mail.Memory{b.text}, nil }

// Discard implements hook.Body.
func (b *body) Discard() { b.text = nil }
