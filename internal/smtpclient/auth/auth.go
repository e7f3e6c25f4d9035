// Package auth is our side of AUTH (RFC 4954): it chooses a mechanism that the server
// offers and that may be used on the connection, and answers the server's challenges. It
// does no I/O.
package auth

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"
)

// cramMD5 is the name of RFC 2195's mechanism.
const cramMD5 = "CRAM-MD5"

// ErrNotOffered is the error about a server that has no mechanism of the account's.
var ErrNotOffered = errors.New("authentication is not offered")

// Account is what we authenticate with. Type is as in smtpclient.Options, and not "".
type Account struct{ Type, User, Pass string }

// Peer describes a server.
type Peer struct {
	Offers    []string // mechanisms, upper case
	Encrypted bool
	Trusted   bool // credentials may go there in clear, or as they are within TLS
}

// Exchange is one dialogue.
type Exchange struct {
	Mechanism string
	Initial   []byte // initial response; nil: none

	client sasl.Client
	held   bool // Initial is the answer to the first challenge
	rounds int
}

// Choose begins an exchange, or says why that is not possible: the first of the
// account's mechanisms that the server offers.
func (a Account) Choose(p Peer) (*Exchange, error) {
	if strings.ContainsRune(a.User, 0) || strings.ContainsRune(a.Pass, 0) {
		return nil, errors.New("NUL in the credentials")
	}
	name, err := a.common(p)
	if err != nil {
		return nil, err
	}

	// Credentials go only where nobody on the way can have made us show them.
	switch {
	case name == sasl.External && !p.Encrypted:
		return nil, errors.New("EXTERNAL needs TLS")
	case name != sasl.External && !p.Trusted && !p.Encrypted:
		return nil, errors.New("credentials are not sent in clear to a public address")
	case name != sasl.External && !p.Trusted:
		return nil, errors.New("credentials are not sent to a public address over TLS that is neither verified nor required")
	}
	x := &Exchange{client: a.client(name)}
	if x.Mechanism, x.Initial, err = x.client.Start(); err != nil {
		return nil, err
	}
	return x, nil
}

// common returns the first mechanism of the account's that the server has too.
func (a Account) common(p Peer) (name string, err error) {
	order := strings.Fields(strings.ToUpper(a.Type))
	if a.Type == "any" {
		order = []string{sasl.Plain, sasl.Login, cramMD5}
		if !p.Encrypted { // where somebody may listen, the password is better not said
			order = []string{cramMD5, sasl.Plain, sasl.Login}
		}
	}

	// A mistyped mechanism is an error also where another one fits.
	for _, m := range order {
		switch m {
		case sasl.Plain, sasl.Login, cramMD5, sasl.External, XOAUTH2, OAuthBearer:
		default:
			return "", errors.New("unknown authentication type " + strings.ToLower(m))
		}
		if name == "" && slices.Contains(p.Offers, m) {
			name = m
		}
	}
	if name == "" {
		return "", ErrNotOffered
	}
	return name, nil
}

func (a Account) client(mechanism string) sasl.Client {
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainClient("", a.User, a.Pass)
	case sasl.Login:
		return sasl.NewLoginClient(a.User, a.Pass)
	case sasl.External:
		return sasl.NewExternalClient(a.User)
	case XOAUTH2, OAuthBearer:
		return &bearer{mechanism, a.User, a.Pass}
	}
	return &cram{a.User, a.Pass}
}

// Command returns the words of the AUTH command. The prompts of LOGIN are asked for
// one at a time, since not every server takes an initial response. PLAIN keeps within
// the length of a command line, which AUTH may exceed: servers whose mechanisms have tokens know
// that (RFC 4954 section 4). An empty response that is sent at once is "=".
func (x *Exchange) Command() []string {
	words := []string{"AUTH", x.Mechanism}
	x.held = x.Initial != nil
	encoded := Encode(x.Initial)
	switch {
	case x.Mechanism == sasl.External && encoded == "":
		words, x.held = append(words, "="), false
	case showsToken(x.Mechanism), (x.Mechanism == sasl.Plain || x.Mechanism == sasl.External) && len(encoded) < 500:
		words, x.held = append(words, encoded), false
	}
	return words
}

// Endless reports whether the server asks for more than any mechanism has. It is called once for each
// line: PLAIN ends with its first reply, LOGIN and CRAM-MD5 with the third; a server that goes on
// has another idea of the mechanism.
func (x *Exchange) Endless() bool {
	x.rounds++
	return x.rounds > 4
}

// Encode returns an answer as it is sent.
func Encode(answer []byte) string { return base64.StdEncoding.EncodeToString(answer) }

// Answer answers a challenge, which is in base64; the answer is not. Servers word
// LOGIN's prompts as they like; there it is the order that counts.
func (x *Exchange) Answer(text []byte) ([]byte, error) {
	if x.held {
		x.held = false
		return x.Initial, nil
	}
	switch {
	case x.Mechanism == sasl.Login:
		return x.client.Next([]byte("Password:"))
	case showsToken(x.Mechanism): // whatever the server complains of
		return x.client.Next(nil)
	}
	challenge, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return nil, err
	}
	return x.client.Next(challenge)
}

// cram is CRAM-MD5 (RFC 2195), which has no initial response.
type cram struct{ user, pass string }

// Start implements sasl.Client.
func (c *cram) Start() (mech string, initial []byte, err error) { return cramMD5, nil, nil }

// Next implements sasl.Client.
func (c *cram) Next(challenge []byte) ([]byte, error) {
	mac := hmac.New(md5.New, []byte(c.pass))
	mac.Write(challenge)
	return fmt.Appendf(nil, "%s %x", c.user, mac.Sum(nil)), nil
}
