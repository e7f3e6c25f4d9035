// Package server builds every part of the daemon from one configuration, runs
// them, and stops them in order. It is the only package that knows them all;
// none of them knows it.
//
// Start: resolver, pool, plugins, the addresses, queue (which recovers what an
// earlier run left), outbound, session, control socket and HTTP; then connections
// are accepted. Stop: HTTP, listener, then sessions (421 to idle ones) beside
// outbound (no new attempts), the control socket, hooks that outlived their
// timeout, pool, queue. What waits for others waits for smtp.ini
// force_shutdown_timeout in all.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/control"
	"tarishi/internal/forward"
	"tarishi/internal/hook"
	"tarishi/internal/listener"
	"tarishi/internal/metrics"
	"tarishi/internal/mtasts"
	"tarishi/internal/outbound"
	"tarishi/internal/pool"
	"tarishi/internal/queue"
	"tarishi/internal/session"
	"tarishi/internal/tlsconf"
)

// Options is what does not stand in the configuration.
type Options struct {
	Version string
	Stderr  io.Writer // both logs, and where the daemon listens; from several goroutines at a time
}

// Server is one daemon. It is used once: New, then Run.
type Server struct {
	cfg      *conf.Config
	o        Options
	log      *zap.Logger
	queue    *queue.Queue
	pool     *pool.Pool
	sts      *mtasts.Cache // nil: not used
	relay    *forward.Forwarder
	files    *tlsconf.Files
	chain    *hook.Chain
	outbound *outbound.Outbound
	sessions *session.Server
	listener *listener.Listener
	control  *control.Server
	metrics  *metrics.Metrics
	http     *metrics.Server // metrics and health, where http.ini says
}

// Run serves until ctx ends, then stops everything in order. A value from
// flush makes every deferred message due. The error is nil after an orderly
// stop.
func (s *Server) Run(ctx context.Context, flush <-chan os.Signal) error {
	for _, a := range s.listener.Addrs() {
		fmt.Fprintf(s.o.Stderr, "listening on %s\n", a)
	}
	for _, a := range s.http.Addrs() {
		fmt.Fprintf(s.o.Stderr, "metrics and health on http://%s\n", a)
	}
	if v := s.chain.Run(ctx, hook.OnInit, &hook.Event{Point: hook.OnInit}); v.Code.Denies() {
		s.listener.Close()
		s.http.Close()
		s.control.Close()
		return errors.Join(fmt.Errorf("plugin %s, hook init_master: %s %s", v.Plugin, v.Code, v.Text), s.queue.Close())
	}

	// Each part lives on its own context, so that they can stop one by one.
	queue := start(s.queue.Run)
	control := start(s.control.Run) // the queue can be looked at while adopt fills it
	http := start(s.http.Run)
	pool := start(s.pool.Run)
	relay := start(s.relay.Run)
	files := start(s.files.Run)
	s.adopt(ctx) // before outbound
	outbound := start(s.outbound.Run)
	serving, drop := context.WithCancel(context.Background())
	defer drop()
	accepting := start(func(ctx context.Context) error {
		return s.listener.Run(ctx, func(_ context.Context, c net.Conn, implicitTLS bool) {
			s.sessions.Serve(serving, c, implicitTLS)
		})
	})

	var failed error
	for failed == nil {
		select {
		case <-flush:
			s.outbound.Flush("")
			continue
		case <-ctx.Done():
		case <-accepting.done:
			failed = unexpected("listener", accepting.err)
		case <-outbound.done:
			failed = unexpected("outbound", outbound.err)
		case <-queue.done:
			failed = unexpected("queue", queue.err)
		case <-control.done:
			failed = unexpected("control", control.err)
		case <-http.done:
			failed = unexpected("http", http.err)
		case <-relay.done:
			failed = unexpected("relay", relay.err)
		case <-pool.done:
			failed = unexpected("pool", pool.err)
		case <-files.done:
			failed = unexpected("certificates", files.err)
		}
		break
	}

	s.log.Info("stopping")
	errs := []error{failed, http.stop(), accepting.stop()}
	end, cancel := context.WithTimeout(context.Background(), grace(s.cfg))
	defer cancel()
	// Attempts have the time that sessions have, not as much again behind it. What
	// a session still accepts waits in the queue.
	delivered := make(chan error, 1)
	go func() { delivered <- outbound.stop() }()
	if err := s.sessions.Shutdown(end); err != nil {
		s.log.Warn("sessions were cut off", zap.Error(err))
	}
	drop()
	errs = append(errs, <-delivered, control.stop()) // until now one could see what the stop waits for
	if s.sts != nil {
		errs = append(errs, s.sts.Close())
	}
	s.chain.Wait(end)
	errs = append(errs, files.stop(), relay.stop(), pool.stop(), queue.stop(), s.queue.Close())
	s.log.Info("stopped")
	return errors.Join(errs...)
}

// part is one running component.
type part struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid after done is closed
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
