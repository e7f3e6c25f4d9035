// Package limit is the plugin limit: how many connections, recipients, errors and
// deliveries there may be at a time, or within a time. See README.md.
package limit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/ledger"
	"tarishi/internal/plugin"
	"tarishi/internal/redis"
	"tarishi/internal/result"
)

// Name is the plugin's name in config/plugins.
const Name = "limit"

// maxCounts bounds the memory of the counts of this process, in bytes. The store may have
// as much of them.
const maxCounts = 64 << 20

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	next, err := read(env)
	if err != nil {
		return nil, err
	}
	l := &limiter{
		log: env.Log, claims: map[*claim]time.Time{},
		local: ledger.NewLocal(ledger.LocalOptions{MaxBytes: maxCounts, Store: env.Store, Log: env.Log}),
	}
	next.counts = l.local
	l.force.Store(next)
	env.Metrics.Gauge("counts", "Names that the plugin counts something of in this process.", func() float64 { return float64(l.local.Len()) })
	return l, nil
}

// limiter is the plugin.
type limiter struct {
	log   *zap.Logger
	local *ledger.Local
	force atomic.Pointer[force]

	life    context.Context // from Start to Close
	running sync.WaitGroup
	link    *link // to Redis; nil: there is none

	mu     sync.Mutex
	claims map[*claim]time.Time // deliveries that count, and since when
}

// force is the generation in force: settings and the means to follow them.
type force struct {
	*Settings
	recorder *plugin.Recorder
	counts   ledger.Ledger
	server   redis.Server // zero: none
	ignorant atomic.Bool  // the log says that a plugin knows nothing of a client
}

// read looks at settings. The ledger is left out.
func read(env plugin.Env) (*force, error) {
	s := env.Settings.(*Settings)
	next := &force{Settings: s, recorder: env.NewRecorder(Name, result.Format{})}
	next.server, _ = env.Shared.Redis.For(s.Redis)
	return next, next.server.Check()
}

// Start implements plugin.Starter.
func (l *limiter) Start(ctx context.Context) error {
	l.life = ctx
	if err := l.local.Load(); err != nil && !errors.Is(err, plugin.ErrNoStore) {
		l.log.Warn("earlier counts cannot be read: all begin at nothing", zap.Error(err))
	}
	l.running.Go(func() { l.local.Run(ctx) })
	l.running.Go(func() { l.expireClaims(ctx) })
	now := l.force.Load()
	now.counts = l.connect(now.server)
	return nil
}

// Reload implements plugin.Reloader: the counts go on.
func (l *limiter) Reload(env plugin.Env) (swap func(), err error) {
	next, err := read(env)
	if err != nil {
		return nil, err
	}
	return func() {
		// A connection to the same server goes on too.
		now := l.force.Load()
		next.counts = now.counts
		if next.server != now.server {
			l.disconnect()
			next.counts = l.connect(next.server)
		}
		l.force.Store(next)
	}, nil
}

// Close implements io.Closer.
func (l *limiter) Close() error {
	l.disconnect()
	l.running.Wait()
	l.local.Close()
	return nil
}

// link is a connection to Redis.
type link struct {
	client *redis.Client
	end    context.CancelFunc
	linked sync.WaitGroup
}

// connect returns what counts from here on: the counts of this process, or those of a
// server, which is not waited for.
func (l *limiter) connect(server redis.Server) ledger.Ledger {
	if server == (redis.Server{}) {
		return l.local
	}
	ctx, cancel := context.WithCancel(l.life)
	c := &link{client: redis.New(server, nil), end: cancel}
	shared := ledger.NewShared(c.client, l.local, l.log)
	c.linked.Go(func() { c.client.Run(ctx) })
	c.linked.Go(func() { shared.Run(ctx) })
	l.link = c
	l.log.Info("counts are shared in Redis", zap.String("addr", server.Addr), zap.Int("database", server.Database))
	return shared
}

// disconnect ends a connection behind the calls that use it.
func (l *limiter) disconnect() {
	c := l.link
	if c == nil {
		return
	}
	l.link = nil
	c.end()
	l.running.Go(func() {
		// Each call is bounded, and at the end of the plugin there are none.
		select {
		case <-time.After(2 * l.force.Load().server.Timeout):
		case <-l.life.Done():
		}
		c.linked.Wait()
		_ = c.client.Close() // there is nothing to lose any more
	})
}

// Register implements plugin.Plugin. What waits is bounded by the plugin itself: Redis by
// its timeout, and refusals by tarpit_delay.
func (l *limiter) Register(h plugin.Host) {
	h.Timeout(0)
	s := l.force.Load()
	on := func(wanted bool, point hook.Point, function string, handle func(context.Context, *hook.Event, *force) hook.Verdict) {
		if wanted {
			h.On(point, function, 0, func(ctx context.Context, e *hook.Event) hook.Verdict { return handle(ctx, e, l.force.Load()) })
		}
	}

	// A section that is off costs nothing.
	on(s.Concurrency.Enabled || s.RateConn.Enabled, hook.OnConnectInit, "count_connection", l.countConnection)
	on(s.Concurrency.Enabled || s.RateConn.Enabled || s.RateRcptHost.Enabled, hook.OnConnect, "check_connection", l.checkConnection)
	for _, point := range []hook.Point{hook.OnHelo, hook.OnEhlo, hook.OnMail, hook.OnData} {
		on(s.Errors.Enabled, point, "check_errors", l.checkErrors)
	}
	on(
		s.Errors.Enabled || s.Recipients.Enabled || s.RateRcptHost.Enabled || s.RateRcptSender.Enabled || s.RateRcptUser.Enabled || s.RateRcptNull.Enabled || s.RateRcpt.Enabled,
		hook.OnRcpt, "check_recipient", l.checkRecipient,
	)
	on(s.Unrecognized.Enabled, hook.OnUnrecognized, "check_commands", l.checkCommands)
	on(s.Concurrency.Enabled, hook.OnDisconnect, "release_connection", l.releaseConnection)
	if !s.Outbound.Enabled && !s.RateOutbound.Enabled {
		return
	}
	h.On(hook.OnSendEmail, "check_delivery", 0, func(ctx context.Context, e *hook.Event) hook.Verdict {
		return l.checkDelivery(ctx, e, l.force.Load())
	})
	for _, point := range []hook.Point{hook.OnDelivered, hook.OnDeferred, hook.OnBounce} {
		on(s.Outbound.Enabled, point, "release_delivery", l.releaseDelivery)
	}
}

// penalize refuses a client for now, after the wait that slows it down.
func (f *force) penalize(ctx context.Context, record plugin.Record, code hook.Code, what, text string) hook.Verdict {
	record.Fail(what)
	record.Log()
	if f.Tarpit > 0 {
		wait := time.NewTimer(f.Tarpit)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	return record.Refuse(hook.Answer(code, text))
}
