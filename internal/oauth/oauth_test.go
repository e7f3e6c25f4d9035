package oauth_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tarishi/internal/grant"
	"tarishi/internal/oauth"
	"tarishi/internal/test/tokentest"
)

// The secrets of the grants here: none may be in a log line or an error.
const clientSecret, refreshToken = "cl13nt-S3cr3t~value", "M.R3_BAY.refresh-S3cr3t"

// rig is the tokens of one test.
type rig struct {
	*testing.T
	server *tokentest.Server
	tokens *oauth.Tokens
	log    *syncBuffer
	mu     sync.Mutex
	now    time.Time
}

type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, server: tokentest.New(t), log: &syncBuffer{}, now: time.Now()}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(r.log), zap.DebugLevel)
	r.tokens = oauth.New(oauth.Options{Log: zap.New(core), Now: func() time.Time {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.now
	}})
	t.Cleanup(func() {
		r.tokens.Close()
		r.noSecretIn("the log", r.log.String())
	})
	return r
}

func (r *rig) noSecretIn(what, text string) {
	r.Helper()
	for _, secret := range append(r.server.Issued(), clientSecret, refreshToken, "rotated-refresh") {
		if strings.Contains(text, secret) {
			r.Errorf("%s has the secret %.30q: %s", what, secret, text)
		}
	}
}

// pass lets time pass.
func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *rig) refreshing() *oauth.Source {
	return r.tokens.Source(grant.Grant{URL: r.server.URL, ClientID: "app", ClientSecret: clientSecret, RefreshToken: refreshToken, Scope: "s one"}.Handle())
}

// want asks for a token, which is to be the n-th that the server issued; 0: there is none.
func (r *rig) want(s *oauth.Source, n int) {
	r.Helper()
	token, err := s.Token(r.Context())
	r.check(token, err, n)
}

func (r *rig) check(token string, err error, n int) {
	r.Helper()
	if err != nil {
		r.noSecretIn("the error", err.Error())
	}
	issued := r.server.Issued()
	switch {
	case n == 0 && err == nil:
		r.Errorf("a token, %.30q", token)
	case n > 0 && err != nil:
		r.Errorf("no token: %v", err)
	case n > 0 && (len(issued) < n || token != issued[n-1]):
		r.Errorf("another token than the %d. of %d", n, len(issued))
	}
}

// requests waits until there have been so many.
func (r *rig) requests(n int) {
	r.Helper()
	for deadline := time.Now().Add(time.Minute); len(r.server.Requests()) < n && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got := len(r.server.Requests()); got != n {
		r.Errorf("%d requests, not %d", got, n)
	}
}

// TestGrants: what is sent for a refresh token, and for client credentials.
func TestGrants(t *testing.T) {
	r := newRig(t)
	r.want(r.refreshing(), 1)
	secret := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(secret, []byte("from-file\n"), 0o600)
	r.want(r.tokens.Source(grant.Grant{URL: r.server.URL, ClientID: "app", ClientSecretFile: secret}.Handle()), 2)
	want := []string{
		"client_id=app&client_secret=cl13nt-S3cr3t~value&grant_type=refresh_token&refresh_token=M.R3_BAY.refresh-S3cr3t&scope=s+one",
		"client_id=app&client_secret=from-file&grant_type=client_credentials",
	}
	for i, form := range r.server.Requests() {
		if form.Encode() != want[i] {
			t.Errorf("%s\nwant %s", form.Encode(), want[i])
		}
	}
}

// TestOneRequestForAll: whatever number of connections want a token, there is one request, and one
// Source for equal grants.
func TestOneRequestForAll(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	r.server.Answer(func(http.ResponseWriter, *http.Request) { <-release }) // an answer without a token
	var waiting sync.WaitGroup
	for range 50 {
		waiting.Go(func() { r.want(r.refreshing(), 0) })
	}
	r.requests(1)
	close(release)
	waiting.Wait()

	// The failure is known to all, and nobody asks again before its time.
	r.want(r.refreshing(), 0)
	r.pass(80 * time.Second)
	for range 50 {
		waiting.Go(func() { r.want(r.refreshing(), 1) })
	}
	waiting.Wait()
	r.requests(2)
}

