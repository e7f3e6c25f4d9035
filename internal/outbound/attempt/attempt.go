// Package attempt makes one attempt at one delivery: the recipients of one message
// that share a domain. It asks the hooks, finds the way, sends, and records what came
// of it, recipient by recipient:
//
//	load ─▶ ask (hooks send_email, get_mx) ─▶ send ─▶ record ─┬─ deliver   settled
//	                                           │              ├─ deferAll  later
//	                         locate: no place ─┤              └─ fail      DSN, then settled
//	          postpone: a policy is to be had ─┘
//	                       (back in the schedule)
//
// After it each recipient is accounted for once: settled, or in one of the groups that
// stay scheduled. What the queue could not record of those that are settled is handed
// back too. A panic defers what is open. Nothing here returns an error: there is
// nobody to tell but the log.
package attempt

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/destination"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/nexthop"
	"tarishi/internal/outbound/account"
	"tarishi/internal/outbound/policy"
	"tarishi/internal/outbound/remember"
	"tarishi/internal/outbound/report"
	"tarishi/internal/reply"
	"tarishi/internal/schedule"
	"tarishi/internal/sending"
	"tarishi/internal/store"
)

// Queue is where messages live.
type Queue interface {
	Load(id mail.ID) (*mail.Envelope, mail.Content, error)
	Settle(id mail.ID, recipients []int) error
	Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error
	// SetNotes changes the notes that Load returns with a message: values by dotted path,
	// nil: none.
	SetNotes(id mail.ID, values map[string]any) error
	// Find returns the recipients of a message that are not settled, Path the name of a
	// file with its content.
	Find(id mail.ID) (mail.Pending, bool)
	Path(id mail.ID) (string, error)
	// Permit returns nil if this process may begin an attempt, or send it to its end.
	Permit(id mail.ID) error
}

// Chain runs hooks; *hook.Chain does.
type Chain interface {
	Run(ctx context.Context, p hook.Point, e *hook.Event) hook.Verdict
	Has(p hook.Point) bool
}

// Board is what all attempts share: the schedule, and the registers of what runs, is
// kept, and waits to be reported.
type Board interface {
	// Begin enters an attempt among those that run, and returns what was left for it;
	// known: this process has kept something.
	Begin(a *Attempt) (was remember.Kept, known bool)
	// End takes an attempt out, and puts back the rest.
	End(a *Attempt, left account.Left)
	// Locate says where an attempt goes, see schedule.Schedule. Where the Board has later
	// policies than the attempt it asks a.WayBy. If there is no place the unit is in the
	// schedule again, with a.Postponed.
	Locate(a *Attempt, w Way) bool
	// Postpone puts a unit back, with a.Postponed, until some time or a call of hasten.
	Postpone(a *Attempt, wait time.Duration) (hasten func())
	// Report and LastError are the schedule's. CountDoubtful counts an attempt that was
	// cut off after the end of its message, CountDouble a failure of mail from the null
	// sender, which nobody hears of.
	Report(u *schedule.Unit, o schedule.Outcome) (site string, change schedule.Change, probe time.Time)
	LastError(u *schedule.Unit) string
	CountDoubtful()
	CountDouble()

	// Enqueue sees to the delivery of a message that was put in the queue.
	Enqueue(p mail.Pending)
	// BeginReport notes that an attempt at a message is about to look for recipients that
	// may still fail. EndReport has to follow, after HoldReport.
	BeginReport(id mail.ID)
	EndReport(id mail.ID)
	// AdmitReport reports whether the sender of a message may get a separate report
	// now, which is counted; joins: others of the message wait already, or are about to.
	// If not, until is when it may.
	AdmitReport(id mail.ID, sender string) (joins, ok bool, until time.Time)
	// HoldReport keeps recipients for a report at due. Unless they are collected with
	// others of the sender, open are the recipients that may fail until then.
	HoldReport(id mail.ID, sender string, recipients []int, due time.Time, collected bool, open map[int]bool)
	// ClaimWarning and DisclaimWarning are notice.Warnings.
	ClaimWarning(id mail.ID, own, others []int) (fresh, more []int)
	DisclaimWarning(id mail.ID, recipients []int)
}

