// Package smtpforward is the plugin queue/smtp_forward: it relays messages to
// the backends of smtp_forward.ini while their clients wait. See README.md.
//
// The plugin decides; package route holds the rules and a plugin.Forwarder does
// the work.
//
// New settings make a new instance. Connections to backends, and what was learnt about
// them, are the Forwarder's and stay.
package smtpforward

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
	"tarishi/internal/route"
)

// Name is the plugin's name in config/plugins.
const Name = "queue/smtp_forward"

// New is the plugin's factory. Without a Forwarder no message is taken.
func New(env plugin.Env) (plugin.Plugin, error) {
	p := &forward{cfg: env.Routes, forwarder: env.Forwarder}
	if !p.cfg.Configured {
		env.Log.Warn("smtp_forward.ini names no host: nothing will be forwarded")
	}
	return p, nil
}

// Register implements plugin.Plugin.
func (p *forward) Register(h plugin.Host) {
	h.Timeout(0) // the conversation with the backend has its deadlines
	h.On(hook.OnQueue, "queue_forward", 0, p.queue)
	h.On(hook.OnQueueOutbound, "queue_forward", 0, p.queue)
	h.On(hook.OnGetMX, "get_mx", 0, p.getMX)
	if p.cfg.CheckSender {
		h.On(hook.OnMail, "check_sender", 0, p.checkSender)
	}
	if p.cfg.CheckRecipient {
		h.On(hook.OnRcpt, "check_recipient", 0, p.checkRecipient)
	}
	h.On(hook.OnRcptOK, "split", 0, p.split)
}

type forward struct {
	cfg       *route.Settings
	forwarder plugin.Forwarder
	turns     atomic.Uint32 // answers of get_mx
}

func (p *forward) queue(ctx context.Context, e *hook.Event) hook.Verdict {
	// The rules decide once for the whole message, since it has one reply.
	d := route.Decide(p.cfg, e.Tx.Relaying(), e.Tx.From(), e.Tx.Recipients(), e.Tx.Notes().All())
	switch {
	case p.forwarder == nil:
		return hook.Proceed()
	case d.Action == route.Forward:
		return p.forwarder.Forward(ctx, e.Conn, e.Tx, d.Route)
	case d.Action == route.ToQueue:
		p.forgetHop(e.Tx)
	case d.Action == route.Enqueue:
		p.forgetHop(e.Tx)
		notes := e.Tx.Notes()
		if notes.String(route.NoteWants) == "" {
			notes.Set(route.NoteWants, route.WantsForward)
		}
		return p.forwarder.Queue(ctx, e.Conn, e.Tx)
	}
	return hook.Proceed()
}

// forgetHop drops the note of a next hop that is only one of several routes, so
// that the queue sends each recipient its own way.
func (p *forward) forgetHop(tx hook.TransactionView) {
	notes := tx.Notes()
	if _, elsewhere := route.Steered(p.cfg, tx.From(), tx.Recipients(), notes.All()); !elsewhere && notes.String(route.NoteNextHop) != "" {
		notes.Set(route.NoteNextHop, "")
	}
}

func (p *forward) getMX(_ context.Context, e *hook.Event) hook.Verdict {
	hops := route.MX(p.cfg, e.Delivery.From(), e.Host, e.Delivery.MessageNotes().All())
	if len(hops) == 0 {
		return hook.Proceed()
	}
	if hops[0].Priority == hops[len(hops)-1].Priority { // they take turns
		n := int(p.turns.Add(1)-1) % len(hops)
		hops = append(hops[n:len(hops):len(hops)], hops[:n]...)
	}
	return hook.Verdict{Code: hook.OK, MX: hops}
}

