// Package grant is the noun for how access tokens are come by: what package oauth works with, and
// settings and next hops carry. It does nothing itself.
package grant

import (
	"fmt"
	"io"
	"unique"
)

// Grant says where access tokens come from: TokenFile, or URL (RFC 6749), which gives one for a refresh
// token or, without one, for client credentials. Names of files are absolute.
type Grant struct {
	TokenFile, URL, ClientID, Scope string
	ClientSecret, ClientSecretFile  string
	RefreshToken, RefreshTokenFile  string
}

// Handle stands for a Grant: it is equal for equal ones, as small as a pointer, and shows no secret
// wherever it is printed. The zero Handle is that of the zero Grant.
type Handle struct{ unique.Handle[Grant] }

// Handle returns the handle of g.
func (g Grant) Handle() (h Handle) {
	if g != (Grant{}) {
		h.Handle = unique.Make(g)
	}
	return h
}

// Grant returns the grant that h stands for.
func (h Handle) Grant() (g Grant) {
	if !h.IsZero() {
		g = h.Value()
	}
	return g
}

// Format implements fmt.Formatter: no verb shows more than that there is a grant.
func (h Handle) Format(f fmt.State, _ rune) {
	text := "grant"
	if h.IsZero() {
		text = "none"
	}
	io.WriteString(f, text)
}

// IsZero reports whether there is no grant.
func (h Handle) IsZero() bool { return h == Handle{} }
