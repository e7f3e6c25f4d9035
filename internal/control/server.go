package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
)

// maxTop is how many destinations an answer has at most.
const maxTop = 1000

// Server answers requests for a Local, with paths below /v1/.
type Server struct {
	commands *Local
	log      *zap.Logger
	mux      *http.ServeMux
}

// NewServer returns a Server for commands.
func NewServer(commands *Local, log *zap.Logger) *Server {
	if log == nil {
		log = zap.NewNop()
	}
	s := &Server{commands: commands, log: log, mux: http.NewServeMux()}
	s.routes()
	return s
}

// routes is the protocol.
func (s *Server) routes() {
	s.route("GET /v1/queue", s.stat, "destinations")
	s.route("POST /v1/queue/flush", s.flush, "domain")
	s.route("GET /v1/queue/messages", s.list, "domain", "sender", "limit")
	s.route("GET /v1/queue/messages/{id}", s.show)
	s.route("DELETE /v1/queue/messages/{id}", s.remove)
	s.route("GET /v1/queue/messages/{id}/content", s.content)
	s.route("GET /v1/queue/messages/{id}/why", s.why)
	s.route("POST /v1/queue/messages/{id}/flush", s.flushMessage)
	s.route("POST /v1/queue/messages/{id}/hold", s.hold)
	s.route("POST /v1/queue/messages/{id}/release", s.release)
	s.route("GET /v1/destinations", s.destinations, "limit")
}

// route adds a request that may have these parameters.
func (s *Server) route(pattern string, h http.HandlerFunc, parameters ...string) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := check(r, parameters); err != nil {
			s.fail(w, r, err)
			return
		}
		h(w, r)
	})
}

// check fails on whatever a request has that is not known, so that nothing is
// done to more messages than was meant.
func check(r *http.Request, parameters []string) error {
	if r.ContentLength != 0 {
		return fmt.Errorf("%w: there is to be no body", ErrInvalid)
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for name, values := range q {
		if !slices.Contains(parameters, name) {
			return fmt.Errorf("%w: unknown parameter %q", ErrInvalid, name)
		}
		if len(values) != 1 || values[0] == "" {
			return fmt.Errorf("%w: parameter %q needs one value", ErrInvalid, name)
		}
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mux.ServeHTTP(w, r)
}

func (s *Server) stat(w http.ResponseWriter, r *http.Request) {
	n, err := top(r, "destinations", 0)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answer, err := s.commands.Stat(r.Context(), n)
	s.reply(w, r, answer, err)
}

func (s *Server) flush(w http.ResponseWriter, r *http.Request) {
	n, err := s.commands.Flush(r.Context(), r.URL.Query().Get("domain"))
	s.reply(w, r, flushed{n}, err)
}

func (s *Server) flushMessage(w http.ResponseWriter, r *http.Request) {
	n, err := s.commands.FlushMessage(r.Context(), mail.ID(r.PathValue("id")))
	s.reply(w, r, flushed{n}, err)
}

// flushed is the answer to flush.
type flushed struct {
	Deliveries int `json:"deliveries"`
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	m, err := s.commands.Show(r.Context(), mail.ID(r.PathValue("id")))
	s.reply(w, r, m, err)
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	if err := s.commands.Remove(r.Context(), mail.ID(r.PathValue("id"))); err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// list streams one JSON object a line.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilter(r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer interruptible(w, r)()
	begun := false
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	err = s.commands.List(r.Context(), f, func(m *Message) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		return out.Encode(m)
	})
	switch {
	case err == nil && !begun:
		w.Header().Set("Content-Type", "application/x-ndjson")
	case err != nil && !begun:
		s.fail(w, r, err)
	case err != nil:
		s.abort(r, err)
	}
}

// content streams a message as it is.
func (s *Server) content(w http.ResponseWriter, r *http.Request) {
	c, size, err := s.commands.Content(r.Context(), mail.ID(r.PathValue("id")))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer c.Close()
	defer interruptible(w, r)()
	w.Header().Set("Content-Type", "message/rfc822")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if _, err := io.Copy(w, c); err != nil {
		s.abort(r, err)
	}
}

// interruptible makes the end of the request's context end a write that waits
// for a slow reader. The caller undoes it.
func interruptible(w http.ResponseWriter, r *http.Request) (undo func() bool) {
	rc := http.NewResponseController(w)
	return context.AfterFunc(r.Context(), func() { rc.SetWriteDeadline(time.Unix(1, 0)) })
}

// abort cuts an answer off that has begun, so that the client cannot take it
// for whole. net/http knows no other way than this panic.
func (s *Server) abort(r *http.Request, err error) {
	s.log.Debug("answer cut off", zap.String("path", r.URL.Path), zap.Error(err))
	panic(http.ErrAbortHandler)
}

// top returns how many destinations the parameter name asks for; n if it is not
// there.
func top(r *http.Request, name string, n int) (int, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return n, nil
	}
	n, err := number(v)
	if err == nil && n > maxTop {
		err = fmt.Errorf("%w: more than %d destinations", ErrInvalid, maxTop)
	}
	return n, err
}

// reply answers with a JSON object.
func (s *Server) reply(w http.ResponseWriter, r *http.Request, answer any, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.write(w, http.StatusOK, answer)
}

// problem is the answer to a request that failed.
type problem struct {
	Code string `json:"error"`
	Text string `json:"text"`
}

// problems says how errors travel.
var problems = []struct {
	err    error
	status int
	code   string
}{
	{ErrUnknown, http.StatusNotFound, "unknown"},
	{ErrInvalid, http.StatusBadRequest, "invalid"},
	{ErrBusy, http.StatusServiceUnavailable, "busy"},
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	for _, p := range problems {
		if errors.Is(err, p.err) {
			s.write(w, p.status, problem{p.code, err.Error()})
			return
		}
	}
	if r.Context().Err() == nil { // else the client is gone, or we go
		s.log.Warn("request failed", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Error(err))
	}
	s.write(w, http.StatusInternalServerError, problem{"failed", err.Error()})
}

func (s *Server) write(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	if err := out.Encode(answer); err != nil {
		s.log.Debug("answer not written", zap.Error(err))
	}
}
