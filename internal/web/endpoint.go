package web

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
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
	http http.Server
	path string // of the Unix socket; "": there is none
	log  *zap.Logger
	tls  *tls.Config // of the sockets that speak it

	mu      sync.Mutex
	sockets []*socket     // those without TLS first
	serve   func(*socket) // nil: Run does not run
	ended   bool          // Run has ended, or Close was called

	// open is read-locked by every request that is worked on, so that Run can
	// wait for them.
	open   sync.RWMutex
	closed bool
}

// socket is one bound address.
type socket struct {
	net.Listener
	addr    string // as it was configured
	tls     *tls.Config
	secure  atomic.Bool // connections that come speak TLS
	dropped atomic.Bool // it is closed on purpose
}

// Accept implements net.Listener.
func (s *socket) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err == nil && s.secure.Load() {
		c = tls.Server(c, s.tls)
	}
	return c, err
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

// Bind binds the addresses of http.ini, as listener.BindMissing does. If one cannot be
// bound none stays bound, and the error names it. certificates returns what TLS is
// made with at this moment; nil: there is none. Nobody is answered before Run.
func (s *Server) Bind(to Settings, certificates func() *tls.Config) (*Endpoint, error) {
	e := s.endpoint(s.serveNetwork)
	e.http.ReadTimeout, e.http.WriteTimeout = headerTimeout, answerTimeout
	e.tls = forHTTP(certificates)
	c, err := e.Change(to)
	if err != nil {
		return nil, err
	}
	c.Apply()
	return e, nil
}

// Change is the way of an Endpoint to other addresses: those that are new are bound and
// not served. One of Apply and Discard ends it.
type Change struct {
	e     *Endpoint
	next  []wanted  // all that it will have
	fresh []*socket // of them, the new ones
}

// wanted is a socket and the protocol that it will have.
type wanted struct {
	*socket
	secure bool
}

// Change binds the addresses that the endpoint does not have yet. On an error nothing
// has changed. There is one Change at a time.
func (e *Endpoint) Change(to Settings) (*Change, error) {
	e.mu.Lock()
	before := slices.Clone(e.sockets)
	e.mu.Unlock()
	c := &Change{e: e}
	for _, group := range []struct {
		addrs  []string
		secure bool
	}{{to.Listen, false}, {to.TLSListen, true}} {
		if err := c.bind(group.addrs, group.secure, &before); err != nil {
			c.Discard()
			return nil, fmt.Errorf("config/http.ini: cannot %w", err)
		}
	}
	return c, nil
}

// bind takes the sockets of some addresses out of those before, and binds the others.
func (c *Change) bind(addrs []string, secure bool, before *[]*socket) error {
	// An address that changes to TLS, or back, keeps its socket too.
	kept := make([]*socket, len(addrs))
	for i, addr := range addrs {
		if at := slices.IndexFunc(*before, func(s *socket) bool { return s.addr == addr }); at >= 0 {
			kept[i] = (*before)[at]
			*before = slices.Delete(*before, at, at+1)
		}
	}
	all, err := listener.BindMissing(addrs, func(i int) bool { return kept[i] != nil }, c.e.log)
	if err != nil {
		return err
	}

	// In the order of the configuration, which Addrs has.
	for i, ln := range all {
		one := kept[i]
		if ln != nil {
			// The limit is below TLS, so that it also bounds handshakes.
			one = &socket{Listener: limit(ln, maxConnections), addr: addrs[i], tls: c.e.tls}
			c.fresh = append(c.fresh, one)
		}
		if one != nil {
			c.next = append(c.next, wanted{one, secure})
		}
	}
	return nil
}

// Apply serves the new addresses and gives the others up. Requests on those are
// answered.
func (c *Change) Apply() {
	e := c.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		c.Discard()
		return
	}
	before := e.sockets
	e.sockets = nil
	for _, one := range c.next {
		one.socket.secure.Store(one.secure)
		e.sockets = append(e.sockets, one.socket)
	}
	for _, s := range before {
		if !slices.Contains(e.sockets, s) {
			s.dropped.Store(true)
			s.Close()
		}
	}
	if e.serve != nil {
		for _, s := range c.fresh {
			e.serve(s)
		}
	}
}

// Discard closes the new addresses.
func (c *Change) Discard() {
	for _, s := range c.fresh {
		s.Close()
	}
}

// forHTTP returns a configuration that speaks HTTP/1.1 and nothing else, with what
// current returns at a handshake. Of its application protocols none counts: it may be a
// mail server's, which has the same certificate.
func forHTTP(current func() *tls.Config) *tls.Config {
	protocols := []string{"http/1.1"}
	return &tls.Config{
		NextProtos: protocols,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			config := current()
			if config == nil {
				return nil, errNoCertificate
			}

			// It may have another one for certain clients.
			if choose := config.GetConfigForClient; choose != nil {
				chosen, err := choose(hello)
				if err != nil {
					return nil, err
				}
				config = cmp.Or(chosen, config)
			}
			config = config.Clone()
			config.NextProtos, config.GetConfigForClient = protocols, nil
			return config, nil
		},
	}
}

// errNoCertificate ends a handshake when the certificates were taken out of tls.ini.
var errNoCertificate = errors.New("web: there is no certificate")

// Listen makes the Unix socket in dir, the queue's folder. The caller holds the
// lock of that folder. Nobody is answered before Run.
func (s *Server) Listen(dir string) (*Endpoint, error) {
	ln, path, err := listen(dir)
	if err != nil {
		return nil, err
	}
	e := s.endpoint(s.all.ServeHTTP)
	e.path, e.sockets = path, []*socket{{Listener: limit(ln, maxLocalConnections)}}
	return e, nil
}

// Addrs returns the addresses that are bound, in the order of the configuration.
func (e *Endpoint) Addrs() []net.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []net.Addr
	for _, s := range e.sockets {
		all = append(all, s.Addr())
	}
	return all
}

// URLs returns the addresses as a client needs them.
func (e *Endpoint) URLs() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []string
	for _, s := range e.sockets {
		scheme := "http://"
		if s.secure.Load() {
			scheme = "https://"
		}
		all = append(all, scheme+s.Addr().String())
	}
	return all
}

// Close gives up the listeners of an Endpoint that does not run.
func (e *Endpoint) Close() {
	e.unlink()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	for _, s := range e.sockets {
		s.Close()
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
	failed := make(chan error, 1)
	var serving sync.WaitGroup
	e.mu.Lock()
	e.serve = func(s *socket) {
		serving.Go(func() {
			if err := e.http.Serve(s); !s.dropped.Load() {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	for _, s := range e.sockets {
		e.serve(s)
	}
	e.mu.Unlock()

	// Without listeners, as without http.ini, there is only the end to wait for.
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	e.mu.Lock()
	e.ended, e.serve = true, nil
	e.mu.Unlock()

	// The file goes first, so that new clients see at once that nobody is there.
	e.unlink()
	cut()
	end, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if e.http.Shutdown(end) != nil {
		e.http.Close()
	}
	serving.Wait()

	// Close does not wait for handlers, and they may use what stops after us.
	e.open.Lock()
	e.closed = true
	e.open.Unlock()
	return err
}
