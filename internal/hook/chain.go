package hook

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

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
// A handler with a timeout runs in a goroutine of its own. One that outlives
// its timeout runs on there, its verdict is ignored, and Wait waits for it. The
// objects of its Event are left to it: see Verdict.Fresh. A handler whose timeout
// is 0 runs in the caller's goroutine, for as long as it likes.
type Chain struct {
	points map[Point][]Registration
	log    *zap.Logger
	late   stragglers
	lent   sync.Pool // of *lent

	timeouts, panics atomic.Int64
}

// NewChain sorts the handlers of each point by priority and then by their place
// in regs, which is the order of config/plugins.
func NewChain(regs []Registration, log *zap.Logger) *Chain {
	c := &Chain{points: make(map[Point][]Registration), log: log, lent: sync.Pool{New: func() any { return new(lent) }}}
	for _, r := range regs {
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
func (c *Chain) Wait(ctx context.Context) { c.late.wait(ctx) }

// Run runs the handlers of p and returns what they decided: the first verdict
// that is not Cont, or Cont with the text of the last handler. At points that
// run all handlers it is always Cont. The Event belongs to this Run alone.
//
// A refusal runs the handlers of OnDeny first; OK from them drops it, and the
// handlers behind the one that refused run on. A handler that panics or
// outlives its timeout answers DenySoft where p decides; where p observes, and
// at deferred and bounce, whose default is the one that loses nothing, the
// chain goes on without it.
//
// After a timeout the caller must not touch the Event or its objects any more, but
// go on with those of Verdict.Fresh. A connection has to be closed: where p
// decides the verdict is DenySoftDisconnect with the reply 421, where it observes
// the caller sees to that, and the handlers behind the late one are skipped, but
// for those of reset_transaction and disconnect. No deny handler can drop it.
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
	if e.Point != p {
		e.Point = p
	}
	if e.Tx != nil {
		e.Sender = e.Tx.From
	}
	if p == OnResetTransaction || p == OnDisconnect {
		ctx = context.WithoutCancel(ctx)
	}
	current := e
	v := c.run(ctx, p, list, &current)
	if current != e {
		v.Fresh = current
	}
	return v
}

// run is Run without the bookkeeping. It replaces *e when that belongs to a late
// handler.
func (c *Chain) run(ctx context.Context, p Point, list []Registration, e **Event) Verdict {
	last := Proceed()
	for i := range list {
		r := &list[i]
		if ctx.Err() != nil {
			if p.failsOpen() {
				return Proceed()
			}
			return Answer(DenySoft, textGone)
		}
		if tx := (*e).Tx; tx != nil && tx.SkipsPlugin(r.Plugin) {
			continue
		}
		v, failed, fresh := c.call(ctx, r, *e)
		if fresh != nil {
			*e = fresh
			if !p.outlasts() {
				v.Plugin = r.Plugin
				return v
			}
		}
		if failed && p.failsOpen() {
			continue
		}
		if v.Code == 0 || v.Code == Cont {
			last = Verdict{Code: Cont, Text: v.Text, Reply: v.Reply}
			continue
		}
		v.Plugin = r.Plugin
		c.logVerdict(r, *e, v)
		if v.Code.Denies() {
			pardon := c.pardon(ctx, *e, v)
			switch {
			case pardon.Fresh != nil:
				*e = pardon.Fresh
				if !p.outlasts() {
					return lateVerdict(p, *e)
				}
			case pardon.Code == OK:
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

// pardon runs the deny handlers over a refusal: OK drops it. Fresh is an Event of
// the point that refused.
func (c *Chain) pardon(ctx context.Context, e *Event, refusal Verdict) Verdict {
	if e.Point == OnInit || e.Point == OnDeny || !c.Has(OnDeny) {
		return Proceed()
	}
	about := *e
	about.Point, about.Denied = OnDeny, &DeniedParams{Verdict: refusal, Point: e.Point}
	v := c.Run(ctx, OnDeny, &about)
	if v.Fresh != nil {
		v.Fresh.Point, v.Fresh.Denied = e.Point, nil
	}
	return v
}

// call runs one handler within its timeout. failed tells that the verdict is
// not the handler's own; fresh, that the handler is late and e is its own now.
func (c *Chain) call(ctx context.Context, r *Registration, e *Event) (v Verdict, failed bool, fresh *Event) {
	if r.Timeout <= 0 {
		v, failed = c.guarded(ctx, r, e)
		return v, failed, nil
	}
	before := c.lent.Get().(*lent)
	before.copy(e)
	defer func() {
		*before = lent{} // it must not keep a connection alive
		c.lent.Put(before)
	}()
	deadline := time.Now().Add(r.Timeout)
	limited, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	done := make(chan outcome, 1)
	c.late.add()
	go func() {
		defer c.late.done()
		o := outcome{Answer(DenySoft, textFailed), true} // what runtime.Goexit leaves
		defer func() { done <- o }()
		o.verdict, o.failed = c.guarded(limited, r, e)
	}()
	select {
	case o := <-done:
		return o.verdict, o.failed, nil
	case <-limited.Done():
	}
	// At the deadline, or the client is gone: then the handler knows it by its
	// ctx and is given the rest of its time, so that it does not run beside
	// what comes next.
	rest := time.NewTimer(time.Until(deadline))
	defer rest.Stop()
	select {
	case o := <-done:
		return o.verdict, o.failed, nil
	case <-rest.C:
	}
	fresh = before.fresh()
	c.timeouts.Add(1)
	c.log.Error("plugin timed out", append(about(r, fresh), zap.Duration("timeout", r.Timeout))...)
	return lateVerdict(r.Point, fresh), true, fresh
}

type outcome struct {
	verdict Verdict
	failed  bool
}

// guarded turns a panic of the handler into a refusal.
func (c *Chain) guarded(ctx context.Context, r *Registration, e *Event) (v Verdict, failed bool) {
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
	level := zapcore.DebugLevel
	if v.Code.Denies() || v.Code == Drop {
		level = zapcore.InfoLevel
	}
	line := c.log.Check(level, "hook")
	if line == nil {
		return
	}
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

func (e *Event) id() string {
	switch {
	case e.Tx != nil && e.Tx.ID != "":
		return string(e.Tx.ID)
	case e.Delivery != nil:
		return string(e.Delivery.ID)
	case e.Conn != nil:
		return e.Conn.ID
	}
	return ""
}

// params is the short form of what the point was asked about.
func (e *Event) params() string {
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

// stragglers counts running goroutines. Unlike a sync.WaitGroup it can be
// waited for with a limit while others are added.
type stragglers struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n falls to 0; nil when nobody waits
}

func (s *stragglers) add() {
	s.mu.Lock()
	s.n++
	s.mu.Unlock()
}

func (s *stragglers) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n--; s.n == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

func (s *stragglers) wait(ctx context.Context) {
	s.mu.Lock()
	if s.n == 0 {
		s.mu.Unlock()
		return
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
