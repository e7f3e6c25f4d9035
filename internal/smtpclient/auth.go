package smtpclient

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

// errNotOffered wraps what a server lacks that has no mechanism for us.
var errNotOffered = errors.New("authentication is not offered")

// authenticate does AUTH (RFC 4954) if Options have credentials.
func (c *Client) authenticate() *Failure {
	if c.o.AuthType == "" {
		if c.o.AuthRequired {
			return c.failure(StageAuth, nil, errors.New("authentication is required and there are no credentials"))
		}
		return nil
	}
	client, err := c.mechanism()
	if errors.Is(err, errNotOffered) && !c.o.AuthRequired {
		return nil
	}
	if err != nil {
		return c.failure(StageAuth, nil, err)
	}
	name, initial, err := client.Start()
	if err != nil {
		return c.failure(StageAuth, nil, err)
	}
	c.res.login = true
	defer func() { c.res.login = false }()
	c.res.hides.answered(name, initial)
	// The prompts of LOGIN are asked for one at a time: not every server takes
	// an initial response. PLAIN keeps within the length of a command line. An
	// empty response that is sent at once is "=".
	words, held := []string{"AUTH", name}, initial != nil
	encoded := base64.StdEncoding.EncodeToString(initial)
	switch {
	case name == sasl.External && encoded == "":
		words, held = append(words, "="), false
	case (name == sasl.Plain || name == sasl.External) && len(encoded) < 500:
		words, held = append(words, encoded), false
	}
	for range 4 {
		if f := c.command(StageAuth, words...); f != nil {
			return f
		}
		switch c.res.class() {
		case 2:
			c.auth = true
			return nil
		case 4, 5:
			return c.refused(StageAuth)
		}
		answer := initial
		if !held {
			if answer, err = next(client, name, c.res.text); err != nil {
				return c.failure(StageAuth, nil, err)
			}
			c.res.hides.answered(name, answer)
		}
		words, held = []string{base64.StdEncoding.EncodeToString(answer)}, false
	}
	return c.unexpected(StageAuth)
}

// next answers a challenge. Servers word LOGIN's prompts as they like; there it
// is the order that counts.
func next(client sasl.Client, name string, text []byte) ([]byte, error) {
	challenge, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil && name != sasl.Login {
		return nil, err
	}
	if name == sasl.Login {
		challenge = []byte("Password:")
	}
	return client.Next(challenge)
}

// mechanism chooses how to authenticate, or says why that is not possible.
func (c *Client) mechanism() (sasl.Client, error) {
	o := c.o
	if strings.ContainsRune(o.AuthUser, 0) || strings.ContainsRune(o.AuthPass, 0) {
		return nil, errors.New("NUL in the credentials")
	}
	order := strings.Fields(strings.ToUpper(o.AuthType))
	if o.AuthType == "any" {
		order = []string{sasl.Plain, sasl.Login, cramMD5}
		if c.tls == "none" { // where somebody may listen, the password is better not said
			order = []string{cramMD5, sasl.Plain, sasl.Login}
		}
	}
	var name string
	for _, m := range order {
		switch m {
		case sasl.Plain, sasl.Login, cramMD5, sasl.External:
		default:
			return nil, errors.New("unknown authentication type " + strings.ToLower(m))
		}
		if name == "" && slices.Contains(c.ext.Auth, m) {
			name = m
		}
	}
	switch {
	case name == "" && len(c.ext.Auth) == 0:
		return nil, errNotOffered
	case name == "":
		return nil, fmt.Errorf("%w by a common mechanism, but by: %s", errNotOffered, c.res.hides.mask([]byte(strings.Join(c.ext.Auth, " ")), true))
	case name == sasl.External && c.tls == "none":
		return nil, errors.New("EXTERNAL needs TLS")
	case name != sasl.External && !c.trusted():
		if c.tls == "none" {
			return nil, errors.New("credentials are not sent in clear to a public address")
		}
		return nil, errors.New("credentials are not sent to a public address over TLS that is neither verified nor required")
	}
	switch name {
	case sasl.Plain:
		return sasl.NewPlainClient("", o.AuthUser, o.AuthPass), nil
	case sasl.Login:
		return sasl.NewLoginClient(o.AuthUser, o.AuthPass), nil
	case sasl.External:
		return sasl.NewExternalClient(o.AuthUser), nil
	}
	return &cram{o.AuthUser, o.AuthPass}, nil
}

// trusted reports whether credentials may go to this peer: it is near, or TLS is
// more than an offer that anybody on the way could have withdrawn, or we were
// told not to mind.
func (c *Client) trusted() bool {
	required := c.o.TLS >= TLSEncrypt || c.o.ImplicitTLS
	return c.o.AuthInsecure || c.private() || c.tls != "none" && required
}

// private reports whether the peer is on this host or on a private network.
func (c *Client) private() bool {
	if c.o.Network == "unix" {
		return true
	}
	ip := address(c.raw.RemoteAddr())
	return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()
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
