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
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/route"
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
	errBusy      = reply.New(451, "4.4.5", "All connections to the backend are busy, please try again later")
	errInsecure  = reply.New(451, "4.7.5", "No secure connection to the backend, please try again later")
	errNoAuth    = reply.New(451, "4.7.0", "No authentication at the backend, please try again later")
	errUncertain = reply.New(451, "4.4.2", "Connection to the backend lost, please try again later")

	errRequireTLS = reply.New(550, "5.7.30", "REQUIRETLS support required, and no backend has it")
)

// unanswered is the reply after the last failure of a message that no backend
// answered.
func unanswered(last error) *reply.Reply {
	f := (*smtpclient.Failure)(nil)
	switch {
	case !errors.As(last, &f):
	case f.Stage == smtpclient.StageAuth:
		return errNoAuth
	case f.Stage == smtpclient.StageTLS:
		return errInsecure
	case f.Stage == smtpclient.StageConnect && f.Reply != nil:
		return errBusy
	case f.LacksTLS(): // but other hosts may yet prove to have it
		return f.Reply
	case f.Reply != nil && f.Reply.Code == 421 && f.Stage >= smtpclient.StageMail:
		r := reply.New(450, "4.3.2", f.Reply.Text)
		if f.Reply.Enhanced[0] == 4 {
			r.Enhanced = f.Reply.Enhanced
		}
		return r
	}
	return errUnreached
}

// isUncertain reports whether a reply stands for a message that the backend may
// have taken.
func isUncertain(r *reply.Reply) bool {
	f := (*smtpclient.Failure)(nil)
	return r.Cause != nil && errors.As(r.Cause, &f) && f.Uncertain
}

// isDown reports whether a failure says that other messages will fare no better
// at that host.
func isDown(err error) bool {
	f := (*smtpclient.Failure)(nil)
	if !errors.As(err, &f) {
		return true // no address
	}
	switch f.Stage {
	case smtpclient.StageConnect:
		return f.Reply == nil // else it is busy
	case smtpclient.StageGreeting, smtpclient.StageHello, smtpclient.StageTLS:
		return true
	}
	return false
}

// send carries one transaction to the first host that answers and returns the
// reply for each recipient. reached is false when there was none.
func (f *Forwarder) send(ctx context.Context, env *mail.Envelope, content mail.Content, r *conf.ForwardRoute, own credentials, silent *successes) (results []hook.RecipientResult, reached bool) {
	began := time.Now()
	leave, ok := f.backends.enter(ctx, r)
	if !ok {
		return f.fail(env, r, r.Hosts[0], "", errBusy.Because(context.Cause(ctx)), time.Since(began)), false
	}
	defer leave()
	return f.try(ctx, env, content, r, own, silent, began)
}

