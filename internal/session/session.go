package session

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/maillog"
	"tarishi/internal/reply"
	"tarishi/internal/session/certificate"
	"tarishi/internal/session/login"
	"tarishi/internal/session/peer"
	"tarishi/internal/session/policy"
	"tarishi/internal/session/transaction"
	"tarishi/internal/session/verdict"
	"tarishi/internal/smtpd"
	"tarishi/internal/smtpd/syntax"
)

// Bounds of the conversation with a client that the hooks do not want: it gets
// the same refusal again and again, and only QUIT is understood.
const (
	loopCommands = 20
	loopTime     = time.Minute
)

// session is one connection. One goroutine at a time holds it.
type session struct {
	srv    *Server
	o      *Conversation   // held until Serve ends
	ctx    context.Context // ends when the session is cut off
	cancel context.CancelFunc
	wire   *smtpd.Conn
	peer   netip.AddrPort // what has connected to us; a proxy may name another client
	port   int            // of our end of the socket; a proxy may name another

	state state
	c     *hook.Connection
	tx    *transaction.Transaction // nil: none

	wrong   login.Attempts    // to authenticate
	unknown int               // unrecognized commands so far
	refused int               // replies 5yz since a message was accepted
	rejects string            // the last refusal that was sent
	named   peer.Confirmation // of the client's name

	linger bool // the client may be sending still: see smtpd.Conn.CloseWrite
}

func newSession(ctx context.Context, srv *Server, o *Conversation, conn net.Conn) *session {
	c, from, own := peer.NewConnection(conn, srv.own)
	c.Me = o.Me
	s := &session{srv: srv, o: o, ctx: ctx, state: accepted, c: c, peer: from, port: int(own.Port())}

	// The wire reports what the session counts; what it traces costs a string a line.
	settings := smtpd.Settings{
		MaxLine: s.o.MaxLine, Inactivity: s.o.InactivityTimeout, Answerers: &srv.answerers, OnReply: s.noteReply, OnPanic: s.notePanic,
	}
	if s.srv.o.Log.Core().Enabled(maillog.ProtocolLevel) {
		settings.Trace = s.traceLine
	}
	s.wire = smtpd.NewConn(conn, settings)
	s.c.HasArrived = s.wire.HasArrived
	return s
}

// Wake implements roster.Conversation.
func (s *session) Wake() { s.wire.Wake() }

// CutOff implements roster.Conversation: it ends the connection and the contexts of its
// hooks.
func (s *session) CutOff() {
	s.cancel()
	s.wire.Cut()
}

// logger returns the developers' log with the connection's id.
func (s *session) logger() *zap.Logger { return s.srv.o.Log.With(zap.String("uuid", s.c.ID)) }

// traceLine logs one line of the conversation.
func (s *session) traceLine(line string) {
	s.logger().Log(maillog.ProtocolLevel, strings.TrimRight(line, "\r\n"))
}

// noteReply sees every reply line on its way out.
func (s *session) noteReply(code int, line []byte) {
	if code < 400 {
		return
	}
	s.rejects = strings.TrimSpace(string(line))
	if code >= 500 && line[3] == ' ' {
		s.refused++
	}

	// Errors of syntax and sequence are those that plugins look at, as in Haraka.
	if code >= 500 && code <= 504 || code == 555 {
		s.c.Errors++
	}
}

// notePanic is called with what go-smtp caught.
func (s *session) notePanic(what string) {
	s.srv.panics.Add(1)
	s.logger().Error(what)
}

// RunHook runs a hook in the current state.
func (s *session) RunHook(p hook.Point, e hook.Event) hook.Verdict {
	if !s.o.Chain.Has(p) {
		return hook.Proceed()
	}
	event := e
	event.Point, event.Conn, event.Tx = p, s.c.View(), s.tx.View()
	return s.o.Chain.Run(s.ctx, p, &event)
}

// proceed is the session's part until its client is silent for long, and returns true
// then, or until the end. It begins with the banner if it is the first.
func (s *session) proceed(first, implicitTLS bool) (idle bool) {
	defer func() {
		if !idle {
			s.finish()
		}
	}()
	return (!first || s.greetClient(implicitTLS)) && s.converse()
}

