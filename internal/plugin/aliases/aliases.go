// Package aliases is the plugin aliases: recipients that stand for others, or for nobody.
// See README.md.
//
// New settings make a new instance, which holds nothing but its list.
package aliases

import (
	"context"
	"slices"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/route"
)

// Name is the plugin's name in config/plugins.
const Name = "aliases"

// Notes of a transaction: Haraka's, and ours about a message that goes to a backend and to
// other domains as well, which are in it with blanks between them.
const (
	noteForward   = "forward"
	noteElsewhere = "aliases.elsewhere"
)

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	return &aliases{
		entries: env.Settings.(*Settings).Entries, routes: env.Routes, forwarder: env.Forwarder, log: env.Log,
		recipients: env.Metrics.Counter("recipients_total", "Recipients that stand for others, or for nobody.", "action"),
	}, nil
}

// aliases is the plugin.
type aliases struct {
	entries    map[string]Entry
	routes     *route.Settings  // nil: smtp_forward.ini names no hosts
	forwarder  plugin.Forwarder // nil: nothing can be queued
	log        *zap.Logger
	recipients plugin.Counter // by action
}

// Register implements plugin.Plugin.
func (a *aliases) Register(h plugin.Host) {
	h.Timeout(0) // nothing here waits but for the queue, which has its limits
	h.On(hook.OnRcpt, "aliases", 0, a.expand)
	h.On(hook.OnQueue, "queue_forwarded", 0, a.queue)
	h.On(hook.OnGetMX, "get_mx", 0, leaveToDNS)
}

// expand says what a recipient stands for. Whether mail for it is accepted is for the
// plugins behind to say.
func (a *aliases) expand(_ context.Context, e *hook.Event) hook.Verdict {
	rcpt := e.Recipient.Address
	entry, known := a.find(rcpt)
	if !known {
		return hook.Proceed()
	}
	uuid := zap.String("uuid", string(e.Tx.ID()))
	if entry.Drop {
		a.recipients.Add(1, actionDrop)
		a.log.Info("marking "+rcpt.String()+" for drop", uuid)
		return hook.Verdict{Code: hook.Cont, Alias: &hook.Alias{}}
	}

	// What has no domain is beside the recipient.
	to := slices.Clone(entry.To)
	names := make([]string, len(to))
	for i := range to {
		if to[i].Domain == "" {
			to[i].Domain = rcpt.Domain
		}
		names[i] = to[i].String()
	}
	a.recipients.Add(1, actionAlias)
	a.log.Info("aliasing "+rcpt.String()+" to "+strings.Join(names, ", "), uuid)
	e.Tx.Notes().Set(noteForward, true)
	return hook.Verdict{Code: hook.Cont, Alias: &hook.Alias{To: to}}
}

// find looks a recipient up: the whole address, the user, the same without what follows the
// first + or -, the domain, and then what is for all.
func (a *aliases) find(rcpt mail.Address) (Entry, bool) {
	host := rcpt.Host()
	prefix := rcpt.Local
	if i := strings.IndexAny(prefix, "+-"); i >= 0 {
		prefix = prefix[:i]
	}
	for _, key := range [...]string{rcpt.Local + "@" + host, rcpt.Local, prefix + "@" + host, prefix, "@" + host, "*"} {
		if entry, known := a.entries[key]; known {
			return entry, true
		}
	}
	return Entry{}, false
}

// queue sees to what is sent on to other domains: no backend and no queue plugin for our own
// domains would take it. The message goes into the outbound queue, and from there each
// recipient its own way.
func (a *aliases) queue(ctx context.Context, e *hook.Event) hook.Verdict {
	away := e.Tx.Forwarded()
	notes := e.Tx.Notes()
	wants := notes.String(route.NoteWants)
	if len(away) == 0 || a.forwarder == nil || wants != "" && wants != route.WantsForward && wants != route.WantsOutbound {
		return hook.Proceed()
	}
	var here []mail.Recipient
	for _, r := range e.Tx.Recipients() {
		if !slices.Contains(away, r.Address) {
			here = append(here, r)
		}
	}
	if len(here) == 0 || wants == route.WantsOutbound {
		notes.Set(route.NoteWants, route.WantsOutbound)
		return a.forwarder.Queue(ctx, e.Conn, e.Tx)
	}

	// What stays here goes to its backend, by the note. Where there is none another queue
	// plugin has to take the message, and if it uses the queue the note still counts.
	var domains []string
	for _, address := range away {
		domain := address.Host()
		isHere := slices.ContainsFunc(here, func(r mail.Recipient) bool { return r.Address.Host() == domain })
		if !isHere && !slices.Contains(domains, domain) {
			domains = append(domains, domain)
		}
	}
	notes.Set(noteElsewhere, strings.Join(domains, " "))
	if a.routes == nil || route.Decide(a.routes, false, e.Tx.From(), here, notes.All()).Action == route.Skip {
		return hook.Proceed()
	}
	if _, steered := route.Steered(a.routes, e.Tx.From(), here, notes.All()); !steered {
		notes.Set(route.NoteNextHop, "") // of one recipient, perhaps: each has its route
	}
	notes.Set(route.NoteWants, route.WantsForward)
	return a.forwarder.Queue(ctx, e.Conn, e.Tx)
}

// leaveToDNS keeps what is sent on from the backend that the rest of the message goes to.
func leaveToDNS(_ context.Context, e *hook.Event) hook.Verdict {
	elsewhere := e.Delivery.MessageNotes().String(noteElsewhere)
	if elsewhere != "" && slices.Contains(strings.Fields(elsewhere), e.Host) {
		return hook.Answer(hook.Stop, "")
	}
	return hook.Proceed()
}
