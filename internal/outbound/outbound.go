// Package outbound is the run loop of the queue: what is due is attempted, and
// what came of it is recorded, recipient by recipient.
//
// A delivery is the recipients of one message that share a domain. After an
// attempt each of them is one of three: delivered, and settled in the queue;
// deferred, and due again after the back-off; failed (refused, or expired), and
// settled once the DSN is durable, if one is due. What is promised:
//
//   - A recipient is settled only when the next hop took the message, when its
//     DSN is in the queue, or when nobody may be told: the null sender, NOTIFY,
//     or a plugin that said so. Each of these is logged.
//   - What cannot be recorded is not forgotten. A DSN that cannot be queued
//     leaves its recipients in the queue; a settlement that cannot be recorded
//     is repeated by itself, without another delivery.
//   - What goes wrong on our side, a panic included, stops one attempt of one
//     delivery and never ends it: a message that cannot be read stays where it
//     is and is looked at again later.
//   - An attempt that the shutdown cuts off does not count, nor does the time that
//     a delivery waits for its destination, see package schedule.
//   - A message that is not delivered for long is warned of once, and given up when
//     its lifetime is over, whatever it waits for; held recipients alone are not.
//
// Package attempt makes one attempt. There is nobody to return errors to but the log.
//
// Size: up to 1,700 lines. What is left here are the methods that keep the schedule and
// the registers beside it (kept, held, unrecorded, gathered, adopted) in step under one
// lock; the registers themselves are packages.
package outbound

import (
	"cmp"
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/destination"
	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/nexthop"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/outbound/handover"
	"tarishi/internal/outbound/held"
	"tarishi/internal/outbound/notice"
	"tarishi/internal/outbound/policy"
	"tarishi/internal/outbound/remember"
	"tarishi/internal/outbound/report"
	"tarishi/internal/schedule"
	"tarishi/internal/store"
	"tarishi/internal/submit"
	"tarishi/internal/tlsconf"
)

// Queue is where messages live; every store.Store is one.
type Queue interface {
	store.Delivery
	NewBody() store.Body
	Put(env *mail.Envelope, c mail.Content) error
}

// Chain runs hooks; *hook.Chain does.
type Chain interface {
	Run(ctx context.Context, p hook.Point, e *hook.Event) hook.Verdict
	Has(p hook.Point) bool
}

// Options are outbound.ini and what an Outbound works with.
type Options struct {
	destination.Settings
	Me         string
	TLS        tlsconf.Outbound            // force_tls_hosts and no_tls_hosts
	TLSConfig  func(show bool) *tls.Config // see delivery
	BackendTLS func() *tls.Config          // for the hosts of smtp_forward.ini; nil: TLSConfig
	DANE       bool                        // RFC 7672
	STS        nexthop.Policies            // RFC 8461; nil: not looked at
	Disabled   func() bool                 // asked before every round; nil: what the settings say
	Random     func() float64              // in [0,1), for choices and probes; nil: the system's
	Grace      time.Duration               // for attempts that run when Run's context ends
	// ReplyGrace is for those of them, of Grace, that wait for the reply to a whole
	// message.
	ReplyGrace time.Duration
	Templates  dsn.Templates

	Queue    Queue
	Resolver delivery.Resolver
	Pool     delivery.Sender
	Chain    Chain        // nil: no hooks
	Mail     *maillog.Log // nil: none
	Log      *zap.Logger  // nil: none
	Now      func() time.Time
}

// How many attempts may go on without a place, see schedule.Options.Outside: each
// costs a connection and a goroutine.
const (
	outside    = 4 // for each place
	maxOutside = 2000
)

// Waits that no setting covers.
const (
	idleWorker   = 5 * time.Second // after that a goroutine that makes attempts ends
	disabledPoll = time.Second     // how often Disabled is asked, as in Haraka
	longestSleep = time.Minute     // the clock may be set, and timers stand still while the machine sleeps
	loadAgain    = time.Minute     // for those that Adopt could not read: somebody may mend what keeps it
)

// Outbound delivers a queue. Use New, then Run.
type Outbound struct {
	*submit.Submitter
	o        Options
	attempts *attempt.Maker
	reporter *report.Reporter
	wake     chan struct{} // holds one token when there may be work
	reload   chan struct{} // holds one when Flush was asked for what could not be read
	adopt    chan struct{} // holds one when the queue has more to adopt

	policies *policy.Table // may be asked while mu is held

	holding holding // before mu

	mu       sync.Mutex
	schedule *schedule.Schedule
	// settled recipients that the queue could not record; retried until it does
	unrecorded []attempt.Unrecorded
	recordAt   time.Time // the earliest of them
	kept       map[*schedule.Unit]remember.Kept
	// gathering has the recipients that failed and wait for their report.
	gathering notice.Gathering
	warnings  notice.Warnings
	running   map[*schedule.Unit]*attempt.Attempt
	stopping  bool // attempts are to end, see giveUp
	doubtful  int  // attempts that were cut off while their message may have been taken
	held      held.Register

	adopting *adoption // nil: nothing is left to adopt
	handover handover.Register
	// forgone are units that were handed out, and abandoned before their attempt began.
	forgone map[*schedule.Unit]bool
}

