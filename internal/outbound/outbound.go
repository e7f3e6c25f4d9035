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
// Nothing here returns an error: there is nobody to tell but the log.
package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/delivery"
	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/nexthop"
	"tarishi/internal/schedule"
	"tarishi/internal/store"
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
	Me                 string
	ConcurrencyMax     int             // attempts at a time; 0: no cap
	AlwaysSplit        bool            // one delivery for each recipient
	Intervals          []time.Duration // the back-off; one more failure than these is the last
	MaxLifetime        time.Duration   // 0: none
	Port               int             // of MX; 0: 25
	LocalMXOK          bool
	InetPrefer         string // "v4", "v6", or anything else for neither
	EnableTLS          bool
	TLS                conf.TLSOutbound            // force_tls_hosts and no_tls_hosts
	TLSConfig          func(show bool) *tls.Config // see delivery
	BackendTLS         func() *tls.Config          // for the hosts of smtp_forward.ini; nil: TLSConfig
	NoIPv6             bool                        // addresses of names; see delivery
	DANE               bool                        // RFC 7672
	STS                nexthop.Policies            // RFC 8461; nil: not looked at
	ConnectTimeout     time.Duration
	EnvelopeTimeout    time.Duration // for an attempt up to DATA, see schedule.Options.Deadline; 0: none
	MinRate            int64         // of content, see smtpclient.Options
	PoolTimeout        time.Duration // 0: connections are not kept
	PoolConcurrencyMax int           // connections per host, attempts per domain; 0: no cap
	PublicIP           string
	Disabled           func() bool // asked before every round; nil: never
	// Config has the sections of outbound.ini; its main section's back-off and
	// lifetime hold instead of those above. nil: there are none.
	Config *conf.Outbound
	Jitter float64        // by how much of itself a wait may vary: 0 to 1
	Random func() float64 // in [0,1), for choices and probes; nil: the system's
	Grace  time.Duration  // for attempts that run when Run's context ends
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
	idleWorker   = 5 * time.Second  // after that a goroutine that makes attempts ends
	disabledPoll = time.Second      // how often Disabled is asked, as in Haraka
	longestSleep = time.Minute      // the clock may be set, and timers stand still while the machine sleeps
	localWait    = 5 * time.Minute  // after trouble of our own: a DSN or a settlement that cannot be written
	unreadable   = 15 * time.Minute // for messages that cannot be loaded
	importedWait = time.Hour        // at least, see attempt.spare
	loadAgain    = time.Minute      // for those that Adopt could not read: somebody may mend what keeps it
)

// Outbound delivers a queue. Use New, then Run.
type Outbound struct {
	o        Options
	delivery *delivery.Delivery
	pid      int
	wake     chan struct{} // holds one token when there may be work
	reload   chan struct{} // holds one when Flush was asked for what could not be read
	adopt    chan struct{} // holds one when the queue has more to adopt

	counts   struct{ dsn, dsnFailed, double atomic.Int64 }
	policyMu sync.Mutex // may be taken while mu is held
	policies map[[2]string]*policy

	holding holding // before mu

	mu       sync.Mutex
	schedule *schedule.Schedule
	// debts are recipients that are done with; only the queue does not
	// know it yet.
	debts   []debt
	repayAt time.Time // the earliest of them
	kept    map[*schedule.Unit]kept
	// gathering has the recipients that failed and whose report waits.
	gathering gathering
	warnings  warnings
	running   map[*schedule.Unit]*attempt
	stopping  bool // attempts are to end, see giveUp
	doubtful  int  // attempts that were cut off while their message may have been taken
	// held are recipients that Hold was asked for, by message and index: with
	// what is needed to schedule them again, or nil while their unit has not
	// come up.
	held map[mail.ID]map[int]*parked

	adopting *adoption // nil: nothing is left to adopt
	handover handover
	// forgone are units that were handed out, and abandoned before their attempt
	// began.
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
		o.Disabled = func() bool { return false }
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.Config == nil {
		o.Config = &conf.Outbound{TempFailIntervals: o.Intervals, MaxLifetime: o.MaxLifetime, DelayWarning: -1}
	}
	public, err := netip.ParseAddr(o.PublicIP)
	if err != nil && o.PublicIP != "" {
		o.Log.Warn("public_ip is no IP address", zap.String("value", o.PublicIP))
	}
	out := &Outbound{
		o: o,
		delivery: delivery.New(delivery.Options{
			Me: o.Me, Port: o.Port, LocalMXOK: o.LocalMXOK, InetPrefer: o.InetPrefer, EnableTLS: o.EnableTLS, TLS: o.TLS, TLSConfig: o.TLSConfig, BackendTLS: o.BackendTLS,
			ConnectTimeout: o.ConnectTimeout, MinRate: o.MinRate, PoolTimeout: o.PoolTimeout, PoolConcurrencyMax: o.PoolConcurrencyMax,
			PublicIP: public, Resolver: o.Resolver, Sender: o.Pool, Log: o.Log, DANE: o.DANE, STS: o.STS, NoIPv6: o.NoIPv6,
			NextAfterDeferral: o.Config.NextMXOnDeferral,
		}),
		pid:      os.Getpid(),
		wake:     make(chan struct{}, 1),
		reload:   make(chan struct{}, 1),
		policies: map[[2]string]*policy{},
		kept:     map[*schedule.Unit]kept{},
		running:  map[*schedule.Unit]*attempt{},
		held:     map[mail.ID]map[int]*parked{},
		adopting: &adoption{},
		adopt:    make(chan struct{}, 1),
		forgone:  map[*schedule.Unit]bool{},
	}
	out.schedule = schedule.New(schedule.Options{
		Concurrency: o.ConcurrencyMax, Outside: min(outside*o.ConcurrencyMax, maxOutside), Deadline: o.EnvelopeTimeout, Random: o.Random,
		Limits: func(domain string) *schedule.Limits { return out.policy(domain, nil).limits },
	})
	return out
}

