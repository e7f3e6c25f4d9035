package outbound

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/mail"
	"tarishi/internal/outbound/policy"
	"tarishi/internal/outbound/remember"
	"tarishi/internal/reply"
	"tarishi/internal/schedule"
	"tarishi/internal/smtpclient"
)

// attempt is one attempt at one delivery. Recipients are named by their
// position in env.Recipients throughout; index translates for the queue.
type attempt struct {
	o       *Outbound
	unit    *schedule.Unit
	sending *smtpclient.Sending // the context of what comes before its outcome
	index   []int               // of each recipient in the queue's envelope
	env     mail.Envelope
	content mail.Content
	notes   mail.Notes // hook.Delivery.Notes
	queued  mail.Notes // the message's, as the queue has them
	was     kept
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
	res     delivery.Result
	moved   bool // the unit was put back in the schedule and is not ours any more

	accounted  []bool // recipients that are settled, or in later
	later      []rest
	unrecorded []unrecorded
}

// attempt makes one attempt at u and puts back in the schedule what is left.
func (o *Outbound) attempt(ctx context.Context, u *schedule.Unit) {
	a := &attempt{o: o, unit: u, sending: smtpclient.NewSending(ctx), index: u.Recipients(), policy: o.policies.For(u.Domain(), nil)}
	defer a.sending.Cancel(nil)
	a.accounted = make([]bool, len(a.index))
	defer a.end()
	o.mu.Lock()
	a.was, a.known = o.kept[u]
	delete(o.kept, u)
	o.running[u] = a
	if o.stopping {
		a.sending.GiveUp(errStopped)
	}
	o.mu.Unlock()
	a.hops = a.was.hops
	if a.notes = a.was.notes; a.notes == nil {
		a.notes = mail.Notes{}
	}
	a.force.Store(a.was.force)
	a.spared = a.was.spared
	switch {
	case u.Expired():
		a.expire(ctx)
	case u.Late():
		a.late(ctx)
	default:
		a.run(ctx)
	}
}

// end contains a panic and accounts for every recipient.
func (a *attempt) end() {
	o, now := a.o, a.now()
	if p := recover(); p != nil {
		a.log("attempt panicked, its recipients are deferred", zap.Any("panic", p), zap.Stack("stack"))
		wait, ok := a.policy.Wait(a.unit.ID(), a.unit.Domain(), a.unit.Attempts()+1)
		if !ok { // it was to be the last; a DSN from here could panic again
			wait = localWait
		}
		a.keep(a.open(), rest{attempts: a.unit.Attempts() + 1, next: now.Add(wait)})
	}
	if a.moved {
		return
	}
	a.keep(a.open(), rest{attempts: a.unit.Attempts(), next: now}) // interrupted
	left := a.remember(a.keeps(a.was.asked && !a.ran))
	o.mu.Lock()
	delete(o.running, a.unit)
	domain := a.unit.Domain()
	for i, r := range a.later {
		u := a.unit
		if i == 0 {
			o.schedule.Defer(u, now, r.index, r.attempts, r.next)
		} else {
			u = o.schedule.Add(now, schedule.Delivery{ID: u.ID(), Domain: domain, Recipients: r.index, Attempts: r.attempts, Next: r.next, Received: u.Received(), Null: u.Null(), Marked: a.unit.Marked()})
		}
		k := left
		if i > 0 { // the two may run at the same time
			k.notes, k.message = k.notes.Clone(), k.message.Clone()
		}
		o.keepFor(u, k)
	}
	for _, d := range a.unrecorded {
		o.noteUnrecorded(d)
	}
	if o.gathering.Holds(a.unit.ID()) {
		o.gathering.Decide(a.unit.ID(), a.decided())
	}
	if len(o.held) > 0 {
		o.unmark(a.unit.ID(), slices.DeleteFunc(slices.Clone(a.index), func(i int) bool {
			return slices.ContainsFunc(a.later, func(r rest) bool { return slices.Contains(r.index, i) })
		}))
	}
	if len(a.later) == 0 {
		o.schedule.Done(a.unit)
	}
	o.mu.Unlock()
	o.signal()
}

// run is the attempt itself. Recipients that it leaves open are due again at
// once: it returns early only when ctx has ended, or when the destination turns
// out to have no place now.
func (a *attempt) run(ctx context.Context) {
	if !a.load() {
		return
	}
	a.ran = true
	if a.try(ctx) {
		a.record(ctx)
	}
}

// try finds out what becomes of each recipient, and reports whether it did. It is
// the part that a stop cuts short, and that the schedule can have ended.
func (a *attempt) try(whole context.Context) bool {
	ctx := context.Context(a.sending)
	var refusal *reply.Reply
	if !a.was.asked {
		var postponed bool
		if a.hops, refusal, postponed = a.ask(ctx); postponed {
			return false
		}
	}
	if refusal == nil {
		refusal = a.send(ctx)
		if a.res.Uncertain && ctx.Err() != nil {
			a.o.doubt()
			a.o.o.Log.Warn("cut off before the reply to the message, which may have been taken",
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
	if refusal != nil {
		if a.spare(refusal) {
			a.deferImported(whole, refusal)
			return false
		}
		a.res.Replies = a.all(refusal)
	}
	return true
}

func (a *attempt) now() time.Time { return a.o.o.Now() }

// log writes an error to the developers' log.
func (a *attempt) log(msg string, fields ...zap.Field) {
	a.o.o.Log.Error(msg, append(fields, zap.String("uuid", string(a.unit.ID())))...)
}
