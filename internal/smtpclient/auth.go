package smtpclient

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"tarishi/internal/smtpclient/auth"
)

// authenticate does AUTH (RFC 4954) if Options have credentials.
func (c *Client) authenticate() *Failure {
	if c.o.AuthType == "" {
		if c.o.AuthRequired {
			return c.failure(StageAuth, nil, errors.New("authentication is required and there are no credentials"))
		}
		return nil
	}
	// Replies to AUTH are likely to quote the user's name, which elsewhere is an address.
	c.conn.Last.Login = true
	defer func() { c.conn.Last.Login = false }()
	x, err := c.chooseMechanism()
	if err != nil {
		return c.failure(StageAuth, nil, err)
	}
	if x == nil {
		return nil
	}

	// Whatever is sent may be quoted back, so it is hidden before it goes out.
	c.conn.Last.Hide(x.Mechanism, x.Initial)

	// PLAIN ends with its first reply, LOGIN and CRAM-MD5 with the third; a server that
	// goes on asking has another idea of the mechanism.
	words := x.Command()
	for range 4 {
		if f := c.command(StageAuth, words...); f != nil {
			return f
		}
		switch c.conn.Last.Class() {
		case 2:
			c.auth = true
			return nil
		case 4, 5:
			return c.refused(StageAuth)
		}
		answer, err := x.Answer(c.conn.Last.Text)
		if err != nil {
			return c.failure(StageAuth, nil, err)
		}
		c.conn.Last.Hide(x.Mechanism, answer)
		words = []string{base64.StdEncoding.EncodeToString(answer)}
	}
	return c.unexpected(StageAuth)
}

// chooseMechanism returns the exchange to make; nil: none, where that is no hindrance.
func (c *Client) chooseMechanism() (*auth.Exchange, error) {
	account := auth.Account{Type: c.o.AuthType, User: c.o.AuthUser, Pass: c.o.AuthPass}
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
	return c.o.AuthInsecure || c.private() || c.tls != "none" && required
}

// private reports whether the peer is on this host or on a private network.
func (c *Client) private() bool {
	if c.o.Network == "unix" {
		return true
	}
	ip := address(c.conn.RemoteAddr())
	return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()
}
