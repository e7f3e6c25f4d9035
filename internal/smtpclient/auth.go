package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"tarishi/internal/smtpclient/auth"
)

// TokenSource has the access tokens of an account. Its dynamic type is comparable: connections are
// shared where the source is the same.
type TokenSource interface {
	// Token returns a token that is valid as far as is known. Renew returns another than one that
	// a server has refused.
	Token(ctx context.Context) (string, error)
	Renew(ctx context.Context, refused string) (string, error)
}

// authenticate does AUTH (RFC 4954) if Options have credentials. An access token that the server
// refuses is replaced once.
func (c *Client) authenticate() *Failure {
	if c.o.AuthType == "" {
		if c.o.AuthRequired {
			return c.failure(StageAuth, nil, errors.New("authentication is required and there are no credentials"))
		}
		return nil
	}
	if c.o.Tokens == nil {
		return c.broken(c.logIn(c.o.AuthPass))
	}
	token, err := c.o.Tokens.Token(c.conn.Context())
	if err != nil {
		return c.noToken(err)
	}
	f := c.logIn(token)
	if f == nil || f.Reply == nil || !f.Reply.Permanent() {
		return c.broken(f)
	}

	// It may have been withdrawn, or our clocks differ about its age.
	if token, err = c.o.Tokens.Renew(c.conn.Context(), token); err != nil {
		if c.conn.Err() != nil {
			return c.noToken(err)
		}
		f.Err = err
		return c.broken(f)
	}
	if !c.conn.Closed() {
		f = c.logIn(token)
	}
	if f != nil {
		f.Renewed = c.conn.Closed() || f.Reply != nil && f.Reply.Code == 421
	}
	return c.broken(f)
}

// noToken breaks the connection off because there is no access token, or the caller did not wait
// for one.
func (c *Client) noToken(err error) *Failure {
	if c.conn.Err() != nil {
		return c.connectionLost(StageAuth, err)
	}
	return c.failure(StageAuth, nil, err)
}

// broken breaks the connection off if there is a failure.
func (c *Client) broken(f *Failure) *Failure {
	if f != nil {
		c.conn.Close()
	}
	return f
}

// logIn shows a password or an access token. A refusal leaves the connection as it is.
func (c *Client) logIn(secret string) *Failure {
	// Replies to AUTH are likely to quote the user's name, which elsewhere is an address.
	c.conn.Last.Login = true
	defer func() { c.conn.Last.Login = false }()
	x, err := c.chooseMechanism(secret)
	if err != nil {
		return c.report(StageAuth, nil, err)
	}
	if x == nil {
		return nil
	}

	// Whatever is sent may be quoted back, so it is hidden before it goes out.
	if c.o.Tokens != nil {
		c.conn.Last.HideSecret(secret)
	}
	c.conn.Last.Hide(x.Mechanism, x.Initial)
	words := x.Command()
	for !x.Endless() {
		if f := c.command(StageAuth, words...); f != nil {
			return f
		}
		switch c.conn.Last.Class() {
		case 2:
			c.auth = true
			return nil
		case 4, 5:
			return c.report(StageAuth, c.conn.Last.Reply(), nil)
		}
		answer, err := x.Answer(c.conn.Last.Text)
		if err != nil {
			return c.report(StageAuth, nil, err)
		}
		c.conn.Last.Hide(x.Mechanism, answer)
		words = []string{auth.Encode(answer)}
	}
	return c.unexpected(StageAuth)
}

// chooseMechanism returns the exchange to make; nil: none, where that is no hindrance.
func (c *Client) chooseMechanism(secret string) (*auth.Exchange, error) {
	account := auth.Account{Type: c.o.AuthType, User: c.o.AuthUser, Pass: secret}
	x, err := account.Choose(auth.Peer{Offers: c.ext.Auth, Encrypted: c.tls != "none", Trusted: c.trusted()})
	switch {
	case errors.Is(err, auth.ErrNotOffered) && !c.o.AuthRequired:
		return nil, nil
	case errors.Is(err, auth.ErrNotOffered) && len(c.ext.Auth) > 0:
		err = fmt.Errorf("%w by a common mechanism, but by: %s", err, c.conn.Last.Mask([]byte(strings.Join(c.ext.Auth, " "))))
	}
	return x, err
}

// trusted reports whether credentials may go to this peer: it is near, or TLS is
// more than an offer that anybody on the way could have withdrawn, or the
// configuration does not mind.
func (c *Client) trusted() bool {
	required := c.o.TLS >= TLSEncrypt || c.o.ImplicitTLS
	return c.o.AuthInsecure || c.conn.IsNear() || c.tls != "none" && required
}