// Options are what a Maker works with, one for each generation of the configuration: all
// but Queue, Board, Mail, Log, Now and Random are that generation's.
type Options struct {
	Me       string
	Config   *destination.Settings
	Queue    Queue
	Chain    Chain // nil: no hooks
	Delivery *delivery.Delivery
	Policies *policy.Table
	Reporter *report.Reporter
	Board    Board
	Mail     *maillog.Log
	Log      *zap.Logger
	Now      func() time.Time
	Random   func() float64 // in [0,1), for the choice of a source
}

// Maker makes attempts. Its methods may be called from any goroutine.
type Maker struct{ o Options }

// New returns a Maker.
func New(o Options) *Maker { return &Maker{o: o} }

// Waits that no setting covers.
const (
	LocalWait    = 5 * time.Minute  // trouble of our own: a DSN or a settlement cannot be written
	Unreadable   = 15 * time.Minute // a message cannot be loaded
	importedWait = time.Hour        // at least, see spare
)

// Attempt is one attempt at one delivery. Recipients are named by their position in
// env.Recipients throughout; account translates for the queue.
type Attempt struct {
	m       *Maker
	unit    *schedule.Unit
	sending *sending.Context // the context of what comes before its outcome
	account account.Account
	env     mail.Envelope
	content mail.Content
	notes   mail.Notes // hook.Delivery.Notes
	queued  mail.Notes // the message's, as the queue has them
	was     remember.Kept
	known   bool             // this process has kept something
	records remember.Records // what the queue remembers
	loaded  bool
	whole   []mail.Recipient // all of the message
	ran     bool             // there was an attempt
	force   atomic.Bool
	spared  bool                   // see spare
	yielded bool                   // it made room for other mail
	free    bool                   // its deferral does not count, see record
	host    atomic.Pointer[string] // that is being tried
	policy  *policy.Policy
	hops    []mail.NextHop // that get_mx gave
	plan    *nexthop.Plan  // nil: no way was found

	reversePath *mail.Address // hook.Delivery.ReversePath
	mx          []string      // the domain's mail exchangers, if the DNS was asked
	res         delivery.Result
	moved       bool // the unit was put back in the schedule and is not ours any more

	abandoned atomic.Bool // another process has the message; changes with the Board's lock held
}

// Unit returns the delivery.
func (a *Attempt) Unit() *schedule.Unit { return a.unit }

// GoesBy reports whether the attempt goes by some policies, and not by those of an earlier
// generation.
func (a *Attempt) GoesBy(policies *policy.Table) bool { return a.m.o.Policies == policies }

// Host returns the host that is being tried; "": none yet.
func (a *Attempt) Host() string {
	if host := a.host.Load(); host != nil {
		return *host
	}
	return ""
}

// Make makes one attempt at u, and has the Board put back the rest.
func (m *Maker) Make(ctx context.Context, u *schedule.Unit) {
	a := &Attempt{m: m, unit: u, sending: sending.New(ctx), account: account.New(u.Recipients()), policy: m.o.Policies.For(u.Domain(), nil)}
	defer a.sending.Cancel(nil)
	defer a.finish()

	// What the attempts before left: notes of plugins, and next hops if they were asked already.
	a.was, a.known = m.o.Board.Begin(a)
	a.hops, a.reversePath = a.was.Hops, a.was.ReversePath
	if a.notes = a.was.Notes; a.notes == nil {
		a.notes = mail.Notes{}
	}
	a.force.Store(a.was.ForceTLS)
	a.spared = a.was.Spared
	if a.abandoned.Load() || !a.permitted() {
		return
	}
	a.sending.Guard(a)

	// Expired and late units come without a place: nothing may be sent.
	switch {
	case u.Expired():
		a.expire(ctx)
	case u.Late():
		a.warnLate(ctx)
	default:
		a.perform(ctx)
	}
}

