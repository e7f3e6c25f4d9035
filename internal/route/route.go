// Package route decides by which way a message leaves: relayed in session to a
// backend of smtp_forward.ini, or through the outbound queue. It does no I/O
// and keeps no state: the same configuration, envelope and notes always give
// the same answer.
//
// A section of smtp_forward.ini belongs to a recipient (or, with
// domain_selector=mail_from, to the sender): the section of the exact domain,
// else the nearest "*.parent" section, else the main part of the file. A
// section that names no host says only whether relayed mail is forwarded; its
// mail goes to the hosts of main.
//
// A transaction is relayed to one place. When its recipients belong to
// different ones, main takes it, as the manual says. What main cannot take is
// left to the outbound queue, which splits by domain and asks MX for each.
package route

import (
	"slices"
	"strings"

	"tarishi/internal/conf"
	"tarishi/internal/mail"
)

// The notes that steer a message, with the names that Haraka gave them.
const (
	NoteWants   = "queue.wants"    // the queue plugin that shall take the message; "": whichever wants it
	NoteNextHop = "queue.next_hop" // URL, see ParseNextHop
)

// The values of NoteWants that mean something here.
const (
	WantsForward  = "smtp_forward"
	WantsOutbound = "outbound"
)

// Action is what happens to a message.
type Action uint8

// The actions.
const (
	Skip    Action = iota // not ours: another plugin, or the point's default
	Forward               // relay in session by Decision.Route
	ToQueue               // leave it to the outbound queue
)

// String returns "skip", "forward" or "outbound".
func (a Action) String() string { return [...]string{"skip", "forward", "outbound"}[a] }

// Decision is the way of one message.
type Decision struct {
	Action Action
	Route  *conf.ForwardRoute // with Forward; its Hosts are never empty
}

// Decide tells how a message leaves. Mail of clients that may relay is
// forwarded only where enable_outbound says so for every recipient; all other
// mail is forwarded wherever a backend is known.
func Decide(f *conf.Forward, relaying bool, sender mail.Address, recipients []mail.Recipient, notes mail.Notes) Decision {
	wants := notes.String(NoteWants)
	if len(recipients) == 0 || wants != "" && wants != WantsForward {
		return Decision{}
	}
	first := Section(f, sender, recipients[0].Address)
	route, outbound, mixed := transport(f, first), sendsOut(f, first), false
	for _, r := range recipients[1:] {
		s := Section(f, sender, r.Address)
		mixed = mixed || !Same(route, transport(f, s))
		outbound = outbound && sendsOut(f, s)
	}
	if mixed {
		route, outbound = &f.Main, outbound && f.Main.EnableOutbound
	}
	if wants == WantsForward {
		if hop, err := ParseNextHop(notes.String(NoteNextHop)); err == nil && !reaches(route, hop) {
			route = to(f, hop)
		}
	}
	switch {
	case relaying && (!outbound || len(route.Hosts) == 0):
		return Decision{Action: ToQueue}
	case len(route.Hosts) == 0:
		return Decision{}
	}
	return Decision{Action: Forward, Route: route}
}

// MX tells where queued mail for a domain goes, in order and with the
// credentials; nil leaves it to the DNS. These are the hosts of the domain's
// own section; those of main for domains that have none, if main forwards
// outbound mail or the message was to be forwarded.
func MX(f *conf.Forward, sender mail.Address, domain string, notes mail.Notes) []mail.NextHop {
	wants := notes.String(NoteWants)
	if wants != "" && wants != WantsForward && wants != WantsOutbound {
		return nil
	}
	s := Section(f, sender, mail.Address{Local: "postmaster", Domain: domain})
	route := transport(f, s)
	if wants == WantsForward {
		if hop, err := ParseNextHop(notes.String(NoteNextHop)); err == nil && !reaches(route, hop) {
			route = to(f, hop)
		}
		return hops(route)
	}
	switch {
	case s == nil && (!f.Main.EnableOutbound || wants == WantsOutbound):
		return nil
	case s != nil && !s.EnableOutbound && (f.Main.EnableOutbound || len(s.Hosts) == 0):
		return nil // switched off for this domain, not just left at main's value
	}
	return hops(route)
}

// Splits reports whether a further recipient has another next hop than those
// that the transaction has already.
func Splits(f *conf.Forward, sender mail.Address, accepted []mail.Recipient, next mail.Address) bool {
	route := transport(f, Section(f, sender, next))
	return slices.ContainsFunc(accepted, func(r mail.Recipient) bool {
		return !Same(route, transport(f, Section(f, sender, r.Address)))
	})
}