var _ store.Deliverer = (*Outbound)(nil)

// New returns an Outbound that does nothing before Run.
func New(o Options) *Outbound {
	if o.Mail == nil {
		o.Mail = maillog.Nop()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Disabled == nil {
		o.Disabled = func() bool { return o.Settings.Disabled }
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}

	// Without it mail that loops back through NAT is not recognised.
	public, err := netip.ParseAddr(o.PublicIP)
	if err != nil && o.PublicIP != "" {
		o.Log.Warn("public_ip is no IP address", zap.String("value", o.PublicIP))
	}
	out := &Outbound{
		o:        o,
		wake:     make(chan struct{}, 1),
		reload:   make(chan struct{}, 1),
		policies: policy.New(policy.Options{Config: &o.Settings, Jitter: float64(o.Jitter) / 100, MaxConcurrency: o.PoolConcurrencyMax}),
		kept:     map[*schedule.Unit]remember.Kept{},
		running:  map[*schedule.Unit]*attempt.Attempt{},
		held:     held.Register{},
		adopting: &adoption{},
		adopt:    make(chan struct{}, 1),
		forgone:  map[*schedule.Unit]bool{},
	}
	deliver := delivery.New(delivery.Options{
		Me: o.Me, Port: o.Port, LocalMXOK: o.LocalMXOK, InetPrefer: o.InetPrefer, EnableTLS: o.EnableTLS, TLS: o.TLS, TLSConfig: o.TLSConfig, BackendTLS: o.BackendTLS,
		ConnectTimeout: o.ConnectTimeout, MinRate: cmp.Or(o.MinRate, -1), PoolTimeout: o.PoolTimeout, PoolConcurrencyMax: o.PoolConcurrencyMax,
		PublicIP: public, Resolver: o.Resolver, Sender: o.Pool, Log: o.Log, DANE: o.DANE, STS: o.STS, NoIPv6: !o.IPv6,
		NextAfterDeferral: o.NextMXOnDeferral,
	})

	// What these parts call is not called before out is complete.
	out.Submitter = submit.New(submit.Options{
		Me: o.Me, ReceivedHeader: o.ReceivedHeader, NewBody: func() store.Body { return o.Queue.NewBody() }, Put: out.put, Enqueue: out.Enqueue,
		Chain: o.Chain, Mail: o.Mail, Log: o.Log, Now: o.Now,
	})
	out.reporter = report.NewReporter(report.Options{
		Me: o.Me, Full: o.DSNReturn == "full", Templates: o.Templates, Show: out.Show, Put: out.put, Mail: o.Mail, Now: o.Now,
	})
	out.attempts = attempt.New(attempt.Options{
		Me: o.Me, Config: &o.Settings, Queue: o.Queue, Chain: o.Chain, Delivery: deliver, Policies: out.policies,
		Reporter: out.reporter, Board: (*board)(out), Mail: o.Mail, Log: o.Log, Now: o.Now, Random: o.Random,
	})

	// A limit on attempts without a place keeps goroutines and connections bounded.
	out.schedule = schedule.New(schedule.Options{
		Concurrency: o.ConcurrencyMax, Outside: min(outside*o.ConcurrencyMax, maxOutside), Deadline: o.EnvelopeTimeout, Random: o.Random,
		Limits: func(domain string) *schedule.Limits { return out.policies.For(domain, nil).Limits },
	})
	return out
}

// Stat counts the deliveries: waiting for their time, for a place, and running.
func (o *Outbound) Stat() schedule.Stat {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.schedule.Stat()
}

// Counts is how many there have been since the start.
type Counts struct {
	DSN       int64 // that were queued
	DSNFailed int64 // that could not be queued; their recipients stay in the queue
	Double    int64 // failures of mail from the null sender, which nobody hears of
}

// Counts returns how DSNs have fared.
func (o *Outbound) Counts() Counts {
	queued, failed := o.reporter.Counts()
	return Counts{DSN: queued, DSNFailed: failed, Double: o.attempts.Double()}
}

// put makes a message durable.
func (o *Outbound) put(env *mail.Envelope, c mail.Content) error { return o.o.Queue.Put(env, c) }
