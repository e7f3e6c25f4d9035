package session

import (
	"cmp"
	"time"

	"tarishi/internal/receive"
	"tarishi/internal/reply"
	"tarishi/internal/session/peer"
	"tarishi/internal/smtpd/syntax"
)

// denied returns a refusal with the connection's id, where the configuration wants that.
func (s *session) denied(r *reply.Reply) *reply.Reply { return s.o.MarkRefusal(r, s.o.Me, s.c.ID) }

// helloText returns the first line of the reply to HELO and EHLO.
func (s *session) helloText() string {
	ip := "[" + s.c.Remote.Addr.Addr().String() + "]"
	if h := s.c.Remote.Host; h != "" && h != peer.NXDomain && h != peer.DNSError {
		ip = syntax.Word(h) + " " + ip
	}
	return s.o.Me + " Hello " + ip + ", " + s.o.Helo
}

// received returns our trace field for the open transaction, or "" when none is
// wanted.
func (s *session) received(now time.Time) string {
	if !s.o.AddReceived {
		return ""
	}
	return receive.Trace{
		Hello: s.c.Hello.Host, Name: s.fromName(), Addr: s.c.Remote.Addr.Addr(), By: s.o.Me,
		Software: syntax.Word(s.o.Software(s.srv.o.Version)), With: s.protocol(),
		ID: s.tx.ID, From: s.tx.From, Cipher: s.c.TLS.Cipher, Authenticated: s.c.AuthUser != "", Time: now,
	}.Field()
}

// fromName is what our trace field calls the client beside its address.
func (s *session) fromName() string {
	if host := s.c.Remote.Host; s.named.Name() == "" && (host == peer.NXDomain || host == peer.DNSError) {
		return host
	}
	return cmp.Or(s.named.Name(), peer.Unknown)
}

// protocol is the protocol keyword of RFC 3848 and, for SMTPUTF8, RFC 6531 section
// 4.3.
func (s *session) protocol() string {
	p := "SMTP"
	switch {
	case s.tx.UTF8:
		p = "UTF8SMTP"
	case s.c.Hello.Verb == "EHLO":
		p = "ESMTP"
	default:
		return p
	}
	if s.c.TLS.Enabled {
		p += "S"
	}
	if s.c.AuthUser != "" {
		p += "A"
	}
	return p
}
