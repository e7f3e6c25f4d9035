// Package delivery makes one attempt: the recipients of one message that share
// a destination, from the domain to next hops, to addresses, to one SMTP or
// LMTP transaction.
//
// Every recipient gets a reply: of class 2 it is delivered, of class 4
// deferred, of class 5 failed. Permanent are only a well-formed 5yz reply to
// MAIL, RCPT, DATA or the final dot, a domain that does not exist or has neither
// MX nor address, and the null MX. All that goes wrong before MAIL, refusals
// included, moves on to the next address, and the last of these failures is the
// deferral when none is left. Once the final dot was sent and no reply to it
// came, no other address is tried: the message may have been taken.
//
// An Attempt whose context ends before the outcome is known is Interrupted: it
// says nothing about the recipients and does not count.
package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// Bounds of a kept connection that no setting of outbound.ini covers.
const (
	maxMessages = 100
	maxAge      = 15 * time.Minute
)

// Resolver finds next hops; *dns.Resolver does. Addrs is for names that come
// out of the DNS, Host for those of hooks.
type Resolver interface {
	MX(ctx context.Context, domain string) ([]dns.MX, error)
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
	Host(ctx context.Context, host string) ([]netip.Addr, error)
}

// Sender carries one transaction to one address; *pool.Pool does.
type Sender interface {
	Send(ctx context.Context, t pool.Target, env *mail.Envelope, c mail.Content) (smtpclient.Result, error)
}

// Options are outbound.ini as far as one attempt goes.
type Options struct {
	Me                 string           // EHLO name of hops that have none
	Port               int              // of MX; 0: 25
	LocalMXOK          bool             // MX may be this host
	InetPrefer         string           // "v4", "v6"; all else: the order of MX
	EnableTLS          bool             // opportunistic TLS
	TLS                conf.TLSOutbound // force_tls_hosts and no_tls_hosts
	TLSConfig          *tls.Config      // for connections to next hops; nil: the default
	ConnectTimeout     time.Duration    // 0: smtpclient's
	PoolTimeout        time.Duration    // how long a connection is kept idle; 0: not at all
	PoolConcurrencyMax int              // connections per host; 0: no cap
	PublicIP           netip.Addr       // ours behind NAT; zero: none

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
	d := &Delivery{o: o, log: o.Log}
	d.local.public, d.local.list, d.local.log = o.PublicIP.Unmap(), o.Interfaces, o.Log
	return d
}

// Job is what one attempt is about.
type Job struct {
	Envelope *mail.Envelope // Recipients: only those of this delivery, at least one
	Content  mail.Content
	Domain   string         // canonical, or an address literal
	Hops     []mail.NextHop // what get_mx gave, in this order; nil: ask the DNS
}

// Result is what became of an attempt.
type Result struct {
	// Replies has one reply of class 2, 4 or 5 for each recipient. They may be
	// shared and must not be changed.
	Replies []*reply.Reply
	// Interrupted is set when ctx ended first: then Replies is nil.
	Interrupted bool

	// The last address that was tried; empty if it never came to that. Host is
	// the MX's name, or the path of a socket.
	Host, IP      string
	Port          int
	Mode          mail.Protocol
	TLS           string // "none", or version and cipher; "": not known
	Authenticated bool
	Reused        bool
	DSN           bool // the next hop has been told what NOTIFY asks for

	Tried []mail.NextHop // every hop that was tried, each once
}

