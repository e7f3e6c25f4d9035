package session

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/guesses"
	"tarishi/internal/hook"
	"tarishi/internal/reply"
	"tarishi/internal/smtpd"
	"tarishi/internal/smtpd/syntax"
)

// maxAttempts is how many wrong passwords one connection may offer.
const maxAttempts = 5

// attempts counts wrong passwords.
type attempts int

// delay is how long the answer to this attempt waits: base, doubled with each.
func (a attempts) delay(base time.Duration) time.Duration {
	return min(base<<min(a, 16), maxAuthDelay)
}

var (
	errWrongAuth   = reply.New(535, "5.7.8", "Authentication failed")
	errManyAuth    = reply.New(421, "4.7.0", "Too many failed attempts to authenticate")
	errWaitAuth    = reply.New(421, "4.7.0", "Too many failed attempts to authenticate from your address, try again later")
	errNoMechanism = reply.New(504, "5.5.4", "Unrecognized authentication type")
	errNeedsTLS    = reply.New(538, "5.7.11", "Encryption required for requested authentication mechanism")
	errAuthBackend = reply.New(454, "4.7.0", "Temporary authentication failure")
)

// mayAuth reports whether credentials may cross this connection.
func (s *session) mayAuth() bool {
	return s.c.TLS.Enabled || s.o.AuthInsecure || s.c.Remote.Private || s.c.Remote.Local
}

// mechanisms are those that EHLO announces: what the plugins of this connection can
// verify and what we speak.
func (s *session) mechanisms() []string {
	if !s.mayAuth() || len(s.c.Auth) == 0 {
		return nil
	}
	return slices.DeleteFunc(smtpd.Mechanisms(), func(mech string) bool { return s.verifier(mech) == nil })
}

func (s *session) verifier(mech string) hook.Authenticator {
	for _, a := range s.c.Auth {
		if slices.Contains(a.Mechanisms(), mech) {
			return a
		}
	}
	return nil
}

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
	s := a.s
	// The refusals that say how to go on come first.
	switch {
	case s.c.Hello.Verb != "EHLO":
		return reply.New(503, "5.5.1", "Use EHLO before AUTH")
	case len(s.c.Auth) == 0:
		return reply.New(502, "5.7.0", "Authentication not supported")
	case s.verifier(mech) == nil || !slices.Contains(smtpd.Mechanisms(), mech):
		return errNoMechanism
	case !s.mayAuth():
		return errNeedsTLS
	case s.srv.guesses.MustWait(s.c.Remote.Addr.Addr()):
		return s.mustWait(mech, "")
	}
	return nil
}

// mustWait answers a client that offered too many wrong passwords, and closes: none
// is verified until the wait is over.
func (s *session) mustWait(mech, user string) *reply.Reply {
	s.logAuth(mech, user, errWaitAuth.Code)
	s.stopReading()
	return s.denied(errWaitAuth)
}

// Verify implements smtpd.Authority.
func (a authority) Verify(mech, identity, user, pass string) (r *reply.Reply) {
	defer a.rescue(&r)
	s := a.s
	place, ok := s.srv.guesses.TakePlace(s.ctx, s.c.Remote.Addr.Addr())
	if !ok {
		return s.mustWait(mech, user)
	}

	// Relaying and the user are set before the answer: commands may be pipelined.
	right, trouble := s.askPlugins(place, mech, identity, user, pass)
	switch {
	case right:
		s.c.Relaying = true
		s.c.AuthUser, s.c.AuthPass, s.c.AuthMech = user, pass, mech
		s.state = authenticated
		s.logAuth(mech, user, 235)
		return nil
	case trouble != nil:
		s.logAuth(mech, user, errAuthBackend.Code)
		return errAuthBackend
	}
	return s.failAuth(mech, user, errWrongAuth)
}

// askPlugins asks each plugin that speaks the mechanism until one says yes. A plugin in
// trouble makes the answer temporary, unless another one says yes. Nobody may act
// for somebody else. It gives the place back.
func (s *session) askPlugins(place guesses.Place, mech, identity, user, pass string) (right bool, trouble error) {
	// The place is given back also after a panic, which is nobody's wrong password.
	wrong := false
	defer func() { place.GiveBack(user, pass, wrong) }()
	for _, a := range s.c.Auth {
		if identity != user || !slices.Contains(a.Mechanisms(), mech) {
			continue
		}
		ok, err := a.Authenticate(s.ctx, s.c.View(), user, pass)
		if err != nil {
			s.logger().Error("authentication back end failed", zap.String("user", user), zap.Error(err))
			trouble = err
			continue
		}
		if ok {
			return true, nil
		}
	}
	wrong = trouble == nil
	return false, trouble
}

// logAuth logs the answer with the client's address, so that addresses can be blocked
// by the log.
func (s *session) logAuth(mech, user string, code int) {
	s.srv.o.Mail.Auth(s.c.ID, s.c.Remote.Addr.Addr().String(), mech, user, code)
}

// failAuth answers wrong credentials, each time more slowly, and at last closes.
func (s *session) failAuth(mech, user string, r *reply.Reply) *reply.Reply {
	s.logAuth(mech, user, r.Code)
	// Guessing gets slower with each wrong password; a Shutdown does not wait for it.
	pause := time.NewTimer(s.wrong.delay(s.srv.authDelay))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-s.ctx.Done():
	case <-s.srv.closing:
	}
	if s.wrong++; s.wrong >= maxAttempts {
		s.stopReading()
		r = errManyAuth
	}
	return s.denied(r)
}
