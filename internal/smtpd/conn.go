package smtpd

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"tarishi/internal/reply"
	"tarishi/internal/smtpd/pace"
	"tarishi/internal/smtpd/syntax"
)

const (
	commandBuffer = 1 << 10  // for a command or a few
	contentBuffer = 32 << 10 // while content arrives, or much is pipelined
	outBuffer     = 4 << 10  // replies are sent at the latest when they are so many
	keptOut       = 512      // what a session that is busy holds for output

	// LargestLine is the largest limit for the length of a command line: the content
	// buffer has to hold it.
	LargestLine = 16 << 10

	// lingering is how long, and how much, a connection that is closed in anger
	// is still read from, so that the reply is not lost to a reset.
	lingering  = 2 * time.Second
	lingerMost = 1 << 20
	// farewell bounds the sending of the last replies: a client that does not read
	// has had its time already.
	farewell = 10 * time.Second
)

// The ways in which reading ends, besides the errors of the socket.
var (
	ErrLineTooLong = errors.New("command line too long")
	ErrTLSInClear  = errors.New("TLS on a plain port")
	ErrShutdown    = errors.New("shutting down")
	ErrTimeout     = errors.New("timeout")
	ErrTooSlow     = errors.New("below the minimum data rate")
	ErrTooLong     = errors.New("the transaction takes too long")
	ErrGiveWay     = errors.New("memory is needed for faster clients")
)

var (
	contentBuffers = sync.Pool{New: func() any { b := make([]byte, contentBuffer); return &b }}
	commandBuffers = sync.Pool{New: func() any { b := make([]byte, commandBuffer); return &b }}
)

// Settings are what a Conn works with.
type Settings struct {
	MaxLine    int           // of a command with its line end, octets; at most LargestLine
	Inactivity time.Duration // for a whole command, and between bytes of content
	Answerers  *Answerers    // needed for EHLO, AUTH and commands that are not implemented
	// OnReply sees every reply line on its way out; nil: nobody wants to.
	OnReply func(code int, line []byte)
	// OnPanic is called with what go-smtp caught in itself, which is a defect.
	OnPanic func(what string)
	// Trace gets every line of the conversation, without what may be a password; nil:
	// nobody wants them.
	Trace func(line string)
}

// Conn is the plaintext side of a connection: command lines and content in,
// replies out.
//
// Replies are kept until the Conn has to wait for the client, so that those to
// pipelined commands share a segment and a TLS record (RFC 2920 section 3.2).
type Conn struct {
	raw      net.Conn // the socket
	conn     net.Conn // the socket, or TLS on it
	settings Settings

	buf    []byte  // [from:to] is received and not used; nil: nothing is, and nothing is held
	from   int     // in buf
	to     int     // in buf
	pooled *[]byte // what buf goes back to commandBuffers or contentBuffers as
	out    []byte
	gone   bool // the client cannot be written to any more

	pace     *pace.Pace // of the transaction; nil: there is none
	watch    *Watch
	trickles bool // content comes in small pieces, for which no large buffer is held

	waits
}

// NewConn returns the server's end of raw.
func NewConn(raw net.Conn, s Settings) *Conn {
	return &Conn{raw: raw, conn: raw, settings: s}
}

// LimitInactivity shortens the time that the client has from now on.
func (c *Conn) LimitInactivity(d time.Duration) {
	c.settings.Inactivity = min(c.settings.Inactivity, d)
}

// ReadCommand returns the next command. Its errors are those above, ErrIdle and the
// socket's.
func (c *Conn) ReadCommand() (syntax.Command, error) {
	line, err := c.readLine(c.mayPark())
	if err != nil {
		return syntax.Command{}, err
	}
	command := syntax.Parse(line)
	if c.settings.Trace != nil {
		c.settings.Trace("C: " + command.Shown())
	}
	return command, nil
}

