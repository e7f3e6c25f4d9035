package smtpclient_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// source has tokens that are called by their number.
type source struct {
	mu      sync.Mutex
	n       int // of the present one
	last    int // there is none after it
	renewed int
}

var errNone = errors.New("no token")

// longToken is as long as Microsoft's.
func longToken(n int) string {
	return fmt.Sprintf("eyJ0eXAi-%d.%s", n, strings.Repeat(fmt.Sprintf("S3cr%dt", n), 350))
}

func (s *source) Token(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n > s.last {
		return "", errNone
	}
	return longToken(s.n), nil
}

func (s *source) Renew(_ context.Context, refused string) (string, error) {
	s.mu.Lock()
	s.renewed++
	if refused == longToken(s.n) {
		s.n++
	}
	s.mu.Unlock()
	return s.Token(context.Background())
}

// TestTokens: what becomes of good and of refused access tokens, by both mechanisms, at servers that
// explain a refusal and at those that do not.
func TestTokens(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first, last   int // token of the source
		action        smtptest.Hook
		renewed, code int
		want          bool
	}{
		{name: "good", first: 2, last: 2, want: true},
		{name: "renewed", first: 1, last: 2, renewed: 1, want: true},
		{name: "the new one refused too", first: 0, last: 1, renewed: 1, code: 535},
		{name: "no new one", first: 1, last: 1, renewed: 1, code: 535},
		{name: "none", first: 1, last: 0},
		{name: "not now", first: 2, last: 2, action: smtptest.Always(smtptest.Reply("454 4.7.0 later")), code: 454},
	} {
		for _, mechanism := range []string{"xoauth2", "oauthbearer"} {
			for _, explains := range []bool{true, false} {
				options := []smtptest.Option{smtptest.Tokens(func(user, token string) bool { return user == "a,b=c@mail.test" && token == longToken(2) }, explains)}
				if tt.action != nil {
					options = append(options, smtptest.On(smtptest.Auth, tt.action))
				}
				s := smtptest.New(t, options...)
				from := &source{n: tt.first, last: tt.last}
				o := dialOptions(s, from)
				o.AuthType = mechanism
				c, err := smtpclient.Dial(t.Context(), o)
				if err == nil {
					c.Close()
				}
				f := &smtpclient.Failure{}
				if (err == nil) != tt.want || err != nil && !errors.As(err, &f) || from.renewed != tt.renewed {
					t.Errorf("%s, %s, %t: %v, renewed %d", tt.name, mechanism, explains, err, from.renewed)
					continue
				}
				if f.Reply != nil && f.Reply.Code != tt.code || f.Reply == nil && tt.code != 0 || err != nil && !f.Deferral().Temporary() || f.Renewed {
					t.Errorf("%s, %s, %t: %+v", tt.name, mechanism, explains, f)
				}
				if v := s.Violations(); len(v) > 0 {
					t.Errorf("%s, %s, %t: %q", tt.name, mechanism, explains, v)
				}
			}
		}
	}
}

func dialOptions(s *smtptest.Server, from smtpclient.TokenSource) smtpclient.Options {
	o := options(s)
	o.AuthUser, o.AuthType, o.Tokens, o.AuthRequired = "a,b=c@mail.test", "xoauth2", from, true
	return o
}

// TestRenewedConnection: a server that closes when it refuses a token gets the new one on another
// connection.
func TestRenewedConnection(t *testing.T) {
	for name, a := range map[string]smtptest.Action{
		"closes": smtptest.Reply("535 5.7.3 no").ThenClose(), "says 421 next": smtptest.Raw("535 5.7.3 no\r\n421 4.7.0 bye\r\n").ThenClose(),
	} {
		s := smtptest.New(t, smtptest.Tokens(func(_, token string) bool { return token == longToken(2) }, false), smtptest.On(smtptest.Auth, smtptest.First(1, a)))
		o := dialOptions(s, &source{n: 1, last: 2})
		_, err := smtpclient.Dial(t.Context(), o)
		var f *smtpclient.Failure
		if !errors.As(err, &f) || !f.Renewed {
			t.Fatalf("%s: %+v", name, f)
		}
		dial(t, o).Close()
	}
}

// TestStaticToken: a token in AuthPass, which is hidden as a password is.
func TestStaticToken(t *testing.T) {
	s := smtptest.New(t, smtptest.Tokens(func(_, token string) bool { return token == longToken(2) }, true))
	o := dialOptions(s, nil)
	o.Tokens, o.AuthPass, o.AuthType = nil, longToken(2), "oauthbearer xoauth2"
	dial(t, o).Close()
	o.AuthPass = longToken(1)
	if _, err := smtpclient.Dial(t.Context(), o); err == nil {
		t.Error("let in with another token")
	}
	o.AuthUser = "a\x01b"
	if _, err := smtpclient.Dial(t.Context(), o); err == nil {
		t.Error("a user with a control character")
	}
	if len(s.Violations()) > 0 {
		t.Error(s.Violations())
	}
}

// TestTokensStaySecret: whatever form of an access token a server quotes, whole or cut, and where,
// nothing that is kept of its reply has it.
func TestTokensStaySecret(t *testing.T) {
	for _, token := range []string{longToken(2), "ya29.sh0rt-t0ken"} {
		b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
		whole := b64("user=a,b=c@mail.test\x01auth=Bearer " + token + "\x01\x01")
		forms := map[string]string{
			"token": token, "in base64": b64(token), "command": "AUTH XOAUTH2 " + whole, "cut": whole[len(whole)/3 : len(whole)-7],
			"within something": b64("<token=" + token + ">"), "URL": "https://x.test/?access_token=" + url.QueryEscape(token),
			"decoded": "auth=Bearer " + token, "URL-safe": base64.RawURLEncoding.EncodeToString([]byte("x" + token)), "in capitals": strings.ToUpper(token),
		}
		for name, form := range forms {
			for _, stage := range []smtptest.Stage{smtptest.Auth, smtptest.Mail, smtptest.Dot} {
				if len(form) > 1800 { // in a line that is long, but no longer than is read
					form = form[len(form)-1800:]
				}
				s := smtptest.New(t, smtptest.Tokens(func(string, string) bool { return true }, false),
					smtptest.On(stage, smtptest.Always(smtptest.Reply("550 5.7.1 odd: "+form+" [end]"))))
				o := dialOptions(s, nil)
				o.Tokens, o.AuthPass = nil, token
				var kept []string
				c, err := smtpclient.Dial(t.Context(), o)
				if err == nil {
					var res smtpclient.Result
					res, err = c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(message))
					for _, r := range res.Replies {
						kept = append(kept, r.Error())
					}
					c.Close()
				}
				if err != nil {
					kept = append(kept, err.Error(), reply.From(err).Error())
				}
				all := strings.ToLower(strings.Join(kept, "\n"))
				if !strings.Contains(all, "[end]") || !strings.Contains(all, "odd") {
					t.Errorf("%s at %s: %s", name, stage, all)
				}
				// No piece of it of more than a few characters, wherever it begins.
				for _, secret := range []string{token, b64(token), whole} {
					for secret = strings.ToLower(secret); len(secret) >= 12; secret = secret[1:] {
						if strings.Contains(all, secret[:12]) {
							t.Errorf("%s at %s: %q is in %.300q", name, stage, secret[:12], all)
							break
						}
					}
				}
			}
		}
	}
}
