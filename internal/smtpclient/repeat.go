package smtpclient

import "tarishi/internal/smtpclient/command"

// sender is a reverse-path that was refused, and the code of the reply.
type sender struct {
	from string
	code int
}

// outworn reports whether the transaction, which was refused before any content
// was sent, may have been refused only because of those before it on the
// connection: servers that take one message a connection, or some, say so in any
// code to MAIL, and those that count recipients in a session to RCPT. A sender
// that this server has refused in the same way on a new connection is refused for
// its own sake.
func (t *transaction) outworn() bool {
	c := t.c
	if t.begun {
		return false
	}
	if t.mail != nil {
		refused := sender{t.fit.From, t.mail.Code}
		if c.transactions == 0 {
			c.unwelcome = refused
			return false
		}
		return c.unwelcome != refused
	}

	// A refusal of RCPT or DATA is about the connection only if it says so.
	if c.transactions == 0 {
		return false
	}
	for _, r := range t.replies {
		if r != nil && r.Cause == nil && command.BlamesConnection(r) {
			return true
		}
	}
	return false
}
