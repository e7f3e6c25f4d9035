// Package tokentest is a token server for tests (RFC 6749), as Microsoft's or Google's, that does what a
// test asks of it.
package tokentest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Server issues tokens until it is asked to do something else. Its methods may be called from any
// goroutine.
type Server struct {
	URL string
	TLS *httptest.Server // of a server of NewTLS: its certificate

	mu       sync.Mutex
	life     any // expires_in; nil: it is left out
	scripted []http.HandlerFunc
	requests []url.Values
	issued   []string
	valid    map[string]bool
	rotates  bool
}

// New returns a server on loopback, in clear. Tokens live for an hour.
func New(t testing.TB) *Server { return start(t, httptest.NewServer) }

// NewTLS returns a server with a certificate of its own, which is in TLS.
func NewTLS(t testing.TB) *Server { return start(t, httptest.NewTLSServer) }

func start(t testing.TB, with func(http.Handler) *httptest.Server) *Server {
	s := &Server{life: 3600, valid: map[string]bool{}}
	s.TLS = with(s)
	s.URL = s.TLS.URL + "/tenant/oauth2/v2.0/token"
	t.Cleanup(s.TLS.Close)
	return s
}

// Life changes expires_in, in any type; nil leaves it out.
func (s *Server) Life(expiresIn any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life = expiresIn
}

// Rotate makes the server give a new refresh token with each access token.
func (s *Server) Rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rotates = true
}

// Answer makes the server answer the next requests so, each once.
func (s *Server) Answer(all ...http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripted = append(s.scripted, all...)
}

// Status is an answer with a status and a body of JSON.
func Status(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// InvalidGrant is how Microsoft refuses a refresh token. It quotes what it was sent, which no server should do.
func InvalidGrant(w http.ResponseWriter, r *http.Request) {
	quoted := r.PostFormValue("refresh_token") + " " + r.PostFormValue("client_secret")
	Status(http.StatusBadRequest, fmt.Sprintf(
		`{"error":"invalid_grant","error_description":"AADSTS700082: The refresh token has expired: %s","error_codes":[700082]}`, quoted))(w, r)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	s.mu.Lock()
	s.requests = append(s.requests, r.PostForm)
	if len(s.scripted) > 0 {
		answer := s.scripted[0]
		s.scripted = s.scripted[1:]
		s.mu.Unlock()
		answer(w, r)
		return
	}
	defer s.mu.Unlock()

	// Tokens are as long as Microsoft's.
	token := fmt.Sprintf("eyJ0eXAiOiJKV1Qi.access%d.%s", len(s.issued)+1, strings.Repeat(fmt.Sprintf("S3cr3t%d-", len(s.issued)+1), 180))
	s.issued = append(s.issued, token)
	s.valid[token] = true
	body := fmt.Sprintf(`{"token_type":"Bearer","access_token":%q`, token)
	switch life := s.life.(type) {
	case nil:
	case string:
		body += fmt.Sprintf(`,"expires_in":%q`, life)
	default:
		body += fmt.Sprintf(`,"expires_in":%v`, life)
	}
	if s.rotates {
		body += fmt.Sprintf(`,"refresh_token":"rotated-refresh-%d"`, len(s.issued))
	}
	Status(http.StatusOK, body+"}")(w, r)
}

// Valid reports whether a token was issued and not withdrawn; it is for smtptest.Tokens.
func (s *Server) Valid(_, token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.valid[token]
}

// Withdraw makes all tokens that were issued so far invalid.
func (s *Server) Withdraw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.valid)
}

// Requests returns the forms of all requests.
func (s *Server) Requests() []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Issued returns all access tokens.
func (s *Server) Issued() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.issued)
}
