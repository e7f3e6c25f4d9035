// Package delivery makes one attempt: the recipients of one message that share
// a destination, from the domain to next hops, to addresses, to one SMTP or
// LMTP transaction.
//
// Every recipient gets a reply: of class 2 it is delivered, of class 4
// deferred, of class 5 failed. Permanent are only a well-formed 5yz reply to
// MAIL, RCPT, DATA or the final dot, a domain that does not exist or has neither
// MX nor address, the null MX, a domain whose best MX is this host, and one of
// which no MX has REQUIRETLS that the message asks for. All that
// goes wrong before MAIL, refusals included, moves on to the next address or MX,
// and the last of these failures is the deferral when none is left. So do, with
// NextAfterDeferral, the recipients that a host answers with a 4yz (RFC 5321 section
// 5.1), but for the hosts of smtp_forward.ini. Once the
// final dot was sent and no reply to it came, nothing else is tried: the message
// may have been taken.
//
// How a connection is secured is decided for each host of each domain, also
// where domains share hosts; see security.
//
// An Attempt whose context ends before the outcome is known is Interrupted: it
// says nothing about the recipients and does not count.
package delivery

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/mtasts"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// Bounds of a kept connection that no setting of outbound.ini covers.
const (
	maxMessages = 100
	maxAge      = 15 * time.Minute
)

// Resolver finds next hops; *dns.Resolver does. Addresses is for names that come
// out of the DNS, Host for those of hooks.
type Resolver interface {
	MX(ctx context.Context, domain string) ([]dns.MX, error)
	Addresses(ctx context.Context, host string) (dns.Addresses, error)
	Host(ctx context.Context, host string) ([]netip.Addr, error)
	TLSA(ctx context.Context, name string) ([]dns.TLSA, error)
}

// Policies knows the MTA-STS policies of domains; *mtasts.Cache does. With a Fetch
// the policy is not known before that has ended.
type Policies interface {
	Policy(ctx context.Context, domain string) (*mtasts.Policy, *mtasts.Fetch)
}

// Sender carries one transaction to one host; *pool.Pool does.
type Sender interface {
	Send(ctx context.Context, t pool.Target, env *mail.Envelope, c mail.Content) (smtpclient.Result, error)
}

// Options are outbound.ini as far as one attempt goes.
type Options struct {
	Me                 string           // EHLO name of hops that have none
	Port               int              // of MX; 0: 25
	LocalMXOK          bool             // MX may be this host
	InetPrefer         string           // "v4", "v6"; all else: host by host
	NoIPv6             bool             // leave out IPv6 addresses of names
	EnableTLS          bool             // opportunistic TLS
	TLS                conf.TLSOutbound // its lists of hosts
	DANE               bool             // RFC 7672; Resolver knows what is secure
	STS                Policies         // RFC 8461; nil: not looked at
	ConnectTimeout     time.Duration    // 0: smtpclient's
	MinRate            int64            // as smtpclient's
	PoolTimeout        time.Duration    // how long a connection is kept idle; 0: not at all
	PoolConcurrencyMax int              // connections per host; 0: no cap
	PublicIP           netip.Addr       // ours behind NAT; zero: none
	NextAfterDeferral  bool             // recipients that a host defers are offered to the next one

	// TLSConfig returns the configuration of a new connection to a next hop, that
	// shows our certificate or does not; nil: the default. BackendTLS does for hops
	// that are a Backend; nil: TLSConfig. Another pointer means that connections are
	// not shared.
	TLSConfig  func(show bool) *tls.Config
	BackendTLS func() *tls.Config

	Resolver Resolver
	Sender   Sender
	Log      *zap.Logger // nil: none

	// Interfaces lists this host's addresses; nil asks the system.
	Interfaces func() ([]netip.Addr, error)
}

// Delivery makes attempts. It may be used from any goroutine.
type Delivery struct {
	o     Options
	log   *zap.Logger
	me    string // canonical
	local localAddrs
}

