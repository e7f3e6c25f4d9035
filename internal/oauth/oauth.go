// Package oauth comes by the access tokens with which we log in at other servers (AUTH XOAUTH2
// and OAUTHBEARER): from a file that another program keeps, or from a token URL (OAuth 2.0, RFC
// 6749) by a refresh token or by client credentials.
//
//   - All connections with the same grant.Grant share a Source, and so one token. One request
//     serves all that wait for it.
//   - A token counts for expires_in seconds from the beginning of the request that brought it, by
//     our monotonic clock: what the clocks of other hosts say does not matter. In the last
//     quarter of that time, and the last five minutes at most, it is renewed in the background,
//     and nobody waits.
//   - A request takes 15 seconds at most, and so does waiting for a token. After one that
//     failed there is none for about a minute, with jitter: meanwhile the old token is used as
//     long as it is valid, and without any Token fails at once.
//   - A token that a server refuses is renewed at once, unless it is less than a minute old.
//   - The token URL is https with a valid certificate, or http to this host. Redirects are not
//     followed, and an answer has 64 KiB at most.
//   - A refresh token that comes with an access token replaces the one before: in memory, and in
//     the file if it was read from one.
//   - No error and no log line has a token or a secret in it. What a server says is reduced to
//     codes.
package oauth

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"tarishi/internal/grant"

	"go.uber.org/zap"
)

const (
	requestTimeout = 15 * time.Second
	retryAfter     = time.Minute // a request that failed
	renewAfter     = time.Minute // a token that is refused is renewed when it is that old
	maxMargin      = 5 * time.Minute
	unknownLife    = 30 * time.Minute // of a token without expires_in
	maxLife        = 24 * time.Hour
)

// Resolver finds the addresses of the hosts of token URLs, which may be addresses themselves;
// *dns.Resolver does.
type Resolver interface {
	Host(ctx context.Context, host string) ([]netip.Addr, error)
}

// Options are what Tokens work with.
type Options struct {
	Resolver  Resolver    // nil: the system's
	TLSConfig *tls.Config // nil: the system's roots
	Log       *zap.Logger // nil: none
	Now       func() time.Time
}

// Tokens are the Sources of all grants. Its methods may be called from any goroutine.
type Tokens struct {
	o      Options
	client http.Client
	ctx    context.Context // of requests
	cancel context.CancelFunc

	mu      sync.Mutex
	sources map[grant.Handle]*Source
	stats   Stats
	closed  bool
	running sync.WaitGroup // added to only under mu while not closed
}

// Stats counts since the start, but for Failing.
type Stats struct {
	Issued  int // tokens that a token URL gave
	Refused int // requests that a token URL answered with an error of RFC 6749
	Failed  int // requests without a usable answer, and tokens that could not be read from a file
	Failing int // grants that have no new token now because of that
}

// New returns Tokens. Nothing is asked for before it is needed.
func New(o Options) *Tokens {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	t := &Tokens{o: o, sources: map[grant.Handle]*Source{}}
	t.ctx, t.cancel = context.WithCancel(context.Background())

	// Requests are rare: a kept connection would hardly ever be used again.
	t.client = http.Client{
		Transport: &http.Transport{
			DialContext: t.dialHost, DisableKeepAlives: true, TLSClientConfig: o.TLSConfig, MaxResponseHeaderBytes: maxAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       requestTimeout,
	}
	return t
}

// Source returns the source of a grant's tokens, always the same one.
func (t *Tokens) Source(g grant.Handle) *Source {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sources[g]
	if s == nil {
		s = newSource(t, g.Value())
		t.sources[g] = s
	}
	return s
}

// Stats returns the counters.
func (t *Tokens) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stats
}

// Close ends requests and waits for them. From then on there are no new tokens.
func (t *Tokens) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.running.Wait()
	return nil
}

// count changes the counters.
func (t *Tokens) count(change func(s *Stats)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.stats)
}

// begin starts a goroutine that Close waits for, and reports whether it could.
func (t *Tokens) begin(run func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.running.Go(run)
	return true
}

// Source has the tokens of one grant. It is a smtpclient.TokenSource, and its methods may be called
// from any goroutine.
type Source struct {
	tokens *Tokens
	grant  grant.Grant
	log    *zap.Logger

	mu        sync.Mutex
	token     string        // "": none, or a server has refused it
	issued    time.Time     // when it was asked for
	renewal   time.Time     // from then on it is renewed
	expires   time.Time     // from then on it is not used
	pending   chan struct{} // closed when the request that is under way has ended; nil: none is
	notBefore time.Time     // of the next request
	err       error         // of the last one

	refresh refreshToken // belongs to the request that is under way
}

func newSource(t *Tokens, g grant.Grant) *Source {
	s := &Source{tokens: t, grant: g, log: t.o.Log, refresh: refreshToken{path: g.RefreshTokenFile, token: g.RefreshToken}}
	if g.TokenFile != "" {
		s.log = s.log.With(zap.String("file", g.TokenFile))
	} else {
		s.log = s.log.With(zap.String("host", hostOf(g.URL)), zap.String("client", g.ClientID))
	}
	return s
}

