package session

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/reply"
)

// Bounds of the conversation with a client that the hooks do not want: it is
// told so, and then only QUIT is understood.
const (
	loopCommands = 20
	loopTime     = time.Minute
)

// session is one connection. Serve's goroutine holds it until the greeting is
// sent, then go-smtp's does, then Serve's again: one at a time.
type session struct {
	srv    *Server
	o      *Options
	ctx    context.Context // ends when the session is cut off
	cancel context.CancelFunc
	io     *stream

	c       *hook.Connection
	tx      *hook.Transaction // nil: none
	recv    *receiver         // between the chunks of BDAT
	mem     *share            // of the memory for mail that is arriving; with tx
	auth    attempts
	rejects string // the last refusal that was sent

	smtp    *smtp.Server // of the current conversation: in clear or under TLS
	feed    []byte       // what go-smtp has still to read of the current command
	command string       // the current command line without its verb and line end
	params  parameters   // of the current MAIL or RCPT
	instead *reply.Reply // replaces go-smtp's next positive reply; see Write
	mute    bool         // drops what go-smtp says
	over    bool         // no more commands
	late    bool         // a hook outlived its timeout: 421 is due
	linger  bool         // the client may be sending still: see stream.half
	upgrade bool         // STARTTLS was answered
	asking  bool         // go-smtp waits for a line of an AUTH exchange
	unknown int          // unrecognized commands so far
	refused int          // replies 5yz since a message was accepted
	traced  bool         // the log shows the conversation
	met     bool         // hooks know of the connection
	named   confirmation // of the client's name
}

func newSession(ctx context.Context, srv *Server, conn net.Conn) *session {
	id := mail.NewConnectionID()
	remote, local := addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
	s := &session{
		srv: srv, o: &srv.o, ctx: ctx, io: newStream(conn, &srv.o),
		c: &hook.Connection{
			ID: id, Me: srv.o.Me, Local: local, Start: time.Now(), Notes: mail.Notes{}, Results: hook.NewResults(),
			Remote: hook.Remote{Addr: remote, Private: isPrivate(remote.Addr()), Local: srv.isLocal(remote.Addr())},
		},
	}
	s.io.onReply = s.replied
	s.traced = s.o.Log.Core().Enabled(maillog.ProtocolLevel)
	return s
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}

// log returns the developers' log with the connection's id.
func (s *session) log() *zap.Logger { return s.o.Log.With(zap.String("uuid", s.c.ID)) }

// trace logs one line of the conversation. It is called only if traced.
func (s *session) trace(line string) {
	s.log().Log(maillog.ProtocolLevel, strings.TrimRight(line, "\r\n"))
}

// replied sees every reply line on its way out.
func (s *session) replied(code int, line []byte) {
	if s.traced {
		s.trace("S: " + string(line))
	}
	s.asking = code == 334
	if code < 400 {
		return
	}
	s.rejects = strings.TrimSpace(string(line))
	if code >= 500 && line[3] == ' ' {
		s.refused++
	}
	if code >= 500 && code <= 504 || code == 555 {
		s.c.Errors++
	}
}

// run runs a hook in the current state. If a handler was late s.c and s.tx are new
// when it returns: nobody may hold on to the old ones.
func (s *session) run(p hook.Point, e hook.Event) hook.Verdict {
	if !s.o.Chain.Has(p) {
		return hook.Proceed()
	}
	event := e
	event.Point, event.Conn, event.Tx = p, s.c, s.tx
	v := s.o.Chain.Run(s.ctx, p, &event)
	s.renew(v)
	return v
}

// renew leaves the connection's and the transaction's state to a handler that was
// late, and goes on with what the chain gives for it.
func (s *session) renew(v hook.Verdict) {
	if v.Fresh == nil {
		return
	}
	s.c, s.tx, s.late = v.Fresh.Conn, v.Fresh.Tx, true
}

// leaveLate says 421 if a handler was late, and reports whether that is so: the
// connection ends, whatever the hook was for.
func (s *session) leaveLate() bool {
	if s.late && !s.over {
		s.hangUp(errLate)
	}
	return s.late
}

// serve holds the conversation from connect to disconnect.
func (s *session) serve(implicitTLS bool) {
	local, remote := s.c.Local, s.c.Remote.Addr
	s.o.Mail.Connect(s.c.ID, remote.Addr().String(), int(remote.Port()), local.Addr().String(), int(local.Port()))
	defer s.end()
	defer s.caught("connection")
	if implicitTLS && !s.startTLS() {
		return
	}
	if !s.welcome() {
		return
	}
	for {
		s.converse()
		if !s.upgrade {
			s.linger = s.linger || !s.over // go-smtp lost patience
			return
		}
		s.upgrade = false
		if !s.startTLS() {
			return
		}
	}
}

// end closes the connection and runs disconnect.
func (s *session) end() {
	func() {
		defer s.caught("reset")
		s.reset()
	}()
	s.named.end()
	if s.linger {
		s.io.half()
		defer s.io.drain()
	} else {
		s.io.close()
	}
	defer s.logEnd()
	defer s.caught("disconnect")
	if s.met {
		s.run(hook.OnDisconnect, hook.Event{})
	}
}