// New returns a Delivery.
func New(o Options) *Delivery {
	if o.Port == 0 {
		o.Port = mail.NextHop{}.DefaultPort()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Interfaces == nil {
		o.Interfaces = interfaceAddrs
	}
	d := &Delivery{o: o, log: o.Log, me: mail.CanonicalDomain(o.Me)}
	d.local.public, d.local.list, d.local.log = o.PublicIP.Unmap(), o.Interfaces, o.Log
	return d
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

// Result is what became of an attempt.
type Result struct {
	// Replies has one reply of class 2, 4 or 5 for each recipient. They may be
	// shared and must not be changed.
	Replies []*reply.Reply
	// Interrupted is set when ctx ended first: then Replies is nil.
	Interrupted bool
	// Uncertain is set when a server was sent the whole message and did not answer,
	// or not for all recipients in LMTP: it may have been taken.
	Uncertain bool

	// Via is the last address that was tried; empty if it never came to that. By has
	// for each recipient the one that Replies is from, where a server answered.
	Via
	By []*Via

	Tried []mail.NextHop // every hop that was tried, each once

	// Reached is set when a server let us as far as MAIL, or would have but for
	// the TLS policy or the credentials of this domain: the outcome says nothing
	// about other mail.
	// Without it the trouble is everybody's who shares the Plan's Site.
	// Throttled is set when a server asked for less: a 421, a 4yz greeting, 4yz
	// replies for everybody that are not about the mailboxes, or no reply in time.
	Reached, Throttled bool
	// Local is set when nothing failed but this host: it has no such outbound
	// address, or no socket. The outcome says nothing about the destination.
	Local bool
}

// Via is an address that was tried.
type Via struct {
	Host          string // the MX's name, or the path of a socket
	IP            string
	Port          int
	Mode          mail.Protocol
	TLS           string // "none", or version and cipher; "": not known
	Authenticated bool
	Reused        bool
	DSN           bool // the next hop has been told what NOTIFY asks for

	// PolicyWanted is the TLS policy there: "none", "may", "encrypt", "verify",
	// "dane" or "sts". When no address was tried, it is the policy that kept us from a
	// host, or "".
	// PolicyGot is what authenticated the server: "dane", "pkix" or "no"; "" when it
	// was not reached.
	PolicyWanted, PolicyGot string
}

// Attempt tries to deliver j once, the way that p says; nil: that of Plan.
func (d *Delivery) Attempt(ctx context.Context, j Job, p *Plan) Result {
	var res Result
	var final *reply.Reply
	if p == nil {
		p, final = d.Plan(ctx, j)
	}
	switch {
	case final != nil:
	case p.fetch != nil:
		final = reply.Newf(451, "4.7.5", "MTA-STS policy of %s is not known yet", j.Domain)
	default:
		final = d.try(ctx, j, p, &res)
	}
	if res.Replies != nil {
		return res
	}
	if ctx.Err() != nil {
		res.Interrupted = true
		return res
	}
	res.Replies = make([]*reply.Reply, len(j.Envelope.Recipients))
	for i := range res.Replies {
		res.Replies[i] = final
	}
	return res
}

// lacksRequireTLS is the status of a server that was verified and does not offer
// REQUIRETLS.
var lacksRequireTLS = reply.Enhanced{4, 7, 30}

// told logs what a destination's policy, or ours, would have had otherwise.
func (d *Delivery) told(j Job, c place, sent smtpclient.Result) {
	if c.security.testing && sent.TLS == "none" {
		d.mistrusted(j.Domain, c.hop.Host, errors.New("no TLS"))
	}
	if c.hop.AuthUser != "" && !sent.Authenticated {
		d.log.Warn("sent without authentication, which was not offered", zap.String("uuid", string(j.Envelope.ID)),
			zap.Stringer("hop", c.hop), zap.String("user", c.hop.AuthUser))
	}
}

// unreadable reports whether the content, not the connection, was at fault.
func unreadable(f *smtpclient.Failure) bool {
	return f.Stage == smtpclient.StageContent && f.Reply == nil && f.Deferral().Status() == reply.Enhanced{4, 3, 0}
}

// target says how to talk to a place, whose hop has what the transaction's notes
// say already: its own settings win over those, and they over the job's settings.
func (d *Delivery) target(j Job, c place) pool.Target {
	h, sec := c.hop, c.security
	o := smtpclient.Options{
		Network:        "tcp",
		Host:           cmp.Or(sec.name, h.Host),
		Protocol:       h.Protocol,
		ImplicitTLS:    h.ImplicitTLS,
		TLS:            sec.policy,
		Verify:         sec.verify,
		VerifyKey:      sec.key,
		Bind:           h.Bind,
		Helo:           cmp.Or(h.Helo, j.Settings.Helo, d.o.Me),
		Forwards:       h.Forwards,
		AuthType:       h.AuthType,
		AuthUser:       h.AuthUser,
		AuthPass:       h.AuthPass,
		AuthRequired:   h.AuthRequired,
		AuthInsecure:   h.AuthInsecure,
		ConnectTimeout: d.o.ConnectTimeout,
		MinRate:        d.o.MinRate,
	}
	t := pool.Target{
		MaxConnections: cmp.Or(j.Settings.MaxConnections, d.o.PoolConcurrencyMax),
		MaxMessages:    cmp.Or(j.Settings.MaxMessages, maxMessages),
		MaxAge:         maxAge,
		IdleTimeout:    d.o.PoolTimeout,
	}
	if l := h.Limits; l != (mail.Limits{}) {
		t.MaxConnections, t.MaxMessages, t.MaxAge, t.IdleTimeout = l.Connections, l.Messages, l.Age, l.Idle
		o.ConnectTimeout, o.CommandTimeout, o.SubmissionTimeout = l.Connect, l.Command, l.Submission
	}
	switch {
	case h.Backend && d.o.BackendTLS != nil:
		o.TLSConfig = d.o.BackendTLS()
	case d.o.TLSConfig != nil:
		o.TLSConfig = d.o.TLSConfig(d.o.TLS.Shows(h.Host, j.Domain))
	}
	if h.Path != "" {
		o.Network, o.Addr, o.Bind = "unix", h.Path, netip.Addr{}
	}
	for _, a := range c.addrs {
		t.Addrs = append(t.Addrs, netip.AddrPortFrom(a, uint16(h.TCPPort())))
	}
	t.Options = o
	return t
}
