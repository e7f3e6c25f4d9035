// Package delivery is the engine of relay and queue. It makes one attempt: the recipients
// of one message that share a destination, from the next hops to addresses, to one SMTP
// or LMTP transaction. Delivery does it for queued mail, to the hops that package nexthop
// finds, Relay in session for the hosts of a route of smtp_forward.ini. Both go from place to
// place in the same way (offer), with the same connections, and decide alike about
// REQUIRETLS; a Result says what became of each recipient and where it went.
//
// In an attempt for queued mail every recipient gets a reply: of class 2 it is delivered, of class 4
// deferred, of class 5 failed. Permanent are only a well-formed 5yz reply to
// MAIL, RCPT, DATA or the final dot, a domain that does not exist or has neither
// MX nor address, the null MX, this host as the best MX, and a domain
// without any MX that has the REQUIRETLS a message asks for. All that
// goes wrong before MAIL, refusals included, moves on to the next address or MX,
// and the last of these failures is the deferral when none is left. So do, with
// NextAfterDeferral, the recipients that a host answers with a 4yz (RFC 5321 section
// 5.1), but for the hosts of smtp_forward.ini. Once the
// final dot was sent and no reply to it came, nothing else is tried: the message
// may have been taken.
//
// In a Relay's attempt the first host that answers decides for all recipients, whatever
// it says. One that cannot be reached is passed over from then on, and probed until it is
// back; see Relay.
//
// How a connection is secured is decided for each host of each domain, also
// where domains share hosts; see package tlspolicy.
//
// An Attempt is Interrupted when its context ends before the outcome is known: it
// says nothing about the recipients and does not count.
package delivery

import (
	"cmp"
	"context"
	"crypto/tls"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/destination"
	"tarishi/internal/dns"
	"tarishi/internal/localaddr"
	"tarishi/internal/mail"
	"tarishi/internal/nexthop"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/tlsconf"
	"tarishi/internal/tlspolicy"
)

// Bounds of a kept connection that no setting of outbound.ini covers.
const (
	maxMessages = 100
	maxAge      = 15 * time.Minute
)

// Resolver finds next hops; *dns.Resolver does. Addresses is for names that come
// out of the DNS, Host for those of hooks and of the configuration.
type Resolver interface {
	nexthop.Resolver
	HostResolver
	TLSA(ctx context.Context, name string) ([]dns.TLSA, error)
}

// HostResolver finds the addresses of a configured host: an IP address, a name in
// the hosts file or in the DNS.
type HostResolver interface {
	Host(ctx context.Context, host string) ([]netip.Addr, error)
}

// Sender carries one transaction to one host; *pool.Pool does.
type Sender interface {
	Send(ctx context.Context, t pool.Target, env *mail.Envelope, c mail.Content) (smtpclient.Result, error)
}

// Options are what a Delivery works with.
type Options struct {
	*destination.Settings                  // outbound.ini
	Me                    string           // EHLO name of hops that have none
	TLS                   tlsconf.Outbound // force_tls_hosts and no_tls_hosts
	DANE                  bool             // RFC 7672; Resolver reports DNSSEC
	STS                   nexthop.Policies // RFC 8461; nil: not looked at

	// TLSConfig returns the configuration of a new connection to a next hop, that
	// shows our certificate or does not; nil: the default. BackendTLS does for hops
	// that are a Backend; nil: TLSConfig. Another pointer means that connections are
	// not shared.
	TLSConfig  func(show bool) *tls.Config
	BackendTLS func() *tls.Config

	Resolver Resolver
	Sender   Sender
	Tokens   TokenSources // for hops with access tokens
	Log      *zap.Logger  // nil: none

	// Interfaces lists this host's addresses; nil asks the system.
	Interfaces func() ([]netip.Addr, error)
}

// Delivery makes attempts. It may be used from any goroutine.
type Delivery struct {
	o      Options
	log    *zap.Logger
	finder nexthop.Finder
	tls    tlspolicy.Decider
	own    *localaddr.Set
	public netip.Addr // ours behind NAT; zero: not known
}

