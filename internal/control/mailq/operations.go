package mailq

import (
	"slices"

	"tarishi/internal/control"
	"tarishi/internal/control/filter"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
)

// Bounds of the number of destinations in an answer.
const (
	maxTop           = 1000
	someDestinations = 20 // unless it is given
)

// Operations returns the rows of the queue. Of those of a nil Local only the
// functions cannot be used.
func (l *Local) Operations() []control.Operation {
	return slices.Concat(l.readingRows(), l.daemonRows(), l.changingRows(), l.configurationRows())
}

// messageID is the message that an operation is about.
var messageID = control.Parameter{Name: "id", Kind: control.MessageID, Positional: true, Required: true, Text: "The message, as list prints it."}

// filterWithIDs returns the filter with IDs as arguments of the command.
func filterWithIDs() []control.Parameter {
	all := filter.Parameters()
	all[0].Positional, all[0].Text = true, "The messages, as list prints them."
	return all
}

// readingRows only read the queue: the files of a stopped daemon will do.
func (l *Local) readingRows() []control.Operation {
	// The texts are those of the help and the reference: no other place has them.
	return []control.Operation{
		control.Lines(control.Operation{
			Name: "queue list", Method: "GET", Path: "/v1/queue/messages", Parameters: filter.Parameters(), Files: true,
			Text:   "List the messages in the queue.",
			Prints: "a line for each message: ID, age, size, sender, the first recipient that waits and how many more, when the next attempt is due, how many attempts were deferred, and a reply that deferred it. In no certain order; last, without conditions, the messages that cannot be read, and why",
			Answer: "200, `application/x-ndjson`: a message a line",
		}, l.listMessages, view.PrintMessages),
		control.Object(control.Operation{
			Name: "queue stat", Method: "GET", Path: "/v1/queue", Files: true,
			Parameters: []control.Parameter{{
				Name: "destinations", Kind: control.Number(0, maxTop), Preset: "10",
				Text: "How many destinations, and the oldest message, to look for: that reads every envelope.",
			}},
			Text:   "Show queue totals and daemon health.",
			Prints: "whether the daemon runs and can accept mail; the generation of its configuration, and why the last reload was refused; messages, bytes and recipients; deliveries (one message to one destination) that wait for their time, are ready, run, or wait for a suspended destination; the oldest message; the ten destinations with the most messages",
			Answer: "200, counts; without `destinations` it takes no longer with a full queue",
		}, l.countQueue, view.PrintStat),
		control.Object(control.Operation{
			Name: "queue show", Method: "GET", Path: "/v1/queue/messages/{id}", Parameters: []control.Parameter{messageID}, Files: true,
			Text:   "Show a message's envelope, its recipients and its header section.",
			Prints: "envelope, every recipient with its state, and the header section",
			Answer: "200, the message with all its recipients and its header section",
		}, l.showMessage, view.PrintMessage),
		control.Content(control.Operation{
			Name: "queue cat", Method: "GET", Path: "/v1/queue/messages/{id}/content", Parameters: []control.Parameter{messageID}, Files: true,
			Text:   "Write a message as it will be sent, byte by byte.",
			Prints: "the message exactly as it will be sent, with CRLF line ends",
			Answer: "200, `message/rfc822`: the bytes that will be sent",
		}, l.openContent),
	}
}

// daemonRows read what only the daemon knows.
func (l *Local) daemonRows() []control.Operation {
	return []control.Operation{
		control.List(control.Operation{
			Name: "queue why", Method: "GET", Path: "/v1/queue/messages/{id}/why", Parameters: []control.Parameter{messageID},
			Text:   "Show what each delivery of a message waits for.",
			Prints: "each delivery of a message that is left, with what it waits for (its time, a place, a rate, a destination that could not be reached, an operator), the host that it is with, and its last reply",
			Answer: "200, `{\"deliveries\":[…]}`",
		}, "deliveries", l.explainDeliveries, view.PrintDeliveries),
		control.List(control.Operation{
			Name: "queue destinations", Method: "GET", Path: "/v1/destinations",
			Parameters: []control.Parameter{{Name: "limit", Kind: control.Number(1, maxTop), Text: "Show at most N destinations, 1 to 1000 (default 20)."}},
			Text:       "Show how delivery to each destination goes: limits, rates, suspensions.",
			Prints:     "the domains with the most deliveries (20): how many wait for their time, are ready, and run; the age of the oldest message; attempts that may run at a time; rate; the site, if the domain shares its MX; until when it is suspended; the last error",
			Answer:     "200, `{\"destinations\":[…]}`, those with the most deliveries",
		}, "destinations", l.listDestinations, view.PrintDestinations),
	}
}

