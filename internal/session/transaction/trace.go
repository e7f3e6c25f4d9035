package transaction

import (
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/receive"
)

// Received returns our trace field (RFC 5321 section 4.4). name is the client's, me ours,
// and software what we call ourselves.
func (t *Transaction) Received(c *hook.Connection, name, me, software string, now time.Time) string {
	client := ""
	if shown := c.TLS.Certificate; shown != nil {
		client = shown.Fingerprint
		if len(shown.Names) > 0 {
			client = shown.Names[0]
		}
	}
	return receive.Trace{
		Hello: c.Hello.Host, Name: name, Addr: c.Remote.Addr.Addr(), By: me, Software: software, With: t.protocol(c),
		ID: t.ID, From: t.From, Cipher: c.TLS.Cipher, Client: client, Verified: c.TLS.Verified, Authenticated: c.AuthUser != "", Time: now,
	}.Field()
}

// protocol is the protocol keyword of RFC 3848 and, for SMTPUTF8, RFC 6531 section
// 4.3.
func (t *Transaction) protocol(c *hook.Connection) string {
	p := "SMTP"
	switch {
	case t.UTF8:
		p = "UTF8SMTP"
	case c.Hello.Verb == "EHLO":
		p = "ESMTP"
	default:
		return p
	}

	// Only the protocols with extensions have names for TLS and AUTH.
	if c.TLS.Enabled {
		p += "S"
	}
	if c.AuthUser != "" {
		p += "A"
	}
	return p
}
