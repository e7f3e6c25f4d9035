package control

import (
	"bytes"
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
)

// handler answers the requests for operations.
type handler struct {
	mux *http.ServeMux
	log *zap.Logger
}

// NewHandler returns a handler for the requests of all rows. nil for log: nothing
// is logged.
func NewHandler(all []Operation, log *zap.Logger) http.Handler {
	if log == nil {
		log = zap.NewNop()
	}
	h := &handler{mux: http.NewServeMux(), log: log}
	for i := range all {
		op := &all[i]
		h.mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) { h.serveOperation(w, r, op) })
		if op.Single != "" {
			h.mux.HandleFunc(op.Method+" "+op.Single, func(w http.ResponseWriter, r *http.Request) { h.serveSingle(w, r, op) })
		}
	}
	return h
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// parseRequest reads the arguments of a request: those in the path, and the
// parameters in query. Anything else in a request is an error, so that nothing is
// done to more messages than was meant.
func parseRequest(r *http.Request, op *Operation, query []Parameter) (Arguments, error) {
	if r.ContentLength != 0 {
		return nil, fmt.Errorf("%w: there is to be no body", ErrInvalid)
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}

	// A misspelt condition must not be taken for none.
	for name, values := range q {
		i := slices.IndexFunc(query, func(p Parameter) bool { return p.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%w: unknown parameter %q", ErrInvalid, name)
		}
		if !query[i].Several && len(values) != 1 || slices.Contains(values, "") {
			return nil, fmt.Errorf("%w: parameter %q needs one value", ErrInvalid, name)
		}
	}

	// The caller does not list it among the parameters of the query.
	a := Arguments(q)
	if id := r.PathValue("id"); id != "" {
		a["id"] = []string{id}
	}
	return a, op.Check(a, "")
}

// serveOperation answers a request at the operation's own path.
func (h *handler) serveOperation(w http.ResponseWriter, r *http.Request, op *Operation) {
	query := op.Parameters
	if r.PathValue("id") != "" {
		query = slices.DeleteFunc(slices.Clone(query), func(p Parameter) bool { return p.Name == "id" })
	}
	a, err := parseRequest(r, op, query)
	if err != nil {
		h.answerFailure(w, r, err)
		return
	}

	// An object is small enough to be written at once; a stream may wait for its
	// reader for as long as that wants, but not longer than the daemon lives.
	s := stream{w: w, op: op}
	if op.form != object {
		defer interruptible(w, r)()
	}
	err = op.stream(r.Context(), a, s.writeElement)
	if err == nil {
		err = s.writeEnd()
	}

	// Behind the first byte there is no status left to report a failure with.
	switch {
	case err == nil:
	case !s.begun:
		h.answerFailure(w, r, err)
	default:
		h.cutOff(r, err)
	}
}

// serveSingle answers a request for one message: with the object if there is one,
// or else with a status alone.
func (h *handler) serveSingle(w http.ResponseWriter, r *http.Request, op *Operation) {
	a, err := parseRequest(r, op, nil)
	if err == nil && !validID(a) {
		err = fmt.Errorf("%w: %q is no ID", ErrInvalid, a.Text("id"))
	}

	// The message's own failure is that of the request: it is the only one.
	var element any
	if err == nil {
		err = op.stream(r.Context(), a, func(v any) error {
			element = v
			if f, ok := v.(Failure); ok {
				return f.Failure()
			}
			return nil
		})
	}
	switch {
	case err != nil:
		h.answerFailure(w, r, err)
	case op.form == object:
		h.writeObject(w, http.StatusOK, element)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func validID(a Arguments) bool { return MessageID.Check("id", a.Text("id")) == nil }

// stream writes the elements of an answer.
type stream struct {
	w     http.ResponseWriter
	op    *Operation
	begun bool
	line  bytes.Buffer // used again for each element
}

// writeElement writes one element.
func (s *stream) writeElement(v any) error {
	if s.op.form == content {
		b := v.(*Bytes)
		s.writeStart()
		s.w.Header().Set("Content-Length", strconv.FormatInt(b.Size, 10))
		_, err := io.Copy(s.w, b)
		return err
	}
	if err := encodeLine(&s.line, v); err != nil {
		return err
	}
	line := s.line.Bytes()

	// In an array the elements are separated, on lines each is one.
	first := !s.begun
	s.writeStart()
	if s.op.form == list {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if !first {
			io.WriteString(s.w, ",")
		}
	}
	_, err := s.w.Write(line)
	return err
}

// writeStart writes what stands before the first element.
func (s *stream) writeStart() {
	if s.begun {
		return
	}
	s.begun = true
	kind := "application/json"
	switch s.op.form {
	case lines:
		kind = "application/x-ndjson"
	case content:
		kind = "message/rfc822"
	}
	s.w.Header().Set("Content-Type", kind)
	if s.op.form == list {
		fmt.Fprintf(s.w, `{"%s":[`, s.op.key)
	}
}

// writeEnd writes what stands behind the last element.
func (s *stream) writeEnd() error {
	s.writeStart()
	if s.op.form != list {
		return nil
	}
	_, err := io.WriteString(s.w, "]}\n")
	return err
}

// encodeLine puts v into b as a line of JSON.
func encodeLine(b *bytes.Buffer, v any) error {
	b.Reset()
	out := json.NewEncoder(b)
	out.SetEscapeHTML(false)
	return out.Encode(v)
}

// interruptible makes the end of the request's context end a write that waits
// for a slow reader. The caller undoes it.
func interruptible(w http.ResponseWriter, r *http.Request) (undo func() bool) {
	rc := http.NewResponseController(w)
	return context.AfterFunc(r.Context(), func() { rc.SetWriteDeadline(time.Unix(1, 0)) })
}

// cutOff cuts an answer off that has begun, so that the client cannot take it
// for whole. net/http knows no other way than this panic.
func (h *handler) cutOff(r *http.Request, err error) {
	h.log.Debug("answer cut off", zap.String("path", r.URL.Path), zap.Error(err))
	panic(http.ErrAbortHandler)
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

func (h *handler) answerFailure(w http.ResponseWriter, r *http.Request, err error) {
	for _, p := range problems {
		if errors.Is(err, p.err) {
			h.writeObject(w, p.status, problem{p.code, err.Error()})
			return
		}
	}
	if r.Context().Err() == nil { // else the client is gone, or we go
		h.log.Warn("request failed", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Error(err))
	}
	h.writeObject(w, http.StatusInternalServerError, problem{"failed", err.Error()})
}

func (h *handler) writeObject(w http.ResponseWriter, status int, answer any) {
	var line bytes.Buffer
	err := encodeLine(&line, answer)
	if err == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, err = line.WriteTo(w)
	}
	if err != nil {
		h.log.Debug("answer not written", zap.Error(err))
	}
}