// readLine returns the next command line with its line end. It is valid until the
// next read. A client gets the inactivity timeout for a whole line, so that one
// that sends a byte now and then does not live for ever. With parking, ErrIdle ends
// the wait early; the next call goes on with it.
func (c *Conn) readLine(parking bool) ([]byte, error) {
	// Commands that were pipelined are not executed if nobody can learn of it.
	if c.gone {
		return nil, net.ErrClosed
	}
	if c.isEnding() {
		return nil, ErrShutdown
	}

	// Replies are sent only when there is nothing more to answer.
	for scanned := 0; ; {
		line, err := c.cutLine(scanned)
		if line != nil || err != nil {
			c.due = time.Time{}
			return line, err
		}
		scanned = c.to - c.from
		if err := c.FlushReplies(); err != nil {
			return nil, err
		}
		if err := c.awaitLine(parking); err != nil {
			return nil, err
		}
	}
}

// cutLine takes a whole line off the buffer, nil if there is none. The bytes before
// scanned have no line end.
func (c *Conn) cutLine(scanned int) ([]byte, error) {
	// A client that begins with TLS would not understand a reply to its first "line".
	pending := c.buf[c.from:c.to]
	if len(pending) > 0 && pending[0] == 0x16 && c.conn == c.raw { // a TLS handshake record
		return nil, ErrTLSInClear
	}
	i := bytes.IndexByte(pending[scanned:], '\n')
	if n := scanned + i + 1; i >= 0 && n <= c.settings.MaxLine {
		c.from += n
		return pending[:n], nil
	}

	// What follows a line that is too long may be its rest: nothing of it is looked at.
	if i >= 0 || len(pending) >= c.settings.MaxLine {
		return nil, ErrLineTooLong
	}
	return nil, nil
}

// awaitLine receives more of a command line, within the time that the client has for
// the whole line.
func (c *Conn) awaitLine(parking bool) error {
	// The first wait for a line sets the time for all of it.
	began := time.Now()
	if c.due.IsZero() {
		limit, overdue := c.patience(began)
		c.due, c.overdue = began.Add(max(limit, 1)), overdue
	}

	// A wait for parking is cut short, and the next one goes on where it ended.
	until := c.due
	if idle := began.Add(parkAfter); parking && idle.Before(until) {
		until = idle
	}

	// Only the time that the client takes counts against it.
	if err := c.beginWait(until); err != nil {
		return err
	}
	c.pace.BeginWait(began)
	err := c.fill(false)
	why := c.endWait()
	c.pace.EndWait(time.Since(began))
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		if why == nil && until.Before(c.due) {
			return ErrIdle
		}
		return cmp.Or(why, c.overdue)
	}
	return err
}

// patience returns how long the client may be waited for now, and what to say when that is
// over.
func (c *Conn) patience(now time.Time) (limit time.Duration, overdue error) {
	limit, last := c.pace.Limit(now, c.settings.Inactivity)
	if last {
		return limit, ErrTooLong
	}
	return limit, ErrTimeout
}