var (
	errClosed = errors.New("the daemon is stopping")
	errFresh  = errors.New("the server refuses an access token that was issued just now")
	errSame   = errors.New("the server refuses the access token in the file")
)

// Token returns a token that is valid as far as is known. It waits for one, 15 seconds at most, only
// if there is none.
func (s *Source) Token(ctx context.Context) (string, error) {
	if s.grant.TokenFile != "" {
		return s.readToken()
	}
	s.mu.Lock()
	now := s.tokens.o.Now()
	if s.token != "" && now.Before(s.expires) {
		defer s.mu.Unlock()
		if !now.Before(s.renewal) {
			s.request(now)
		}
		return s.token, nil
	}
	return s.await(ctx, now)
}

// Renew returns another token than one that a server has refused.
func (s *Source) Renew(ctx context.Context, refused string) (string, error) {
	if s.grant.TokenFile != "" {
		token, err := s.readToken()
		if err == nil && token == refused {
			err = errSame
		}
		return token, err
	}

	// The connections that were refused together share one request, and none is made for a
	// token that cannot be better than the one before.
	s.mu.Lock()
	now := s.tokens.o.Now()
	switch {
	case s.token != "" && s.token != refused && now.Before(s.expires):
		defer s.mu.Unlock()
		return s.token, nil
	case s.token == refused && now.Sub(s.issued) < renewAfter:
		defer s.mu.Unlock()
		return "", errFresh
	}
	s.token = ""
	return s.await(ctx, now)
}

// await waits for the request that is under way, or makes one. s.mu is held, and is not held
// afterwards.
func (s *Source) await(ctx context.Context, now time.Time) (string, error) {
	pending, err := s.request(now), s.err
	s.mu.Unlock()
	if pending == nil {
		return "", err
	}
	select {
	case <-pending:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return "", s.err
	}
	return s.token, nil
}

// request returns the request that is under way, and begins one if there is none. nil: it is too
// early for another one, and s.err says why. s.mu is held.
func (s *Source) request(now time.Time) chan struct{} {
	switch {
	case s.pending != nil:
		return s.pending
	case now.Before(s.notBefore):
		return nil
	}
	ended := make(chan struct{})
	if !s.tokens.begin(func() { s.ask(now, ended) }) {
		s.err = errClosed
		return nil
	}
	s.pending = ended
	return ended
}

// ask makes one request, and closes ended when its outcome is known to all.
func (s *Source) ask(began time.Time, ended chan struct{}) {
	a, err := s.tokens.askFor(&s.grant, &s.refresh, s.log)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(ended)
	failing := s.err != nil
	s.pending, s.err = nil, err
	if err != nil {
		s.notBefore = s.tokens.o.Now().Add(jittered(retryAfter))
	} else {
		s.take(a, began)
	}
	if s.tokens.ctx.Err() == nil { // else Close has ended it: nobody's fault
		s.report(err, failing, s.token != "" && s.tokens.o.Now().Before(s.expires))
	}
}

// take puts a token in force that was asked for at began. s.mu is held.
func (s *Source) take(a answer, began time.Time) {
	life := min(a.life, maxLife)
	if life <= 0 {
		life = unknownLife
	}
	s.token, s.issued = a.token, began
	s.expires = began.Add(life)
	s.renewal = s.expires.Add(-min(life/4, maxMargin))

	// A server with tokens that live for seconds is not asked without end.
	s.notBefore = began.Add(min(life/2, retryAfter))
}

// report logs and counts the end of a request: of failures in a row the first is an error in the log.
// s.mu is held, so that nobody sees an outcome before it is logged.
func (s *Source) report(err error, failing, valid bool) {
	s.tokens.count(func(n *Stats) {
		switch {
		case err == nil:
			n.Issued++
		case errors.As(err, new(*refusedError)):
			n.Refused++
		default:
			n.Failed++
		}
		switch {
		case err != nil && !failing:
			n.Failing++
		case err == nil && failing:
			n.Failing--
		}
	})
	switch {
	case err != nil && !failing:
		s.log.Error("no access token: mail that needs it waits until there is one", zap.Error(err), zap.Bool("old_still_valid", valid))
	case err != nil:
		s.log.Debug("no access token", zap.Error(err))
	case failing:
		s.log.Info("there is an access token again")
	}
}

// readToken returns the token of the file.
func (s *Source) readToken() (string, error) {
	token, err := readSecret(s.grant.TokenFile)
	if err == nil && !isToken(token) {
		err = errors.New(s.grant.TokenFile + " holds no access token")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	failing := s.err != nil
	s.err = err
	switch {
	case err != nil:
		s.report(err, failing, false)
		return "", err
	case failing:
		s.tokens.count(func(n *Stats) { n.Failing-- })
		s.log.Info("there is an access token again")
	}
	return token, nil
}

// jittered returns a time that is a quarter shorter or longer at most.
func jittered(d time.Duration) time.Duration { return d - d/4 + rand.N(d/2) }
