package smtpclient

import (
	"errors"
	"io"
	"os"

	"tarishi/internal/reply"
	"tarishi/internal/smtpclient/command"
	"tarishi/internal/smtpclient/wire"
)

// Stage is the step of a conversation at which something happened.
type Stage uint8

// The stages, in the order of a conversation.
const (
	StageConnect Stage = iota + 1
	StageGreeting
	StageHello // EHLO, HELO, LHLO
	StageTLS   // STARTTLS and the handshake
	StageAuth
	StageReset
	StageXClient
	StageXForward
	StageMail
	StageRecipient
	StageData    // the DATA command
	StageContent // the message itself
	StageDot     // the final dot, or the last chunk of BDAT, and the reply to it
)

// String returns what was being done, such as "MAIL" or "final dot".
func (s Stage) String() string {
	names := [...]string{
		"connect", "greeting", "EHLO", "STARTTLS", "AUTH", "RSET", "XCLIENT", "XFORWARD", "MAIL", "RCPT", "DATA", "message content",
		"final dot",
	}
	if i := int(s) - 1; i >= 0 && i < len(names) {
		return names[i]
	}
	return "unknown stage"
}

// Failure is the error of Dial and Send: the connection could not be made or
// prepared, was lost, or the peer broke the protocol. It always means "try
// again later"; nothing is known of single recipients. errors.As with a
// *reply.Reply, and so reply.From, finds Deferral.
type Failure struct {
	Stage Stage
	// Reply is what the server said, whatever its class, or a 451 4.5.0 of our
	// own when its words are no reply to this command. It is nil when the
	// connection was lost or never there.
	Reply *reply.Reply
	Err   error // private cause; nil when Reply says everything
	// Uncertain is set when the final dot was sent and no valid reply to it
	// arrived: the message may have been accepted.
	Uncertain bool
	// Fresh is set unless the connection had carried a transaction before.
	Fresh bool
	// Handshake is set when STARTTLS or the TLS handshake failed, or the connection was
	// lost, closed by a 421 or answered with garbage in between or before the first
	// reply after it: with TLSMay the caller may try again in clear on a new connection.
	Handshake bool
	// Renewed is set when there is a new access token in the place of one that the server refused,
	// and the connection did not live to show it: a new one may.
	Renewed bool
	Addr    string // as in Options

	lost    bool // connection closed, reset or timed out
	mute    bool // in the handshake of implicit TLS, where a greeting comes later
	aborted bool // by the caller's context
}

// Error names the stage, the address and the reason.
func (f *Failure) Error() string {
	s := f.Addr + ": " + f.Stage.String() + ": "
	switch {
	case errors.Is(f.Err, wire.ErrGarbled): // the reply is ours and says less
		return s + f.Err.Error()
	case f.Reply != nil && f.Err != nil:
		return s + f.Reply.String() + ": " + f.Err.Error()
	case f.Reply != nil:
		return s + f.Reply.String()
	default:
		return s + f.Err.Error()
	}
}

// Unwrap returns the private cause.
func (f *Failure) Unwrap() error { return f.Err }

// As lets errors.As find the Deferral.
func (f *Failure) As(target any) bool {
	r, ok := target.(**reply.Reply)
	if ok {
		*r = f.Deferral()
	}
	return ok
}

// Deferral returns the failure as a reply of class 4, with f as its private
// cause: the server's own reply when that is of class 4 already.
func (f *Failure) Deferral() *reply.Reply {
	if r := f.Reply; r != nil {
		if r.Temporary() {
			return r.Because(circumstances{f})
		}

		// What a server says before MAIL is about us, not about the message: a 5yz there
		// must not fail the recipients.
		d := reply.Newf(451, "", "Next hop refused at %s: %s", f.Stage, r)
		d.Enhanced = reply.Enhanced{4, 5, 0}
		if r.Enhanced != (reply.Enhanced{}) {
			d.Enhanced = reply.Enhanced{4, r.Enhanced[1], r.Enhanced[2]}
		}
		return d.Because(circumstances{f})
	}
	switch {
	case f.Stage == StageConnect:
		return reply.New(451, "4.4.1", "Next hop cannot be reached").Because(f)
	case f.Stage == StageTLS:
		return reply.New(451, "4.7.5", "No secure connection to the next hop").Because(f)
	case f.Stage == StageAuth && !f.lost:
		return reply.New(451, "4.7.0", "No authentication at the next hop").Because(f)
	case f.lost:
		return reply.Newf(451, "4.4.2", "Connection to the next hop lost at %s", f.Stage).Because(f)
	default:
		return reply.New(451, "4.3.0", "Temporary local problem, please try again later").Because(f)
	}
}