// New returns a Delivery.
func New(o Options) *Delivery {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	d := &Delivery{o: o, log: o.Log, own: localaddr.New(o.Interfaces, o.Log)}
	d.public, _ = netip.ParseAddr(o.PublicIP) // zero if it is not set
	port := cmp.Or(o.Port, mail.NextHop{}.DefaultPort())
	d.finder = nexthop.Finder{Me: mail.CanonicalDomain(o.Me), Port: port, LocalMXOK: o.LocalMXOK, Resolver: o.Resolver}
	d.tls = tlspolicy.Decider{EnableTLS: o.EnableTLS, Hosts: o.TLS, DANE: o.DANE, Resolver: o.Resolver, TLSConfig: o.TLSConfig, Log: o.Log}
	if o.EnableTLS { // without it no policy would be honoured
		d.finder.Policies = o.STS
	}
	return d
}

// isUs reports whether a is the loopback, one of our interfaces, the public
// address, or the unspecified address, which connects to this host.
func (d *Delivery) isUs(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsUnspecified() || a.WithZone("") == d.public.Unmap() || d.own.Has(a)
}

// Job is what one attempt is about.
type Job struct {
	Envelope *mail.Envelope // Recipients: only those of this delivery, at least one
	Content  mail.Content
	Domain   string         // canonical, or an address literal
	Hops     []mail.NextHop // what get_mx gave, in this order; nil: ask the DNS
	Settings Settings
	Trying   func(host string) // called with the host of each try before it begins; nil: none
}

// Settings are what outbound.ini says for one destination beyond Options. What
// a next hop from a hook or a transaction's notes say comes before them.
type Settings struct {
	Bind           netip.Addr    // local address; zero: the system chooses
	Helo           string        // EHLO name; "": Options.Me
	TLS            mail.TLSLevel // zero: tls.ini's
	MaxConnections int           // per host; 0: Options.PoolConcurrencyMax
	MaxMessages    int           // on one connection; 0: 100
}

// Plan resolves the job's domain, or its hops, to next hops. Without one it
// returns the reply for all recipients, which is temporary also when ctx ended.
func (d *Delivery) Plan(ctx context.Context, j Job) (*nexthop.Plan, *reply.Reply) {
	return d.finder.Plan(ctx, j.Domain, j.Hops)
}

// Attempt tries to deliver j once, the way that p says; nil: that of Plan.
func (d *Delivery) Attempt(ctx context.Context, j Job, p *nexthop.Plan) Result {
	var final *reply.Reply
	if p == nil {
		p, final = d.Plan(ctx, j)
	}
	if final == nil && p.Pending() {
		final = reply.Newf(451, "4.7.5", "MTA-STS policy of %s is not known yet", j.Domain)
	}
	res := Result{Interrupted: ctx.Err() != nil}
	if final == nil {
		res, final = d.try(ctx, j, p, j.Envelope)
	}
	if res.Replies == nil && !res.Interrupted {
		res.Replies = slices.Repeat([]*reply.Reply{final}, len(j.Envelope.Recipients))
	}
	return res
}

// try goes through the places of a plan. Where no server replied about recipients
// it returns the reply for all of them. env is the job's, or that without REQUIRETLS.
func (d *Delivery) try(ctx context.Context, j Job, p *nexthop.Plan, env *mail.Envelope) (Result, *reply.Reply) {
	w := &walk{d: d, job: j, plan: p}
	w.offer = offer{course: w, sender: d.o.Sender, env: env, content: j.Content, trying: j.Trying, onward: d.o.NextMXOnDeferral}
	w.need = tlspolicy.NewNeed(env, j.Settings.TLS)
	w.bind, w.helo = nexthop.Source(env, d.log)
	if !w.bind.IsValid() {
		w.bind = j.Settings.Bind
	}
	w.offerAround(ctx)

	// A policy that keeps us from a host is about this domain, and not about the host.
	res, final := &w.res, w.last
	res.Reached = res.Reached || w.refused != nil
	if w.last == nil && res.Replies == nil {
		res.PolicyWanted, final = w.wanted, w.unusable()
		if final == w.refused && final.Enhanced[1] == 7 {
			res.Obstacle = Insecure
		}
	}

	// REQUIRETLS may have the message go once more without it, or fail for good.
	switch w.judgeRequireTLS() {
	case tlspolicy.Without:
		plain := *env
		plain.RequireTLS = false
		return d.try(ctx, j, p, &plain)
	case tlspolicy.Fails:
		final = reply.Newf(550, "5.7.30", "REQUIRETLS support required, and no MX of %s has it", j.Domain)
	}
	return *res, final
}
