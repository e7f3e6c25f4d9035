// Package srs is the plugin srs: it rewrites the senders of mail that is forwarded out of
// the site, and takes the reports about it back. See README.md.
//
// New settings make a new instance, which holds nothing but them.
package srs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
	"tarishi/internal/result"
	"tarishi/internal/route"
	"tarishi/internal/srs"
)

// Name is the plugin's name in config/plugins.
const Name = "srs"

// New is the plugin's factory. Without a domain it does nothing; a domain that cannot be
// served is an error.
func New(env plugin.Env) (plugin.Plugin, error) {
	s := env.Settings.(*Settings)
	switch {
	case s.Domain == "":
		env.Log.Warn("srs.ini names no domain: no sender will be rewritten")
		return plugin.Hooks(func(plugin.Host) {}), nil
	case len(s.Secrets) == 0:
		return nil, errors.New("srs.secrets has no secret: 'openssl rand -base64 18' makes one")
	}
	for _, domain := range s.Relayed {
		if r := env.Routes.Routes[domain]; r == nil || r.Queue != route.WantsOutbound {
			return nil, fmt.Errorf("srs.ini: relayed_domains: %s needs a section in smtp_forward.ini with queue=outbound: mail that is relayed in session keeps its sender", domain)
		}
	}
	return &rewriter{
		Settings: s, routes: env.Routes, forwarder: env.Forwarder, log: env.Log, recorder: env.NewRecorder(Name, result.Format{}),
		scheme: srs.New(srs.Options{
			Secrets: s.Secrets, Domain: s.Domain, Separator: s.Separator[0], Hash: algorithms[s.Algorithm],
			Length: s.Length, Shortest: s.Shortest, MaxAge: s.MaxAge, Now: time.Now,
		}),
	}, nil
}

// rewriter is the plugin.
type rewriter struct {
	*Settings
	scheme    *srs.Scheme
	routes    *route.Settings
	forwarder plugin.Forwarder
	log       *zap.Logger
	recorder  *plugin.Recorder
}

// The priorities: a recipient is looked at before another plugin accepts its domain as a
// whole, and a message is taken before it is relayed.
const (
	beforeAll   = -50
	beforeQueue = -10
)

// Register implements plugin.Plugin.
func (w *rewriter) Register(h plugin.Host) {
	h.Timeout(0) // the queue has its own
	h.On(hook.OnRcpt, "check_recipient", beforeAll, w.checkRecipient)
	h.On(hook.OnRcptOK, "split", 0, w.split)
	h.On(hook.OnQueue, "queue", beforeQueue, w.queue)
	h.On(hook.OnQueueOutbound, "reverse", beforeQueue, w.queueOutbound)
	h.On(hook.OnSendEmail, "rewrite", 0, w.rewrite)
}

// noteForwarded lists the domains to which a message is forwarded.
const noteForwarded = "srs.forwarded"

// isOurs reports whether an address is one that the plugin makes.
func (w *rewriter) isOurs(a mail.Address) bool { return a.Host() == w.Domain && srs.IsSRS(a) }

// checkRecipient accepts reports to senders that were rewritten here, and nothing else.
func (w *rewriter) checkRecipient(_ context.Context, e *hook.Event) hook.Verdict {
	to := e.Recipient.Address
	if !w.isOurs(to) {
		return hook.Proceed()
	}
	record := w.recorder.On(e.Tx.Results())
	defer record.Log()

	// A good address leads to one mailbox somewhere else. Mail of strangers that is no report
	// has no business there.
	_, err := w.scheme.Reverse(to)
	text := ""
	switch {
	case err == nil && (e.Sender.IsNull() || e.Tx.Relaying()):
		record.Pass("reverse")
		return hook.Answer(hook.OK, "")
	case err == nil:
		record.Fail("no report")
		text = "This address takes reports only"
	case errors.Is(err, srs.ErrExpired):
		record.Fail("expired")
		text = "This address has expired"
	case errors.Is(err, srs.ErrHash):
		record.Fail("hash")
		text = "This address was not made here"
	default:
		record.Fail("malformed")
		text = "This address was not made here"
	}
	return record.Refuse(hook.Verdict{Code: hook.Deny, Reply: reply.New(550, "5.7.1", text)})
}

// split keeps reports that come back apart from other recipients, which go another way.
func (w *rewriter) split(_ context.Context, e *hook.Event) hook.Verdict {
	accepted := e.Tx.Recipients()
	if !e.Tx.Relaying() && len(accepted) > 0 && w.isOurs(accepted[0].Address) != w.isOurs(e.Recipient.Address) {
		return hook.Verdict{Code: hook.DenySoft, Reply: reply.New(450, "4.5.3", "Split transaction, retry soon")}
	}
	return hook.Proceed()
}

