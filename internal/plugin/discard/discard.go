// Package discard is the plugin queue/discard: it accepts and drops messages
// that another plugin's notes condemn. See README.md.
//
// A reload makes a new instance, which holds nothing.
package discard

import (
	"context"
	"reflect"

	"tarishi/internal/hook"
	"tarishi/internal/lease"
	"tarishi/internal/plugin"
)

// Name is the plugin's name in config/plugins.
const Name = "queue/discard"

// New is the plugin's factory.
func New(plugin.Env) (plugin.Plugin, error) { return plugin.Hooks(register), nil }

func register(h plugin.Host) {
	h.Timeout(0)
	h.On(hook.OnQueue, "discard", 0, discard)
	h.On(hook.OnQueueOutbound, "discard", 0, discard)
}

func discard(_ context.Context, e *hook.Event) hook.Verdict {
	// A message that another queue plugin wants is not ours to drop.
	switch e.Tx.Notes().String("queue.wants") {
	case "discard":
	case "":
		if !condemned(e.Tx.Notes()) && !condemned(e.Conn.Notes()) {
			return hook.Proceed()
		}
	default:
		return hook.Proceed()
	}
	return hook.Answer(hook.OK, "Message discarded")
}

// condemned reads the note discard, which plugins set to true, or to the reason.
func condemned(n lease.Notes) bool {
	v := n.Get("discard")
	return v != nil && !reflect.ValueOf(v).IsZero()
}