// greetClient leads the connection to its banner. It returns false if it is over.
func (s *session) greetClient(implicitTLS bool) bool {
	defer s.caught("connection")
	// The log has the connection before anything can go wrong with it.
	s.srv.o.Mail.Connect(s.c.ID, s.c.Remote.Addr, s.c.Local, s.c.Proxy.Addr)
	return (!implicitTLS || s.startTLS()) && s.welcome()
}

// converse answers commands until the client is silent for long, and returns true
// then, or until the conversation is over.
func (s *session) converse() (idle bool) {
	defer s.caught("connection")
	for {
		// What the last command left behind may end the conversation.
		if s.state == closing {
			return false
		}
		if most := s.o.MaxRefusals; most > 0 && s.refused > most {
			s.hangUp(reply.New(421, "4.7.0", "Too many refused commands"))
			return false
		}

		c, err := s.wire.ReadCommand()
		switch {
		case errors.Is(err, smtpd.ErrIdle):
			return true
		case errors.Is(err, smtpd.ErrGiveWay) && s.tx.GiveWay():
			continue
		case err != nil:
			s.giveUp(err)
			return false
		}
		s.execute(c)
		if s.tx.IsTooSlow() { // whatever it says between the chunks
			s.breakOff(smtpd.ErrTooSlow)
			return false
		}
	}
}

// execute does what a command asks for. A panic ends the connection.
func (s *session) execute(c syntax.Command) {
	defer s.caught("command")
	s.dispatch(c)
}

// finish closes the connection and runs disconnect.
func (s *session) finish() {
	func() {
		defer s.caught("reset")
		s.endTransaction()
	}()
	s.named.Stop()

	// The client gets the last reply before plugins do their last work.
	if s.linger {
		s.wire.CloseWrite()
		defer s.wire.Drain()
	} else {
		s.wire.Close()
	}
	defer s.logEnd()
	defer s.caught("disconnect")
	if s.state != accepted {
		s.RunHook(hook.OnDisconnect, hook.Event{})
	}
}

func (s *session) logEnd() { s.srv.o.Mail.Disconnect(transaction.Summary(s.c, s.rejects)) }

// caught turns a panic into the end of this connection. It is deferred.
func (s *session) caught(where string) {
	if v := recover(); v != nil {
		if r := s.logPanic(where, v); s.state != closing {
			s.wire.WriteReply(r)
		}
		s.stopReading()
	}
}

// logPanic logs and counts a panic. The reply is for the client.
func (s *session) logPanic(where string, v any) *reply.Reply {
	s.srv.panics.Add(1)
	s.logger().Error("panic", zap.String("in", where), zap.Any("value", v), zap.ByteString("stack", debug.Stack()))
	return reply.New(421, "4.3.0", "Internal server error")
}

// stopReading looks at nothing more that the client sends. A connection that no hook has
// seen stays one.
func (s *session) stopReading() {
	s.linger = true
	if s.state != accepted {
		s.state = closing
	}
}

// hangUp says r and closes: nothing that the client sent behind is looked at.
func (s *session) hangUp(r *reply.Reply) {
	s.wire.WriteReply(s.denied(r))
	s.stopReading()
}

// startTLS does the handshake and forgets what the client said before it.
func (s *session) startTLS() bool {
	if s.o.TLSConfig == nil {
		s.srv.o.Mail.Refused(s.c.ID, s.c.Remote.Addr.Addr().String(), "no TLS configuration")
		return false
	}

	// What was said in clear may have been forged, so nothing of it counts under TLS.
	config, asks := s.o.TLSConfig, s.o.Clients.Asks(s.ports()...)
	if asks {
		config = s.o.Clients.Config
	}
	state, err := s.wire.StartTLS(config)
	if err != nil {
		s.logger().Info("TLS handshake failed", zap.Error(err))
		return false
	}
	s.c.Hello = hook.Hello{}
	s.c.TLS = certificate.Describe(state)
	return !asks || s.checkCertificate(state.PeerCertificates)
}

