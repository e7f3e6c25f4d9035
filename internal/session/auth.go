package session

import (
	"cmp"
	"slices"
	"time"

	"github.com/emersion/go-sasl"
	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/reply"
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
	authenticated  = reply.New(235, "2.7.0", "Authentication successful")
	errBadAuth     = reply.New(501, "5.5.2", "Invalid AUTH string")
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

// AuthMechanisms implements smtp.AuthSession: what the plugins of this
// connection can verify and what we speak.
func (s *session) AuthMechanisms() []string {
	if !s.mayAuth() {
		return nil
	}
	var all []string
	for _, mech := range []string{sasl.Plain, sasl.Login} {
		if s.verifier(mech) != nil {
			all = append(all, mech)
		}
	}
	return all
}

func (s *session) verifier(mech string) hook.Authenticator {
	for _, a := range s.c.Auth {
		if slices.Contains(a.Mechanisms(), mech) {
			return a
		}
	}
	return nil
}

// Auth implements smtp.AuthSession (RFC 4954).
func (s *session) Auth(mech string) (server sasl.Server, err error) {
	defer s.guard("auth", &err)
	switch {
	case s.c.Hello.Verb != "EHLO": // go-smtp remembers a greeting that was refused later
		return nil, wire(reply.New(503, "5.5.1", "Use EHLO before AUTH"))
	case s.tx != nil:
		return nil, wire(reply.New(503, "5.5.1", "AUTH not allowed during a mail transaction"))
	case len(s.c.Auth) == 0:
		return nil, wire(reply.New(502, "5.7.0", "Authentication not supported"))
	case s.verifier(mech) == nil || mech != sasl.Plain && mech != sasl.Login:
		return nil, wire(errNoMechanism)
	case !s.mayAuth():
		return nil, wire(errNeedsTLS)
	case s.srv.guesses.waits(s.c.Remote.Addr.Addr()):
		return nil, s.mustWait(mech, "")
	}
	check := func(user, pass string) error { return s.verify(mech, user, user, pass) }
	if mech == sasl.Login {
		return &exchange{Server: &login{verify: check}, s: s}, nil
	}
	return &exchange{s: s, Server: sasl.NewPlainServer(func(identity, user, pass string) error {
		return s.verify(mech, cmp.Or(identity, user), user, pass)
	})}, nil
}

// mustWait answers a client that offered too many wrong passwords, and closes: none
// is verified until the wait is over.
func (s *session) mustWait(mech, user string) error {
	s.logAuth(mech, user, errWaitAuth.Code)
	s.over, s.linger = true, true
	return wire(s.denied(errWaitAuth))
}

// verify answers a password.
func (s *session) verify(mech, identity, user, pass string) error {
	if !s.srv.guesses.begin(s.ctx, s.c.Remote.Addr.Addr()) {
		return s.mustWait(mech, user)
	}
	right, trouble := s.try(mech, identity, user, pass)
	switch {
	case right:
		s.c.Relaying = true
		s.c.AuthUser, s.c.AuthPass, s.c.AuthMech = user, pass, mech
		s.logAuth(mech, user, 235)
		return nil
	case trouble != nil:
		s.logAuth(mech, user, errAuthBackend.Code)
		return wire(errAuthBackend)
	}
	return s.failed(mech, user, errWrongAuth)
}

// try asks each plugin that speaks the mechanism until one says yes. A plugin in
// trouble makes the answer temporary, unless another one says yes. Nobody may act
// for somebody else. It gives back the place that guesses gave.
func (s *session) try(mech, identity, user, pass string) (right bool, trouble error) {
	wrong := false // also after a panic
	defer func() { s.srv.guesses.end(s.c.Remote.Addr.Addr(), user, pass, wrong) }()
	for _, a := range s.c.Auth {
		if identity != user || !slices.Contains(a.Mechanisms(), mech) {
			continue
		}
		ok, err := a.Authenticate(s.ctx, s.c, user, pass)
		if err != nil {
			s.log().Error("authentication back end failed", zap.String("user", user), zap.Error(err))
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

// logAuth logs the answer with the client's address, for those who look for
// addresses to block.
func (s *session) logAuth(mech, user string, code int) {
	s.o.Mail.Auth(s.c.ID, s.c.Remote.Addr.Addr().String(), mech, user, code)
}

// failed answers wrong credentials, each time more slowly, and at last closes.
func (s *session) failed(mech, user string, r *reply.Reply) error {
	s.logAuth(mech, user, r.Code)
	pause := time.NewTimer(s.auth.delay(s.srv.authDelay))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-s.ctx.Done():
	case <-s.srv.closing:
	}
	if s.auth++; s.auth >= maxAttempts {
		s.over, s.linger = true, true
		r = errManyAuth
	}
	return wire(s.denied(r))
}

// exchange is a sasl.Server whose every error is a reply.
type exchange struct {
	sasl.Server
	s *session
}

func (e *exchange) Next(response []byte) (challenge []byte, done bool, err error) {
	defer e.s.guard("auth", &err)
	challenge, done, err = e.Server.Next(response)
	if err != nil && !isReply(err) {
		err = wire(errBadAuth)
	}
	return challenge, done, err
}

// login is the server of the mechanism LOGIN
// (draft-murchison-sasl-login-00): a user name, perhaps with the command, and
// then a password.
type login struct {
	verify func(user, pass string) error
	user   *string
	asked  bool
}

func (l *login) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil && !l.asked:
		l.asked = true
		return []byte("Username:"), false, nil
	case l.user == nil:
		user := string(response)
		l.user, l.asked = &user, true
		return []byte("Password:"), false, nil
	}
	return nil, true, l.verify(*l.user, string(response))
}
