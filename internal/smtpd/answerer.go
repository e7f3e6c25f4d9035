package smtpd

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"tarishi/internal/reply"
	"tarishi/internal/smtpd/syntax"
)

// maxIdleAnswerers is how many answerers wait for their next command.
const maxIdleAnswerers = 16

// Answerers lends go-smtp to connections, for one command at a time: so many are
// needed as commands are answered at once, however many connections there are. The
// zero value is ready. Its methods may be called from any goroutine.
type Answerers struct {
	mu   sync.Mutex
	idle []*answerer
}

// borrow returns an answerer that nobody else uses.
func (p *Answerers) borrow() *answerer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		a := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return a
	}
	return newAnswerer()
}

// giveBack ends the loan. What go-smtp remembers of a connection must not matter to
// the next: it has greeted both, and a used one is good for nothing else.
func (p *Answerers) giveBack(a *answerer) {
	// It must not keep a connection alive.
	a.conn, a.authority, a.mechanisms, a.write = nil, nil, nil, nil
	p.mu.Lock()
	keep := !a.used && !a.closed && len(p.idle) < maxIdleAnswerers
	if keep {
		p.idle = append(p.idle, a)
	}
	p.mu.Unlock()
	if !keep {
		a.end()
	}
}

// Dismiss ends those that wait for a command. It is called when there are no
// connections any more.
func (p *Answerers) Dismiss() {
	p.mu.Lock()
	// Ending one waits for its goroutine, which is not for under the lock.
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, a := range idle {
		a.end()
	}
}

// answerer is a server of go-smtp in a conversation without an end, in which one
// command after the other comes from the connection that has borrowed it. It is the
// net.Conn, the backend and the session of that server.
type answerer struct {
	server *smtp.Server
	lines  chan string   // the commands; closed: the end
	ready  chan struct{} // go-smtp has answered and wants the next
	rest   []byte        // of the current line
	used   bool          // go-smtp has authenticated somebody, or tried to
	closed bool          // go-smtp has had enough

	// Of the loan.
	conn       *Conn
	write      func(line []byte) // takes the reply, line by line
	mechanisms []string          // of AUTH
	authority  Authority         // nil: no AUTH is going on
	asks       bool              // a challenge was sent
	failed     error             // why no more could be read of the exchange
}

func newAnswerer() *answerer {
	// The limits and policies of go-smtp's own loop are all ours.
	a := &answerer{lines: make(chan string), ready: make(chan struct{})}
	a.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return a, nil }))
	a.server.MaxLineLength = 0 // Conn has looked after that
	a.server.AllowInsecureAuth = true
	a.server.EnableDSN = true
	a.server.ErrorLog = a
	_ = a.server.Serve(&listener{conn: a}) // returns when go-smtp has the connection
	<-a.ready                              // the greeting is nobody's
	return a
}

// answer has go-smtp answer a command; write gets the reply.
func (a *answerer) answer(line string, write func(line []byte)) {
	// One of the two goroutines waits at any time, so nothing here needs a lock.
	a.write = write
	a.lines <- line
	<-a.ready
}

// end returns when go-smtp's goroutine is over.
func (a *answerer) end() {
	close(a.lines)
	_ = a.server.Shutdown(context.Background())
}

// listener is a net.Listener with one connection.
type listener struct{ conn net.Conn }

func (l *listener) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *listener) Close() error   { return nil }
func (l *listener) Addr() net.Addr { return nil }

