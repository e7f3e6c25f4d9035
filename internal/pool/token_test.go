package pool_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"tarishi/internal/pool"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// source has the tokens "1", "2", …
type source struct {
	mu      sync.Mutex
	present string
	next    string // what Renew gives; "": none
	gone    bool
}

var errNoToken = errors.New("no access token")

func (s *source) Token(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return "", errNoToken
	}
	return s.present, nil
}

func (s *source) Renew(_ context.Context, refused string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused == s.present {
		if s.next == "" {
			return "", errNoToken
		}
		s.present, s.next = s.next, ""
	}
	return s.present, nil
}

func tokenTarget(s *smtptest.Server, from *source) pool.Target {
	to := target(s)
	to.AuthUser, to.AuthType, to.AuthRequired, to.Tokens, to.IdleTimeout = "u", "xoauth2", true, from, time.Minute
	return to
}

func takes(want string) func(user, token string) bool {
	return func(_, token string) bool { return token == want }
}

// TestRenewedToken: a message goes out in the same Send when the token was renewed, also at a server
// that closes the connection on which it refused the old one.
func TestRenewedToken(t *testing.T) {
	for connections, a := range map[int]smtptest.Hook{
		1: nil,
		2: smtptest.First(1, smtptest.Reply("535 5.7.3 Authentication unsuccessful").ThenClose()),
	} {
		options := []smtptest.Option{smtptest.Tokens(takes("2"), a == nil)}
		if a != nil {
			options = append(options, smtptest.On(smtptest.Auth, a))
		}
		s := smtptest.New(t, options...)
		p := pool.New(pool.Options{})
		run(t, p)
		from := &source{present: "1", next: "2"}
		for i := range 3 {
			res, err := p.Send(t.Context(), tokenTarget(s, from), envelope(i), content())
			if err != nil || !res.Authenticated || !res.Replies[0].Positive() {
				t.Errorf("%d: %+v %v", connections, res, err)
			}
		}
		if n := s.Connections(); n != connections {
			t.Errorf("%d connections, not %d", n, connections)
		}
	}
}

// TestNoToken: without an access token no server is bothered. A kept connection goes on.
func TestNoToken(t *testing.T) {
	s := smtptest.New(t, smtptest.Tokens(takes("1"), true))
	p := pool.New(pool.Options{})
	run(t, p)
	from := &source{gone: true}
	for range 3 {
		_, err := p.Send(t.Context(), tokenTarget(s, from), envelope(0), content())
		var f *smtpclient.Failure
		if !errors.As(err, &f) || f.Stage != smtpclient.StageAuth || !errors.Is(err, errNoToken) || !f.Deferral().Temporary() {
			t.Error(err)
		}
	}
	if n := s.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
	from.gone, from.present = false, "1"
	for i := range 2 {
		if _, err := p.Send(t.Context(), tokenTarget(s, from), envelope(i), content()); err != nil {
			t.Error(err)
		}
		from.gone = true
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestRefusedToken: a token for which there is no better one is not shown again for a while, as a
// password is not.
func TestRefusedToken(t *testing.T) {
	s := smtptest.New(t, smtptest.Tokens(takes("1"), true))
	p := pool.New(pool.Options{})
	run(t, p)
	for range 5 {
		_, err := p.Send(t.Context(), tokenTarget(s, &source{present: "0"}), envelope(0), content())
		var f *smtpclient.Failure
		if !errors.As(err, &f) || f.Reply == nil || f.Reply.Code != 535 || !f.Deferral().Temporary() {
			t.Error(err)
		}
	}
	same := &source{present: "0"}
	before := s.Connections()
	for range 5 {
		p.Send(t.Context(), tokenTarget(s, same), envelope(0), content())
	}
	if n := s.Connections(); before != 5 || n != 6 {
		t.Errorf("%d and %d connections", before, n)
	}
}
