// Package relay is the plugin relay: it lets clients send mail to other domains than ours.
// See README.md.
//
// New settings make a new instance, which holds nothing but its lists.
package relay

import (
	"context"
	"net/netip"
	"slices"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
	"tarishi/internal/result"
	"tarishi/internal/route"
)

// Name is the plugin's name in config/plugins.
const Name = "relay"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	cfg := env.Settings.(*Settings)
	if cfg.All {
		env.Log.Warn("relay.ini [relay] all=true: every client may send to every domain")
	}
	return &relay{Settings: cfg, routes: env.Routes, forwarder: env.Forwarder, recorder: env.NewRecorder(Name, result.Format{})}, nil
}

// relay is the plugin.
type relay struct {
	*Settings
	routes    *route.Settings  // nil: smtp_forward.ini names no hosts
	forwarder plugin.Forwarder // nil: nothing can be queued
	recorder  *plugin.Recorder
}

// lastOfAll is the priority of handlers that act where no other plugin has.
const lastOfAll = hook.MaxPriority

// Register implements plugin.Plugin.
func (p *relay) Register(h plugin.Host) {
	h.Timeout(0) // nothing here waits but for the queue, which has its limits
	if p.ACL {
		h.On(hook.OnConnectInit, "acl", 0, p.matchACL)
		h.On(hook.OnConnect, "pass_relaying", 0, passRelaying)
	}
	if len(p.Certs.Fingerprints) > 0 || len(p.Certs.Names) > 0 {
		for _, at := range []hook.Point{hook.OnConnectInit, hook.OnHelo, hook.OnEhlo} {
			h.On(at, "certificate", 0, p.Certs.matchCertificate)
		}
	}
	if p.ForceRouting && len(p.Destinations) > 0 {
		h.On(hook.OnGetMX, "force_routing", 0, p.forceRoute)
	}
	if p.DestDomains {
		h.On(hook.OnRcpt, "dest_domains", 0, p.checkDestination)
		h.On(hook.OnRcpt, "accept_continued", lastOfAll, p.acceptContinued)
		h.On(hook.OnRcptOK, "keep_apart", 0, p.keepApart)
		h.On(hook.OnQueue, "queue_destinations", lastOfAll, p.queue)
	}
	if p.All {
		h.On(hook.OnRcpt, "all", 0, acceptAll)
	}
}

// matchACL lets clients relay if the list allows their address.
func (p *relay) matchACL(_ context.Context, e *hook.Event) hook.Verdict {
	record := p.recorder.On(e.Conn.Results())
	if contains(p.Allow, e.Conn.Remote().Addr.Addr()) {
		e.Conn.SetRelaying(true)
		record.Pass("acl")
	} else {
		record.Skip("acl(unlisted)")
	}
	return hook.Proceed()
}

// acceptAll accepts any recipient of any client.
func acceptAll(_ context.Context, e *hook.Event) hook.Verdict {
	e.Tx.SetRelaying(true)
	return hook.Answer(hook.OK, "")
}

