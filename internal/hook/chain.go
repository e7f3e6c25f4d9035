package hook

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tarishi/internal/lease"
	"tarishi/internal/mail"
)

// Priorities outside these bounds are moved to the nearer bound.
const (
	MinPriority = -100
	MaxPriority = 100
)

// The texts of the refusals that a Chain makes by itself.
const (
	textTimeout = "plugin timeout"
	textFailed  = "plugin error"
	textGone    = "connection closed"
)

// Registration is one handler at one point.
type Registration struct {
	Point    Point
	Plugin   string // canonical name, as in config/plugins
	Function string // what the handler is called in logs and listings
	Priority int    // lower runs earlier; default 0
	Timeout  time.Duration
	Handler  Handler
}

// Chain holds the handlers of every point in the order in which they run. It
// may be used from any goroutine and never changes.
//
// A handler with a timeout runs in a separate goroutine, with views that the chain
// revokes when the time is over. A handler that outlives its timeout runs on there, its
// verdict is ignored, and Wait waits for it. A handler with the timeout 0 runs in the
// caller's goroutine, for as long as it likes.
type Chain struct {
	points map[Point][]Registration
	log    *zap.Logger
	late   lease.Borrowers

	timeouts, panics atomic.Int64
}

// NewChain sorts the handlers of each point by priority and then by their place
// in regs, which is the order of config/plugins.
func NewChain(regs []Registration, log *zap.Logger) *Chain {
	c := &Chain{points: make(map[Point][]Registration), log: log}
	for _, r := range regs {
		// A plugin cannot put itself before what the bounds leave room for.
		r.Priority = min(max(r.Priority, MinPriority), MaxPriority)
		c.points[r.Point] = append(c.points[r.Point], r)
	}
	for _, list := range c.points {
		slices.SortStableFunc(list, func(a, b Registration) int { return cmp.Compare(a.Priority, b.Priority) })
	}
	return c
}

// Has reports whether p has any handler.
func (c *Chain) Has(p Point) bool { return len(c.points[p]) > 0 }

// Order returns the handlers of p in the order in which they run.
func (c *Chain) Order(p Point) []Registration { return slices.Clone(c.points[p]) }

// Failures returns how many handlers outlived their timeout and how many
// panicked, so far.
func (c *Chain) Failures() (timeouts, panics int64) { return c.timeouts.Load(), c.panics.Load() }

// Wait returns when no handler is left that outlived its timeout, or when ctx
// ends.
func (c *Chain) Wait(ctx context.Context) { c.late.Wait(ctx) }

// Run runs the handlers of p and returns their decision: the first verdict
// that is not Cont, or Cont with the text of the last handler. At points that
// run all handlers it is always Cont. An Alias ends the chain too. The Event belongs
// to this Run alone.
//
// A refusal runs the handlers of OnDeny first; OK from them drops it, and the
// handlers behind the one that refused run on. A handler that panics or
// outlives its timeout answers DenySoft where p decides; where p observes, and
// at deferred and bounce, where the default loses nothing, the chain goes on
// without it. Its earlier changes stay.
//
// When ctx, the connection's, has ended, handlers that have not begun are
// skipped and a point that decides answers DenySoft, so that nothing is taken
// on that was not looked at. Handlers of reset_transaction and disconnect
// always run.
func (c *Chain) Run(ctx context.Context, p Point, e *Event) Verdict {
	list := c.points[p]
	if len(list) == 0 {
		return Proceed()
	}
	list = behind(list, e.Behind)
	if e.Point != p {
		e.Point = p
	}
	if tx := e.Tx.state; tx != nil {
		e.Sender = tx.From
	}
	if p == OnResetTransaction || p == OnDisconnect {
		ctx = context.WithoutCancel(ctx)
	}

	// Handlers run one after another until one of them decides.
	last := Proceed()
	for i := range list {
		r := &list[i]
		if ctx.Err() != nil {
			if p.failsOpen() {
				return Proceed()
			}
			return Answer(DenySoft, textGone)
		}
		if tx := e.Tx.state; tx != nil && tx.SkipsPlugin(r.Plugin) {
			continue
		}
		v, failed := c.callHandler(ctx, r, e)
		if failed && p.failsOpen() {
			continue
		}
		if v.Code == 0 || v.Code == Cont {
			if p == OnRcpt && v.Alias != nil {
				return Verdict{Code: Cont, Alias: v.Alias, Plugin: r.Plugin}
			}
			last = Verdict{Code: Cont, Text: v.Text, Reply: v.Reply}
			continue
		}
		v.Plugin = r.Plugin
		c.logVerdict(r, e, v)

		// A refusal that is dropped leaves the chain as if the handler had gone on.
		if v.Code.Denies() {
			if pardon := c.pardon(ctx, e, v); pardon.Code == OK {
				last = Verdict{Code: Cont, Text: pardon.Text, Reply: pardon.Reply}
				continue
			}
		}
		if !p.RunsAll() {
			return v
		}
	}
	if p.RunsAll() {
		return Proceed()
	}
	return last
}

// failsOpen reports whether a handler that fails at p is passed over: at points
// that observe, and where any answer but Cont would drop a message or its DSN.
func (p Point) failsOpen() bool { return p.Observes() || p == OnDeferred || p == OnBounce }