// try is send, once it has a connection to spare.
func (f *Forwarder) try(ctx context.Context, env *mail.Envelope, content mail.Content, r *conf.ForwardRoute, own credentials, silent *successes, began time.Time) (results []hook.RecipientResult, reached bool) {
	var causes []error
	var at mail.NextHop
	var policy string
	lacking := env.RequireTLS // as long as no host can, or might, have what that asks for
	for _, hop := range f.backends.order(r) {
		if ctx.Err() != nil {
			break
		}
		at, policy = hop, ""
		targets, err := f.targets(ctx, r, hop, own, env.RequireTLS)
		if err != nil {
			causes = append(causes, err)
			lacking = false
		}
		down := err == nil || ctx.Err() == nil
		for _, t := range targets {
			policy = wanted(t)
			res, err := f.o.Sender.Send(ctx, t, env, content)
			if err == nil && len(res.Replies) == len(env.Recipients) {
				f.revived(r, hop)
				f.logResult(env, r, hop, policy, res, time.Since(began))
				results = answered(env.Recipients, res.Replies, hop.Host)
				silent.add(hop.Protocol, &res, results)
				return results, true
			}
			if err == nil {
				err = fmt.Errorf("%d replies for %d recipients", len(res.Replies), len(env.Recipients))
			}
			causes = append(causes, err)
			f.o.Log.Warn("backend failed", zap.String("uuid", string(env.ID)), zap.String("route", r.Name), zap.Stringer("host", hop), zap.Error(err))
			failure := (*smtpclient.Failure)(nil)
			known := errors.As(err, &failure)
			if known && failure.Uncertain {
				return f.fail(env, r, hop, policy, errUncertain.Because(err), time.Since(began)), true
			}
			if ctx.Err() != nil {
				return f.fail(env, r, hop, policy, unanswered(err).Because(errors.Join(causes...)), time.Since(began)), false
			}
			lacking = lacking && known && (failure.LacksTLS() || env.From.IsNull() && failure.Stage == smtpclient.StageTLS)
			down = down && isDown(err) && !env.RequireTLS // which asks for more than others do
		}
		if down && f.backends.lost(r, hop, time.Now()) {
			f.o.Log.Warn("backend is down", zap.String("route", r.Name), zap.Stringer("host", hop), zap.Duration("retry", r.DeadRetry))
		}
	}
	switch {
	case !lacking || ctx.Err() != nil:
	case env.From.IsNull(): // RFC 8689 section 5: it is no reason to lose a DSN
		plain := *env
		plain.RequireTLS = false
		return f.try(ctx, &plain, content, r, own, silent, began)
	default: // section 4.2.1
		return f.fail(env, r, at, policy, errRequireTLS.Because(errors.Join(causes...)), time.Since(began)), false
	}
	causes = append(causes, context.Cause(ctx))
	last := error(nil)
	if n := len(causes) - 2; n >= 0 {
		last = causes[n]
	}
	return f.fail(env, r, at, policy, unanswered(last).Because(errors.Join(causes...)), time.Since(began)), false
}

// fail gives every recipient the same reply.
func (f *Forwarder) fail(env *mail.Envelope, r *conf.ForwardRoute, hop mail.NextHop, policy string, why *reply.Reply, delay time.Duration) []hook.RecipientResult {
	d := delivery(env, r, hop, policy, delay)
	f.o.Mail.ForwardFailed(d, addresses(env.Recipients, nil), why.Code, why.Error())
	return answered(env.Recipients, slices.Repeat([]*reply.Reply{why}, len(env.Recipients)), "")
}

// answered puts recipients, their replies and the host that gave them together.
func answered(recipients []mail.Recipient, replies []*reply.Reply, host string) []hook.RecipientResult {
	all := make([]hook.RecipientResult, len(recipients))
	for i, r := range recipients {
		all[i] = hook.RecipientResult{Recipient: r, Reply: replies[i], Host: host}
		if replies[i].Cause != nil { // not the server's words
			all[i].Host = ""
		}
	}
	return all
}

// targets resolves one host of the route. There is more than one target only
// where no_tls_hosts or force_tls_hosts make a difference between its addresses.
func (f *Forwarder) targets(ctx context.Context, r *conf.ForwardRoute, hop mail.NextHop, own credentials, requireTLS bool) ([]pool.Target, error) {
	t := pool.Target{
		Options: smtpclient.Options{
			Host: hop.Host, Protocol: hop.Protocol, ImplicitTLS: hop.ImplicitTLS, Bind: hop.Bind, Helo: hop.Helo, Forwards: hop.Forwards,
			AuthType: r.AuthType, AuthUser: r.AuthUser, AuthPass: r.AuthPass, AuthInsecure: r.AuthInsecure, AuthRequired: r.AuthType != "",
			ConnectTimeout: r.ConnectTimeout, CommandTimeout: r.CommandTimeout, SubmissionTimeout: r.SubmissionTimeout,
			DataTimeout: min(r.CommandTimeout, 2*time.Minute), BlockTimeout: min(r.CommandTimeout, 3*time.Minute),
		},
		MaxConnections: r.MaxConnections, MaxMessages: r.MaxMessages, MaxAge: r.MaxAge, IdleTimeout: r.Timeout,
	}
	if r.AuthType == conf.AuthForward { // by whatever mechanism the backend has
		t.AuthType, t.AuthUser, t.AuthPass = "", own.user, own.pass
	}
	if t.Helo == "" {
		t.Helo = f.o.Me
	}
	if f.o.TLSConfig != nil {
		t.TLSConfig = f.o.TLSConfig()
	}
	if len(r.Hosts) > 1 { // a server that hangs is not worth the patience that RFC 5321 asks for
		t.GreetingTimeout = min(r.CommandTimeout, r.ConnectTimeout)
	}
	if hop.Path != "" {
		t.Network, t.Addr, t.Bind = "unix", hop.Path, netip.Addr{}
		t.TLS = f.policy(r, hop, netip.Addr{}, requireTLS)
		return []pool.Target{t}, nil
	}
	addrs, err := f.o.Resolver.Host(ctx, hop.Host)
	if err != nil {
		f.o.Log.Warn("backend has no address", zap.String("route", r.Name), zap.String("host", hop.Host), zap.Error(err))
		return nil, err
	}
	var targets []pool.Target
	for _, a := range addrs {
		a = a.Unmap()
		policy, at := f.policy(r, hop, a, requireTLS), netip.AddrPortFrom(a, uint16(hop.TCPPort()))
		if i := slices.IndexFunc(targets, func(t pool.Target) bool { return t.TLS == policy }); i >= 0 {
			targets[i].Addrs = append(targets[i].Addrs, at)
			continue
		}
		one := t
		one.TLS, one.Addrs = policy, []netip.AddrPort{at}
		targets = append(targets, one)
	}
	return targets, nil
}

