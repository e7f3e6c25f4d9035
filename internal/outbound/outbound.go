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
//   - An attempt that the shutdown cuts off does not count.
//
// Nothing here returns an error: there is nobody to tell but the log.
package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net/netip"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/delivery"
	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/schedule"
)

// Queue is where messages live; *queue.Queue is one.
type Queue interface {
	Put(env *mail.Envelope, c mail.Content) error
	// Recovered passes each message that was there before this process once, and
	// returns how many are left for another call.
	Recovered(fn func(mail.Pending) bool) (left int)
	Load(id mail.ID) (*mail.Envelope, mail.Content, error)
	Settle(id mail.ID, recipients []int) error
	Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error
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
	TLS                conf.TLSOutbound // force_tls_hosts and no_tls_hosts
	TLSConfig          *tls.Config      // for connections to next hops; nil: the default
	ConnectTimeout     time.Duration
	PoolTimeout        time.Duration // 0: connections are not kept
	PoolConcurrencyMax int           // connections per host, attempts per domain; 0: no cap
	PublicIP           string
	Disabled           func() bool   // asked before every round; nil: never
	Grace              time.Duration // for attempts that run when Run's context ends
	Templates          dsn.Templates

	Queue    Queue
	Unknown  error // what Queue's errors wrap when a message is not there (any more); nil: nothing
	Resolver delivery.Resolver
	Pool     delivery.Sender
	Chain    Chain        // nil: no hooks
	Mail     *maillog.Log // nil: none
	Log      *zap.Logger  // nil: none
	Now      func() time.Time
}

// Waits that no setting covers.
const (
	disabledPoll = time.Second      // how often Disabled is asked, as in Haraka
	localWait    = 5 * time.Minute  // after trouble of our own: a DSN or a settlement that cannot be written
	unreadable   = 15 * time.Minute // for messages that cannot be loaded
)

// Outbound delivers a queue. Use New, then Run.
type Outbound struct {
	o        Options
	delivery *delivery.Delivery
	backoff  schedule.Backoff
	pid      int
	wake     chan struct{} // holds one token when there may be work

	mu       sync.Mutex
	schedule *schedule.Schedule
	// owed are units whose recipients are done with; only the queue does not
	// know it yet.
	owed map[*schedule.Unit]bool

	// While Run still loads what was in the queue before, flushed are the
	// domains that Flush was asked for ("" is all); nil afterwards.
	flushed map[string]bool
}

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
	public, err := netip.ParseAddr(o.PublicIP)
	if err != nil && o.PublicIP != "" {
		o.Log.Warn("public_ip is no IP address", zap.String("value", o.PublicIP))
	}
	return &Outbound{
		o: o,
		delivery: delivery.New(delivery.Options{
			Me: o.Me, Port: o.Port, LocalMXOK: o.LocalMXOK, InetPrefer: o.InetPrefer, EnableTLS: o.EnableTLS, TLS: o.TLS, TLSConfig: o.TLSConfig,
			ConnectTimeout: o.ConnectTimeout, PoolTimeout: o.PoolTimeout, PoolConcurrencyMax: o.PoolConcurrencyMax,
			PublicIP: public, Resolver: o.Resolver, Sender: o.Pool, Log: o.Log,
		}),
		backoff:  schedule.Backoff{Intervals: o.Intervals, MaxLifetime: o.MaxLifetime},
		pid:      os.Getpid(),
		wake:     make(chan struct{}, 1),
		schedule: schedule.New(schedule.Options{Concurrency: o.ConcurrencyMax, PerDestination: o.PoolConcurrencyMax}),
		owed:     map[*schedule.Unit]bool{},
		flushed:  map[string]bool{},
	}
}

// Enqueue takes a message that has just been put in the queue. It never blocks
// for long and may be called before Run.
func (o *Outbound) Enqueue(p mail.Pending) {
	o.mu.Lock()
	o.add(p)
	o.mu.Unlock()
	o.signal()
}

// Flush makes every waiting delivery to domain due now; "" means all. It
// returns how many there are; while the queue is still being loaded, more may
// follow.
func (o *Outbound) Flush(domain string) int {
	o.mu.Lock()
	n := o.schedule.Flush(mail.CanonicalDomain(domain), o.o.Now())
	if o.flushed != nil {
		o.flushed[mail.CanonicalDomain(domain)] = true
	}
	o.mu.Unlock()
	o.o.Log.Info("queue flushed", zap.String("domain", domain), zap.Int("deliveries", n))
	o.signal()
	return n
}

