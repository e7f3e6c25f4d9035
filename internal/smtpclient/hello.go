package smtpclient

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-sasl"

	"tarishi/internal/mail"
)

// prepare does everything between the connection and the first transaction.
func (c *Client) prepare() *Failure {
	if c.o.ImplicitTLS {
		if f := c.handshake(); f != nil {
			return f
		}
	}
	if err := c.await(c.o.GreetingTimeout); err != nil {
		return c.wire(StageGreeting, err)
	}
	if c.res.code != 220 {
		if c.res.class() == 2 || c.res.class() == 3 {
			return c.unexpected(StageGreeting)
		}
		return c.refused(StageGreeting)
	}
	if f := c.hello(); f != nil {
		return f
	}
	if !c.o.ImplicitTLS && c.o.TLS != TLSNone {
		if f := c.startTLS(); f != nil {
			return f
		}
	}
	return c.authenticate()
}

// hello introduces us and takes the server's extensions in place of all that
// it said before.
func (c *Client) hello() *Failure {
	verb := "EHLO"
	if c.o.Protocol == mail.LMTP {
		verb = "LHLO"
	}
	c.ext, c.esmtp = Extensions{}, false
	if f := c.command(StageHello, verb, c.o.Helo); f != nil {
		return f
	}
	switch c.res.class() {
	case 2:
		c.ext, c.esmtp = parseExtensions(string(c.res.text)), true
		return nil
	case 3:
		return c.unexpected(StageHello)
	case 4:
		return c.refused(StageHello)
	}
	if c.o.Protocol == mail.LMTP {
		return c.refused(StageHello)
	}
	if f := c.command(StageHello, "HELO", c.o.Helo); f != nil {
		return f
	}
	switch c.res.class() {
	case 2:
		return nil
	case 3:
		return c.unexpected(StageHello)
	}
	return c.refused(StageHello)
}

// startTLS encrypts the connection as the policy says (RFC 3207).
func (c *Client) startTLS() *Failure {
	if !c.ext.StartTLS {
		if c.o.TLS == TLSMay {
			return nil
		}
		return c.failure(StageTLS, nil, errors.New("STARTTLS is required and not offered"))
	}
	if f := c.command(StageTLS, "STARTTLS"); f != nil {
		return f
	}
	switch {
	case c.res.code == 220:
	case c.o.TLS == TLSMay && c.res.code != 421 && c.res.class() >= 4:
		return nil
	case c.res.class() >= 4:
		return c.refused(StageTLS)
	default:
		return c.unexpected(StageTLS)
	}
	if c.in.buffered() > 0 { // CVE-2011-0411, from the other side
		return c.failure(StageTLS, nil, errors.New("plaintext behind STARTTLS"))
	}
	if f := c.handshake(); f != nil {
		return f
	}
	return c.hello()
}

func (c *Client) handshake() *Failure {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.o.TLSConfig != nil {
		config = c.o.TLSConfig.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = c.o.Host
	}
	// Implicit TLS has no policy of its own: what is not TLSVerify only encrypts.
	config.InsecureSkipVerify = c.o.TLS != TLSVerify
	conn := tls.Client(c.raw, config)
	c.raw.SetDeadline(time.Now().Add(c.o.CommandTimeout))
	if c.ctxErr() != nil {
		c.abort()
	}
	if err := conn.Handshake(); err != nil {
		f := c.wire(StageTLS, err)
		f.Handshake = !f.aborted
		return f
	}
	state := conn.ConnectionState()
	c.tls = strings.Replace(tls.VersionName(state.Version), "TLS ", "TLSv", 1) + " " +
		tls.CipherSuiteName(state.CipherSuite)
	c.conn, c.in = conn, newReader(conn)
	return nil
}

// authenticate does AUTH (RFC 4954) if Options have credentials.
func (c *Client) authenticate() *Failure {
	if c.o.AuthType == "" {
		if c.o.AuthRequired {
			return c.failure(StageAuth, nil, errors.New("authentication is required and there are no credentials"))
		}
		return nil
	}
	client, err := c.mechanism()
	if err != nil {
		return c.failure(StageAuth, nil, err)
	}
	name, initial, err := client.Start()
	if err != nil {
		return c.failure(StageAuth, nil, err)
	}
	// The prompts of LOGIN are asked for one at a time: not every server takes
	// an initial response. PLAIN keeps within the length of a command line.
	words, held := []string{"AUTH", name}, true
	if encoded := base64.StdEncoding.EncodeToString(initial); name == sasl.Plain && len(encoded) < 500 {
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
	if c.tls == "none" && !o.AuthInsecure && !c.private() {
		return nil, errors.New("credentials are not sent in clear to a public address")
	}
	offers := func(m string) bool { return slices.Contains(c.ext.Auth, m) }
	switch {
	case o.AuthType != "plain" && o.AuthType != "login" && o.AuthType != "any":
		return nil, errors.New("unknown authentication type " + o.AuthType)
	case o.AuthType != "login" && offers(sasl.Plain):
		return sasl.NewPlainClient("", o.AuthUser, o.AuthPass), nil
	case o.AuthType != "plain" && offers(sasl.Login):
		return sasl.NewLoginClient(o.AuthUser, o.AuthPass), nil
	case len(c.ext.Auth) == 0:
		return nil, errors.New("authentication is not offered")
	default:
		return nil, errors.New("no common authentication mechanism, offered: " + strings.Join(c.ext.Auth, " "))
	}
}

// private reports whether the peer is on this host or on a private network.
func (c *Client) private() bool {
	if c.o.Network == "unix" {
		return true
	}
	ip := address(c.raw.RemoteAddr())
	return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()
}
