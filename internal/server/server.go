// Package server builds every part of the daemon from one configuration, runs
// them, and stops them in order. It is the only package that knows them all;
// none of them knows it.
//
// Start: resolver, pool, plugins, the addresses, queue (which recovers what an
// earlier run left), outbound, session, control socket and HTTP; then connections
// are accepted. Stop: HTTP, listener, then sessions (421 to idle ones) beside
// outbound (no new attempts), the control socket, hooks that outlived their
// timeout, plugins, pool, queue. What waits for others waits for smtp.ini
// force_shutdown_timeout in all; a part that does not end even then is left
// behind.
//
// A reload makes a generation beside the one in force: settings, certificates, plugins, the
// hook chain, new addresses. Apply prepares all that can fail, and then puts it in force at
// once. Connections and attempts go on with the generation that they began with, and its
// plugins end behind the last of them.
package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/delivery"
	"tarishi/internal/heap"
	"tarishi/internal/kv"
	"tarishi/internal/listener"
	"tarishi/internal/maillog"
	"tarishi/internal/metrics"
	"tarishi/internal/mtasts"
	"tarishi/internal/outbound"
	"tarishi/internal/pool"
	"tarishi/internal/session"
	"tarishi/internal/store/disk"
	"tarishi/internal/web"
)

// Options is what does not stand in the configuration.
type Options struct {
	Version string
	Log     *maillog.Writer // where both logs go, and where the daemon listens
	Title   func(string)    // sets the title of the process; nil: it cannot be set
}

// Server is one daemon. It is used once: New, then Run.
type Server struct {
	o       Options
	log     *zap.Logger
	logCore *maillog.Core
	notice  *zap.Logger // see Notices
	notices *maillog.Core
	events  *maillog.Log

	// What lives as long as the daemon. Most of it takes a new generation by a method Use.
	queue    *disk.Store
	pool     *pool.Pool
	sts      *mtasts.Cache // nil: not used yet
	relay    *delivery.Relay
	memory   *kv.Store // what plugins remember
	outbound *outbound.Outbound
	sessions *session.Server
	listener *listener.Listener
	metrics  *metrics.Metrics
	web      *web.Server
	http     *web.Endpoint // where http.ini says
	control  *web.Endpoint // the socket in the queue's folder
	late     *late
	hooks    *failures

	live    *conf.Live // nil: there is no folder to follow
	current atomic.Pointer[generation]

	// Generations that are not in force any more and still held.
	retiring    sync.WaitGroup
	ending      context.Context // done at the stop: nothing is waited for any more
	endRetiring context.CancelFunc

	stopping atomic.Pointer[time.Time] // since when; nil: it serves
}

// unwind is what a stop may take beyond force_shutdown_timeout: sessions that were
// cut off end, next hops are said goodbye to, the journal is closed.
const unwind = 10 * time.Second

// parts are the components that Run has started.
type parts struct {
	queue, control, http, pool, relay, memory, outbound, accepting, live *part
	drop                                                                 context.CancelFunc // cuts sessions off
}

// leastHeap is what the heap may grow to before it is collected: bytes. Most daemons
// live in less, and collect a quarter as often by it.
const leastHeap = 32 << 20

// Run serves until ctx ends, then stops everything in order. A value from
// flush makes every deferred message due. The error is nil after an orderly
// stop. If a part does not end in time Run returns without it: then the process
// is to end, which costs nothing that was promised.
func (s *Server) Run(ctx context.Context, flush <-chan os.Signal) error {
	defer heap.KeepFloor(leastHeap)()
	for _, a := range s.listener.Addrs() {
		s.notice.Info("listening on " + a.String())
	}
	for _, url := range s.http.URLs() {
		s.notice.Info("metrics and health on " + url)
	}
	if err := s.startPlugins(ctx); err != nil {
		s.listener.Close()
		s.http.Close()
		s.control.Close()
		return errors.Join(err, s.memory.Close(), s.queue.Close())
	}

	// From here on the parts run, and end in order.
	p := s.startParts(ctx)
	failed := s.serve(ctx, flush, p)

	now := time.Now()
	s.stopping.Store(&now)
	s.log.Info("stopping")
	return errors.Join(failed, bounded(grace(s.current.Load().cfg)+unwind, func(at func(string)) error { return s.stop(p, at) }))
}

// startPlugins starts the plugins and asks them whether the daemon may serve.
func (s *Server) startPlugins(ctx context.Context) error {
	g := s.current.Load()
	if err := g.plugins.Start(ctx); err != nil {
		return err
	}
	if err := mayServe(ctx, g.chain); err != nil {
		return errors.Join(err, g.plugins.Close())
	}
	return nil
}

// bounded returns the error of stop, or after limit one that names the part it waits
// for: the last name that it has called at with.
func bounded(limit time.Duration, stop func(at func(name string)) error) error {
	ended := make(chan error, 1)
	var at atomic.Value
	go func() { ended <- stop(func(name string) { at.Store(name) }) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		return fmt.Errorf("the stop is cut short after %s: %v does not end", limit, at.Load())
	}
}

