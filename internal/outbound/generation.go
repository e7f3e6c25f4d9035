package outbound

import (
	"context"
	"crypto/tls"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/destination"
	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/nexthop"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/outbound/policy"
	"tarishi/internal/outbound/report"
	"tarishi/internal/schedule"
	"tarishi/internal/store"
	"tarishi/internal/submit"
	"tarishi/internal/tlsconf"
)

// Generation is what a reload of the configuration replaces. An attempt takes the current
// one when it begins and holds it until it ends, and so do reports and submissions. The
// schedule goes by the newest at once.
type Generation struct {
	destination.Settings                             // outbound.ini
	Me                   string                      // our own name
	TLS                  tlsconf.Outbound            // force_tls_hosts and no_tls_hosts
	TLSConfig            func(show bool) *tls.Config // see delivery
	BackendTLS           func() *tls.Config          // for the hosts of smtp_forward.ini; nil: TLSConfig
	DANE                 bool                        // RFC 7672
	STS                  nexthop.Policies            // RFC 8461; nil: not looked at
	Templates            dsn.Templates
	Chain                Chain       // nil: no hooks
	Seal                 submit.Seal // nil: submissions and DSNs are not signed
	Resolver             delivery.Resolver

	// Grace is for attempts that run when Run's context ends, ReplyGrace for those of them,
	// of Grace, that wait for the reply to a whole message.
	Grace, ReplyGrace time.Duration
}

// parts are what works by one Generation.
type parts struct {
	Generation
	policies  *policy.Table // may be asked while Outbound.mu is held
	submitter *submit.Submitter
	reporter  *report.Reporter
	attempts  *attempt.Maker
}

// Use puts a generation in force, in the place of the one before. Attempts that run go on as
// they began; drained is closed when the last of them, and of all else that holds the one
// before, has ended. Limits and rates hold at once, also for destinations that are being
// served: where more attempts run than is allowed now, none begins until enough have ended.
// What was learned of destinations stays, and so do times that were set: a new back-off
// counts from the next deferral on.
func (o *Outbound) Use(g Generation) (drained <-chan struct{}) {
	next := o.newParts(g)
	o.mu.Lock()
	before := o.current()
	drained = o.generation.Swap(next)
	o.schedule.Use(o.scheduleOptions(next), o.o.Now(), next.policies.Renewal(before.policies))

	// Hooks that were asked about attempts to come were those of the generation before.
	for u, k := range o.kept {
		delete(o.kept, u)
		o.keepFor(u, k.Unasked())
	}
	o.mu.Unlock()
	if g.Disabled != before.Disabled {
		o.o.Log.Info("delivery", zap.Bool("disabled", g.Disabled))
	}

	// There may be places now, or no need to wait.
	o.signal()
	return drained
}

// current returns the parts of the newest generation, for a look at its settings. Work that
// runs hooks, or waits, has to hold them instead.
func (o *Outbound) current() *parts { return o.generation.Now() }

// newParts makes the parts of a generation.
func (o *Outbound) newParts(g Generation) *parts {
	p := &parts{Generation: g}

	// They refer to the settings in p, and keep no copies.
	p.policies = policy.New(policy.Options{Config: &p.Settings, Jitter: float64(g.Jitter) / 100, MaxConcurrency: g.PoolConcurrencyMax})
	p.submitter = submit.New(submit.Options{
		Me: g.Me, ReceivedHeader: g.ReceivedHeader, NewBody: func() store.Body { return o.o.Queue.NewBody() }, Put: o.put, Enqueue: o.Enqueue,
		Chain: g.Chain, Seal: g.Seal, Mail: o.o.Mail, Log: o.o.Log, Now: o.o.Now,
	})
	p.reporter = report.NewReporter(report.Options{
		Me: g.Me, Full: g.DSNReturn == "full", Templates: g.Templates, Finish: p.submitter.Finish, Put: o.put, Counts: &o.counts, Mail: o.o.Mail, Now: o.o.Now,
	})
	p.attempts = attempt.New(attempt.Options{
		Me: g.Me, Config: &p.Settings, Chain: g.Chain, Policies: p.policies, Reporter: p.reporter,
		Delivery: delivery.New(delivery.Options{
			Settings: &p.Settings, Me: g.Me, TLS: g.TLS, TLSConfig: g.TLSConfig, BackendTLS: g.BackendTLS, DANE: g.DANE, STS: g.STS,
			Resolver: g.Resolver, Sender: o.o.Pool, Log: o.o.Log,
		}),
		Queue: o.o.Queue, Board: (*board)(o), Mail: o.o.Mail, Log: o.o.Log, Now: o.o.Now, Random: o.o.Random,
	})
	return p
}

// scheduleOptions are what a generation says for the schedule. A limit on attempts without
// a place keeps goroutines and connections bounded.
func (o *Outbound) scheduleOptions(p *parts) schedule.Options {
	return schedule.Options{
		Concurrency: p.ConcurrencyMax, Outside: min(outside*p.ConcurrencyMax, maxOutside), Deadline: p.EnvelopeTimeout, Random: o.o.Random,
		Limits: func(domain string) *schedule.Limits { return p.policies.For(domain, nil).Limits },
	}
}

// Submit queues a message that this server makes itself, see submit.Submitter.
func (o *Outbound) Submit(ctx context.Context, m hook.Submission) (mail.ID, error) {
	now := o.generation.Take()
	defer now.Release()
	return now.Value.submitter.Submit(ctx, m)
}

// put makes a message durable.
func (o *Outbound) put(env *mail.Envelope, c mail.Content) error { return o.o.Queue.Put(env, c) }
