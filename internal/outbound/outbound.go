// Package outbound is the run loop of the queue: deliveries that are due are attempted, and
// the outcome is recorded, recipient by recipient.
//
// A delivery is the recipients of one message that share a domain. After an
// attempt each of them is one of three: delivered, and settled in the queue;
// deferred, and due again after the back-off; failed (refused, or expired), and
// settled once the DSN is durable, if one is due. The promises:
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
// This package keeps the schedule and the registers beside it (kept, held, unrecorded,
// adopted, gathered reports) in step; the registers themselves are packages.
package outbound

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/generation"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/outbound/account"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/outbound/handover"
	"tarishi/internal/outbound/held"
	"tarishi/internal/outbound/notify"
	"tarishi/internal/outbound/remember"
	"tarishi/internal/outbound/report"
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

// Options are what an Outbound works with.
type Options struct {
	Generation // the first one, see Outbound.Use

	Queue  Queue
	Pool   delivery.Sender
	Random func() float64 // in [0,1), for choices and probes; nil: the system's
	Mail   *maillog.Log   // nil: none
	Log    *zap.Logger    // nil: none
	Now    func() time.Time
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
	disabledPoll = time.Second     // how often expiry is looked at while nothing is delivered
	longestSleep = time.Minute     // the clock may be set, and timers stand still while the machine sleeps
	loadAgain    = time.Minute     // for those that Adopt could not read: somebody may mend what keeps it
)

// Outbound delivers a queue. Use New, then Run.
type Outbound struct {
	o          Options // without the Generation
	generation *generation.Value[*parts]
	counts     report.Counts
	notifier   *notify.Notifier // of what failed; it is asked while mu is held, too

	wake   chan struct{} // holds one token when there may be work
	reload chan struct{} // holds one when Flush was asked for what could not be read
	adopt  chan struct{} // holds one when the queue has more to adopt

	holding held.Locks // before mu

	mu       sync.Mutex // also held when the generation changes
	schedule *schedule.Schedule
	// settled recipients that the queue could not record; retried until it does
	unrecorded []account.Unrecorded
	recordAt   time.Time // the earliest of them
	kept       map[*schedule.Unit]remember.Kept
	running    map[*schedule.Unit]*attempt.Attempt
	stopping   bool // attempts are to end, see giveUp
	doubtful   int  // attempts that were cut off while their message may have been taken
	double     int64
	held       held.Register

	adopting *handover.Requests // nil: nothing is left to adopt
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
	if o.Random == nil {
		o.Random = rand.Float64
	}
	out := &Outbound{
		o:        o,
		wake:     make(chan struct{}, 1),
		reload:   make(chan struct{}, 1),
		kept:     map[*schedule.Unit]remember.Kept{},
		running:  map[*schedule.Unit]*attempt.Attempt{},
		held:     held.Register{},
		adopting: &handover.Requests{},
		adopt:    make(chan struct{}, 1),
		forgone:  map[*schedule.Unit]bool{},
	}

	out.notifier = notify.New(notify.Options{Queue: o.Queue, Outbound: (*reporting)(out), Log: o.Log, Now: o.Now})

	// What these parts call is not called before out is complete.
	first := out.newParts(o.Generation)
	out.o.Generation = Generation{} // from now on there is only the current one
	out.generation = generation.New(first)
	out.schedule = schedule.New(out.scheduleOptions(first))
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
	o.mu.Lock()
	defer o.mu.Unlock()
	return Counts{DSN: o.counts.Queued.Load(), DSNFailed: o.counts.Failed.Load(), Double: o.double}
}