// Attempt tries to deliver j once.
func (d *Delivery) Attempt(ctx context.Context, j Job) Result {
	var res Result
	r, final := d.route(ctx, j)
	if final == nil {
		final = d.try(ctx, j, r, &res)
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

// try goes through the candidates until one answers for the recipients, which
// sets res.Replies. Otherwise it returns the reply for all of them.
func (d *Delivery) try(ctx context.Context, j Job, r *route, res *Result) *reply.Reply {
	var last *reply.Reply
	for c := range d.candidates(ctx, r) {
		if ctx.Err() != nil {
			break
		}
		res.at(c)
		sent, err := d.o.Sender.Send(ctx, d.target(j.Envelope, c), j.Envelope, j.Content)
		res.TLS, res.Authenticated, res.Reused, res.DSN = sent.TLS, sent.Authenticated, sent.Reused, sent.DSN
		if err == nil {
			replies := classify(sent.Replies, len(j.Envelope.Recipients))
			if !closing(replies) {
				res.Replies = replies
				return nil
			}
			last = replies[0]
			continue
		}
		d.log.Debug("address failed", zap.String("uuid", string(j.Envelope.ID)), zap.String("domain", j.Domain),
			zap.Stringer("hop", c.hop), zap.String("ip", res.IP), zap.Error(err))
		last = temporary(reply.From(err))
		var f *smtpclient.Failure
		if !errors.As(err, &f) || unreadable(f) {
			return last // a local problem: another address has it too
		}
		if f.Uncertain {
			return reply.New(451, "4.4.2", "Connection lost before the reply to the message, which may have been taken").Because(err)
		}
	}
	if last == nil {
		return r.unusable()
	}
	return last
}

// unreadable reports whether the content, not the connection, was at fault.
func unreadable(f *smtpclient.Failure) bool {
	return f.Stage == smtpclient.StageContent && f.Reply == nil && f.Deferral().Status() == reply.Enhanced{4, 3, 0}
}

// at notes which candidate is being tried.
func (res *Result) at(c candidate) {
	res.Host, res.IP, res.Port, res.Mode = c.hop.Host, "", 0, c.hop.Protocol
	if c.hop.Path != "" {
		res.Host = c.hop.Path
	} else {
		res.IP, res.Port = c.addr.String(), port(c.hop)
	}
	if n := len(res.Tried); n == 0 || res.Tried[n-1].String() != c.hop.String() {
		res.Tried = append(res.Tried, c.hop)
	}
}

func port(h mail.NextHop) int {
	if h.Port == 0 {
		return h.DefaultPort()
	}
	return h.Port
}

// target says how to talk to a candidate. A hop's own settings win over the
// transaction's notes.
func (d *Delivery) target(env *mail.Envelope, c candidate) pool.Target {
	h := c.hop
	o := smtpclient.Options{
		Network:        "tcp",
		Host:           h.Host,
		Protocol:       h.Protocol,
		ImplicitTLS:    h.ImplicitTLS,
		TLS:            d.policy(env, c),
		TLSConfig:      d.o.TLSConfig,
		Bind:           h.Bind,
		Helo:           h.Helo,
		AuthType:       h.AuthType,
		AuthUser:       h.AuthUser,
		AuthPass:       h.AuthPass,
		AuthRequired:   h.AuthUser != "",
		ConnectTimeout: d.o.ConnectTimeout,
	}
	if h.Path != "" {
		o.Network, o.Addr, o.Bind = "unix", h.Path, netip.Addr{}
	} else {
		o.Addr = net.JoinHostPort(c.addr.String(), strconv.Itoa(port(h)))
	}
	if o.Helo == "" {
		o.Helo = env.Notes.String("outbound_helo")
	}
	if o.Helo == "" {
		o.Helo = d.o.Me
	}
	return pool.Target{
		Options:        o,
		MaxConnections: d.o.PoolConcurrencyMax,
		MaxMessages:    maxMessages,
		MaxAge:         maxAge,
		IdleTimeout:    d.o.PoolTimeout,
	}
}

// policy is opportunistic TLS without a look at the certificate, which against
// a passive listener is better than nothing. A certificate is verified where
// that is not enough: for REQUIRETLS (RFC 8689), for force_tls_hosts, and before
// credentials go to a public address.
func (d *Delivery) policy(env *mail.Envelope, c candidate) smtpclient.TLSPolicy {
	a, domain := c.addr, env.Recipients[0].Address.Host()
	here := c.hop.Path != "" || a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast()
	switch {
	case env.RequireTLS || d.o.TLS.Forces(c.hop.Host, a, domain):
		return smtpclient.TLSVerify
	case !d.o.EnableTLS && !c.hop.ImplicitTLS || d.o.TLS.Excludes(c.hop.Host, a, domain):
		return smtpclient.TLSNone
	case c.hop.AuthUser != "" && !here:
		return smtpclient.TLSVerify
	}
	return smtpclient.TLSMay
}