// passRelaying spares clients that may relay the checks of later plugins.
func passRelaying(_ context.Context, e *hook.Event) hook.Verdict {
	if e.Conn.Relaying() {
		return hook.Answer(hook.OK, "")
	}
	return hook.Proceed()
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// forceRoute names the next hops of queued mail for a domain.
func (p *relay) forceRoute(_ context.Context, e *hook.Event) hook.Verdict {
	d, known := p.Destinations[e.Host]
	if !known {
		d = p.Destinations[anyDomain]
	}
	if len(d.Hops) == 0 {
		return hook.Proceed()
	}
	return hook.Verdict{Code: hook.OK, MX: slices.Clone(d.Hops)}
}

// Values in the results of a transaction, for the handlers that follow.
const (
	valueAccepted = "_accepted" // the recipient that was accepted for its domain
	valueQueued   = "_queued"   // whether the recipients leave by way of the queue
)

// The results of dest_domains.
const destination = "relay_dest_domain"

// find returns what is said of the domain of a recipient.
func (p *relay) find(e *hook.Event) (Destination, bool) {
	domain := e.Recipient.Address.Host()
	if domain == anyDomain { // which stands for all others
		return Destination{}, false
	}
	d, known := p.Destinations[domain]
	return d, known
}

// checkDestination decides on a recipient by its domain. What it accepts is that recipient
// alone: the transaction must not become one of a client that may relay, since the next
// recipients would then be accepted wherever they are.
func (p *relay) checkDestination(_ context.Context, e *hook.Event) hook.Verdict {
	record := p.recorder.On(e.Tx.Results())
	switch {
	case e.Conn.Relaying() || e.Tx.Relaying():
		record.Skip(destination + "(relay)")
		return hook.Proceed()
	case len(p.Destinations) == 0:
		record.Skip(destination + "(config)")
		return hook.Proceed()
	}

	// A domain that nobody has listed is refused, ours too, unless an earlier plugin vouches
	// for it.
	d, known := p.find(e)
	switch {
	case known && d.Action == actionAccept:
		record.Pass(destination)
		record.Set(valueAccepted, e.Recipient.Address.String())
		return hook.Answer(hook.OK, "")
	case known && d.Action == actionContinue:
		record.Pass(destination)
		return hook.Proceed()
	}
	record.Fail(destination)
	if !known || d.Action == actionDeny {
		return record.Refuse(hook.Answer(hook.Deny, "You are not allowed to relay"))
	}
	return record.Refuse(hook.Answer(hook.Deny, "Mail for that recipient is not accepted here."))
}

// acceptContinued accepts a recipient about whose domain later plugins were to be asked:
// none of them has answered.
func (p *relay) acceptContinued(_ context.Context, e *hook.Event) hook.Verdict {
	if d, _ := p.find(e); d.Action != actionContinue || e.Conn.Relaying() || e.Tx.Relaying() {
		return hook.Proceed()
	}
	e.Tx.Results().Set(Name, valueAccepted, e.Recipient.Address.String())
	return hook.Answer(hook.OK, "")
}

// leavesByQueue reports whether mail for a recipient that was accepted for its domain goes
// where mail of clients that may relay goes: into the queue, unless smtp_forward.ini wants
// it and no next hop is named.
func (p *relay) leavesByQueue(e *hook.Event) bool {
	d, _ := p.find(e)
	forced := p.ForceRouting && len(d.Hops) > 0
	return forced || p.routes == nil || !p.routes.Configured || !route.SendsOut(p.routes, e.Tx.From(), e.Recipient.Address)
}

// keepApart defers a recipient that cannot leave by the way of those before it, as
// queue/smtp_forward does: the message has one way, and one note that says which.
func (p *relay) keepApart(_ context.Context, e *hook.Event) hook.Verdict {
	if e.Conn.Relaying() || e.Tx.Relaying() {
		return hook.Proceed()
	}
	results, notes := e.Tx.Results(), e.Tx.Notes()
	queued := results.Value(Name, valueAccepted) == e.Recipient.Address.String() && p.leavesByQueue(e)
	before := results.Value(Name, valueQueued) == true

	// The first recipient that is accepted decides. What was noted for one that was refused
	// after all does not hold for the next.
	switch {
	case e.Tx.RecipientCount() > 0 && queued != before:
		return hook.Verdict{Code: hook.DenySoft, Reply: reply.New(450, "4.5.3", "Split transaction, retry soon")}
	case queued && notes.String(route.NoteWants) == "":
		notes.Set(route.NoteWants, route.WantsOutbound)
	case before && !queued && notes.String(route.NoteWants) == route.WantsOutbound:
		notes.Set(route.NoteWants, "")
	}
	results.Set(Name, valueQueued, queued)
	return hook.Proceed()
}

// queue puts a message for accepted domains into the outbound queue, if no queue plugin
// has taken it.
func (p *relay) queue(ctx context.Context, e *hook.Event) hook.Verdict {
	if e.Tx.Results().Value(Name, valueQueued) != true || e.Tx.Notes().String(route.NoteWants) != route.WantsOutbound || p.forwarder == nil {
		return hook.Proceed()
	}
	return p.forwarder.Queue(ctx, e.Conn, e.Tx)
}
