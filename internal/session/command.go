package session

import (
	"bytes"
	"strings"

	"github.com/emersion/go-sasl"

	"tarishi/internal/hook"
	"tarishi/internal/reply"
)

// split returns a command line's verb in upper case, which is empty where no
// ASCII stands, and its argument. It sees them as go-smtp does.
func split(line []byte) (verb, arg string) {
	text := strings.TrimRight(string(line), "\r\n")
	if len(text) >= 8 && strings.EqualFold(text[:8], "STARTTLS") {
		return "STARTTLS", text[8:]
	}
	verb, arg, _ = strings.Cut(text, " ")
	if !isPlain(verb) { // the upper case of some letters is ASCII
		verb = ""
	}
	return strings.ToUpper(verb), strings.TrimSpace(arg)
}

// secret stands in the log for what may be a password.
const secret = "********"

// shown is a command line as the log may show it. One that is no command of SMTP
// may be the answer to an AUTH challenge that was never sent.
func shown(verb, arg string, line []byte) string {
	switch verb {
	case "AUTH":
		mech, _, response := strings.Cut(arg, " ")
		if !isMechanism(mech) {
			return "AUTH " + secret
		}
		if response {
			return "AUTH " + mech + " " + secret
		}
	case "HELO", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "QUIT", "VRFY", "NOOP", "EXPN", "HELP":
	default:
		return secret
	}
	return string(line)
}