// TestLife: when a token is renewed, by expires_in alone.
func TestLife(t *testing.T) {
	for _, tt := range []struct {
		name    string
		life    any
		renewal time.Duration // in the background
		expires time.Duration
	}{
		{"an hour", 3600, 55 * time.Minute, time.Hour},
		{"as text", "3599", 3299 * time.Second, 3599 * time.Second},
		{"a minute", 60, 45 * time.Second, time.Minute},
		{"a fraction", 60.5, 46 * time.Second, 61 * time.Second},
		{"left out", nil, 25 * time.Minute, 30 * time.Minute},
		{"nonsense", "soon", 25 * time.Minute, 30 * time.Minute},
		{"in the past", -7200, 25 * time.Minute, 30 * time.Minute},
		{"endless", 1e300, 24*time.Hour - 5*time.Minute, 24 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.server.Life(tt.life)
			s := r.refreshing()
			r.want(s, 1)
			r.pass(tt.renewal - time.Second)
			r.want(s, 1)
			r.requests(1)

			// Nobody waits for the renewal: the server may be as slow as it likes.
			release := make(chan struct{})
			r.server.Answer(func(w http.ResponseWriter, r *http.Request) { <-release })
			r.pass(2 * time.Second)
			r.want(s, 1)
			r.requests(2)
			close(release)
			for r.tokens.Stats().Failed == 0 {
				time.Sleep(time.Millisecond)
			}
			r.pass(tt.expires - tt.renewal + 80*time.Second)
			r.want(s, 2)
		})
	}
}

// TestServersClock: a Date of tomorrow changes nothing.
func TestServersClock(t *testing.T) {
	r := newRig(t)
	r.server.Answer(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Date", "Fri, 01 Jan 2100 00:00:00 GMT")
		tokentest.Status(200, `{"access_token":"abc","token_type":"bearer","expires_in":600}`)(w, q)
	})
	s := r.refreshing()
	if token, err := s.Token(t.Context()); token != "abc" || err != nil {
		t.Error(token, err)
	}
	r.pass(8 * time.Minute)
	s.Token(t.Context())
	r.requests(1)
}

// TestFailures: no answer of the token URL makes a token of what is none, shows a secret, or is
// followed by another request within about a minute; each streak has one line of level error.
func TestFailures(t *testing.T) {
	redirected := false
	for name, answer := range map[string]http.HandlerFunc{
		"invalid_grant": tokentest.InvalidGrant,
		"code quotes":   tokentest.Status(400, `{"error":"`+refreshToken+`"}`),
		"5xx":           tokentest.Status(503, `{"error":"temporarily_unavailable"}`),
		"no JSON":       tokentest.Status(200, "<html>"+refreshToken),
		"another type":  tokentest.Status(200, `{"access_token":"abc","token_type":"mac","expires_in":3600}`),
		"no type":       tokentest.Status(200, `{"access_token":"abc","expires_in":3600}`),
		"empty":         tokentest.Status(200, ``),
		"no token":      tokentest.Status(200, `{"token_type":"Bearer"}`),
		"control":       tokentest.Status(200, `{"access_token":"a\u0001b","token_type":"Bearer"}`),
		"line end":      tokentest.Status(200, `{"access_token":"a\r\nQUIT","token_type":"Bearer"}`),
		"long":          tokentest.Status(200, `{"token_type":"Bearer","access_token":"`+strings.Repeat("a", 9000)+`"}`),
		"huge":          tokentest.Status(200, `{"token_type":"Bearer","access_token":"abc","x":"`+strings.Repeat("a", 1<<20)+`"}`),
		"bad refresh":   tokentest.Status(200, `{"token_type":"Bearer","access_token":"abc","refresh_token":"a\nb"}`),
		"hangs up":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"redirect": func(w http.ResponseWriter, q *http.Request) {
			if redirected {
				t.Error("a redirect was followed")
			}
			redirected = true
			http.Redirect(w, q, q.URL.Path, http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.server.Answer(answer, answer)
			s := r.refreshing()
			for range 3 {
				r.want(s, 0)
			}
			r.requests(1)
			r.pass(44 * time.Second)
			r.want(s, 0)
			r.requests(1)
			r.pass(32 * time.Second)
			redirected = false
			r.want(s, 0)
			r.requests(2)
			if n := strings.Count(r.log.String(), `"level":"error"`); n != 1 {
				t.Errorf("%d lines of level error: %s", n, r.log)
			}
			if n := r.tokens.Stats(); n.Failing != 1 || n.Failed+n.Refused != 2 {
				t.Errorf("%+v", n)
			}

			// It recovers by itself, and says so.
			r.pass(2 * time.Minute)
			r.want(s, 1)
			if n := r.tokens.Stats(); n.Failing != 0 || n.Issued != 1 {
				t.Errorf("%+v", n)
			}
			if !strings.Contains(r.log.String(), "there is an access token again") {
				t.Error(r.log)
			}
		})
	}
}