// checkCertificate finds out whether the client's certificate verifies. It returns false, and
// has told the client, if it has to.
func (s *session) checkCertificate(chain []*x509.Certificate) bool {
	certificate.Check(s.c, func() error { return s.o.Clients.Verify(chain) })
	certificate.Log(s.logger(), s.c.TLS)
	if s.c.TLS.Verified || !s.o.Clients.Requires(s.ports()...) {
		return true
	}
	s.srv.o.Mail.Refused(s.c.ID, s.c.Remote.Addr.Addr().String(), "client certificate: "+s.c.TLS.VerifyError)
	s.hangUp(reply.New(554, "5.7.0", "A client certificate that verifies is required"))
	return false
}

// ports are those that the client has come in on: that of our socket, and the one that a proxy
// says it has reached.
func (s *session) ports() []int { return []int{s.port, int(s.c.Local.Port())} }

// isReached reports whether a port is one of them.
func (s *session) isReached(port int) bool { return port == s.port || port == int(s.c.Local.Port()) }

// welcome runs the hooks of a new connection and sends the banner, or a refusal.
func (s *session) welcome() bool {
	s.state = connected
	s.RunHook(hook.OnConnectInit, hook.Event{})
	return s.introduce("")
}

// introduce finds the client's name, unless it is known, runs connect, and sends the banner
// or a refusal.
func (s *session) introduce(name string) bool {
	// A plugin's name goes before that of the DNS, and both have to be confirmed.
	ctx, cancel := context.WithTimeout(s.ctx, s.srv.o.RDNSTimeout)
	s.c.Remote.Host = name
	if name == "" {
		v := s.RunHook(hook.OnLookupRDNS, hook.Event{})
		switch {
		case v.Code.Denies() || v.Code == hook.Drop:
			cancel()
			return s.turnAway(v, verdict.NewDefault(554, "5.7.1", "rDNS Lookup Failed"), verdict.NewDefault(421, "4.7.1", "rDNS Temporary Failure"))
		case v.Code == hook.OK:
			s.c.Remote.Host = cmp.Or(v.Text, peer.Unknown)
		default:
			s.c.Remote.Host = peer.Lookup(ctx, s.o.Resolver, s.c.Remote.Addr.Addr())
		}
	}
	s.named.Begin(ctx, cancel, s.o.Resolver, s.c.Remote.Host, s.c.Remote.Addr.Addr())

	v := s.RunHook(hook.OnConnect, hook.Event{})
	if v.Code.Denies() || v.Code == hook.Drop {
		return s.turnAway(v, verdict.NewDefault(554, "5.7.1", "Your mail is not welcome here"), verdict.NewDefault(421, "4.7.1", "Come back later"))
	}
	s.wire.Answer(220, "", cmp.Or(v.Text, s.o.Banner(s.o.Me, s.srv.o.Version, s.c.ID)))
	return true
}

// turnAway refuses a new connection. Without DISCONNECT the client gets the
// same reply to whatever it says, until it quits or loses patience.
func (s *session) turnAway(v hook.Verdict, hard, soft verdict.Default) bool {
	r := s.denied(verdict.Refusal(v, hard, soft))
	// The log has the same words as the client.
	s.srv.o.Mail.Refused(s.c.ID, s.c.Remote.Addr.Addr().String(), r.String())
	s.wire.WriteReply(r)
	if v.Code.Disconnects() {
		s.linger = true
		return false
	}

	// Neither many commands nor slow ones hold the connection for long.
	deadline := time.Now().Add(loopTime)
	s.wire.LimitInactivity(loopTime)
	for n := 0; n < loopCommands && time.Now().Before(deadline); {
		c, err := s.wire.ReadCommand()
		switch {
		case errors.Is(err, smtpd.ErrIdle):
			s.wire.Park()
			continue
		case err != nil:
			s.giveUp(err)
			return false
		case c.Verb == syntax.QUIT:
			s.answerQuit(c)
			return false
		}
		s.wire.WriteReply(r)
		n++
	}
	s.stopReading()
	return false
}

// giveUp says why no more is read, where there is somebody to say it to.
func (s *session) giveUp(err error) {
	// A client that breaks the rules may still be sending, so its connection is closed with
	// care: hangUp.
	if errors.Is(err, smtpd.ErrGiveWay) {
		s.logger().Warn("session gave way, memory for mail that is arriving is short")
	}
	switch r, broken := policy.Ending(err, s.o.Me); {
	case r == nil:
		s.wire.Abandon()
	case broken:
		s.hangUp(r)
	default:
		s.wire.WriteReply(r)
	}
	s.state = closing
}