// startParts starts each part on a separate context, so that they can stop one
// by one.
func (s *Server) startParts(ctx context.Context) *parts {
	p := &parts{
		queue:   s.start(s.queue.Run),
		control: s.start(s.control.Run), // the queue can be looked at while adopt fills it
		http:    s.start(s.http.Run),
		pool:    s.start(s.pool.Run),
		relay:   s.start(s.relay.Run),
		memory:  s.start(s.memory.Run),
	}
	s.followSecrets(s.current.Load().secrets)
	s.adopt(ctx) // before outbound
	p.outbound = s.start(s.outbound.Run)

	// Connections are accepted last, when all that they need runs. They outlive the listener.
	var serving context.Context
	serving, p.drop = context.WithCancel(context.Background())
	p.accepting = s.start(func(ctx context.Context) error {
		return s.listener.Run(ctx, func(_ context.Context, c net.Conn, implicitTLS bool) {
			s.sessions.Serve(serving, c, implicitTLS)
		})
	})
	p.live = s.start(s.follow) // a reload finds everything running
	return p
}

// serve returns when ctx ends, or with an error when a part ends by itself.
func (s *Server) serve(ctx context.Context, flush <-chan os.Signal, p *parts) error {
	// No part ends before it is stopped: one that does takes the daemon with it, so that a
	// supervisor notices.
	for {
		select {
		case <-flush:
			s.outbound.Flush("")
		case <-ctx.Done():
			return nil
		case <-p.accepting.done:
			return unexpected("listener", p.accepting.err)
		case <-p.outbound.done:
			return unexpected("outbound", p.outbound.err)
		case <-p.queue.done:
			return unexpected("queue", p.queue.err)
		case <-p.control.done:
			return unexpected("control", p.control.err)
		case <-p.http.done:
			return unexpected("http", p.http.err)
		case <-p.relay.done:
			return unexpected("relay", p.relay.err)
		case <-p.pool.done:
			return unexpected("pool", p.pool.err)
		case <-p.live.done:
			return unexpected("configuration", p.live.err)
		case <-p.memory.done:
			return unexpected("store of the plugins", p.memory.err)
		}
	}
}

// stop ends the parts in order; at is called with the name of the next.
func (s *Server) stop(p *parts, at func(name string)) error {
	// No generation begins any more.
	at("configuration")
	errs := []error{p.live.stop()}
	at("http")
	errs = append(errs, p.http.stop())
	at("listener")
	errs = append(errs, p.accepting.stop())
	g := s.current.Load()
	end, cancel := context.WithTimeout(context.Background(), grace(g.cfg))
	defer cancel()
	// Attempts have the time that sessions have, not as much again behind it. What
	// a session still accepts waits in the queue.
	delivered := make(chan error, 1)
	go func() { delivered <- p.outbound.stop() }()
	at("sessions")
	if err := s.sessions.Shutdown(end); err != nil {
		s.log.Warn("sessions were cut off", zap.Error(err))
	}
	p.drop()
	at("outbound")
	errs = append(errs, <-delivered)
	at("control")
	errs = append(errs, p.control.stop()) // until now one could see what the stop waits for
	if s.sts != nil {
		at("mtasts")
		errs = append(errs, s.sts.Close())
	}
	// Nothing holds an older generation now, unless it does not end.
	at("plugins")
	g.chain.Wait(end)
	s.endRetiring()
	s.retiring.Wait()
	errs = append(errs, g.plugins.Close())
	at("certificates")
	errs = append(errs, g.secrets.follow.stop())
	for _, one := range []struct {
		name string
		*part
	}{{"store of the plugins", p.memory}, {"relay", p.relay}, {"pool", p.pool}, {"queue", p.queue}} {
		at(one.name)
		errs = append(errs, one.stop())
	}
	errs = append(errs, s.memory.Close(), s.queue.Close())
	s.log.Info("stopped")
	return errors.Join(errs...)
}

// Stopping implements control.Daemon.
func (s *Server) Stopping() bool { return s.stopping.Load() != nil }

// Notes implements control.Daemon.
func (s *Server) Notes() []string {
	var notes []string
	if since := s.stopping.Load(); since != nil {
		d := s.outbound.Stat()
		notes = append(notes, fmt.Sprintf("stopping for %s: %d sessions and %d deliveries have not ended", time.Since(*since).Round(time.Second), s.listener.Open(), d.Running))
	}
	if trouble := s.o.Log.Trouble(); trouble != "" {
		notes = append(notes, trouble)
	}
	return notes
}

// part is one running component.
type part struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid after done is closed
}

// start runs a part of the daemon. A panic, which ends the process, comes behind
// the log lines that were before it.
func (s *Server) start(run func(context.Context) error) *part {
	return start(func(ctx context.Context) error {
		returned := false
		defer func() {
			if !returned {
				s.o.Log.Sync()
			}
		}()
		err := run(ctx)
		returned = true
		return err
	})
}

func start(run func(context.Context) error) *part {
	ctx, cancel := context.WithCancel(context.Background())
	p := &part{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = run(ctx)
	}()
	return p
}

// stop ends the part and waits for it. That it was cancelled is no error.
func (p *part) stop() error {
	p.cancel()
	<-p.done
	if errors.Is(p.err, context.Canceled) {
		return nil
	}
	return p.err
}

func unexpected(name string, err error) error {
	if err == nil {
		err = errors.New("ended by itself")
	}
	return fmt.Errorf("%s: %w", name, err)
}
