package metrics

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"

	"tarishi/internal/listener"
)

// Limits of the server.
const (
	maxConnections = 64 // to one address; more of them wait

	headerTimeout = 10 * time.Second
	answerTimeout = 30 * time.Second
	idleTimeout   = time.Minute
	maxRequest    = 8 << 10 // bytes of a request's head; no request has a body
	stopTimeout   = time.Second
)

// Server answers GET /metrics and GET /health, and 404 to all else, on addresses
// of its own. Use Listen, then Run.
type Server struct {
	listeners []net.Listener
	http      http.Server
}

// Listen binds addresses, "host:port" each, as listener.Bind does. If one cannot be
// bound none stays bound, and the error names it.
func Listen(addrs []string, metrics, health http.Handler, log *zap.Logger) (*Server, error) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.Handle("GET /health", health)
	s := &Server{http: http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxRequest, ErrorLog: zap.NewStdLog(log),
	}}
	sockets, err := listener.Bind(addrs, log)
	if err != nil {
		return nil, fmt.Errorf("config/http.ini: cannot %w", err)
	}
	for _, ln := range sockets {
		s.listeners = append(s.listeners, netutil.LimitListener(ln, maxConnections))
	}
	return s, nil
}

// Addrs returns the addresses that are bound, in the order of Listen.
func (s *Server) Addrs() []net.Addr {
	var all []net.Addr
	for _, ln := range s.listeners {
		all = append(all, ln.Addr())
	}
	return all
}

// Close unbinds the addresses of a Server that does not run.
func (s *Server) Close() {
	for _, ln := range s.listeners {
		ln.Close()
	}
}

// Run answers until ctx ends; answers that are being written then have a second.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, len(s.listeners))
	for _, ln := range s.listeners {
		go func() { failed <- s.http.Serve(ln) }()
	}
	running := len(s.listeners)
	var err error
	select {
	case err = <-failed:
		running--
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if s.http.Shutdown(end) != nil {
		s.http.Close()
	}
	for range running {
		<-failed
	}
	return err
}

// Health answers 200 "ok" while healthy returns nil, and else 503 with the
// reason. The lines after the first are notes: what is amiss and keeps no message
// from being accepted. notes may be nil.
func Health(healthy func() error, notes func() []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		lines := []string{"ok"}
		err := healthy()
		if err != nil {
			lines[0] = err.Error()
		}
		if notes != nil {
			lines = append(lines, notes()...)
		}
		text := strings.Join(lines, "\n")
		if err != nil {
			http.Error(w, text, http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, text)
	})
}