// changingRows change the queue, or when it is delivered.
func (l *Local) changingRows() []control.Operation {
	// Older than the filter, and shorter to type: 'queue flush example.com'.
	which := control.Parameter{
		Name: "which", Positional: true, Text: "Only deliveries to this domain, or those of the message with this ID.",
		Empty: "an empty domain; leave it out to flush the whole queue",
		Kind: control.Kind{Placeholder: "DOMAIN|ID", Check: func(name, value string) error {
			if mail.ID(value).Valid() {
				return nil
			}
			return filter.Domain.Check(name, value)
		}},
	}

	// Those that change a message report on each; a flush only counts deliveries.
	return []control.Operation{
		control.Lines(control.Operation{
			Name: "queue hold", Method: "POST", Path: "/v1/queue/hold", Single: "/v1/queue/messages/{id}/hold", Parameters: filterWithIDs(),
			Text:   "Keep messages from being attempted until they are released.",
			Prints: "each message that is held now, durably. See [outbound.md](outbound.md)",
			Answer: "200, `application/x-ndjson`: a message a line, as `--json` prints it",
		}, l.holdMessages, view.PrintHoldings),
		control.Lines(control.Operation{
			Name: "queue release", Method: "POST", Path: "/v1/queue/release", Single: "/v1/queue/messages/{id}/release", Parameters: filterWithIDs(),
			Text:   "Let messages go on that were held.",
			Prints: "each message that is not held any more, durably",
			Answer: "200, `application/x-ndjson`: a message a line, as `--json` prints it",
		}, l.releaseMessages, view.PrintHoldings),
		control.Object(control.Operation{
			Name: "queue flush", Method: "POST", Path: "/v1/queue/flush", Single: "/v1/queue/messages/{id}/flush",
			Parameters: append([]control.Parameter{which}, filter.Parameters()...),
			Text:       "Make deferred deliveries due now: all, those to one domain, or those of selected messages.",
			Prints:     "how many deferred deliveries became due now, all of them, those to one domain, or those of selected messages; a suspended destination is probed at once; messages that could not be read are tried again",
			Answer:     "200, `{\"deliveries\":N}`",
		}, l.flushDeliveries, view.PrintFlushed),
		control.Lines(control.Operation{
			Name: "queue remove", Method: "DELETE", Path: "/v1/queue/messages", Single: "/v1/queue/messages/{id}", Parameters: filterWithIDs(),
			Text:   "Take messages out of the queue. No report is sent.",
			Prints: "each message that it took out of the queue. Neither sender nor recipient gets a report; the log says `message removed on request`",
			Answer: "200, `application/x-ndjson`: a message a line, as `--json` prints it",
		}, l.removeMessages, view.PrintRemovals),
	}
}

// configurationRows are about the settings of the daemon.
func (l *Local) configurationRows() []control.Operation {
	return []control.Operation{
		control.Object(control.Operation{
			Name: "reload", Method: "POST", Path: "/v1/reload",
			Text:   "Put changed configuration files in force, or report why they cannot be.",
			Prints: "the generation that is in force now. On stderr, with exit code 1, why the files were refused, a problem a line: the configuration before stays in force. See [reload.md](reload.md)",
			Answer: "200, `{\"generation\":N,\"changed\":true}`; with `problems` it was refused",
		}, l.reload, view.PrintReload),
	}
}

// Rows describes the operations, for asking a daemon to perform them.
func Rows() []control.Operation { return (*Local)(nil).Operations() }

// Row returns one of Rows. It panics if there is none with this name.
func Row(name string) *control.Operation {
	rows := Rows()
	i := slices.IndexFunc(rows, func(op control.Operation) bool { return op.Name == name })
	return &rows[i]
}