// fill reads at least one byte into the buffer.
func (c *Conn) fill(content bool) error {
	c.adjustBuffer(content)
	// A reader may return nothing now and then, but not for ever.
	for range 100 {
		n, err := c.conn.Read(c.buf[c.to:])
		if c.to += n; n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// HasInput reports whether the client sent more than was used.
func (c *Conn) HasInput() bool { return c.from < c.to }

// appendLine adds one reply line to those that the next flush sends. It never fails: a client that cannot be written to will not be read from either.
func (c *Conn) appendLine(line []byte) {
	if c.gone || len(line) < 4 {
		return
	}
	from := len(c.out)
	c.out = append(c.out, line...)
	c.finishLine(from)
}

// finishLine is called with a whole reply line in out, behind from.
func (c *Conn) finishLine(from int) {
	// A flush empties out, so the line is shown before.
	line := c.out[from:]
	if c.settings.Trace != nil {
		c.settings.Trace("S: " + string(line))
	}
	if code, err := strconv.Atoi(string(line[:3])); err == nil && c.settings.OnReply != nil {
		c.settings.OnReply(code, line)
	}
	if len(c.out) >= outBuffer {
		_ = c.FlushReplies()
	}
}

// Answer writes a reply of one line.
func (c *Conn) Answer(code int, enhanced, text string) { c.WriteReply(reply.New(code, enhanced, text)) }

// WriteReply writes r, with as many lines as its text has and the enhanced code on
// each (RFC 2034 section 4).
func (c *Conn) WriteReply(r *reply.Reply) {
	text, more := syntax.Clean(r.Text), true
	for more && !c.gone {
		var line string
		line, text, more = strings.Cut(text, "\n")
		from := len(c.out)
		c.out = strconv.AppendInt(c.out, int64(r.Code), 10)
		if more {
			c.out = append(c.out, '-')
		} else {
			c.out = append(c.out, ' ')
		}
		if r.Enhanced != (reply.Enhanced{}) {
			c.out = append(append(c.out, r.Enhanced.String()...), ' ')
		}
		c.out = append(append(c.out, line...), "\r\n"...)
		c.finishLine(from)
	}
}

// FlushReplies sends the replies that are kept. The client has the inactivity
// timeout to take them; net.ErrClosed says that it did not, or is gone.
func (c *Conn) FlushReplies() error { return c.flushWithin(c.settings.Inactivity) }

func (c *Conn) flushWithin(limit time.Duration) error {
	if c.gone {
		c.out = nil
		return net.ErrClosed
	}
	if len(c.out) == 0 {
		return nil
	}

	// A client that does not read gets no more time for the next replies.
	err := c.raw.SetWriteDeadline(time.Now().Add(limit))
	if err == nil {
		_, err = c.conn.Write(c.out)
	}
	if c.out = c.out[:0]; cap(c.out) > keptOut {
		c.out = nil
	}
	c.gone = err != nil
	return err
}

// StartTLS begins TLS as a server. Whatever came in clear is forgotten.
func (c *Conn) StartTLS(config *tls.Config) (tls.ConnectionState, error) {
	c.from, c.to = 0, 0

	// The handshake is a wait for the client like any other.
	t := tls.Server(c.raw, config)
	deadline := time.Now().Add(c.settings.Inactivity)
	if err := c.beginWait(deadline); err != nil {
		return tls.ConnectionState{}, err
	}
	_ = c.raw.SetWriteDeadline(deadline)
	err := t.Handshake()
	_ = c.endWait()
	if err != nil {
		c.gone = true // neither in clear nor under TLS can anything be said
		return tls.ConnectionState{}, err
	}
	c.conn = t
	return t.ConnectionState(), nil
}

// Abandon is called when the client has left: nothing is sent any more.
func (c *Conn) Abandon() { c.gone = true }

// Close sends the replies that are kept, and closes.
func (c *Conn) Close() {
	_ = c.flushWithin(min(c.settings.Inactivity, farewell))
	c.gone = true
	c.conn.Close()
	c.from, c.to, c.out = 0, 0, nil
	c.releaseBuffer()
}

// CloseWrite sends the replies that are kept and closes our direction; Drain has to
// follow. If the client is still sending, or has sent bytes that nobody has read, the
// kernel would answer a close with a reset that can destroy the last reply on its way.
func (c *Conn) CloseWrite() {
	_ = c.flushWithin(min(c.settings.Inactivity, farewell))
	half, ok := c.raw.(interface{ CloseWrite() error })
	if !ok || c.gone {
		c.Close()
		return
	}
	_ = c.raw.SetDeadline(time.Now().Add(lingering))

	// Under TLS the client wants to see its end too.
	if t, ok := c.conn.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	_ = half.CloseWrite()
}

// Drain reads, after CloseWrite, until the client closes too, for a while.
func (c *Conn) Drain() {
	if !c.gone && c.beginWait(time.Now().Add(lingering)) == nil {
		_, _ = io.CopyN(io.Discard, c.raw, lingerMost)
	}
	c.Close()
}

// Cut cuts the connection. It may be called from any goroutine.
func (c *Conn) Cut() { c.raw.Close() }
