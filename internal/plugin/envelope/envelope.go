// Package envelope is the plugin record_envelope_addresses: it writes the
// envelope's addresses into header fields. See README.md.
//
// A reload makes a new instance, which holds nothing.
package envelope

import (
	"context"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
)

// Name is the plugin's name in config/plugins.
const Name = "record_envelope_addresses"

// New is the plugin's factory.
func New(plugin.Env) (plugin.Plugin, error) { return plugin.Hooks(register), nil }

func register(h plugin.Host) {
	h.Timeout(0)
	h.On(hook.OnDataPost, "record", 0, record)
}

// record adds the fields anew: those that the client sent under these names
// would be believed otherwise.
func record(_ context.Context, e *hook.Event) hook.Verdict {
	header := e.Tx.Header()
	header.Remove("X-Envelope-From")
	header.Remove("X-Envelope-To")

	// The null reverse-path has no address, and an empty field would say nothing.
	from := e.Tx.From().String()
	if from == "" {
		from = "<>"
	}
	header.Add("X-Envelope-From", from)
	for _, r := range e.Tx.Recipients() {
		header.Add("X-Envelope-To", r.Address.String())
	}
	return hook.Proceed()
}
