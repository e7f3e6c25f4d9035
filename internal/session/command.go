package session

import (
	"strings"

	"tarishi/internal/hook"
	"tarishi/internal/reply"
	"tarishi/internal/session/login"
	"tarishi/internal/session/verdict"
	"tarishi/internal/smtpd"
	"tarishi/internal/smtpd/syntax"
)

// answerRset answers RSET.
func (s *session) answerRset(syntax.Command) {
	s.RunHook(hook.OnRset, hook.Event{})
	s.endTransaction()
	s.wire.Answer(250, "2.0.0", "OK")
}

// decline answers a command that is not implemented.
func (s *session) decline(c syntax.Command) { s.wire.Decline(c) }

// answerVrfy answers VRFY. Only a plugin reveals whether an address exists (RFC 5321
// section 7.3).
func (s *session) answerVrfy(c syntax.Command) {
	v := s.RunHook(hook.OnVrfy, hook.Event{Argument: c.Argument})
	switch {
	case v.Code.Denies():
		// Haraka resets the transaction here, and plugins may count on it.
		s.turnDown(v, verdict.Refusal(v, verdict.NewDefault(550, "5.7.1", "Access Denied"), verdict.NewDefault(450, "4.7.1", "Lookup Failed")))
		s.endTransaction()
	case v.Code == hook.OK:
		s.wire.WriteReply(verdict.Assent(v, 250, "2.1.5", "User OK"))
	default:
		s.wire.WriteReply(verdict.Assent(v, 252, "2.1.5", "Just try sending a mail and we'll see how it turns out..."))
	}
}

// answerNoop answers NOOP, which only a permanent refusal can change.
func (s *session) answerNoop(c syntax.Command) {
	v := s.RunHook(hook.OnNoop, hook.Event{Argument: c.Argument})
	if v.Code == hook.Deny || v.Code == hook.DenyDisconnect {
		s.turnDown(v, verdict.Refusal(v, verdict.NewDefault(500, "5.7.1", "Stop wasting my time"), verdict.Default{}))
		return
	}
	s.wire.Answer(250, "2.0.0", "OK")
}

// strangers is how many unrecognized commands a client may send: what goes on
// after so many is not SMTP.
const strangers = 10

// unrecognized answers a command that is not SMTP's, unless a plugin
// understands it.
func (s *session) unrecognized(c syntax.Command) {
	// A plugin may speak an extension that the server does not.
	v := s.RunHook(hook.OnUnrecognized, hook.Event{Verb: c.Name, Argument: c.Argument})
	code, enhanced := 500, "5.5.1"
	switch v.Code {
	case hook.OK:
		s.wire.WriteReply(verdict.Assent(v, 250, "2.0.0", "OK"))
		return
	case hook.DenyDisconnect:
		code = 521
	case hook.DenySoftDisconnect:
		code, enhanced = 421, "4.5.1"
	}

	// A client that never says anything known speaks another protocol.
	unknown := verdict.NewDefault(code, enhanced, "Unrecognized command")
	s.turnDown(v, verdict.Refusal(v, unknown, unknown))
	if s.unknown++; s.unknown > strangers && s.state != closing {
		s.hangUp(reply.New(421, "4.7.0", "Too many unrecognized commands"))
	}
}

// refuseProxy answers the header of a proxy where none may come: the client would have it that
// its connection is somebody else's.
func (s *session) refuseProxy(syntax.Command) {
	s.hangUp(reply.New(421, "4.7.0", "PROXY not allowed from "+s.c.Remote.Addr.Addr().String()))
}

// refuse answers a command that is wrong here.
func (s *session) refuse(r *reply.Reply) { s.wire.WriteReply(s.denied(r)) }

// turnDown answers with a hook's refusal and closes behind it if it says so.
func (s *session) turnDown(v hook.Verdict, r *reply.Reply) {
	s.refuse(r)
	if v.Code.Disconnects() && v.Code.Denies() {
		s.stopReading()
	}
}

// answerQuit says goodbye. Its hook can only change the words.
func (s *session) answerQuit(syntax.Command) {
	v := s.RunHook(hook.OnQuit, hook.Event{})
	text := s.o.Me + " " + s.o.Close
	if v.Text != "" {
		text = v.Text
	}
	s.wire.Answer(221, "2.0.0", text)
	s.stopReading()
}

// answerHello answers HELO and EHLO, which end a transaction, and runs helo or ehlo, and
// capabilities. A refusal leaves the client without a greeting.
func (s *session) answerHello(c syntax.Command) {
	host, bad := c.Host()
	if bad != nil {
		s.refuse(bad)
		return
	}
	s.endTransaction()

	// The hooks see the new name already.
	s.c.Hello = hook.Hello{Verb: c.Name, Host: host}
	p := hook.OnHelo
	if c.Verb == syntax.EHLO {
		p = hook.OnEhlo
	}
	v := s.RunHook(p, hook.Event{Host: host})
	if v.Code.Denies() {
		// The earlier greeting does not count either: this one has replaced it.
		s.c.Hello = hook.Hello{}
		s.state = connected
		s.turnDown(v, verdict.Refusal(v, verdict.NewDefault(550, "5.7.1", c.Name+" denied"), verdict.NewDefault(450, "4.7.1", c.Name+" denied")))
		return
	}

	// HELO ends here: it has no extensions to offer.
	if c.Verb == syntax.HELO {
		s.state = s.restingState()
		s.wire.Answer(250, "", s.helloText())
		return
	}

	// Plugins offer AUTH anew with each EHLO, because TLS may have begun in between.
	s.c.Auth, s.c.Capabilities = nil, nil
	s.RunHook(hook.OnCapabilities, hook.Event{})
	s.state = s.restingState()
	s.wire.Greet(host, smtpd.Greeting{
		Text: s.helloText(), STARTTLS: s.offersTLS(), Mechanisms: login.Mechanisms(s.c, s.o.AuthInsecure), SMTPUTF8: s.o.SMTPUTF8, RequireTLS: s.c.TLS.Enabled, MaxBytes: s.o.MaxBytes,
		MaxRcpt: s.o.MaxRecipients, Others: s.c.Capabilities,
	})
}

func (s *session) offersTLS() bool {
	return s.c.OfferTLS && s.o.TLSConfig != nil && !s.c.TLS.Enabled
}

// answerStartTLS answers STARTTLS (RFC 3207). What was sent in clear behind the command
// would be forged into the encrypted conversation if it were looked at, and nothing
// of the conversation so far counts under TLS (section 4.2).
func (s *session) answerStartTLS(c syntax.Command) {
	// The reasons of the connection come before those of the command.
	switch {
	case s.c.TLS.Enabled:
		s.refuse(reply.New(503, "5.5.1", "Already running in TLS"))
	case s.c.AuthUser != "":
		s.refuse(reply.New(503, "5.5.1", "STARTTLS not allowed after AUTH"))
	case !s.offersTLS():
		s.refuse(reply.New(502, "5.5.1", "TLS not supported"))
	case strings.TrimSpace(c.Argument) != "":
		s.refuse(reply.New(501, "5.5.4", "Syntax error (no parameters allowed)"))
	case s.wire.HasInput():
		s.hangUp(reply.New(503, "5.5.0", "Commands pipelined behind STARTTLS"))
	default:
		s.endTransaction()

		// Without TLS there is nothing more to say: in clear the client does not listen.
		s.wire.Answer(220, "2.0.0", "Go ahead")
		s.state = closing
		if s.wire.FlushReplies() == nil && s.startTLS() {
			s.state = connected
		}
	}
}