// isMechanism reports whether s looks like the name of a SASL mechanism (RFC 4422
// section 3.1), and not like a response in base64 with no mechanism before it.
func isMechanism(s string) bool {
	if strings.EqualFold(s, sasl.Plain) || strings.EqualFold(s, sasl.Login) {
		return true
	}
	return len(s) <= 20 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// dispatch does what one command line asks for, or returns what go-smtp is to
// read of it.
func (s *session) dispatch(line []byte) []byte {
	if s.asking { // the answer to an AUTH challenge is no command
		if s.traced {
			s.trace("C: " + secret)
		}
		s.asking = false
		s.instead = authenticated
		return line
	}
	verb, arg := split(line)
	s.command = arg
	if s.traced {
		s.trace("C: " + shown(verb, arg, line))
	}
	if s.c.Hello.Verb == "" && verb != "EHLO" && verb != "HELO" && isRequestLine(line) {
		s.hangUp(reply.New(521, "5.5.1", "This is a mail server"))
		return nil
	}
	if bytes.ContainsAny(bytes.TrimRight(line, "\r\n"), "\r\x00") {
		s.refuse(501, "5.5.2", "Control characters are not allowed")
		return nil
	}
	switch verb {
	case "HELO", "EHLO":
		return s.greeted(verb, arg, line)
	case "STARTTLS":
		s.secure(arg)
		return nil
	case "MAIL":
		return s.checkMail()
	case "RCPT":
		return s.checkRcpt()
	case "DATA":
		s.data(arg)
		return nil
	case "BDAT":
		s.bdat(arg)
		return nil
	case "RSET":
		s.run(hook.OnRset, hook.Event{})
		if s.leaveLate() {
			return nil
		}
		s.instead = reply.New(250, "2.0.0", "OK")
	case "AUTH":
		s.instead = authenticated
	case "QUIT":
		s.quit()
		return nil
	case "VRFY":
		s.vrfy(arg)
		return nil
	case "NOOP":
		s.noop(arg)
		return nil
	case "SEND", "SOML", "SAML", "EXPN", "HELP", "TURN", "LHLO": // go-smtp knows what to say
	default:
		s.unrecognized(verb, arg)
		return nil
	}
	if arg == "" { // go-smtp does not know a verb with only blanks behind it
		return []byte(verb + "\r\n")
	}
	return line
}

// vrfy answers VRFY. Nobody is told whether an address exists unless a plugin
// does it (RFC 5321 section 7.3).
func (s *session) vrfy(arg string) {
	v := s.run(hook.OnVrfy, hook.Event{Argument: arg})
	switch {
	case v.Code.Denies():
		s.decline(v, refusal(v, fault{550, "5.7.1", "Access Denied"}, fault{450, "4.7.1", "Lookup Failed"}))
		s.reset()
	case v.Code == hook.OK:
		s.io.send(assent(v, 250, "2.1.5", "User OK"))
	default:
		s.io.send(assent(v, 252, "2.1.5", "Just try sending a mail and we'll see how it turns out..."))
	}
}

// noop answers NOOP, which only a permanent refusal can change.
func (s *session) noop(arg string) {
	v := s.run(hook.OnNoop, hook.Event{Argument: arg})
	if s.leaveLate() {
		return
	}
	if v.Code == hook.Deny || v.Code == hook.DenyDisconnect {
		s.decline(v, refusal(v, fault{500, "5.7.1", "Stop wasting my time"}, fault{}))
		return
	}
	s.io.say(250, "2.0.0", "OK")
}

// strangers is how many unrecognized commands a client may send: what goes on
// after so many is not SMTP.
const strangers = 10

// unrecognized answers a command that is not SMTP's, unless a plugin
// understands it.
func (s *session) unrecognized(verb, arg string) {
	v := s.run(hook.OnUnrecognized, hook.Event{Verb: verb, Argument: arg})
	unknown := fault{500, "5.5.1", "Unrecognized command"}
	switch v.Code {
	case hook.OK:
		s.io.send(assent(v, 250, "2.0.0", "OK"))
		return
	case hook.DenyDisconnect:
		unknown.code = 521
	case hook.DenySoftDisconnect:
		unknown.code, unknown.enhanced = 421, "4.5.1"
	}
	s.decline(v, refusal(v, unknown, unknown))
	if s.unknown++; s.unknown > strangers && !s.over {
		s.hangUp(reply.New(421, "4.7.0", "Too many unrecognized commands"))
	}
}

// refuse answers a command that is wrong here.
func (s *session) refuse(code int, enhanced, text string) {
	s.io.send(s.denied(reply.New(code, enhanced, text)))
}

// decline answers with a hook's refusal and closes behind it if it says so.
func (s *session) decline(v hook.Verdict, r *reply.Reply) {
	s.io.send(s.denied(r))
	if v.Code.Disconnects() && v.Code.Denies() {
		s.over, s.mute, s.linger = true, true, true
	}
}

// quit says goodbye. Its hook can only change the words.
func (s *session) quit() {
	v := s.run(hook.OnQuit, hook.Event{})
	text := s.o.Me + " " + s.o.Close
	if v.Text != "" {
		text = v.Text
	}
	s.io.say(221, "2.0.0", text)
	s.over, s.mute, s.linger = true, true, true
}

// greeted runs helo or ehlo, and capabilities. A refusal leaves the client
// without a greeting; an earlier transaction is reset by go-smtp or by the
// refusal.
func (s *session) greeted(verb, host string, line []byte) []byte {
	host, _, _ = strings.Cut(host, " ")
	switch {
	case host == "":
		s.refuse(501, "5.5.4", verb+" requires domain/address - see RFC 5321 section 4.1.1.1")
		return nil
	case strings.ContainsFunc(host, func(r rune) bool { return r > '~' }):
		s.refuse(501, "5.5.4", "Syntax error (8-bit characters not allowed)")
		return nil
	case strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' }):
		s.refuse(501, "5.5.4", "Syntax error (control characters not allowed)")
		return nil
	}
	if s.reset(); s.leaveLate() {
		return nil
	}
	s.c.Hello = hook.Hello{Verb: verb, Host: host}
	p := hook.OnHelo
	if verb == "EHLO" {
		p = hook.OnEhlo
	}
	v := s.run(p, hook.Event{Host: host})
	if v.Code.Denies() {
		s.c.Hello = hook.Hello{}
		s.decline(v, refusal(v, fault{550, "5.7.1", verb + " denied"}, fault{450, "4.7.1", verb + " denied"}))
		return nil
	}
	if verb == "EHLO" {
		s.c.Auth = nil
		if s.run(hook.OnCapabilities, hook.Event{}); s.leaveLate() {
			return nil
		}
	}
	if s.offersTLS() {
		s.smtp.TLSConfig = s.o.TLSConfig // makes go-smtp announce STARTTLS
	}
	s.instead = reply.New(250, "", s.hello())
	return line
}

func (s *session) offersTLS() bool {
	return s.c.OfferTLS && s.o.TLSConfig != nil && !s.c.TLS.Enabled
}

// secure answers STARTTLS (RFC 3207). What was sent in clear behind the command
// would be forged into the encrypted conversation if it were looked at.
func (s *session) secure(arg string) {
	switch {
	case s.c.TLS.Enabled:
		s.refuse(503, "5.5.1", "Already running in TLS")
	case s.c.AuthUser != "":
		s.refuse(503, "5.5.1", "STARTTLS not allowed after AUTH")
	case !s.offersTLS():
		s.refuse(502, "5.5.1", "TLS not supported")
	case strings.TrimSpace(arg) != "":
		s.refuse(501, "5.5.4", "Syntax error (no parameters allowed)")
	case s.io.pending():
		s.hangUp(reply.New(503, "5.5.0", "Commands pipelined behind STARTTLS"))
	default:
		if s.reset(); s.leaveLate() {
			return
		}
		s.io.say(220, "2.0.0", "Go ahead")
		if s.io.flush() != nil {
			s.over = true
			return
		}
		s.upgrade, s.mute = true, true
	}
}