// reverse replaces recipients that the plugin has made by the senders that they stand for.
// any reports that there were some.
func (w *rewriter) reverse(tx hook.TransactionView) (any bool, err error) {
	all := slices.Clone(tx.Recipients())
	for i, r := range all {
		if !w.isOurs(r.Address) {
			continue
		}
		// It was good at RCPT, and may have expired at midnight.
		origin, err := w.scheme.Reverse(r.Address)
		if err != nil {
			return false, err
		}
		w.log.Info("reverse", zap.String("uuid", string(tx.ID())), zap.String("to", r.Address.String()), zap.String("sender", origin.String()))
		all[i].Address, any = origin, true
	}
	if any {
		tx.SetRecipients(all)
	}
	return any, nil
}

// queue puts a report that comes back into the outbound queue, and marks a message that is
// forwarded.
func (w *rewriter) queue(ctx context.Context, e *hook.Event) hook.Verdict {
	notes := e.Tx.Notes()
	if notes.Get("discard") != nil { // the message is none
		return hook.Proceed()
	}
	any, err := w.reverse(e.Tx)
	switch {
	case err != nil:
		return hook.Verdict{Code: hook.Deny, Reply: reply.New(550, "5.7.1", "This address has expired")}
	case any && w.forwarder == nil:
		return hook.Answer(hook.DenySoft, "")
	case any:
		notes.Set(route.NoteWants, route.WantsOutbound)
		return w.forwarder.Queue(ctx, e.Conn, e.Tx)
	}
	if from := e.Tx.From(); from.IsNull() || from.Domain == "" || notes.Bool("local_sender") || w.isLocal(from) {
		return hook.Proceed()
	}
	if domains := w.forwarded(e.Tx); len(domains) > 0 {
		notes.Set(noteForwarded, domains)
	}
	return hook.Proceed()
}

// queueOutbound reverses recipients of our own clients, such as a backend that sends its
// reports through us. Their mail keeps its sender.
func (w *rewriter) queueOutbound(_ context.Context, e *hook.Event) hook.Verdict {
	if _, err := w.reverse(e.Tx); err != nil {
		return hook.Verdict{Code: hook.Deny, Reply: reply.New(550, "5.7.1", "This address has expired")}
	}
	return hook.Proceed()
}

// isLocal reports whether the domain of an address is one of this site by its settings.
func (w *rewriter) isLocal(a mail.Address) bool {
	domain := a.Host()
	return domain == w.Domain || slices.Contains(w.Local, domain) || route.SenderSection(w.routes, a) != nil
}

// forwarded returns the domains of recipients that are not of this site: those that stand
// for another one and that no plugin answers for, and those that are only relayed.
func (w *rewriter) forwarded(tx hook.TransactionView) []string {
	away := tx.Forwarded()
	var all []string
	for _, r := range tx.Recipients() {
		domain := r.Address.Host()
		out := slices.Contains(w.Relayed, domain) || slices.Contains(away, r.Address) && !w.isLocal(r.Address)
		if out && !slices.Contains(all, domain) {
			all = append(all, domain)
		}
	}
	return all
}

// rewrite has an attempt say another sender. Reports of our own about the message go
// straight to the old one.
func (w *rewriter) rewrite(_ context.Context, e *hook.Event) hook.Verdict {
	d := e.Delivery
	from := d.From()
	if from.IsNull() || !contains(d.MessageNotes().Get(noteForwarded), d.Domain()) {
		return hook.Proceed()
	}
	signed, err := w.scheme.Sign(from)
	if err != nil {
		w.log.Warn("sender not rewritten", zap.String("uuid", string(d.ID())), zap.String("from", from.String()), zap.Error(err))
		return hook.Proceed()
	}
	w.log.Info("rewrite", zap.String("uuid", string(d.ID())), zap.String("from", from.String()), zap.String("as", signed.String()), zap.String("domain", d.Domain()))
	d.SetReversePath(signed)
	return hook.Proceed()
}

// contains reports whether a note is a list with a text in it. The list is of either type:
// a plugin has set strings, and decoded JSON any.
func contains(note any, text string) bool {
	switch list := note.(type) {
	case []string:
		return slices.Contains(list, text)
	case []any:
		return slices.Contains(list, any(text))
	}
	return false
}