// checkSender refuses senders of our own domains from clients that may not
// relay.
func (p *forward) checkSender(_ context.Context, e *hook.Event) hook.Verdict {
	if route.SenderSection(p.cfg, e.Sender) == nil {
		return hook.Proceed()
	}
	// Later hooks treat our own senders differently.
	e.Tx.Notes().Set("local_sender", true)
	if e.Tx.Relaying() {
		return hook.Proceed()
	}
	return hook.Verdict{Code: hook.Deny, Reply: reply.New(550, "5.7.1", "Spoofed MAIL FROM")}
}

// checkRecipient accepts recipients in domains with a section, and any from
// our own relaying senders.
func (p *forward) checkRecipient(_ context.Context, e *hook.Event) hook.Verdict {
	from, to, notes := e.Tx.From(), e.Recipient.Address, e.Tx.Notes()
	if e.Tx.Relaying() && notes.Bool("local_sender") {
		if !p.cfg.Main.EnableOutbound && !route.SendsOut(p.cfg, from, to) {
			notes.Set(route.NoteWants, route.WantsOutbound)
		}
		return hook.Answer(hook.OK, "")
	}

	// A domain without a section is for other plugins to vouch for.
	section := route.Section(p.cfg, from, to)
	if section == nil {
		return hook.Proceed()
	}
	if notes.String(route.NoteWants) == "" || chosen(e.Tx) && e.Tx.RecipientCount() == 0 {
		notes.Set(route.NoteWants, cmp.Or(section.Queue, route.WantsForward))
		e.Tx.Results().Set(Name, chosenValue, true)
	}

	// The first recipient chooses the next hop of the message.
	if e.Tx.RecipientCount() == 0 && notes.String(route.NoteWants) == route.WantsForward {
		if hop, ok := route.NextHop(p.cfg, from, to); ok {
			notes.Set(route.NoteNextHop, route.FormatNextHop(hop))
		}
	}
	return hook.Answer(hook.OK, "")
}

// chosenValue is the one among the plugin's results that says that the notes
// which steer the message are its own.
const chosenValue = "chose_route"

// chosen reports whether nobody else has set the notes.
func chosen(tx hook.TransactionView) bool { return tx.Results().Value(Name, chosenValue) == true }

// split defers a recipient that cannot travel with those before it, and keeps
// the notes true for those that can: what was chosen for a recipient that was
// refused after all does not hold for the next, and what was chosen for the
// first not for a message that the queue is going to split.
func (p *forward) split(_ context.Context, e *hook.Event) hook.Verdict {
	tx, to := e.Tx, e.Recipient.Address
	from, accepted, notes := tx.From(), tx.Recipients(), tx.Notes()
	ours, given := chosen(tx), notes.All()
	if ours {
		given = nil
	}
	if route.Defers(p.cfg, tx.Relaying(), from, accepted, e.Recipient, given) {
		return hook.Verdict{Code: hook.DenySoft, Reply: reply.New(450, "4.5.3", "Split transaction, retry soon")}
	}
	forget := func() {
		notes.Set(route.NoteWants, "")
		notes.Set(route.NoteNextHop, "")
	}

	// The first recipient that is accepted decides what the notes say, whatever was
	// noted for those that were refused.
	if len(accepted) == 0 && (ours || notes.String(route.NoteWants) == "") {
		queue := p.wanted(from, to)
		if ours && (queue != "" || route.Section(p.cfg, from, to) == nil) {
			forget()
		}
		if queue != "" {
			notes.Set(route.NoteWants, queue)
			tx.Results().Set(Name, chosenValue, true)
			ours = true
		}
	}

	// A message that the queue is to split has no one next hop.
	all := append(slices.Clip(accepted), e.Recipient)
	if ours && route.Decide(p.cfg, tx.Relaying(), from, all, nil).Action == route.ToQueue {
		forget()
	}
	return hook.Proceed()
}

// wanted is the queue plugin that the route of a recipient names, if that is
// another one.
func (p *forward) wanted(from, to mail.Address) string {
	r := route.Section(p.cfg, from, to)
	if r == nil {
		r = &p.cfg.Main
	}
	if r.Queue == route.WantsForward {
		return ""
	}
	return r.Queue
}
