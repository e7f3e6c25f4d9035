package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/backend"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/route"
	"tarishi/internal/smtpclient"
	"tarishi/internal/tlspolicy"
)

// RelayGeneration is what a reload of the configuration replaces. A message takes the
// current one when its attempt begins.
type RelayGeneration struct {
	Me        string             // EHLO name of hosts that have none
	Conf      *route.Settings    // the routes, no_tls_hosts and force_tls_hosts
	TLSConfig func() *tls.Config // for a new connection; nil: the default
	Resolver  HostResolver
}

// RelayOptions are what a Relay works with.
type RelayOptions struct {
	RelayGeneration // the first one, see Relay.Use

	Sender Sender
	Tokens TokenSources // for routes with access tokens
	// Probe looks whether a server is ready for a transaction; nil: by a connection to
	// it.
	Probe func(ctx context.Context, t pool.Target) error
	Log   *zap.Logger // nil: none
}

// Relay makes attempts in session, at the hosts of routes. They are tried in order,
// or in turn, until one answers, and what the first one says is the outcome. One
// that cannot be reached is then left alone and probed (Run) until it is back; only
// when all others fail too is it tried. A Relay may be used from any goroutine.
type Relay struct {
	o        RelayOptions // without the RelayGeneration
	now      atomic.Pointer[RelayGeneration]
	backends *backend.Set
}

