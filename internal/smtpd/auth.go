package smtpd

import (
	"cmp"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"tarishi/internal/reply"
)

// Authority decides about credentials. Its methods are called in a goroutine of
// go-smtp's, while Authenticate waits; they must not panic.
type Authority interface {
	// BeginAuth returns nil if the mechanism, in upper case, may be used here, or the
	// reply that refuses it.
	BeginAuth(mechanism string) *reply.Reply
	// Verify returns nil if pass is the password of user, and user may act as identity,
	// or the reply that refuses it.
	Verify(mechanism, identity, user, pass string) *reply.Reply
}

// Mechanisms are those that this package speaks, in the order of the reply to EHLO.
func Mechanisms() []string { return []string{sasl.Plain, sasl.Login} }

var (
	authenticated = reply.New(235, "2.7.0", "Authentication successful")
	errBadAuth    = reply.New(501, "5.5.2", "Invalid AUTH string")
)

// Authenticate answers AUTH (RFC 4954), whatever the exchange comes to. Its errors
// are those of reading.
func (c *Conn) Authenticate(arg string, authority Authority) error {
	a := c.settings.Answerers.borrow()
	defer c.settings.Answerers.giveBack(a)

	// go-smtp wants a greeting before AUTH. Its buffers see the password, so nobody gets
	// them after this.
	a.conn, a.used = c, true
	a.answer("EHLO localhost\r\n", nil)
	a.authority = authority

	// go-smtp does not know a verb with only a blank behind it.
	line := "AUTH " + arg + "\r\n"
	if arg == "" {
		line = "AUTH\r\n"
	}
	a.answer(line, func(line []byte) {
		if line[0] == '2' {
			c.WriteReply(authenticated)
			return
		}
		c.appendLine(line)
	})
	return a.failed
}

func (a *answerer) beginAuth(mech string) (sasl.Server, error) {
	if bad := a.authority.BeginAuth(mech); bad != nil {
		return nil, wire(bad)
	}
	// Refusals pass through go-sasl, which knows nothing of replies.
	check := func(identity, user, pass string) error {
		if bad := a.authority.Verify(mech, identity, user, pass); bad != nil {
			return refused{bad}
		}
		return nil
	}
	switch mech {
	case sasl.Plain:
		return exchange{sasl.NewPlainServer(func(identity, user, pass string) error {
			return check(cmp.Or(identity, user), user, pass)
		})}, nil
	case sasl.Login:
		return exchange{&login{verify: func(user, pass string) error { return check(user, user, pass) }}}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

// refused is an Authority's refusal on its way through go-sasl.
type refused struct{ *reply.Reply }

// exchange is a sasl.Server that fails with replies only.
type exchange struct{ sasl.Server }

// Next implements sasl.Server.
func (e exchange) Next(response []byte) (challenge []byte, done bool, err error) {
	challenge, done, err = e.Server.Next(response)
	if err == nil {
		return challenge, done, nil
	}
	if r, ok := err.(refused); ok {
		return nil, done, wire(r.Reply)
	}
	return nil, done, wire(errBadAuth)
}

// login is the server of the mechanism LOGIN
// (draft-murchison-sasl-login-00): a user name, perhaps with the command, and
// then a password.
type login struct {
	verify func(user, pass string) error
	user   *string
	asked  bool
}

// Next implements sasl.Server.
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