// policy is the route's own, unless the message asks for more (REQUIRETLS, RFC
// 8689).
func (f *Forwarder) policy(r *conf.ForwardRoute, hop mail.NextHop, addr netip.Addr, requireTLS bool) smtpclient.TLSPolicy {
	if requireTLS {
		return smtpclient.TLSVerify
	}
	switch route.Level(&f.o.Conf, r, hop, addr) {
	case mail.TLSVerify:
		return smtpclient.TLSVerify
	case mail.TLSEncrypt:
		return smtpclient.TLSEncrypt
	case mail.TLSMayVerify:
		return smtpclient.TLSMayVerify
	case mail.TLSMay:
		return smtpclient.TLSMay
	}
	return smtpclient.TLSNone
}

// wanted is the TLS policy of a target as the mail log has it.
func wanted(t pool.Target) string {
	switch {
	case t.TLS == smtpclient.TLSVerify:
		return "verify"
	case t.TLS == smtpclient.TLSEncrypt || t.ImplicitTLS:
		return "encrypt"
	case t.TLS == smtpclient.TLSMayVerify:
		return "may-verify"
	case t.TLS == smtpclient.TLSMay:
		return "may"
	}
	return "none"
}

// logResult writes one line for the recipients that were taken, and one each for
// those that were not for now and for good.
func (f *Forwarder) logResult(env *mail.Envelope, r *conf.ForwardRoute, hop mail.NextHop, policy string, res smtpclient.Result, delay time.Duration) {
	d := delivery(env, r, hop, policy, delay)
	if d.Verified = "no"; res.Verified {
		d.Verified = "pkix"
	}
	if ip, p, err := net.SplitHostPort(res.Addr); err == nil {
		d.IP = ip
		d.Port, _ = strconv.Atoi(p)
	}
	d.TLS, d.Auth, d.Reused = res.TLS, res.Authenticated, res.Reused
	notNow := func(r *reply.Reply) bool { return !r.Positive() && !r.Permanent() }
	for _, like := range []func(*reply.Reply) bool{(*reply.Reply).Positive, notNow, (*reply.Reply).Permanent} {
		n := slices.IndexFunc(res.Replies, like)
		if n < 0 {
			continue
		}
		first, to := res.Replies[n], addresses(env.Recipients, func(i int) bool { return like(res.Replies[i]) })
		if first.Positive() {
			f.o.Mail.Forwarded(d, to, first.String())
		} else {
			f.o.Mail.ForwardFailed(d, to, first.Code, first.Error())
		}
	}
}

func delivery(env *mail.Envelope, r *conf.ForwardRoute, hop mail.NextHop, policy string, delay time.Duration) maillog.Delivery {
	host, at := hop.Host, hop.TCPPort()
	if hop.Path != "" {
		host, at = hop.Path, 0
	}
	return maillog.Delivery{
		ID: string(env.ID), From: env.From.String(), Domain: r.Name, Host: host, Port: at, Mode: hop.Protocol.String(), TLS: "none",
		Policy: policy, Delay: delay, Attempts: 1,
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
