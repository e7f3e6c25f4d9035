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
// A transaction is relayed to one place. A recipient that belongs to another
// place than those before it is deferred (split=defer), or the whole message is
// queued once and MX sends each recipient its own way (split=fanout, and mail of
// clients that may relay).
package route

import (
	"net/netip"
	"slices"
	"strings"

	"tarishi/internal/grant"
	"tarishi/internal/localaddr"
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
	Enqueue               // take it into the queue, from where MX sends each recipient its way
)

// String returns "skip", "forward", "outbound" or "enqueue".
func (a Action) String() string { return [...]string{"skip", "forward", "outbound", "enqueue"}[a] }

// Decision is the way of one message.
type Decision struct {
	Action Action
	Route  *Route // with Forward; its Hosts are never empty
}

// Decide tells how a message leaves. Mail of clients that may relay is
// forwarded only where enable_outbound says so for every recipient; all other
// mail is forwarded wherever a backend is known.
func Decide(f *Settings, relaying bool, sender mail.Address, recipients []mail.Recipient, notes mail.Notes) Decision {
	if len(recipients) == 0 {
		return Decision{}
	}

	// A note of the transaction comes first, then what the routes say together.
	w := survey(f, sender, recipients, notes)
	switch {
	case w.wants == WantsOutbound && !relaying: // nobody else would queue it
		return Decision{Action: Enqueue}
	case w.wants != "" && w.wants != WantsForward:
		return Decision{}
	case relaying && (!w.outbound || w.mixed() || len(w.routes[0].Hosts) == 0):
		return Decision{Action: ToQueue}
	case slices.ContainsFunc(w.routes, nowhere):
		return Decision{}
	case w.mixed():
		return Decision{Action: Enqueue}
	}
	return Decision{Action: Forward, Route: w.routes[0]}
}

// Defers reports whether a recipient must come again in a transaction of its
// own: it has another next hop than those accepted before it, and the message
// is not queued for all of them. Mail of clients that may relay is queued, since
// many of those are mail user agents, which do not come again, unless the queue
// cannot do what one of the routes asks for.
func Defers(f *Settings, relaying bool, sender mail.Address, accepted []mail.Recipient, next mail.Recipient, notes mail.Notes) bool {
	// The question is what would become of the message with this recipient in it.
	w := survey(f, sender, append(slices.Clip(accepted), next), notes)
	switch {
	case notes.String(NoteWants) != "" && w.wants != WantsForward:
		return false
	case relaying:
		return w.personal && (w.mixed() || !w.outbound) || w.differ(func(r *Route) string {
			if r.Queue == WantsOutbound || r.Queue == WantsForward {
				return "" // the queue does for both
			}
			return r.Queue
		})
	case !w.mixed():
		return false
	}
	return f.Split != "fanout" || slices.ContainsFunc(w.routes, nowhere) || w.differ(wantedQueue) ||
		slices.ContainsFunc(w.routes, func(r *Route) bool { return r.AuthType == AuthForward })
}

func nowhere(r *Route) bool { return len(r.Hosts) == 0 }

// ways is where the recipients of one message lead.
type ways struct {
	routes   []*Route // one of each; never empty
	outbound bool     // enable_outbound for every recipient
	personal bool     // for one that has it: by the client's own credentials
	wants    string   // the queue plugin that shall take the message
}

func (w *ways) mixed() bool { return len(w.routes) > 1 }

// differ reports whether the routes have different values of something.
func (w *ways) differ(value func(*Route) string) bool {
	return slices.ContainsFunc(w.routes, func(r *Route) bool { return value(r) != value(w.routes[0]) })
}

func wantedQueue(r *Route) string { return r.Queue }

func survey(f *Settings, sender mail.Address, recipients []mail.Recipient, notes mail.Notes) ways {
	w := ways{outbound: true, wants: notes.String(NoteWants)}
	for _, r := range recipients {
		s := Section(f, sender, r.Address)
		t := transport(f, s)
		w.outbound = w.outbound && sendsOut(f, s)
		w.personal = w.personal || sendsOut(f, s) && t.AuthType == AuthForward
		if !slices.ContainsFunc(w.routes, func(o *Route) bool { return Same(o, t) }) {
			w.routes = append(w.routes, t)
		}
	}
	if w.wants == "" && !w.differ(wantedQueue) {
		w.wants = w.routes[0].Queue
	}
	if hop, ok := Steered(f, sender, recipients, notes); ok {
		w.routes, w.personal = []*Route{to(f, hop)}, false
	}
	return w
}