func (s *session) logEnd() {
	c := s.c
	s.o.Mail.Disconnect(maillog.Disconnected{
		ID: c.ID, IP: c.Remote.Addr.Addr().String(), RDNS: c.Remote.Host, Helo: c.Hello.Host, Relay: c.Relaying,
		ESMTP: c.Hello.Verb == "EHLO", TLS: c.TLS.Enabled, Errors: c.Errors, Transactions: c.Transactions,
		Rcpts:    [3]int{c.Rcpts.Accepted, c.Rcpts.Deferred, c.Rcpts.Rejected},
		Messages: [3]int{c.Messages.Accepted, c.Messages.Deferred, c.Messages.Rejected},
		Bytes:    c.Bytes, LastReject: s.rejects, Elapsed: time.Since(c.Start),
	})
}

// caught turns a panic into the end of this connection. It is deferred.
func (s *session) caught(where string) {
	if v := recover(); v != nil {
		s.panicked(where, v)
	}
}

func (s *session) panicked(where string, v any) {
	s.srv.panics.Add(1)
	s.log().Error("panic", zap.String("in", where), zap.Any("value", v), zap.ByteString("stack", debug.Stack()))
	if !s.over {
		s.io.say(421, "4.3.0", "Internal server error")
	}
	s.over, s.mute, s.linger = true, true, true
}

// hangUp says r and closes: nothing that the client sent behind is looked at.
func (s *session) hangUp(r *reply.Reply) {
	if r != nil {
		s.io.send(s.denied(r))
	}
	s.over, s.mute, s.linger = true, true, true
}

// startTLS does the handshake and forgets what the client said before it.
func (s *session) startTLS() bool {
	if s.o.TLSConfig == nil {
		s.o.Mail.Refused(s.c.ID, s.c.Remote.Addr.Addr().String(), "no TLS configuration")
		return false
	}
	state, err := s.io.startTLS(s.o.TLSConfig)
	if err != nil {
		s.log().Info("TLS handshake failed", zap.Error(err))
		return false
	}
	s.c.Hello = hook.Hello{}
	s.c.TLS = hook.TLS{
		Enabled: true, Version: strings.Replace(tls.VersionName(state.Version), " ", "v", 1),
		Cipher: tls.CipherSuiteName(state.CipherSuite), Verified: len(state.VerifiedChains) > 0,
	}
	return true
}

// welcome runs the hooks of a new connection and sends the banner, or a refusal.
func (s *session) welcome() bool {
	s.met = true
	s.run(hook.OnConnectInit, hook.Event{})
	if s.leaveLate() {
		return false
	}
	v := s.run(hook.OnLookupRDNS, hook.Event{})
	if v.Code.Denies() || v.Code == hook.Drop {
		return s.unwelcome(v, fault{554, "5.7.1", "rDNS Lookup Failed"}, fault{421, "4.7.1", "rDNS Temporary Failure"})
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.o.RDNSTimeout)
	if v.Code == hook.OK {
		s.c.Remote.Host = cmp.Or(v.Text, unknown)
	} else {
		s.c.Remote.Host = s.lookup(ctx)
	}
	s.confirm(ctx, cancel)
	v = s.run(hook.OnConnect, hook.Event{})
	if v.Code.Denies() || v.Code == hook.Drop {
		return s.unwelcome(v, fault{554, "5.7.1", "Your mail is not welcome here"}, fault{421, "4.7.1", "Come back later"})
	}
	s.io.say(220, "", s.banner(v))
	return true
}

// unwelcome refuses a new connection. Without DISCONNECT the client gets the
// same reply to whatever it says, until it quits or loses patience.
func (s *session) unwelcome(v hook.Verdict, hard, soft fault) bool {
	r := s.denied(refusal(v, hard, soft))
	s.o.Mail.Refused(s.c.ID, s.c.Remote.Addr.Addr().String(), r.String())
	s.io.send(r)
	if v.Code.Disconnects() {
		s.linger = true
		return false
	}
	deadline := time.Now().Add(loopTime)
	s.io.inactivity = min(s.io.inactivity, loopTime)
	for n := 0; n < loopCommands && time.Now().Before(deadline); n++ {
		line, err := s.io.line()
		if err != nil {
			s.lost(err)
			return false
		}
		if verb, _ := split(line); verb == "QUIT" {
			s.quit()
			return false
		}
		s.io.send(r)
	}
	s.hangUp(nil)
	return false
}

// lost says why no more is read, where there is somebody to say it to.
func (s *session) lost(err error) {
	switch {
	case errors.Is(err, errLineTooLong):
		s.hangUp(reply.New(521, "5.5.2", "Command line too long"))
	case errors.Is(err, errTLSInClear):
		s.hangUp(reply.New(501, "5.5.1", "SSL attempted over a non-SSL port"))
	case errors.Is(err, errShutdown):
		s.io.say(421, "4.3.2", s.o.Me+" is shutting down")
	case errors.Is(err, errTimeout):
		s.io.say(421, "4.4.2", s.o.Me+" timeout")
	case errors.Is(err, errTooSlow):
		s.hangUp(reply.New(421, "4.4.2", "Too slow"))
	case errors.Is(err, errTooLong):
		s.hangUp(reply.New(421, "4.4.2", "The transaction takes too long"))
	case errors.Is(err, errGiveWay):
		s.log().Warn("session gave way, memory for mail that is arriving is short")
		s.hangUp(reply.New(421, "4.3.1", "Too slow while memory is short, please try again later"))
	case errors.Is(err, errBare):
		s.hangUp(reply.New(554, "5.6.11", "Bare CR or LF is not allowed in a message (RFC 5321 section 2.3.8)"))
	default:
		s.io.gone = true // the client left
	}
	s.over, s.mute = true, true
}
