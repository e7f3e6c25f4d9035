package smtpclient

import (
	"crypto/tls"
	"errors"
	"strings"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/smtpclient/command"
	"tarishi/internal/smtpclient/wire"
)

// prepare does everything between the connection and the first transaction.
func (c *Client) prepare() *Failure {
	if c.o.ImplicitTLS {
		if f := c.handshake(); f != nil {
			return f
		}
	}

	// The greeting decides whether the server takes mail at all; only 220 means so.
	if err := c.conn.Await(c.o.GreetingTimeout); err != nil {
		return c.connectionLost(StageGreeting, err)
	}
	if c.conn.Last.Code != 220 {
		if c.conn.Last.Class() == 2 || c.conn.Last.Class() == 3 {
			return c.unexpected(StageGreeting)
		}
		return c.refused(StageGreeting)
	}
	if f := c.introduce(c.o.Helo); f != nil {
		return f
	}
	if !c.o.ImplicitTLS && c.o.TLS != TLSNone {
		if f := c.startTLS(); f != nil {
			return f
		}
	}
	return c.authenticate()
}

// introduce introduces us by name and takes the server's extensions in place of all
// that it said before.
func (c *Client) introduce(name string) *Failure {
	verb := "EHLO"
	if c.o.Protocol == mail.LMTP {
		verb = "LHLO"
	}

	// What was offered before, in clear or to another client, does not hold any more.
	c.ext, c.esmtp = command.Extensions{}, false
	if f := c.command(StageHello, verb, name); f != nil {
		return f
	}
	switch c.conn.Last.Class() {
	case 2:
		c.ext, c.esmtp = command.ParseExtensions(string(c.conn.Last.Text)), true
		return nil
	case 3:
		return c.unexpected(StageHello)
	case 4:
		return c.refused(StageHello)
	}
	if c.o.Protocol == mail.LMTP {
		return c.refused(StageHello)
	}

	// A server that knows no EHLO may still speak plain SMTP (RFC 5321 section 3.2).
	if f := c.command(StageHello, "HELO", name); f != nil {
		return f
	}
	switch c.conn.Last.Class() {
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
		if c.o.TLS == TLSMay || c.o.TLS == TLSMayVerify {
			return nil
		}
		return c.failure(StageTLS, nil, errNoSTARTTLS)
	}

	// Whatever goes wrong from here on may be the fault of the server's TLS, so the caller
	// learns that mail may go in clear where the policy allows it.
	if f := c.command(StageTLS, "STARTTLS"); f != nil {
		return f.inHandshake()
	}
	switch {
	case c.conn.Last.Code == 220:
	case c.o.TLS == TLSMay && c.conn.Last.Code != 421 && c.conn.Last.Class() >= 4:
		// Some close the connection then. NOOP finds out before mail is at stake.
		if f := c.command(StageTLS, "NOOP"); f != nil {
			return f.inHandshake()
		}
		if c.conn.Last.Code == 421 {
			return c.refused(StageTLS).inHandshake()
		}
		return nil
	case c.conn.Last.Class() >= 4:
		return c.refused(StageTLS).inHandshake()
	default:
		return c.unexpected(StageTLS).inHandshake()
	}

	// Nothing that was said in clear counts within TLS: the server introduces itself again.
	if c.conn.Buffered() > 0 { // CVE-2011-0411, from the other side
		return c.failure(StageTLS, nil, errors.New("plaintext behind STARTTLS"))
	}
	if f := c.handshake(); f != nil {
		return f
	}
	f := c.introduce(c.o.Helo)
	if f != nil && f.lost { // only now does a server of TLS 1.3 say that it refuses the handshake
		f.Stage = StageTLS
		return f.inHandshake()
	}
	return f
}

var errNoSTARTTLS = errors.New("STARTTLS is required and not offered")

// handshakeTimeout is what a handshake after STARTTLS has at most: where it is only
// an offer, mail goes in clear when it hangs, and is not to be given up before.
const handshakeTimeout = time.Minute

func (c *Client) handshake() *Failure {
	// Implicit TLS has no policy: where it does not verify, it only encrypts.
	config := wire.ClientTLS(c.o.TLSConfig, c.o.Host, c.o.TLS.verifies(), c.o.Verify)

	// A server may hang in the handshake as well as anywhere else.
	wait := min(c.o.CommandTimeout, handshakeTimeout)
	if c.o.ImplicitTLS { // it is the first that we hear of the server
		wait = c.o.GreetingTimeout
	}
	state, err := c.conn.Handshake(config, wait)
	if err != nil {
		f := c.connectionLost(StageTLS, err)
		f.Handshake = !f.aborted
		f.mute = c.o.ImplicitTLS && errors.Is(f.Err, wire.ErrTimeout)
		return f
	}
	c.tls = strings.Replace(tls.VersionName(state.Version), "TLS ", "TLSv", 1) + " " +
		tls.CipherSuiteName(state.CipherSuite)
	c.sure = c.o.TLS.verifies()
	return nil
}