// circumstances are a Failure as the cause of a reply that tells already what
// the server said.
type circumstances struct{ f *Failure }

// Error has the address, the stage and the private cause.
func (c circumstances) Error() string {
	s := c.f.Addr + ": " + c.f.Stage.String()
	if c.f.Err != nil {
		s += ": " + c.f.Err.Error()
	}
	return s
}

// Unwrap returns the Failure.
func (c circumstances) Unwrap() error { return c.f }

// Stale reports whether a kept connection turned out to be dead, or was shut by a
// 421, before any content was sent on it, or could not be reset: then the
// transaction can be repeated on a new connection without risk.
func (f *Failure) Stale() bool {
	switch {
	case f.Fresh || f.aborted || f.Stage > StageData:
		return false
	case f.Stage == StageReset:
		return true
	case f.Stage > StageMail && errors.Is(f.Err, wire.ErrTimeout): // it lives, and is slow: so it will be again
		return false
	}
	return f.lost || f.Reply != nil && f.Reply.Code == 421
}

// Unreachable reports whether no server answered at all: no connection, not a
// byte of a greeting that could be read, or no handshake of implicit TLS in time.
func (f *Failure) Unreachable() bool {
	return f.Stage == StageConnect && f.Reply == nil || f.Stage == StageGreeting && f.lost || f.mute
}

// LacksTLS reports whether the server does not offer the STARTTLS that the policy
// asks for, or REQUIRETLS (RFC 8689) to a message with it. That there is no
// STARTTLS anybody on the way can make us believe.
func (f *Failure) LacksTLS() bool {
	return f.Err == errNoSTARTTLS || f.Stage == StageMail && f.Reply != nil && f.Reply.Status() == command.ErrRequireTLS.Enhanced
}

// inHandshake marks f as one that may not come without STARTTLS.
func (f *Failure) inHandshake() *Failure {
	f.Handshake = !f.aborted
	return f
}

// connectionLost breaks the connection off because reading from it or writing to it
// failed, and says how.
func (c *Client) connectionLost(s Stage, err error) *Failure {
	f := c.failure(s, nil, err)
	switch {
	case c.conn.Err() != nil:
		f.Err, f.lost, f.aborted = c.conn.Err(), true, true
	case errors.Is(err, wire.ErrGarbled):
		f.Reply = reply.New(451, "4.5.0", "Next hop sent an invalid reply to "+s.String())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		f.Err, f.lost = errClosed, true
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.Err, f.lost = wire.ErrTimeout, true
	default:
		f.lost = true
	}
	return f
}

// unexpected breaks the connection off because a well-formed reply has no
// meaning where it came.
func (c *Client) unexpected(s Stage) *Failure {
	return c.connectionLost(s, wire.Garbled("%s is no reply to %s", c.conn.Last.Reply(), s))
}

// refused breaks the connection off because of the last reply.
func (c *Client) refused(s Stage) *Failure { return c.failure(s, c.conn.Last.Reply(), nil) }

// failure breaks the connection off for any other reason.
func (c *Client) failure(s Stage, r *reply.Reply, err error) *Failure {
	c.conn.Close()
	return c.report(s, r, err)
}

// report describes a failure that leaves the connection as it is.
func (c *Client) report(s Stage, r *reply.Reply, err error) *Failure {
	return &Failure{Stage: s, Reply: r, Err: err, Fresh: c.transactions == 0, Addr: c.o.Addr}
}

var errClosed = errors.New("connection closed by peer")
