package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"tarishi/internal/reply"
)

// converse lets go-smtp hold the conversation until it ends or STARTTLS was
// answered. The Server is go-smtp's, one for each connection, so that each can
// have settings of its own.
func (s *session) converse() {
	s.smtp = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return s, nil }))
	s.smtp.Domain = s.o.Me
	s.smtp.MaxLineLength = 0 // the stream looks after that; here it would bind content too
	s.smtp.MaxMessageBytes = s.o.MaxBytes
	s.smtp.AllowInsecureAuth = true // AuthMechanisms decides
	s.smtp.EnableSMTPUTF8 = s.o.SMTPUTF8
	s.smtp.EnableDSN = true
	s.smtp.EnableREQUIRETLS = s.c.TLS.Enabled // RFC 8689: not for who sends in clear
	s.smtp.ErrorLog = smtpLog{s}
	s.mute = true // the greeting is ours
	one := &single{conn: &conversation{session: s, closed: make(chan struct{})}}
	_ = s.smtp.Serve(one)                     // until go-smtp has closed the conversation,
	_ = s.smtp.Shutdown(context.Background()) // and until its goroutine is over
}

// single is a net.Listener with one connection. Its second Accept ends when
// that connection does.
type single struct {
	conn  *conversation
	given bool
}

func (l *single) Accept() (net.Conn, error) {
	if !l.given {
		l.given = true
		return l.conn, nil
	}
	<-l.conn.closed
	return nil, net.ErrClosed
}

func (l *single) Close() error   { return nil }
func (l *single) Addr() net.Addr { return l.conn.LocalAddr() }

// conversation is the net.Conn that go-smtp sees. Closing it ends what go-smtp
// has to say, not the connection.
type conversation struct {
	*session
	closed chan struct{}
	done   bool
}

func (c *conversation) Close() error {
	if !c.done {
		c.done = true
		close(c.closed)
	}
	return nil
}

func (c *conversation) Read(p []byte) (int, error) {
	if c.done {
		return 0, io.EOF
	}
	return c.read(p)
}

func (c *conversation) Write(p []byte) (int, error)      { return c.write(p) }
func (c *conversation) LocalAddr() net.Addr              { return c.io.raw.LocalAddr() }
func (c *conversation) RemoteAddr() net.Addr             { return c.io.raw.RemoteAddr() }
func (c *conversation) SetDeadline(time.Time) error      { return nil } // the stream's
func (c *conversation) SetReadDeadline(time.Time) error  { return nil }
func (c *conversation) SetWriteDeadline(time.Time) error { return nil }

// smtpLog takes what go-smtp reports: the panics it caught, and read errors,
// of which it sees only EOF.
type smtpLog struct{ s *session }

func (l smtpLog) Printf(format string, v ...any) {
	msg := fmt.Sprintf(format, v...)
	if strings.HasPrefix(msg, "panic") {
		l.s.srv.panics.Add(1)
	}
	l.s.log().Error("go-smtp: " + msg)
}

func (l smtpLog) Println(v ...any) { l.Printf("%s", fmt.Sprintln(v...)) }

// read gives go-smtp the next command line, or io.EOF. What is not for go-smtp
// is done here.
func (s *session) read(p []byte) (n int, err error) {
	s.mute = s.over
	s.instead = nil
	s.smtp.TLSConfig = nil // it is there for EHLO; STARTTLS is never go-smtp's
	defer func() {
		if v := recover(); v != nil {
			s.panicked("command", v)
			n, err = 0, io.EOF
		}
	}()
	for len(s.feed) == 0 {
		if s.leaveLate() || s.over || s.upgrade {
			return 0, io.EOF
		}
		if most := s.o.MaxRefusals; most > 0 && s.refused > most {
			s.hangUp(reply.New(421, "4.7.0", "Too many refused commands"))
			return 0, io.EOF
		}
		line, err := s.io.line()
		if errors.Is(err, errGiveWay) && s.recv != nil && s.recv.giveWay() {
			s.io.stay()
			continue
		}
		if err != nil {
			s.lost(err)
			return 0, io.EOF
		}
		s.feed = s.dispatch(line)
		if s.recv != nil && s.io.pace.tooSlow() { // whatever it says between the chunks
			s.broken(errTooSlow)
			return 0, io.EOF
		}
	}
	n = copy(p, s.feed)
	s.feed = s.feed[n:]
	return n, nil
}

// write takes one reply line from go-smtp.
func (s *session) write(p []byte) (int, error) {
	if s.mute {
		return len(p), nil
	}
	if r := s.instead; r != nil && len(p) > 4 && p[0] == '2' {
		s.instead = nil
		if p[3] == '-' { // EHLO: only the first line is ours
			_, _ = s.io.Write([]byte("250-" + clean(r.Text) + "\r\n"))
			if s.c.TLS.Enabled { // go-smtp does not see the TLS
				_, _ = s.io.Write([]byte("250-REQUIRETLS\r\n"))
			}
		} else {
			s.io.send(r)
		}
		return len(p), nil
	}
	return s.io.Write(p)
}

// Reset implements smtp.Session: RSET, and EHLO after an earlier one.
func (s *session) Reset() { s.reset() }

// Logout implements smtp.Session. The end of go-smtp's conversation need not be
// the end of ours.
func (s *session) Logout() error { return nil }

// Data implements smtp.Session. Content never comes this way.
func (s *session) Data(io.Reader) error {
	return wire(reply.New(503, "5.5.1", "Bad sequence of commands"))
}