// NextHop returns where mail for a recipient is forwarded first, for
// NoteNextHop; ok is false when no backend is known.
func NextHop(f *conf.Forward, sender, recipient mail.Address) (hop mail.NextHop, ok bool) {
	route := transport(f, Section(f, sender, recipient))
	if len(route.Hosts) == 0 {
		return mail.NextHop{}, false
	}
	return route.Hosts[0], true
}

// SendsOut reports whether mail of relaying clients for a recipient is
// forwarded: enable_outbound of its section, else of main.
func SendsOut(f *conf.Forward, sender, recipient mail.Address) bool {
	return sendsOut(f, Section(f, sender, recipient))
}

// Section returns the section of smtp_forward.ini that a recipient's mail
// belongs to, or nil where main is meant.
func Section(f *conf.Forward, sender, recipient mail.Address) *conf.ForwardRoute {
	if f.DomainSelector == "mail_from" {
		if s := f.Routes[strings.ToLower(sender.Local)+"@"+sender.Host()]; s != nil {
			return s
		}
		return byDomain(f, sender.Host())
	}
	return byDomain(f, recipient.Host())
}

// SenderSection returns the section named by a sender's domain, whatever the
// selector, or nil.
func SenderSection(f *conf.Forward, sender mail.Address) *conf.ForwardRoute {
	return byDomain(f, sender.Host())
}

func byDomain(f *conf.Forward, domain string) *conf.ForwardRoute {
	if domain == "" || len(f.Routes) == 0 {
		return nil
	}
	if s := f.Routes[domain]; s != nil {
		return s
	}
	for {
		dot := strings.IndexByte(domain, '.')
		if dot < 0 {
			return nil
		}
		domain = domain[dot+1:]
		if s := f.Routes["*."+domain]; s != nil {
			return s
		}
	}
}

// transport is the route that carries the mail of a section, nil being main.
func transport(f *conf.Forward, section *conf.ForwardRoute) *conf.ForwardRoute {
	if section == nil || len(section.Hosts) == 0 {
		return &f.Main
	}
	return section
}

func sendsOut(f *conf.Forward, section *conf.ForwardRoute) bool {
	if section == nil {
		section = &f.Main
	}
	return section.EnableOutbound
}

// Same reports whether two routes lead to the same place in the same way:
// hosts, encryption and credentials.
func Same(a, b *conf.ForwardRoute) bool {
	return a == b || slices.Equal(a.Hosts, b.Hosts) &&
		a.EnableTLS == b.EnableTLS && a.RequireTLS == b.RequireTLS && a.TLSVerify == b.TLSVerify &&
		a.AuthType == b.AuthType && a.AuthUser == b.AuthUser && a.AuthPass == b.AuthPass &&
		a.OneMessagePerRcpt == b.OneMessagePerRcpt && a.Queue == b.Queue
}

// reaches reports whether hop is one of the route's hosts. A hop without a
// port, as Haraka's own notes have it, means any; so does one without
// credentials.
func reaches(route *conf.ForwardRoute, hop mail.NextHop) bool {
	if hop.AuthUser != "" && hop.AuthUser != route.AuthUser {
		return false
	}
	return slices.ContainsFunc(route.Hosts, func(h mail.NextHop) bool {
		return strings.EqualFold(h.Host, hop.Host) && h.Path == hop.Path && h.Protocol == hop.Protocol &&
			h.ImplicitTLS == hop.ImplicitTLS && (hop.Port == 0 || hop.Port == port(h))
	})
}

func port(h mail.NextHop) int {
	if h.Port == 0 {
		return h.DefaultPort()
	}
	return h.Port
}

// to is the route to the next hop of a note: main if that leads there, else
// main's settings with the hop's own credentials or none.
func to(f *conf.Forward, hop mail.NextHop) *conf.ForwardRoute {
	if reaches(&f.Main, hop) {
		return &f.Main
	}
	r := f.Main
	r.Name, r.AuthType, r.AuthUser, r.AuthPass = NoteNextHop, hop.AuthType, hop.AuthUser, hop.AuthPass
	hop.AuthType, hop.AuthUser, hop.AuthPass = "", "", ""
	r.Hosts = []mail.NextHop{hop}
	return &r
}

// hops returns the route's hosts with its credentials, best first.
func hops(r *conf.ForwardRoute) []mail.NextHop {
	list := slices.Clone(r.Hosts)
	for i := range list {
		list[i].Priority = i
		list[i].AuthType, list[i].AuthUser, list[i].AuthPass = r.AuthType, r.AuthUser, r.AuthPass
	}
	return list
}
