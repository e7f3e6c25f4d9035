// Package discard stands in for the plugin queue/discard in a binary that tests
// build: a plugin that does not know when its time is over.
package discard

import (
	"context"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
)

// Name is the name of the plugin whose place it takes.
const Name = "queue/discard"

// overtime is how long a late handler goes on.
const overtime = 2 * time.Second

// New is the plugin's factory.
func New(plugin.Env) (plugin.Plugin, error) { return plugin.Hooks(register), nil }

// register registers handlers that are late at the point that the sender's local part
// names. Those without timeout note something wherever they are asked.
func register(h plugin.Host) {
	for _, p := range []hook.Point{hook.OnMail, hook.OnRcpt, hook.OnData, hook.OnDataPost, hook.OnQueue} {
		h.On(p, "late", 0, late)
	}
	for _, p := range []hook.Point{hook.OnNoop, hook.OnResetTransaction, hook.OnDisconnect} {
		h.On(p, "scribble", 0, func(_ context.Context, e *hook.Event) hook.Verdict {
			scribble(e, time.Now().Add(overtime/10))
			return hook.Proceed()
		})
	}
}

func late(ctx context.Context, e *hook.Event) hook.Verdict {
	if e.Tx.From().Local == string(e.Point) {
		<-ctx.Done()
		scribble(e, time.Now().Add(overtime))
	}
	if e.Point == hook.OnRcpt || e.Point == hook.OnQueue {
		return hook.Answer(hook.OK, "")
	}
	return hook.Proceed()
}

// scribble writes to the notes of the connection and the transaction.
func scribble(e *hook.Event, until time.Time) {
	for n := 0; time.Now().Before(until); n++ {
		e.Conn.Notes().Set("n", n)
		if !e.Tx.IsZero() {
			e.Tx.Notes().Set("n", n)
		}
	}
}