// Enqueue takes a message that has just been put in the queue. It never blocks
// for long and may be called before Run.
func (o *Outbound) Enqueue(p mail.Pending) {
	o.mu.Lock()
	if o.comes(p.ID) {
		o.add(p)
	}
	o.mu.Unlock()
	o.signal()
}

// Flush makes every waiting delivery to domain due now; "" means all. It
// returns how many there are; while the queue is still being loaded, more may
// follow. Reports that could not be queued, and what could not be read at the
// start, are tried again too.
func (o *Outbound) Flush(domain string) int {
	o.mu.Lock()
	n := o.schedule.Flush(mail.CanonicalDomain(domain), o.o.Now())
	o.gathering.flush()
	o.adopting.flush(mail.CanonicalDomain(domain))
	o.mu.Unlock()
	o.o.Log.Info("queue flushed", zap.String("domain", domain), zap.Int("deliveries", n))
	select {
	case o.reload <- struct{}{}:
	default:
	}
	o.signal()
	return n
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
	DSNFailed int64 // that could not be queued; what they are about stays in the queue
	Double    int64 // failures of mail from the null sender, of which nobody is told
}

// Counts returns how DSNs have fared.
func (o *Outbound) Counts() Counts {
	return Counts{o.counts.dsn.Load(), o.counts.dsnFailed.Load(), o.counts.double.Load()}
}

// Run delivers until ctx ends. Then no attempt begins, and those that have not
// sent their message to its end are given up. The others have Options.ReplyGrace
// to hear whether it was taken, and all of them Options.Grace to record what they
// heard. Deliveries do not wait until all that was in the queue before is loaded.
func (o *Outbound) Run(ctx context.Context) error {
	attempts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var running sync.WaitGroup
	o.o.Queue.Watch(o)
	running.Go(func() { o.adoptAll(ctx) })
	next := make(chan *schedule.Unit) // to a worker that has nothing to do
	alarm := alarm{Timer: time.NewTimer(longestSleep)}
	defer alarm.Stop()
	for ctx.Err() == nil {
		units, debts, reports, wait := o.due()
		if len(reports) > 0 {
			running.Go(func() { o.tellGathered(ctx, attempts, reports) })
		}
		if len(debts) > 0 {
			running.Go(func() { o.repay(debts) })
		}
		for _, u := range units {
			select {
			case next <- u:
			default:
				running.Go(func() { o.work(ctx, attempts, u, next) })
			}
		}
		o.sleep(ctx, wait, &alarm)
	}
	idle := make(chan struct{})
	go func() {
		running.Wait()
		close(idle)
	}()
	o.finish(idle)
	cut()
	<-idle
	o.mu.Lock()
	if n := o.doubtful; n > 0 {
		o.o.Log.Warn("next hops did not answer in time to messages that they may have taken, which are sent again after the next start", zap.Int("deliveries", n))
	}
	debts := o.debts
	o.debts = nil
	o.mu.Unlock()
	o.repay(debts)
	return nil
}