// TestRefusalIsNamed: the codes of a refusal are in the error, and its description is not.
func TestRefusalIsNamed(t *testing.T) {
	r := newRig(t)
	r.server.Answer(tokentest.InvalidGrant)
	_, err := r.refreshing().Token(t.Context())
	if err == nil || err.Error() != "the token URL refuses: invalid_grant (AADSTS700082)" {
		t.Error(err)
	}
	if n := r.tokens.Stats(); n.Refused != 1 {
		t.Errorf("%+v", n)
	}
}

// TestOldTokenServes: a token URL that fails does no harm while the token is valid.
func TestOldTokenServes(t *testing.T) {
	r := newRig(t)
	s := r.refreshing()
	r.want(s, 1)
	r.server.Answer(tokentest.Status(500, ""), tokentest.Status(500, ""), tokentest.Status(500, ""), tokentest.Status(500, ""))
	for range 4 {
		r.pass(55*time.Minute/4 + 10*time.Second)
		r.want(s, 1)
	}
	r.pass(time.Hour)
	r.want(s, 0)
}

// TestRenew: a token that a server refuses is replaced once for all, and a new one is not replaced.
func TestRenew(t *testing.T) {
	r := newRig(t)
	s := r.refreshing()
	r.want(s, 1)
	first := r.server.Issued()[0]
	token, err := s.Renew(t.Context(), first)
	r.check(token, err, 0)
	r.requests(1)
	r.want(s, 1) // for other servers it goes on
	r.pass(2 * time.Minute)
	var waiting sync.WaitGroup
	for range 20 {
		waiting.Go(func() {
			token, err := s.Renew(t.Context(), first)
			r.check(token, err, 2)
		})
	}
	waiting.Wait()
	r.requests(2)
	r.want(s, 2)

	// Without a new one the refused one is not handed out any more.
	r.pass(2 * time.Minute)
	r.server.Answer(tokentest.InvalidGrant)
	token, err = s.Renew(t.Context(), r.server.Issued()[1])
	r.check(token, err, 0)
	r.want(s, 0)
	r.requests(3)
}