// Steered returns the next hop that the notes of a message name, if that is
// another one than its recipients have.
func Steered(f *Settings, sender mail.Address, recipients []mail.Recipient, notes mail.Notes) (mail.NextHop, bool) {
	if notes.String(NoteWants) != WantsForward {
		return mail.NextHop{}, false
	}
	hop, err := ParseNextHop(notes.String(NoteNextHop))
	if err != nil || slices.ContainsFunc(recipients, func(r mail.Recipient) bool {
		return reaches(transport(f, Section(f, sender, r.Address)), hop)
	}) {
		return mail.NextHop{}, false
	}
	return hop, true
}

// MX tells where queued mail for a domain goes, in order and with the
// credentials; nil leaves it to the DNS. These are the hosts of the domain's
// own section; those of main for domains that have none, if main forwards
// outbound mail or the message was to be forwarded.
func MX(f *Settings, sender mail.Address, domain string, notes mail.Notes) []mail.NextHop {
	wants := notes.String(NoteWants)
	if wants != "" && wants != WantsForward && wants != WantsOutbound {
		return nil
	}

	// The domain's own section decides; a message that was to be forwarded goes by its
	// route in any case.
	s := Section(f, sender, mail.Address{Local: "postmaster", Domain: domain})
	route := transport(f, s)
	if wants == WantsForward {
		if hop, err := ParseNextHop(notes.String(NoteNextHop)); err == nil && !reaches(route, hop) {
			route = to(f, hop)
		}
		return hops(f, route)
	}

	// Else nobody asked for a backend, and enable_outbound of the section says whether there is one.
	switch {
	case s != nil && len(s.Hosts) > 0 && s.Queue == WantsOutbound: // by way of the queue, but to its own hosts
	case s == nil && (!f.Main.EnableOutbound || wants == WantsOutbound):
		return nil
	case s != nil && !s.EnableOutbound && (f.Main.EnableOutbound || len(s.Hosts) == 0):
		return nil // switched off for this domain, not just left at main's value
	}
	return hops(f, route)
}

// NextHop returns where mail for a recipient is forwarded first, for
// NoteNextHop; ok is false when no backend is known.
func NextHop(f *Settings, sender, recipient mail.Address) (hop mail.NextHop, ok bool) {
	route := transport(f, Section(f, sender, recipient))
	if len(route.Hosts) == 0 {
		return mail.NextHop{}, false
	}
	return route.Hosts[0], true
}

// SendsOut reports whether mail of relaying clients for a recipient is
// forwarded: enable_outbound of its section, else of main.
func SendsOut(f *Settings, sender, recipient mail.Address) bool {
	return sendsOut(f, Section(f, sender, recipient))
}