// work makes an attempt at u, and then at what comes by next, until nothing has
// come for a while or ctx ends. To begin a goroutine for each attempt would cost
// more: its stack has to grow every time.
func (o *Outbound) work(ctx, attempts context.Context, u *schedule.Unit, next <-chan *schedule.Unit) {
	idle := time.NewTimer(idleWorker)
	defer idle.Stop()
	for {
		o.attempt(attempts, u)
		idle.Reset(idleWorker)
		select {
		case u = <-next:
		case <-idle.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// never is a wait that only a signal ends.
const never = time.Duration(-1)

// alarm is a timer that is not set anew for each message: it may ring early, by
// early at most.
type alarm struct {
	*time.Timer
	at time.Time // when it rings; zero: it does not
}

const early = 100 * time.Millisecond

// set has it ring after wait.
func (a *alarm) set(wait time.Duration) {
	if wait == never {
		if !a.at.IsZero() {
			a.at = time.Time{}
			a.Stop()
		}
		return
	}
	wait = min(wait, longestSleep)
	at := time.Now().Add(wait)
	if d := at.Sub(a.at); a.at.IsZero() || d < 0 || d > early {
		a.at = at
		a.Reset(wait)
	}
}

// sleep returns when there may be work again, or when ctx ends.
func (o *Outbound) sleep(ctx context.Context, wait time.Duration, a *alarm) {
	a.set(wait)
	select {
	case <-ctx.Done():
	case <-o.wake:
	case <-a.C:
		a.at = time.Time{}
	}
}

// due hands out what is to be attempted, recorded and reported now, and says how long there
// will be nothing more.
func (o *Outbound) due() (units []*schedule.Unit, debts []debt, reports []*gathered, wait time.Duration) {
	disabled := o.o.Disabled()
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.o.Now()
	debts, reports = o.payable(now), o.gathering.take(now)
	o.recall(now)
	if !disabled {
		units = o.withhold(now, o.schedule.Due(now, math.MaxInt))
	}
	units = append(units, o.withhold(now, o.schedule.Expire(now, math.MaxInt))...)
	next, ok := o.schedule.Next(now)
	switch {
	case !ok:
		wait = never
	case disabled:
		wait = max(disabledPoll, next.Sub(now))
	default:
		wait = max(0, next.Sub(now))
	}
	if repay := o.repayAt.Sub(now); len(o.debts) > 0 && (wait == never || repay < wait) {
		wait = max(0, repay)
	}
	if next, ok := o.gathering.next(); ok && (wait == never || next.Sub(now) < wait) {
		wait = max(0, next.Sub(now))
	}
	return units, debts, reports, wait
}

// add schedules the deliveries of a message: recipients of one domain that are
// due together are one. The caller holds o.mu.
func (o *Outbound) add(p mail.Pending) {
	type key struct {
		domain   string
		attempts int
		next     int64
	}
	now := o.o.Now()
	p.Recipients = o.gatherFailed(&p)
	delivery := func(domain string, r mail.PendingRecipient) *schedule.Delivery {
		return &schedule.Delivery{
			ID: p.ID, Domain: domain, Attempts: r.Attempts, Next: r.Next, Received: p.Received, Null: p.From.IsNull(),
			Marked: r.Attempts > 0 && o.policy(domain, nil).warned(&p, domain, r.Attempts, r.Next),
		}
	}
	if len(p.Recipients) == 1 && !p.Recipients[0].Held {
		r := p.Recipients[0]
		v := delivery(r.Address.Host(), r)
		v.Recipients = []int{r.Index}
		o.schedule.Add(now, *v)
		return
	}
	var order []*schedule.Delivery
	groups := map[key]*schedule.Delivery{}
	for _, r := range p.Recipients {
		k := key{r.Address.Host(), r.Attempts, r.Next.UnixNano()}
		v := groups[k]
		switch {
		case r.Held:
			o.park(&parked{Delivery: *delivery(k.domain, r)}, r.Index)
			continue
		case v == nil || o.o.AlwaysSplit:
			v = delivery(k.domain, r)
			groups[k] = v
			order = append(order, v)
		}
		v.Recipients = append(v.Recipients, r.Index)
	}
	for _, v := range order {
		o.schedule.Add(now, *v)
	}
}

// unknown reports whether err says that a message is not in the queue.
func unknown(err error) bool { return errors.Is(err, store.ErrUnknown) }

// signal tells Run that there may be work.
func (o *Outbound) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}
