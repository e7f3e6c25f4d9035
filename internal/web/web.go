// Package web is the daemon's one web server. It owns the sockets, their limits
// and the decision about access; the answers are handlers that other parts hand
// in: metrics, control, plugins.
//
//	Server    the handlers, and the clients that each is for
//	Endpoint  listeners that start and stop together: those of Bind are on TCP and
//	          TLS, that of Listen is the Unix socket in the queue's folder
//	Dial      connects to that socket
//
// # Access
//
// A handler for Anyone answers on every listener. A handler for an Operator answers
// on the Unix socket, since its mode 0600 admits only the daemon's own user and
// root. On TCP and TLS it answers the requests that Options.Authorize admits, and
// without an Authorize it does not exist there.
//
// # Limits
//
// A request's head has 8 KiB and ten seconds. Every listener serves so many
// connections at a time, and more of them wait. On TCP and TLS an answer has 30
// seconds, unless its handler sets another deadline; on the Unix socket an answer
// may take as long as its reader wants.
package web

import (
	"net/http"

	"go.uber.org/zap"
)

// Access says which clients a handler is for.
type Access int

// The clients of a Server.
const (
	Anyone   Access = iota // can connect: for what gives nothing away
	Operator               // may see and change everything
)

// Authorize decides whether a request comes from an operator. If it reports
// false it has answered the request, with a challenge for instance.
type Authorize func(w http.ResponseWriter, r *http.Request) bool

// Options is what a Server works with.
type Options struct {
	Authorize Authorize   // nil: there are no operators on TCP and TLS
	Log       *zap.Logger // nil: nothing is logged
}

// Server has the handlers. Its methods may be called from any goroutine.
type Server struct {
	public    *http.ServeMux // handlers for Anyone
	all       *http.ServeMux // every handler
	authorize Authorize
	log       *zap.Logger
}

// New returns a Server without handlers.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &Server{public: http.NewServeMux(), all: http.NewServeMux(), authorize: o.Authorize, log: o.Log}
}

// Handle adds a handler for a pattern of http.ServeMux. It panics if the pattern
// is invalid or conflicts with an earlier one.
func (s *Server) Handle(to Access, pattern string, h http.Handler) {
	s.all.Handle(pattern, h)
	if to == Anyone {
		s.public.Handle(pattern, h)
	}
}

// serveNetwork answers a request that came over TCP or TLS.
func (s *Server) serveNetwork(w http.ResponseWriter, r *http.Request) {
	if s.authorize == nil {
		s.public.ServeHTTP(w, r)
		return
	}

	// The mux that finds the handler also serves it, so that both cannot read
	// the path in different ways.
	if _, pattern := s.public.Handler(r); pattern != "" {
		s.public.ServeHTTP(w, r)
	} else if s.authorize(w, r) {
		s.all.ServeHTTP(w, r)
	}
}