// pardon runs the deny handlers over a refusal: OK drops it.
func (c *Chain) pardon(ctx context.Context, e *Event, refusal Verdict) Verdict {
	if e.Point == OnInit || e.Point == OnDeny || !c.Has(OnDeny) {
		return Proceed()
	}
	about := *e
	about.Point, about.Denied = OnDeny, &DeniedParams{Verdict: refusal, Point: e.Point}
	return c.Run(ctx, OnDeny, &about)
}

// loan is an Event in the hands of a handler with a timeout.
type loan struct {
	event Event
	gate  lease.Gate
}

// newLoan returns a copy of e with views that end with the gate. Lists and maps are
// copied too.
func newLoan(e *Event) *loan {
	l := &loan{event: *e}
	own := &l.event

	// When the views are revoked a panic still has a name in the log.
	own.named = e.id()
	own.Conn.gate, own.Tx.gate, own.Delivery.gate = &l.gate, &l.gate, &l.gate

	// What an event holds itself is copied: it is small, and not behind the gate.
	own.Params = maps.Clone(e.Params)
	own.Failed, own.Deferred, own.Bounced = slices.Clone(e.Failed), slices.Clone(e.Deferred), slices.Clone(e.Bounced)
	if e.Success != nil {
		success := *e.Success
		success.OKRecipients = slices.Clone(success.OKRecipients)
		own.Success = &success
	}
	if e.Denied != nil {
		denied := *e.Denied
		own.Denied = &denied
	}
	return l
}

// callHandler runs one handler within its timeout. failed reports that the verdict is
// not the handler's own.
func (c *Chain) callHandler(ctx context.Context, r *Registration, e *Event) (v Verdict, failed bool) {
	if r.Timeout <= 0 {
		return c.guarded(ctx, r, e)
	}

	// Whatever becomes of the handler, its views end with this call.
	deadline := time.Now().Add(r.Timeout)
	limited, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	l := newLoan(e)
	defer l.gate.Revoke()

	// It runs beside the chain, which can give it up.
	done := make(chan outcome, 1)
	c.late.Add()
	go func() {
		defer c.late.Done()
		o := outcome{Answer(DenySoft, textFailed), true} // what runtime.Goexit leaves
		defer func() { done <- o }()
		o.verdict, o.failed = c.guarded(limited, r, &l.event)
	}()
	select {
	case o := <-done:
		return o.verdict, o.failed
	case <-limited.Done():
	}

	// At the deadline, or the client is gone: then the handler knows it by its
	// ctx and is given the rest of its time, so that it does not run beside
	// what comes next.
	rest := time.NewTimer(time.Until(deadline))
	defer rest.Stop()
	select {
	case o := <-done:
		return o.verdict, o.failed
	case <-rest.C:
	}

	// It is late: the state behind its views is ours again.
	l.gate.Revoke()
	c.timeouts.Add(1)
	c.log.Error("plugin timed out", append(about(r, e), zap.Duration("timeout", r.Timeout))...)
	return Answer(DenySoft, textTimeout), true
}

type outcome struct {
	verdict Verdict
	failed  bool
}

// guarded turns a panic of the handler into a refusal.
func (c *Chain) guarded(ctx context.Context, r *Registration, e *Event) (v Verdict, failed bool) {
	// A flag and not recover alone: runtime.Goexit unwinds without a panic to recover.
	returned := false
	defer func() {
		if returned {
			return
		}
		cause := fmt.Sprint(recover()) // "<nil>": runtime.Goexit
		c.panics.Add(1)
		c.log.Error("plugin panicked", append(about(r, e), zap.String("panic", cause), zap.Stack("stack"))...)
		v, failed = Answer(DenySoft, textFailed), true
	}()
	v = r.Handler(ctx, e)
	returned = true
	return v, false
}

// logVerdict logs refusals at info and the rest at debug.
func (c *Chain) logVerdict(r *Registration, e *Event, v Verdict) {
	// An administrator wants to see refusals, and hardly ever the rest.
	level := zapcore.DebugLevel
	if v.Code.Denies() || v.Code == Drop {
		level = zapcore.InfoLevel
	}
	line := c.log.Check(level, "hook")
	if line == nil {
		return
	}

	// Most lines are not wanted, so the text is made behind the check.
	msg := v.Text
	if v.Reply != nil {
		msg = v.Reply.String()
	}
	line.Write(append(about(r, e), zap.String("params", e.params()), zap.Stringer("retval", v.Code), zap.String("msg", msg))...)
}

func about(r *Registration, e *Event) []zap.Field {
	return []zap.Field{
		zap.String("uuid", e.id()), zap.String("hook", string(r.Point)), zap.String("plugin", r.Plugin),
		zap.String("function", r.Function),
	}
}

// id names the transaction, the delivery or the connection in logs.
func (e *Event) id() string {
	if e.named != "" {
		return e.named
	}
	if tx := e.Tx.ID(); tx != "" {
		return string(tx)
	}
	if !e.Delivery.IsZero() {
		return string(e.Delivery.ID())
	}
	return e.Conn.ID()
}

// params is the short form of what the point was asked about.
func (e *Event) params() string {
	// At MAIL there may be no transaction yet that would name the sender.
	switch {
	case e.Point == OnMail:
		return e.Sender.Path()
	case e.Recipient.Address != mail.Address{}:
		return e.Recipient.Address.Path()
	case e.Host != "":
		return e.Host
	}
	text := e.Text
	if e.Denied != nil {
		text = string(e.Denied.Point) + " " + e.Denied.Verdict.Plugin
	}
	if len(text) > 100 {
		text = strings.ToValidUTF8(text[:100], "")
	}
	return text
}
