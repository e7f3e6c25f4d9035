package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/grant"

	"go.uber.org/zap"
)

const (
	maxAnswer = 64 << 10
	maxToken  = 8 << 10 // in base64 it has to fit in a line of AUTH (RFC 4954 section 4: 12,288)
)

// answer is what a token URL gave.
type answer struct {
	token   string
	refresh string        // "": the one before goes on
	life    time.Duration // 0: not said
}

// refusedError is an error of the token URL (RFC 6749 section 5.2).
type refusedError struct {
	status       int
	code, detail string // as far as they are codes
}

func (e *refusedError) Error() string {
	s := "the token URL refuses: " + e.code
	if e.detail != "" {
		s += " (" + e.detail + ")"
	}
	return s
}

// askFor makes one request for a token (RFC 6749 sections 4.4.2 and 6), and keeps the refresh token
// that comes with it.
func (t *Tokens) askFor(g *grant.Grant, refresh *refreshToken, log *zap.Logger) (answer, error) {
	form := url.Values{"client_id": {g.ClientID}, "grant_type": {"client_credentials"}}
	if g.Scope != "" {
		form.Set("scope", g.Scope)
	}
	secret := g.ClientSecret
	if g.ClientSecretFile != "" {
		var err error
		if secret, err = readSecret(g.ClientSecretFile); err != nil {
			return answer{}, err
		}
	}
	if secret != "" {
		form.Set("client_secret", secret)
	}
	old, err := refresh.current()
	if err != nil {
		return answer{}, err
	}
	if old != "" {
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", old)
	}

	a, err := t.post(g.URL, form)
	if err != nil {
		return answer{}, withoutURL(err)
	}
	if a.refresh != "" && a.refresh != old {
		refresh.replace(a.refresh, log)
	}
	return a, nil
}

// withoutURL returns an error of the HTTP client without the URL, which may have a secret in it.
func withoutURL(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	if u.Timeout() {
		return errors.New("the token URL does not answer in time")
	}
	return fmt.Errorf("the token URL cannot be asked: %w", u.Err)
}

// post sends the form and reads the answer.
func (t *Tokens) post(to string, form url.Values) (answer, error) {
	ctx, cancel := context.WithTimeout(t.ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := t.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()

	// One byte more than allowed tells an answer that is too long from one that just fits.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return answer{}, &url.Error{Op: "Post", Err: err}
	case len(body) > maxAnswer:
		return answer{}, fmt.Errorf("the token URL answers with more than %d bytes", maxAnswer)
	case resp.StatusCode >= 400 && resp.StatusCode < 500:
		return answer{}, parseRefusal(resp.StatusCode, body)
	case resp.StatusCode != http.StatusOK:
		return answer{}, fmt.Errorf("the token URL answers with status %d", resp.StatusCode)
	}
	return parseAnswer(body)
}

// parseAnswer reads the answer to a request (RFC 6749 section 5.1). Its errors quote nothing of it.
func parseAnswer(body []byte) (answer, error) {
	var said struct {
		Token   string `json:"access_token"`
		Kind    string `json:"token_type"`
		Refresh string `json:"refresh_token"`
		Life    any    `json:"expires_in"`
	}
	if json.Unmarshal(body, &said) != nil {
		return answer{}, errors.New("the token URL answers with JSON that cannot be read")
	}
	switch {
	case !isToken(said.Token):
		return answer{}, errors.New("the token URL answers without an access token that can be used")
	case !strings.EqualFold(said.Kind, "bearer"):
		return answer{}, errors.New("the token URL answers with a token that is no bearer token")
	case said.Refresh != "" && !isVisible(said.Refresh):
		return answer{}, errors.New("the token URL answers with a refresh token that cannot be used")
	}

	// Some servers write the number as text.
	a := answer{token: said.Token, refresh: said.Refresh}
	seconds, _ := said.Life.(float64)
	if text, ok := said.Life.(string); ok {
		seconds, _ = strconv.ParseFloat(text, 64)
	}
	if seconds >= 1 {
		a.life = time.Duration(min(seconds, maxLife.Seconds()) * float64(time.Second))
	}
	return a, nil
}

// parseRefusal reads an error. Of what it says only codes are kept: a description may quote the request.
func parseRefusal(status int, body []byte) error {
	var said struct {
		Code   string `json:"error"`
		Detail string `json:"error_description"`
	}
	if json.Unmarshal(body, &said) != nil || !isCode(said.Code) {
		return fmt.Errorf("the token URL answers with status %d", status)
	}

	// Microsoft's descriptions begin with a number that its documentation explains.
	e := &refusedError{status: status, code: said.Code}
	detail, _, _ := strings.Cut(said.Detail, ":")
	if number, found := strings.CutPrefix(detail, "AADSTS"); found && number != "" && len(number) <= 10 && strings.Trim(number, "0123456789") == "" {
		e.detail = detail
	}
	return e
}

// isCode reports whether s can be an error of RFC 6749 or of a server's own: lower-case words.
func isCode(s string) bool {
	return s != "" && len(s) <= 40 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}

// isToken reports whether s can be an access token in AUTH (RFC 6750 section 2.1).
func isToken(s string) bool {
	body := strings.TrimRight(s, "=")
	if body == "" || len(s) > maxToken {
		return false
	}
	for i := 0; i < len(body); i++ {
		c := body[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && strings.IndexByte("-._~+/", c) < 0 {
			return false
		}
	}
	return true
}

// isVisible reports whether s can be a refresh token (RFC 6749 appendix A.17).
func isVisible(s string) bool {
	return s != "" && len(s) <= maxToken && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// dialHost connects to one of a host's addresses, as the Resolver gives them.
func (t *Tokens) dialHost(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	host, port, err := net.SplitHostPort(addr)
	if err != nil || t.o.Resolver == nil {
		return d.DialContext(ctx, network, addr)
	}
	addrs, err := t.o.Resolver.Host(ctx, strings.TrimSuffix(host, "."))
	if err != nil {
		return nil, err
	}

	// The addresses share the time: one that does not answer leaves some to the next.
	var failed []error
	for i, a := range addrs {
		one := d
		if deadline, ok := ctx.Deadline(); ok {
			one.Timeout = time.Until(deadline) / time.Duration(len(addrs)-i)
		}
		conn, err := one.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// hostOf returns the host of a URL, for the log.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}
