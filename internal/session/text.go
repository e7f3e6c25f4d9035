package session

import (
	"cmp"
	"time"

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
func (s *session) received() string {
	if !s.o.AddReceived {
		return ""
	}
	return s.tx.Received(s.c, s.fromName(), s.o.Me, syntax.Word(s.o.Software(s.srv.o.Version)), time.Now())
}

// fromName is what our trace field calls the client beside its address.
func (s *session) fromName() string {
	if host := s.c.Remote.Host; s.named.Name() == "" && (host == peer.NXDomain || host == peer.DNSError) {
		return host
	}
	return cmp.Or(s.named.Name(), peer.Unknown)
}