// Stat counts the deliveries: waiting for their time, for a place, and running.
func (o *Outbound) Stat() schedule.Stat {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.schedule.Stat()
}

// Run delivers until ctx ends. Then no attempt begins; those that run have
// Options.Grace to finish before they are cut off. Deliveries do not wait until
// all that was in the queue before is loaded.
func (o *Outbound) Run(ctx context.Context) error {
	attempts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var running sync.WaitGroup
	running.Go(func() { o.load(ctx) })
	for ctx.Err() == nil {
		units, wait := o.due()
		for _, u := range units {
			running.Go(func() { o.attempt(attempts, u) })
		}
		o.sleep(ctx, wait)
	}
	idle := make(chan struct{})
	go func() {
		running.Wait()
		close(idle)
	}()
	grace := time.NewTimer(o.o.Grace)
	defer grace.Stop()
	select {
	case <-idle:
	case <-grace.C:
		if n := o.Stat().Running; n > 0 {
			o.o.Log.Warn("attempts are cut off", zap.Int("running", n))
		}
	}
	cut()
	<-idle
	return nil
}

// load schedules what was in the queue before this process.
func (o *Outbound) load(ctx context.Context) {
	messages, began := 0, o.o.Now()
	for {
		left := o.o.Queue.Recovered(func(p mail.Pending) bool {
			messages++
			o.mu.Lock()
			for i, r := range p.Recipients {
				if o.flushed[""] || len(o.flushed) > 0 && o.flushed[r.Address.Host()] {
					p.Recipients[i].Next = time.Time{}
				}
			}
			o.add(p)
			o.mu.Unlock()
			o.signal()
			return ctx.Err() == nil
		})
		if ctx.Err() != nil {
			return
		}
		o.o.Log.Info("queue loaded", zap.Int("messages", messages), zap.Int("left", left), zap.Duration("time", o.o.Now().Sub(began)))
		if left == 0 {
			break
		}
		again := time.NewTimer(unreadable)
		select {
		case <-ctx.Done():
			again.Stop()
			return
		case <-again.C:
		}
	}
	o.mu.Lock()
	o.flushed = nil
	o.mu.Unlock()
}

// never is a wait that only a signal ends.
const never = time.Duration(-1)

// sleep returns when there may be work again, or when ctx ends.
func (o *Outbound) sleep(ctx context.Context, wait time.Duration) {
	var over <-chan time.Time
	if wait != never {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
	case <-o.wake:
	case <-over:
	}
}

// due hands out what is to be attempted now, and says how long there will be
// nothing more.
func (o *Outbound) due() ([]*schedule.Unit, time.Duration) {
	disabled := o.o.Disabled()
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.o.Now()
	var units []*schedule.Unit
	if !disabled {
		units = o.schedule.Due(now, math.MaxInt)
	}
	next, ok := o.schedule.Next(now)
	switch {
	case !ok:
		return units, never
	case disabled:
		return nil, max(disabledPoll, next.Sub(now))
	default:
		return units, max(0, next.Sub(now))
	}
}

// add schedules the deliveries of a message. The caller holds o.mu.
func (o *Outbound) add(p mail.Pending) {
	type key struct {
		domain   string
		attempts int
		next     int64
	}
	now := o.o.Now()
	if len(p.Recipients) == 1 || o.o.AlwaysSplit {
		for _, r := range p.Recipients {
			o.schedule.Add(now, p.ID, r.Address.Host(), []int{r.Index}, r.Attempts, r.Next)
		}
		return
	}
	var order []key
	groups := map[key][]int{}
	times := map[key]time.Time{}
	for _, r := range p.Recipients {
		k := key{r.Address.Host(), r.Attempts, r.Next.UnixNano()}
		if groups[k] == nil {
			order = append(order, k)
			times[k] = r.Next
		}
		groups[k] = append(groups[k], r.Index)
	}
	for _, k := range order {
		o.schedule.Add(now, p.ID, k.domain, groups[k], k.attempts, times[k])
	}
}

// unknown reports whether err says that a message is not in the queue.
func (o *Outbound) unknown(err error) bool {
	return err != nil && o.o.Unknown != nil && errors.Is(err, o.o.Unknown)
}

// signal tells Run that there may be work.
func (o *Outbound) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}