// TestSlowURL: a caller that gives up leaves, and Close ends the request.
func TestSlowURL(t *testing.T) {
	r := newRig(t)
	ended := make(chan struct{})
	r.server.Answer(func(_ http.ResponseWriter, q *http.Request) {
		<-q.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := r.refreshing().Token(ctx)
		left <- err
	}()
	r.requests(1)
	cancel()
	if err := <-left; err != context.Canceled {
		t.Error(err)
	}
	r.tokens.Close()
	<-ended
	r.want(r.refreshing(), 0)
	if s := r.log.String(); s != "" {
		t.Errorf("a stop is no failure: %s", s)
	}
}

// TestRotation: a new refresh token is used from then on, kept in its file as a whole, with mode 0600,
// and one that somebody puts there counts more.
func TestRotation(t *testing.T) {
	r := newRig(t)
	r.server.Rotate()
	dir := t.TempDir()
	path, link := filepath.Join(dir, "refresh"), filepath.Join(dir, "link")
	os.WriteFile(path, []byte(refreshToken+"\n"), 0o640)
	os.Symlink("refresh", link)
	s := r.tokens.Source(grant.Grant{URL: r.server.URL, ClientID: "app", RefreshTokenFile: link}.Handle())
	used := func(n int, want string) {
		t.Helper()
		r.want(s, n)
		if got := r.server.Requests()[n-1].Get("refresh_token"); got != want {
			t.Errorf("%q, not %q", got, want)
		}
		r.pass(2 * time.Hour)
	}
	used(1, refreshToken)
	used(2, "rotated-refresh-1")
	info, err := os.Stat(path)
	if b, _ := os.ReadFile(path); err != nil || string(b) != "rotated-refresh-2\n" || info.Mode().Perm() != 0o600 {
		t.Errorf("%q %v %v", b, info, err)
	}
	if target, err := os.Readlink(link); target != "refresh" || err != nil {
		t.Error("the link is gone", err)
	}
	os.WriteFile(path, []byte("somebody-elses\n"), 0o600)
	used(3, "somebody-elses")

	// A file that is gone, or a folder that cannot be written, loses nothing before a restart.
	os.RemoveAll(dir)
	used(4, "rotated-refresh-3")
	used(5, "rotated-refresh-4")
	if n := strings.Count(r.log.String(), "the server replaces the refresh token"); n != 1 {
		t.Errorf("%d lines about a token that cannot be kept: %s", n, r.log)
	}
}

// TestInlineRotation: a refresh token in the settings is replaced in memory, which is said once.
func TestInlineRotation(t *testing.T) {
	r := newRig(t)
	r.server.Rotate()
	s := r.refreshing()
	for n := 1; n <= 3; n++ {
		r.want(s, n)
		r.pass(2 * time.Hour)
	}
	if got := r.server.Requests()[2].Get("refresh_token"); got != "rotated-refresh-2" {
		t.Error(got)
	}
	if n := strings.Count(r.log.String(), "auth_refresh_token_file is a place"); n != 1 {
		t.Errorf("%d lines: %s", n, r.log)
	}
}

// TestTokenFile: the file is read anew each time, and what is no token is none.
func TestTokenFile(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(t.TempDir(), "token")
	s := r.tokens.Source(grant.Grant{TokenFile: path}.Handle())
	r.want(s, 0)
	for _, bad := range []string{"", "two words", "a\x01b", "a\nb", strings.Repeat("a", 9000)} {
		os.WriteFile(path, []byte(bad), 0o600)
		r.want(s, 0)
	}
	for _, good := range []string{"ya29.first==\n", " second "} {
		os.WriteFile(path, []byte(good), 0o600)
		if token, err := s.Token(t.Context()); token != strings.TrimSpace(good) || err != nil {
			t.Error(token, err)
		}
	}
	if token, err := s.Renew(t.Context(), "ya29.first=="); token != "second" || err != nil {
		t.Error(token, err)
	}
	if _, err := s.Renew(t.Context(), "second"); err == nil {
		t.Error("a refused token is handed out again")
	}
	if n := strings.Count(r.log.String(), `"level":"error"`); n != 1 {
		t.Errorf("%d lines of level error: %s", n, r.log)
	}
	if n := r.tokens.Stats(); n.Failing != 0 || n.Failed != 6 {
		t.Errorf("%+v", n)
	}
}

// TestCertificate: a token URL with a certificate that is not valid gets no secret.
func TestCertificate(t *testing.T) {
	r := newRig(t)
	r.server = tokentest.NewTLS(t)
	r.want(r.refreshing(), 0)
	if n := len(r.server.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
	trusting := oauth.New(oauth.Options{TLSConfig: r.server.TLS.Client().Transport.(*http.Transport).TLSClientConfig})
	defer trusting.Close()
	g := grant.Grant{URL: r.server.URL, ClientID: "app", ClientSecret: "x"}
	if _, err := trusting.Source(g.Handle()).Token(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHandleShowsNothing: a grant is carried through settings and next hops that are printed.
func TestHandleShowsNothing(t *testing.T) {
	g := grant.Grant{URL: "https://x", ClientSecret: clientSecret, RefreshToken: refreshToken}
	one, other := g.Handle(), g.Handle()
	if one != other || one.Grant() != g || !(grant.Grant{}).Handle().IsZero() || (grant.Handle{}).Grant() != (grant.Grant{}) {
		t.Error("handles are not values")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, struct{ H grant.Handle }{one}); strings.Contains(s, "S3cr3t") {
			t.Errorf("%s: %s", verb, s)
		}
	}
}
