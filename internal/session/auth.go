package session

import (
	"tarishi/internal/reply"
	"tarishi/internal/smtpd/syntax"
)

// answerAuth answers AUTH (RFC 4954).
func (s *session) answerAuth(c syntax.Command) {
	if err := s.wire.Authenticate(c.Argument, authority{s}); err != nil {
		s.giveUp(err)
	}
}

// authority decides about the credentials of a session. It is called in a goroutine
// of smtpd's, in which no panic is caught.
type authority struct{ s *session }

// rescue turns a panic into the reply 421, behind which the connection ends. It is
// deferred.
func (a authority) rescue(r **reply.Reply) {
	if v := recover(); v != nil {
		*r = a.s.logPanic("auth", v)
		a.s.stopReading()
	}
}

// BeginAuth implements smtpd.Authority.
func (a authority) BeginAuth(mech string) (r *reply.Reply) {
	defer a.rescue(&r)
	if a.s.c.Hello.Verb != "EHLO" {
		return reply.New(503, "5.5.1", "Use EHLO before AUTH")
	}
	return a.s.markAuth(a.s.srv.login.Refuse(a.s.c, mech, a.s.o.AuthInsecure))
}

// Verify implements smtpd.Authority.
func (a authority) Verify(mech, identity, user, pass string) (r *reply.Reply) {
	defer a.rescue(&r)
	s := a.s
	if r = s.srv.login.Verify(s.ctx, s.c, &s.wrong, mech, identity, user, pass); r == nil {
		s.state = authenticated
	}
	return s.markAuth(r)
}

// markAuth marks a refusal of credentials. The connection ends behind 421: nothing more is
// verified.
func (s *session) markAuth(r *reply.Reply) *reply.Reply {
	// The id is for complaints about passwords; replies that say how to go on are complained
	// of by nobody.
	switch {
	case r == nil:
		return nil
	case r.Code == 421:
		s.stopReading()
		return s.denied(r)
	case r.Code == 535:
		return s.denied(r)
	}
	return r
}