// Section returns the section of smtp_forward.ini that a recipient's mail
// belongs to, or nil where main is meant.
func Section(f *Settings, sender, recipient mail.Address) *Route {
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
func SenderSection(f *Settings, sender mail.Address) *Route {
	return byDomain(f, sender.Host())
}

func byDomain(f *Settings, domain string) *Route {
	if domain == "" || len(f.Routes) == 0 {
		return nil
	}
	if s := f.Routes[domain]; s != nil {
		return s
	}

	// The longest parent wins, so labels are taken off from the left.
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
func transport(f *Settings, section *Route) *Route {
	if section == nil || len(section.Hosts) == 0 {
		return &f.Main
	}
	return section
}

func sendsOut(f *Settings, section *Route) bool {
	if section == nil {
		section = &f.Main
	}
	return section.EnableOutbound
}

// Same reports whether two routes lead to the same place in the same way:
// hosts, encryption and credentials.
func Same(a, b *Route) bool {
	return a == b || slices.Equal(a.Hosts, b.Hosts) &&
		a.EnableTLS == b.EnableTLS && a.RequireTLS == b.RequireTLS && a.TLSVerify == b.TLSVerify && a.RejectUnauthorized == b.RejectUnauthorized &&
		a.AuthType == b.AuthType && a.AuthUser == b.AuthUser && a.AuthPass == b.AuthPass && a.Grant == b.Grant && a.AuthInsecure == b.AuthInsecure &&
		a.InTurn == b.InTurn && a.OnFailure == b.OnFailure && a.OneMessagePerRcpt == b.OneMessagePerRcpt && a.Queue == b.Queue
}

// reaches reports whether hop is one of the route's hosts. A hop without a
// port, as Haraka's own notes have it, means any; so does one without
// credentials.
func reaches(route *Route, hop mail.NextHop) bool {
	if hop.AuthUser != "" && hop.AuthUser != route.AuthUser {
		return false
	}
	return slices.ContainsFunc(route.Hosts, func(h mail.NextHop) bool {
		return strings.EqualFold(h.Host, hop.Host) && h.Path == hop.Path && h.Protocol == hop.Protocol &&
			h.ImplicitTLS == hop.ImplicitTLS && (hop.Port == 0 || hop.Port == h.TCPPort())
	})
}

// to is the route to the next hop of a note: main if that leads there, else
// main's settings with the hop's own credentials or none.
func to(f *Settings, hop mail.NextHop) *Route {
	if reaches(&f.Main, hop) {
		return &f.Main
	}
	r := f.Main
	r.Name, r.AuthType, r.AuthUser, r.AuthPass, r.Grant = NoteNextHop, hop.AuthType, hop.AuthUser, hop.AuthPass, grant.Grant{}

	// Credentials belong to the route and not to its hosts, see Route.Hosts.
	hop.AuthType, hop.AuthUser, hop.AuthPass = "", "", ""
	hop.Bind, hop.Helo = r.Bind, r.BindHelo
	r.Hosts, r.InTurn, r.Queue = []mail.NextHop{hop}, false, ""
	return &r
}

// Level is how connections to one host of a route are secured.
// force_tls_hosts and no_tls_hosts may name the host or its address.
// With RejectUnauthorized certificates are valid wherever there is TLS.
func Level(f *Settings, r *Route, hop mail.NextHop, addr netip.Addr) mail.TLSLevel {
	level := level(f, r, hop, addr)
	switch {
	case !r.RejectUnauthorized:
	case level == mail.TLSEncrypt, hop.ImplicitTLS && !f.TLS.Excludes(hop.Host, addr, ""):
		return mail.TLSVerify
	case level == mail.TLSMay:
		return mail.TLSMayVerify
	}
	return level
}

// level is Level without rejectUnauthorized.
func level(f *Settings, r *Route, hop mail.NextHop, addr netip.Addr) mail.TLSLevel {
	switch {
	case r.TLSVerify || f.TLS.Forces(hop.Host, addr, ""):
		return mail.TLSVerify
	case r.RequireTLS:
		return mail.TLSEncrypt
	case !r.EnableTLS || f.TLS.Excludes(hop.Host, addr, ""):
		return mail.TLSNone
	case r.AuthType != "" && !r.AuthInsecure && addr.IsValid() && !localaddr.IsNear(addr):
		return mail.TLSEncrypt // in clear the credentials could not go
	}
	return mail.TLSMay
}

// hops returns the route's hosts with its credentials, limits and timeouts, best
// first; those that take turns have one priority. Where the file says nothing of
// encryption outbound.ini holds, as for all queued mail. A client's own
// credentials are not at hand any more: the queue then keeps the message rather
// than send it without.
func hops(f *Settings, r *Route) []mail.NextHop {
	// Encryption is decided by the hop's name here: its addresses are not known yet.
	list := slices.Clone(r.Hosts)
	for i := range list {
		h := &list[i]
		addr, _ := netip.ParseAddr(h.Host)
		*h = Backend(r, *h)
		if !r.InTurn {
			h.Priority = i
		}
		if h.TLS = Level(f, r, *h, addr); h.TLS == mail.TLSNone && !r.EnableTLS && !f.TLS.Excludes(h.Host, addr, "") {
			h.TLS = mail.TLSDefault
		}
	}
	return list
}

// Backend returns one of a route's hosts with the route's limits, timeouts and
// credentials, but for those that are the client's own (auth_type=forward).
func Backend(r *Route, h mail.NextHop) mail.NextHop {
	h.Backend = true
	h.Limits = mail.Limits{
		Connections: r.MaxConnections, Messages: r.MaxMessages, Age: r.MaxAge, Idle: r.Timeout,
		Connect: r.ConnectTimeout, Command: r.CommandTimeout, Submission: r.SubmissionTimeout,
	}
	h.AuthRequired, h.AuthInsecure = r.AuthType != "", r.AuthInsecure
	if r.AuthType != AuthForward {
		h.AuthType, h.AuthUser, h.AuthPass, h.AuthGrant = r.AuthType, r.AuthUser, r.AuthPass, r.Grant.Handle()
	}
	return h
}
