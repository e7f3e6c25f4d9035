package session

import (
	"cmp"
	"net/netip"

	"tarishi/internal/hook"
	"tarishi/internal/localaddr"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/session/peer"
	"tarishi/internal/session/xclient"
	"tarishi/internal/smtpd/syntax"
)

// answerXClient answers XCLIENT. From a trusted peer it makes the connection another
// client's, and the conversation begins anew, with a banner or a refusal.
func (s *session) answerXClient(c syntax.Command) {
	// Without the plugin it is a command like any other that is not known.
	switch {
	case s.c.XClient == hook.XClientUnknown:
		s.unrecognized(c)
		return
	case s.tx != nil:
		s.refuse(reply.New(503, "5.5.0", "Mail transaction in progress"))
		return
	case s.c.XClient == hook.XClientRefused:
		s.refuse(reply.New(550, "5.5.0", "Not authorized"))
		return
	}
	client, bad := xclient.Parse(c.Argument)
	if bad != nil {
		s.refuse(bad)
		return
	}

	s.handOver(client)
	if !s.introduce(client.Name) {
		s.state = closing
		return
	}
	s.state = s.restingState()
}

// handOver makes the connection a client's.
func (s *session) handOver(client *xclient.Client) {
	s.named.Stop()
	s.named = peer.Confirmation{}

	// The log knows the client by an id of its own, as if the connection had begun now.
	was := s.c.ID
	s.c.ID = mail.NewConnectionID()
	s.c.Remote = hook.Remote{
		Addr:    netip.AddrPortFrom(client.Addr, client.Port),
		Private: localaddr.IsPrivate(client.Addr), Local: peer.IsLocal(client.Addr, s.srv.own),
	}
	if client.DestAddr.IsValid() {
		s.c.Local = netip.AddrPortFrom(client.DestAddr, s.c.Local.Port())
	}
	if client.DestPort != 0 {
		s.c.Local = netip.AddrPortFrom(s.c.Local.Addr(), client.DestPort)
	}
	s.c.Proxy = hook.Proxy{Addr: s.peer, Type: "xclient"}
	s.srv.o.Mail.HandedOver(s.c.ID, was, s.c.Remote.Addr, s.c.Local, s.c.Proxy.Addr)

	// Nothing that the peer was allowed, or has shown, is the client's.
	s.c.Relaying, s.c.AuthUser, s.c.AuthPass, s.c.AuthMech = false, "", "", ""
	if client.Login != "" && s.c.XClient == hook.XClientLogin {
		s.c.Relaying, s.c.AuthUser, s.c.AuthMech = true, client.Login, "XCLIENT"
	}
	s.c.TLS.Verified, s.c.TLS.VerifyError, s.c.TLS.Certificate = false, "", nil
	delete(s.c.Notes, "tls")
	s.c.Hello = hook.Hello{}
	if client.Helo != "" {
		s.c.Hello = hook.Hello{Verb: "HELO", Host: client.Helo}
		if cmp.Or(client.Protocol, "ESMTP") == "ESMTP" {
			s.c.Hello.Verb = "EHLO"
		}
	}
}
