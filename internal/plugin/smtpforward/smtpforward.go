// Package smtpforward is the plugin queue/smtp_forward: it relays messages to
// the backends of smtp_forward.ini while their clients wait. See README.md.
//
// The plugin decides; package route holds the rules and a plugin.Forwarder does
// the work.
package smtpforward

import (
	"cmp"
	"context"
	"slices"

	"tarishi/internal/conf"
	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
	"tarishi/internal/route"
)

// Name is the plugin's name in config/plugins.
const Name = "queue/smtp_forward"

// New is the plugin's factory. Without a Forwarder no message is taken.
func New(s plugin.Services, h plugin.Host) error {
	p := &forward{cfg: &s.Config.Forward, forwarder: s.Forwarder}
	if !p.cfg.Configured {
		s.Log.Warn("smtp_forward.ini names no host: nothing will be forwarded")
	}
	h.Timeout(0) // the conversation with the backend has deadlines of its own
	h.On(hook.OnQueue, "queue_forward", 0, p.queue)
	h.On(hook.OnQueueOutbound, "queue_forward", 0, p.queue)
	h.On(hook.OnGetMX, "get_mx", 0, p.getMX)
	if p.cfg.CheckSender {
		h.On(hook.OnMail, "check_sender", 0, p.checkSender)
	}
	if p.cfg.CheckRecipient {
		h.On(hook.OnRcpt, "check_recipient", 0, p.checkRecipient)
	}
	// Without a host in main there is no backend that takes recipients of
	// several routes together.
	if p.cfg.CheckRecipient || len(p.cfg.Main.Hosts) == 0 {
		h.On(hook.OnRcptOK, "split", 0, p.split)
	}
	return nil
}

type forward struct {
	cfg       *conf.Forward
	forwarder plugin.Forwarder
}

func (p *forward) queue(ctx context.Context, e *hook.Event) hook.Verdict {
	d := route.Decide(p.cfg, e.Tx.Relaying, e.Tx.From, e.Tx.Recipients, e.Tx.Notes)
	if d.Action != route.Forward || p.forwarder == nil {
		return hook.Proceed()
	}
	return p.forwarder.Forward(ctx, e.Conn, e.Tx, d.Route)
}

func (p *forward) getMX(_ context.Context, e *hook.Event) hook.Verdict {
	hops := route.MX(p.cfg, e.Delivery.From, e.Host, e.Delivery.Envelope.Notes)
	if len(hops) == 0 {
		return hook.Proceed()
	}
	return hook.Verdict{Code: hook.OK, MX: hops}
}

// checkSender refuses senders of our own domains from clients that may not
// relay.
func (p *forward) checkSender(_ context.Context, e *hook.Event) hook.Verdict {
	if route.SenderSection(p.cfg, e.Sender) == nil {
		return hook.Proceed()
	}
	e.Tx.Notes.Set("local_sender", true)
	if e.Tx.Relaying {
		return hook.Proceed()
	}
	return hook.Verdict{Code: hook.Deny, Reply: reply.New(550, "5.7.1", "Spoofed MAIL FROM")}
}

// checkRecipient accepts recipients whose domain has a section, and any from
// our own relaying senders.
func (p *forward) checkRecipient(_ context.Context, e *hook.Event) hook.Verdict {
	from, to, notes := e.Tx.From, e.Recipient.Address, e.Tx.Notes
	if e.Tx.Relaying && notes.Bool("local_sender") {
		if !p.cfg.Main.EnableOutbound && !route.SendsOut(p.cfg, from, to) {
			notes.Set(route.NoteWants, route.WantsOutbound)
		}
		return hook.Answer(hook.OK, "")
	}
	section := route.Section(p.cfg, from, to)
	if section == nil {
		return hook.Proceed()
	}
	if notes.String(route.NoteWants) == "" {
		notes.Set(route.NoteWants, cmp.Or(section.Queue, route.WantsForward))
	}
	if len(e.Tx.Recipients) == 0 && notes.String(route.NoteWants) == route.WantsForward {
		if hop, ok := route.NextHop(p.cfg, from, to); ok {
			notes.Set(route.NoteNextHop, route.FormatNextHop(hop))
		}
	}
	return hook.Answer(hook.OK, "")
}

// split defers a recipient that has another next hop than those before it,
// unless the message goes to the outbound queue, which splits by itself.
func (p *forward) split(_ context.Context, e *hook.Event) hook.Verdict {
	tx := e.Tx
	if w := tx.Notes.String(route.NoteWants); w != "" && w != route.WantsForward {
		return hook.Proceed()
	}
	if !route.Splits(p.cfg, tx.From, tx.Recipients, e.Recipient.Address) {
		return hook.Proceed()
	}
	all := append(slices.Clip(tx.Recipients), e.Recipient)
	if route.Decide(p.cfg, tx.Relaying, tx.From, all, tx.Notes).Action == route.ToQueue {
		return hook.Proceed()
	}
	return hook.Verdict{Code: hook.DenySoft, Reply: reply.New(450, "4.5.3", "Split transaction, retry soon")}
}
