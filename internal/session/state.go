package session

import (
	"tarishi/internal/reply"
	"tarishi/internal/smtpd/syntax"
)

// state is how far the protocol is. The picture is in the package comment.
type state int

const (
	connected     state = iota // the client has not said EHLO or HELO, or was refused
	greeted                    // it has
	authenticated              // and has shown its credentials
	inTransaction              // MAIL was accepted
	receiving                  // in the content of a message, or between two chunks of it
	closing                    // no more commands
	accepted                   // no hook has seen the connection yet
)

// commandStates is how many states there are, from connected on, in which commands
// are read.
const commandStates = int(closing)

// step answers a command and moves to the next state.
type step func(s *session, c syntax.Command)

// steps says what a command does in each state. Where a step asks for more than the
// state, that is about what was agreed on the connection (TLS, credentials, what
// plugins offer), never about the sequence of commands.
var steps = [syntax.Verbs][commandStates]step{
	//                    connected, greeted, authenticated, inTransaction, receiving
	syntax.HELO:          inEachState((*session).answerHello),
	syntax.EHLO:          inEachState((*session).answerHello),
	syntax.STARTTLS:      inEachState((*session).answerStartTLS),
	syntax.AUTH:          {introduceFirst, (*session).answerAuth, authOnce, noAuthNow, noAuthNow},
	syntax.MAIL:          {greetFirst, (*session).answerMail, (*session).answerMail, (*session).answerMail, noMailNow},
	syntax.RCPT:          {mailFirst, mailFirst, mailFirst, (*session).answerRcpt, noRcptNow},
	syntax.DATA:          {contentLater, contentLater, contentLater, (*session).answerData, noDataNow},
	syntax.BDAT:          {(*session).skipBdat, (*session).skipBdat, (*session).skipBdat, (*session).firstChunk, (*session).nextChunk},
	syntax.RSET:          inEachState((*session).answerRset),
	syntax.NOOP:          inEachState((*session).answerNoop),
	syntax.VRFY:          inEachState((*session).answerVrfy),
	syntax.QUIT:          inEachState((*session).answerQuit),
	syntax.PROXY:         inEachState((*session).refuseProxy),
	syntax.XCLIENT:       inEachState((*session).answerXClient),
	syntax.Unimplemented: inEachState((*session).decline),
	syntax.Unknown:       inEachState((*session).unrecognized),
}

// The steps of commands that are out of sequence (RFC 5321 section 4.1.4).
var (
	introduceFirst = refuseWith(502, "Please introduce yourself first.")
	greetFirst     = refuseWith(503, "Use EHLO/HELO before MAIL")
	mailFirst      = refuseWith(503, "Use MAIL before RCPT")
	contentLater   = refuseWith(503, "MAIL required first")
	authOnce       = refuseWith(503, "Already authenticated")
	authLater      = refuseWith(503, "AUTH not allowed during a mail transaction")
	noMailNow      = refuseWith(503, "MAIL not allowed during message transfer")
	noRcptNow      = refuseWith(503, "RCPT not allowed during message transfer")
	noDataNow      = refuseWith(503, "DATA not allowed during message transfer")
)

// noAuthNow is the step of AUTH in a transaction. It need not be tried again later by
// a client that has shown its credentials.
func noAuthNow(s *session, c syntax.Command) {
	if s.c.AuthUser != "" {
		authOnce(s, c)
	} else {
		authLater(s, c)
	}
}

// refuseWith returns the step that refuses a command which is out of sequence.
func refuseWith(code int, text string) step {
	r := reply.New(code, "5.5.1", text)
	return func(s *session, _ syntax.Command) { s.refuse(r) }
}

// inEachState is the row of a command that does the same in each state.
func inEachState(f step) (row [commandStates]step) {
	for i := range row {
		row[i] = f
	}
	return row
}

// dispatch does what one command asks for.
func (s *session) dispatch(c syntax.Command) {
	// A browser that was led here would deliver mail that its user never wrote.
	if s.state == connected && c.Verb != syntax.EHLO && c.Verb != syntax.HELO && c.IsRequest() {
		s.hangUp(reply.New(521, "5.5.1", "This is a mail server"))
		return
	}
	if bad := c.Malformed(); bad != nil {
		s.refuse(bad)
		return
	}
	steps[c.Verb][s.state](s, c)
}

// restingState is the state outside a transaction.
func (s *session) restingState() state {
	switch {
	case s.c.Hello.Verb == "":
		return connected
	case s.c.AuthUser != "":
		return authenticated
	}
	return greeted
}

// leaveTransaction leaves the states of a transaction.
func (s *session) leaveTransaction() {
	if s.state == inTransaction || s.state == receiving {
		s.state = s.restingState()
	}
}