// Read implements net.Conn: it gives go-smtp the next command, or the client's next
// line if it asked for one.
func (a *answerer) Read(p []byte) (int, error) {
	// In an AUTH exchange go-smtp asks the client, not us.
	if len(a.rest) == 0 && a.asks {
		a.asks = false
		line, err := a.conn.readLine(false)
		if err != nil {
			a.failed = err
			return 0, io.EOF
		}
		if a.conn.settings.Trace != nil {
			a.conn.settings.Trace("C: " + syntax.Secret)
		}
		a.rest = line
	}

	// Asking for more means that the last command is answered.
	if len(a.rest) == 0 {
		a.ready <- struct{}{}
		line, ok := <-a.lines
		if !ok {
			return 0, io.EOF
		}
		a.rest = []byte(line)
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Write implements net.Conn: it takes one reply line.
func (a *answerer) Write(line []byte) (int, error) {
	a.asks = a.authority != nil && strings.HasPrefix(string(line), "334")
	if a.write != nil {
		a.write(line)
	}
	return len(line), nil
}

// Close implements net.Conn.
func (a *answerer) Close() error { a.closed = true; return nil }

func (a *answerer) LocalAddr() net.Addr              { return nil }
func (a *answerer) RemoteAddr() net.Addr             { return nil }
func (a *answerer) SetDeadline(time.Time) error      { return nil } // Conn's
func (a *answerer) SetReadDeadline(time.Time) error  { return nil }
func (a *answerer) SetWriteDeadline(time.Time) error { return nil }

// Printf implements smtp.Logger: go-smtp reports the panics that it caught.
func (a *answerer) Printf(format string, v ...any) {
	if a.conn != nil && a.conn.settings.OnPanic != nil {
		a.conn.settings.OnPanic("go-smtp: " + fmt.Sprintf(format, v...))
	}
}

// Println implements smtp.Logger.
func (a *answerer) Println(v ...any) { a.Printf("%s", fmt.Sprintln(v...)) }

// The methods of smtp.Session. None of these commands comes this way.
var errNotHere = &smtp.SMTPError{Code: 503, EnhancedCode: smtp.EnhancedCode{5, 5, 1}, Message: "Bad sequence of commands"}

func (a *answerer) Reset()                                {}
func (a *answerer) Logout() error                         { return nil }
func (a *answerer) Mail(string, *smtp.MailOptions) error  { return errNotHere }
func (a *answerer) Rcpt(string, *smtp.RcptOptions) error  { return errNotHere }
func (a *answerer) Data(io.Reader) error                  { return errNotHere }
func (a *answerer) AuthMechanisms() []string              { return a.mechanisms }
func (a *answerer) Auth(mech string) (sasl.Server, error) { return a.beginAuth(mech) }

// Greeting is the reply to EHLO, and what the server offers with it.
type Greeting struct {
	Text       string // of the first line
	STARTTLS   bool
	Mechanisms []string // of AUTH
	SMTPUTF8   bool
	RequireTLS bool
	MaxBytes   int64    // of a message; 0: no limit
	MaxRcpt    int      // recipients of a transaction; 0: no limit
	Others     []string // lines of extensions that others see to
}

// someTLS makes go-smtp announce STARTTLS, which it never does itself.
var someTLS = &tls.Config{}

// maxLimit is the largest number that LIMITS can have (RFC 9422 section 3).
const maxLimit = 999_999

// Greet answers EHLO host. PIPELINING, 8BITMIME, ENHANCEDSTATUSCODES, CHUNKING, DSN
// and SIZE are always offered.
func (c *Conn) Greet(host string, g Greeting) {
	a := c.settings.Answerers.borrow()
	defer c.settings.Answerers.giveBack(a)

	// go-smtp composes the reply from the settings of its server.
	a.conn, a.mechanisms = c, g.Mechanisms
	a.server.EnableSMTPUTF8, a.server.MaxMessageBytes = g.SMTPUTF8, g.MaxBytes
	if a.server.MaxRecipients = g.MaxRcpt; g.MaxRcpt > maxLimit {
		a.server.MaxRecipients = 0
	}
	if a.server.TLSConfig = nil; g.STARTTLS {
		a.server.TLSConfig = someTLS
	}

	first := true
	a.answer("EHLO "+host+"\r\n", func(line []byte) {
		if !first {
			c.appendLine(line)
			return
		}
		// The first line is ours, and go-smtp does not see that there is TLS.
		first = false
		c.appendLine([]byte("250-" + syntax.Clean(g.Text) + "\r\n"))
		if g.RequireTLS {
			c.appendLine([]byte("250-REQUIRETLS\r\n"))
		}
		for _, line := range g.Others {
			c.appendLine([]byte("250-" + line + "\r\n"))
		}
	})
}

// Decline answers a command that is not implemented.
func (c *Conn) Decline(command syntax.Command) {
	// go-smtp knows what each of them deserves, and needs no arguments for that.
	a := c.settings.Answerers.borrow()
	defer c.settings.Answerers.giveBack(a)
	a.conn = c
	a.answer(command.Name+"\r\n", c.appendLine)
}

// wire turns r into go-smtp's error type. go-smtp writes the enhanced code on
// the last line only; it belongs on each (RFC 2034 section 4).
func wire(r *reply.Reply) *smtp.SMTPError {
	// The last line gets its code from go-smtp, the others bring it along.
	status, text := r.Status(), syntax.Clean(r.Text)
	if lines := strings.Count(text, "\n"); lines > 0 {
		prefix := status.String() + " "
		text = prefix + strings.Replace(text, "\n", "\n"+prefix, lines-1)
	}
	return &smtp.SMTPError{Code: r.Code, EnhancedCode: smtp.EnhancedCode(status), Message: text}
}