// NewRelay returns a Relay.
func NewRelay(o RelayOptions) *Relay {
	if o.Probe == nil {
		o.Probe = pool.Probe
	}
	if o.Conf == nil {
		o.Conf = &route.Settings{}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	r := &Relay{backends: backend.New()}
	r.now.Store(&o.RelayGeneration)
	r.o = RelayOptions{Sender: o.Sender, Tokens: o.Tokens, Probe: o.Probe, Log: o.Log}
	return r
}

// Use puts a generation in force, in the place of the one before. Attempts that run go on
// as they began. Knowledge of hosts stays as far as their routes still have them, and
// a route with other max_connections follows at once: where more messages are on their way
// than it may have now, the next ones wait until enough have arrived.
//
// The connections of routes that are gone are idle from their last message on, and the pool
// closes them when their own idle time is over.
func (r *Relay) Use(g RelayGeneration) {
	r.now.Store(&g)
	r.backends.Use(g.Conf)
}

// Credentials are what a client has shown.
type Credentials struct{ User, Pass string }

// RelayJob is what one attempt is about.
type RelayJob struct {
	Envelope *mail.Envelope // at least one recipient
	Content  mail.Content
	Route    *route.Route // with a host
	Own      Credentials  // the client's, for routes with auth_type=forward
}

// passage is the course of one message in session: the hosts of its route.
type passage struct {
	offer
	r       *Relay
	by      *RelayGeneration
	job     RelayJob
	causes  []error
	hop     *mail.NextHop // that is being tried, as the route has it
	down    bool          // it will serve no other message either
	unknown bool          // a host has no address
	single  [1]place      // memory for the places of a host
}

// Attempt offers a message to the hosts of its route until one answers. Without an
// answer the Result's Obstacle tells why the last of them did not.
func (r *Relay) Attempt(ctx context.Context, j RelayJob) Result {
	slot, ok := r.backends.Enter(ctx, j.Route)
	if !ok {
		return Result{Interrupted: true, Obstacle: Busy, Via: viaHop(&j.Route.Hosts[0]), Cause: context.Cause(ctx)}
	}
	defer slot.Leave()
	return r.try(ctx, r.now.Load(), j, j.Envelope)
}

// try is Attempt, once there is a connection to spare. env is the job's, or that
// without REQUIRETLS.
func (r *Relay) try(ctx context.Context, by *RelayGeneration, j RelayJob, env *mail.Envelope) Result {
	w := &passage{r: r, by: by, job: j}
	w.offer = offer{course: w, sender: r.o.Sender, env: env, content: j.Content, settled: true, configured: true}
	w.offerAround(ctx)

	// The same decision about REQUIRETLS as for queued mail.
	res := &w.res
	switch w.judgeRequireTLS() {
	case tlspolicy.Without:
		plain := *env
		plain.RequireTLS = false
		return r.try(ctx, by, j, &plain)
	case tlspolicy.Fails:
		res.Obstacle, res.Said = LacksTLS, nil
	}

	// The client learns little; the log gets all that went wrong.
	if len(w.causes) == 0 && res.Interrupted {
		w.causes = append(w.causes, context.Cause(ctx))
	}
	switch {
	case res.Replies != nil:
	case res.Uncertain: // what went wrong before does not matter
		res.Cause = w.causes[len(w.causes)-1]
	default:
		res.Cause = errors.Join(w.causes...)
	}
	return *res
}

// visitPlaces goes through the hosts of the route, those that were lost last. Each is
// resolved when its turn comes.
func (w *passage) visitPlaces(ctx context.Context, v visitor) {
	r, of := w.r, w.job.Route
	hops := r.backends.Order(of)
	for i := range hops {
		if ctx.Err() != nil {
			w.causes = append(w.causes, context.Cause(ctx))
			return
		}
		w.hop = &hops[i]
		w.res.Via = viaHop(w.hop)
		places, err := w.ofHost(ctx, w.hop)
		if err != nil {
			w.causes = append(w.causes, err)
			w.unknown, w.res.Obstacle, w.res.Said = true, Unreached, nil
		}

		// A host is lost when all its places fail in a way that other messages would
		// meet too. A message with REQUIRETLS asks for more than those do.
		w.down = err == nil || ctx.Err() == nil
		for i := range places {
			if !v.visit(ctx, &places[i]) {
				return
			}
		}
		if w.down && r.backends.Lost(of, *w.hop, time.Now()) {
			r.o.Log.Warn("backend is down", zap.String("route", of.Name), zap.Stringer("host", w.hop), zap.Duration("retry", of.DeadRetry))
		}
	}
}

// ofHost resolves one host of the route. There is more than one place only where
// no_tls_hosts or force_tls_hosts make a difference between its addresses.
func (w *passage) ofHost(ctx context.Context, hop *mail.NextHop) ([]place, error) {
	r, j := w.r, w.job
	full := route.Backend(j.Route, *hop)
	if j.Route.AuthType == route.AuthForward { // by whatever mechanism the backend has
		full.AuthUser, full.AuthPass = j.Own.User, j.Own.Pass
	}
	secure := func(a netip.Addr) tlspolicy.Policy {
		return tlspolicy.OfRoute(route.Level(w.by.Conf, j.Route, full, a), hop.ImplicitTLS, w.env.RequireTLS)
	}
	if hop.Path != "" {
		return append(w.single[:0], place{hop: full, tls: secure(netip.Addr{})}), nil
	}

	// A host is looked up for each message: the resolver remembers it as long as the DNS allows.
	addrs, err := w.by.Resolver.Host(ctx, hop.Host)
	if err != nil {
		r.o.Log.Warn("backend has no address", zap.String("route", j.Route.Name), zap.String("host", hop.Host), zap.Error(err))
		return nil, err
	}
	return groupByPolicy(w.single[:0], full, addrs, secure), nil
}

// target says how to talk to a host of the route.
func (w *passage) target(c *place) pool.Target {
	t := c.target(w.by.Me, mail.Limits{})
	t.Tokens = w.r.o.Tokens.of(&c.hop)
	if w.by.TLSConfig != nil {
		t.TLSConfig = w.by.TLSConfig()
	}
	// The client waits: where the route allows less time for a reply, that holds for
	// those too that have times of their own.
	of := w.job.Route
	t.DataTimeout, t.BlockTimeout = min(of.CommandTimeout, 2*time.Minute), min(of.CommandTimeout, 3*time.Minute)
	if len(of.Hosts) > 1 { // a server that hangs is not worth the patience that RFC 5321 asks for
		t.GreetingTimeout = min(of.CommandTimeout, of.ConnectTimeout)
	}
	return t
}

// answered notes that a host is well.
func (w *passage) answered(*place, smtpclient.Result) { w.r.revive(w.job.Route, *w.hop) }

// failed is for a place where no server replied about recipients.
func (w *passage) failed(c *place, err error) {
	w.causes = append(w.causes, err)
	w.r.o.Log.Warn("backend failed", zap.String("uuid", string(w.env.ID)), zap.String("route", w.job.Route.Name), zap.Stringer("host", c.hop), zap.Error(err))
	w.down = w.down && isDown(err) && !w.env.RequireTLS
}

// complete reports whether all hosts of the route have been asked.
func (w *passage) complete() bool { return !w.unknown }

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
