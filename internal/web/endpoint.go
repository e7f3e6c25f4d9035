package web

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/listener"
)

// Limits of an endpoint; see the package comment.
const (
	maxConnections      = 64  // to one address
	maxLocalConnections = 256 // to the Unix socket

	headerTimeout = 10 * time.Second
	answerTimeout = 30 * time.Second
	idleTimeout   = time.Minute
	maxRequest    = 8 << 10 // bytes of a request's head
	stopTimeout   = time.Second
)

// Endpoint is listeners with one set of limits. It is used once: Bind or Listen,
// then Run or Close.
type Endpoint struct {
	listeners []net.Listener // those without TLS first
	plain     int            // how many have none
	http      http.Server
	path      string // of the Unix socket; "": there is none
	log       *zap.Logger

	// open is read-locked by every request that is worked on, so that Run can
	// wait for them.
	open   sync.RWMutex
	closed bool
}

// endpoint returns an Endpoint without listeners.
func (s *Server) endpoint(handle http.HandlerFunc) *Endpoint {
	e := &Endpoint{log: s.log}
	e.http = http.Server{
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxRequest, ErrorLog: zap.NewStdLog(s.log),
		// Requests that come in between the end of Run and the last connection's
		// must not meet parts of the daemon that have stopped.
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			e.open.RLock()
			defer e.open.RUnlock()
			if e.closed {
				http.Error(w, "stopping", http.StatusServiceUnavailable)
				return
			}
			handle(w, r)
		}),
	}
	return e
}

// Bind binds addresses, "host:port" each, as listener.Bind does. If one cannot be
// bound none stays bound, and the error names it. Nobody is answered before Run.
func (s *Server) Bind(addrs []string) (*Endpoint, error) {
	e := s.endpoint(s.serveNetwork)
	e.http.ReadTimeout, e.http.WriteTimeout = headerTimeout, answerTimeout
	err := e.bindAddresses(addrs, nil)
	e.plain = len(e.listeners)
	return e, err
}

// BindTLS binds further addresses, which speak TLS. Of config's application
// protocols none counts: it may be a mail server's, which has the same certificate.
func (e *Endpoint) BindTLS(addrs []string, config *tls.Config) error {
	return e.bindAddresses(addrs, forHTTP(config))
}

// forHTTP returns a copy of a configuration, and of those that it has for certain
// clients, that speaks HTTP/1.1 and nothing else.
func forHTTP(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	if current := config.GetConfigForClient; current != nil {
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := current(hello)
			if c != nil {
				c = c.Clone()
				c.NextProtos = config.NextProtos
			}
			return c, err
		}
	}
	return config
}

func (e *Endpoint) bindAddresses(addrs []string, config *tls.Config) error {
	sockets, err := listener.Bind(addrs, e.log)
	if err != nil {
		e.Close()
		return fmt.Errorf("config/http.ini: cannot %w", err)
	}
	for _, ln := range sockets {
		// The limit is below TLS, so that it also bounds handshakes.
		ln = limit(ln, maxConnections)
		if config != nil {
			ln = tls.NewListener(ln, config)
		}
		e.listeners = append(e.listeners, ln)
	}
	return nil
}

// Listen makes the Unix socket in dir, the queue's folder. The caller holds the
// lock of that folder. Nobody is answered before Run.
func (s *Server) Listen(dir string) (*Endpoint, error) {
	ln, path, err := listen(dir)
	if err != nil {
		return nil, err
	}
	e := s.endpoint(s.all.ServeHTTP)
	e.path, e.listeners = path, []net.Listener{limit(ln, maxLocalConnections)}
	return e, nil
}

// Addrs returns the addresses that are bound, in the order of the configuration.
func (e *Endpoint) Addrs() []net.Addr {
	var all []net.Addr
	for _, ln := range e.listeners {
		all = append(all, ln.Addr())
	}
	return all
}

// URLs returns the addresses as a client needs them.
func (e *Endpoint) URLs() []string {
	var all []string
	for i, addr := range e.Addrs() {
		scheme := "http://"
		if i >= e.plain {
			scheme = "https://"
		}
		all = append(all, scheme+addr.String())
	}
	return all
}

// Close gives up the listeners of an Endpoint that does not run.
func (e *Endpoint) Close() {
	e.unlink()
	for _, ln := range e.listeners {
		ln.Close()
	}
}

// unlink removes the socket's file: the next daemon would, too.
func (e *Endpoint) unlink() {
	if e.path == "" {
		return
	}
	if err := os.Remove(e.path); err != nil {
		e.log.Warn("socket not removed", zap.Error(err))
	}
}

// Run answers until ctx ends. Then the context of every request ends, which cuts
// off answers that are being streamed; others have a second. When Run returns no
// handler runs any more, and the socket's file is gone.
func (e *Endpoint) Run(ctx context.Context) error {
	requests, cut := context.WithCancel(context.Background())
	defer cut()
	e.http.BaseContext = func(net.Listener) context.Context { return requests }
	ended := make(chan error, len(e.listeners))
	for _, ln := range e.listeners {
		go func() { ended <- e.http.Serve(ln) }()
	}

	// Without listeners, as without http.ini, there is only the end to wait for.
	running := len(e.listeners)
	var failed error
	select {
	case failed = <-ended:
		running--
	case <-ctx.Done():
	}

	// The file goes first, so that new clients see at once that nobody is there.
	e.unlink()
	cut()
	end, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if e.http.Shutdown(end) != nil {
		e.http.Close()
	}
	for range running {
		<-ended
	}

	// Close does not wait for handlers, and they may use what stops after us.
	e.open.Lock()
	e.closed = true
	e.open.Unlock()
	return failed
}
