package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// Sender carries one transaction over a kept or a new connection. pool.Pool is
// one. An error that is a *smtpclient.Failure tells whether the message may
// have been taken all the same.
type Sender interface {
	Send(ctx context.Context, t pool.Target, env *mail.Envelope, content mail.Content) (smtpclient.Result, error)
}

// Resolver finds the addresses of a configured host: an IP address, a name in
// the hosts file or in the DNS.
type Resolver interface {
	Host(ctx context.Context, host string) ([]netip.Addr, error)
}

// The replies when no backend answered.
var (
	errUnreached = reply.New(451, "4.4.1", "No backend can be reached, please try again later")
	errUncertain = reply.New(451, "4.4.2", "Connection to the backend lost, please try again later")
)

// send carries one transaction to the first address that answers and returns
// the reply for each recipient. reached is false when there was none.
func (f *Forwarder) send(ctx context.Context, env *mail.Envelope, content mail.Content, r *conf.ForwardRoute) (replies []*reply.Reply, reached bool) {
	began := time.Now()
	var causes []error
	var last mail.NextHop
	for _, hop := range r.Hosts {
		last = hop
		targets, err := f.targets(ctx, r, hop, env.RequireTLS)
		if err != nil {
			causes = append(causes, err)
		}
		for _, t := range targets {
			if ctx.Err() != nil {
				break
			}
			res, err := f.o.Sender.Send(ctx, t, env, content)
			if err == nil && len(res.Replies) == len(env.Recipients) {
				f.logResult(env, r, hop, t, res, time.Since(began))
				return res.Replies, true
			}
			if err == nil {
				err = fmt.Errorf("%d replies for %d recipients", len(res.Replies), len(env.Recipients))
			}
			causes = append(causes, err)
			f.o.Log.Warn("backend failed", zap.String("uuid", string(env.ID)), zap.String("route", r.Name),
				zap.Stringer("host", hop), zap.String("addr", t.Options.Addr), zap.Error(err))
			if failure := (*smtpclient.Failure)(nil); errors.As(err, &failure) && failure.Uncertain {
				return f.fail(env, r, hop, errUncertain.Because(err), time.Since(began)), true
			}
		}
	}
	causes = append(causes, ctx.Err())
	return f.fail(env, r, last, errUnreached.Because(errors.Join(causes...)), time.Since(began)), false
}

// fail gives every recipient the same reply.
func (f *Forwarder) fail(env *mail.Envelope, r *conf.ForwardRoute, hop mail.NextHop, why *reply.Reply, delay time.Duration) []*reply.Reply {
	d := delivery(env, r, hop, delay)
	f.o.Mail.ForwardFailed(d, addresses(env.Recipients, nil), why.Error())
	return slices.Repeat([]*reply.Reply{why}, len(env.Recipients))
}

// targets resolves one host of the route.
func (f *Forwarder) targets(ctx context.Context, r *conf.ForwardRoute, hop mail.NextHop, requireTLS bool) ([]pool.Target, error) {
	t := pool.Target{
		Options: smtpclient.Options{
			Host: hop.Host, Protocol: hop.Protocol, ImplicitTLS: hop.ImplicitTLS, TLSConfig: f.o.TLSConfig, Bind: hop.Bind, Helo: hop.Helo,
			AuthType: r.AuthType, AuthUser: r.AuthUser, AuthPass: r.AuthPass, AuthRequired: r.AuthType != "",
			ConnectTimeout: r.ConnectTimeout, CommandTimeout: r.CommandTimeout, SubmissionTimeout: r.SubmissionTimeout,
		},
		MaxConnections: r.MaxConnections, MaxMessages: r.MaxMessages, MaxAge: r.MaxAge, IdleTimeout: r.Timeout,
	}
	if t.Options.Helo == "" {
		t.Options.Helo = f.o.Me
	}
	if hop.Path != "" {
		t.Options.Network, t.Options.Addr = "unix", hop.Path
		t.Options.TLS = f.policy(r, hop.Host, netip.Addr{}, requireTLS)
		return []pool.Target{t}, nil
	}
	addrs, err := f.o.Resolver.Host(ctx, hop.Host)
	if err != nil {
		f.o.Log.Warn("backend has no address", zap.String("route", r.Name), zap.String("host", hop.Host), zap.Error(err))
		return nil, err
	}
	targets := make([]pool.Target, len(addrs))
	for i, a := range addrs {
		t.Options.Addr = netip.AddrPortFrom(a, uint16(port(hop))).String()
		t.Options.TLS = f.policy(r, hop.Host, a, requireTLS)
		targets[i] = t
	}
	return targets, nil
}

func port(hop mail.NextHop) int {
	if hop.Port == 0 {
		return hop.DefaultPort()
	}
	return hop.Port
}

// policy is the route's own, unless tls.ini has an exception for the host or
// the message asks for more (REQUIRETLS, RFC 8689).
func (f *Forwarder) policy(r *conf.ForwardRoute, host string, addr netip.Addr, requireTLS bool) smtpclient.TLSPolicy {
	switch {
	case r.TLSVerify || requireTLS || f.o.TLS.Forces(host, addr, ""):
		return smtpclient.TLSVerify
	case r.RequireTLS:
		return smtpclient.TLSEncrypt
	case !r.EnableTLS || f.o.TLS.Excludes(host, addr, ""):
		return smtpclient.TLSNone
	}
	return smtpclient.TLSMay
}

// logResult writes one line for the recipients that were taken, and one for
// those that were not.
func (f *Forwarder) logResult(env *mail.Envelope, r *conf.ForwardRoute, hop mail.NextHop, t pool.Target, res smtpclient.Result, delay time.Duration) {
	d := delivery(env, r, hop, delay)
	if ip, p, err := net.SplitHostPort(t.Options.Addr); err == nil {
		d.IP = ip
		d.Port, _ = strconv.Atoi(p)
	}
	d.TLS, d.Auth, d.Reused = res.TLS, res.Authenticated, res.Reused
	var taken, failed *reply.Reply
	for _, x := range res.Replies {
		switch {
		case x.Positive() && taken == nil:
			taken = x
		case !x.Positive() && failed == nil:
			failed = x
		}
	}
	if taken != nil {
		f.o.Mail.Forwarded(d, addresses(env.Recipients, func(i int) bool { return res.Replies[i].Positive() }), taken.String())
	}
	if failed != nil {
		f.o.Mail.ForwardFailed(d, addresses(env.Recipients, func(i int) bool { return !res.Replies[i].Positive() }), failed.Error())
	}
}

func delivery(env *mail.Envelope, r *conf.ForwardRoute, hop mail.NextHop, delay time.Duration) maillog.Delivery {
	host, at := hop.Host, port(hop)
	if hop.Path != "" {
		host, at = hop.Path, 0
	}
	return maillog.Delivery{
		ID: string(env.ID), From: env.From.String(), Domain: r.Name, Host: host, Port: at, Mode: hop.Protocol.String(), TLS: "none",
		Delay: delay, Attempts: 1,
	}
}

// addresses lists the recipients that keep selects; nil selects all.
func addresses(recipients []mail.Recipient, keep func(i int) bool) []string {
	var list []string
	for i, r := range recipients {
		if keep == nil || keep(i) {
			list = append(list, r.Address.String())
		}
	}
	return list
}
