package session

import (
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

// handOver makes the connection a client's. The log knows it by an id of its own, as if the
// connection had begun now.
func (s *session) handOver(client *xclient.Client) {
	s.named.Stop()
	s.named = peer.Confirmation{}
	was := s.c.ID
	s.c.ID = mail.NewConnectionID()
	client.TakeOver(s.c, s.peer)
	s.c.Remote.Private, s.c.Remote.Local = localaddr.IsPrivate(client.Addr), peer.IsLocal(client.Addr, s.srv.own)
	s.srv.o.Mail.HandedOver(s.c.ID, was, s.c.Remote.Addr, s.c.Local, s.c.Proxy.Addr)
}
