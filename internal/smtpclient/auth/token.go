package auth

import (
	"errors"
	"strings"
)

// The mechanisms that show an access token: Google's, which others took over, and that of RFC 7628.
const (
	XOAUTH2     = "XOAUTH2"
	OAuthBearer = "OAUTHBEARER"
)

// bearer is a client of both. A server that does not take the token says why in a challenge, and
// refuses when that has been acknowledged.
type bearer struct{ mechanism, user, token string }

// Start implements sasl.Client.
func (b *bearer) Start() (mech string, initial []byte, err error) {
	if strings.Contains(b.user+b.token, "\x01") { // which separates them
		return "", nil, errors.New("a control character in the credentials")
	}
	auth := "\x01auth=Bearer " + b.token + "\x01\x01"
	if b.mechanism == XOAUTH2 {
		return b.mechanism, []byte("user=" + b.user + auth), nil
	}
	// Commas and equals signs have a meaning in the header (RFC 5801 section 4).
	name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(b.user)
	return b.mechanism, []byte("n,a=" + name + "," + auth), nil
}

// Next implements sasl.Client: the acknowledgement is nothing in XOAUTH2, and one octet in
// OAUTHBEARER (RFC 7628 section 3.2.3).
func (b *bearer) Next([]byte) ([]byte, error) {
	if b.mechanism == XOAUTH2 {
		return nil, nil
	}
	return []byte{1}, nil
}

// showsToken reports whether a mechanism shows an access token.
func showsToken(mechanism string) bool { return mechanism == XOAUTH2 || mechanism == OAuthBearer }