// finish contains a panic and accounts for every recipient.
func (a *Attempt) finish() {
	now, attempts := a.now(), a.unit.Attempts()
	if p := recover(); p != nil {
		a.logError("attempt panicked, its recipients are deferred", zap.Any("panic", p), zap.Stack("stack"))
		wait, ok := a.policy.Wait(a.unit.ID(), a.unit.Domain(), attempts+1)
		if !ok { // it was to be the last; a DSN from here could panic again
			wait = LocalWait
		}
		a.account.Keep(a.account.Open(), account.Rest{Attempts: attempts + 1, Next: now.Add(wait)})
	}

	// Another attempt at the unit may be running by now.
	if a.moved {
		return
	}
	a.account.Keep(a.account.Open(), account.Rest{Attempts: attempts, Next: now}) // interrupted
	a.account.Kept = a.remember(a.collectKept(a.was.Asked && !a.ran))
	a.m.o.Board.End(a, a.account.Left)
}

// perform is the attempt itself. Recipients that it leaves open are due again at
// once: it returns early only when ctx has ended, or when the destination turns
// out to have no place now.
func (a *Attempt) perform(ctx context.Context) {
	if !a.loadMessage() {
		return
	}
	a.ran = true
	if a.findOutcome(ctx) {
		a.record(ctx)
	}
}

// findOutcome finds out what becomes of each recipient, and reports whether it did. It is
// the part that a stop cuts short, and that the schedule can have ended.
func (a *Attempt) findOutcome(whole context.Context) bool {
	ctx := context.Context(a.sending)

	// Hooks are not asked twice about one attempt, also if it had to wait for a place since.
	var refusal *reply.Reply
	if !a.was.Asked {
		var postponed bool
		if a.hops, refusal, postponed = a.askHooks(ctx); postponed {
			return false
		}
	}
	if refusal == nil {
		refusal = a.send(ctx)

		// The next hop may have it: the next start sends it again, and an administrator should know.
		if a.res.Uncertain && ctx.Err() != nil {
			a.m.o.Board.CountDoubtful()
			a.m.o.Log.Warn("cut off before the reply to the message, which may have been taken",
				zap.String("uuid", string(a.unit.ID())), zap.String("domain", a.unit.Domain()), zap.String("host", a.res.Host))
		}
		if a.moved {
			return false
		}
	}
	if a.res.Replies == nil && ctx.Err() != nil { // what a hook or the resolver says then is not its own
		if refusal = a.recalled(context.Cause(ctx)); refusal == nil {
			return false
		}
	}

	// A refusal that is no reply of the next hop holds for all recipients.
	if refusal != nil {
		if a.isSpared(refusal) {
			a.deferImported(whole, refusal)
			return false
		}
		a.res.Replies = a.replyToAll(refusal)
	}
	return true
}

func (a *Attempt) now() time.Time { return a.m.o.Now() }

// logError writes an error to the developers' log.
func (a *Attempt) logError(msg string, fields ...zap.Field) {
	a.m.o.Log.Error(msg, append(fields, zap.String("uuid", string(a.unit.ID())))...)
}

// loadMessage fetches the message from the queue.
func (a *Attempt) loadMessage() bool {
	env, content, err := a.m.o.Queue.Load(a.unit.ID())
	if err == nil {
		for _, i := range a.account.Index {
			if i < 0 || i >= len(env.Recipients) {
				err = fmt.Errorf("there is no recipient %d", i)
			}
		}
	}
	if store.IsUnknown(err) {
		a.vanished(a.account.Open())
		return false
	}
	if err != nil {
		a.logError("message cannot be loaded, it stays in the queue", zap.String("domain", a.unit.Domain()), zap.Error(err))
		a.account.Keep(a.account.Open(), account.Rest{Attempts: a.unit.Attempts(), Next: a.now().Add(Unreadable)})
		return false
	}

	// The envelope is this attempt's: only its recipients, and notes that it may change.
	a.env, a.content = *env, content
	a.env.Recipients = make([]mail.Recipient, len(a.account.Index))
	for n, i := range a.account.Index {
		a.env.Recipients[n] = env.Recipients[i]
	}
	a.loaded, a.whole = true, env.Recipients
	// Other deliveries of the message may run at the same time.
	if a.queued = a.restoreNotes(env.Notes); a.queued == nil {
		a.queued = mail.Notes{}
	}
	if a.env.Notes = a.was.Message; a.env.Notes == nil {
		a.env.Notes = a.queued.Plain() // a handler that is late may change its lists too
	}
	return true
}
