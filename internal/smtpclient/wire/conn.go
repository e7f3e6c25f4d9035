// Package wire is one connection to an SMTP or LMTP server as lines: commands go
// out, replies come in, and content follows a command dot-stuffed or in chunks. It
// knows no state of the conversation; that is the business of package smtpclient.
//
//   - Every read and write has a deadline, and the context that the connection is
//     bound to ends all of them.
//   - A reply has lines of one code and is bounded; anything else is ErrGarbled.
//   - Nothing that is kept of a reply has the credentials in it that the connection
//     was made with.
//   - Content leaves only through a DotWriter: no bare CR or LF passes, and lines
//     that begin with a dot get another one.
package wire

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
	"time"
)

// quitTimeout bounds Quit.
const quitTimeout = 2 * time.Second

// Conn is a connection. It is used by one goroutine at a time.
type Conn struct {
	Last Response // the reply that was read last
	Out  []byte   // commands not written yet, see Flush

	raw    net.Conn // the socket: deadlines
	stream net.Conn // raw, or TLS on it
	in     reader
	broken bool

	abort  func() // ends every wait on raw
	ctx    context.Context
	unbind func() bool // ends ctx's hold on the connection; nil: it cannot end

	socket syscall.RawConn // of raw; nil: it is no socket
	peek   func(fd uintptr)
	peeked int // result of peek

	// The rest of a content must be written by then, see BeginContent.
	contentBy time.Time
	rate      int64
	blockTime time.Duration

	head  []byte // of a chunk
	spans [2][]byte
}

// NewConn returns the connection over a socket. Its replies hide secrets (nil: none).
func NewConn(raw net.Conn, hides *Secrets) *Conn {
	c := &Conn{raw: raw, stream: raw, in: newReader(raw)}
	c.Last.hides = hides
	c.abort = func() { raw.SetDeadline(time.Unix(1, 0)) }
	if s, ok := raw.(syscall.Conn); ok {
		c.socket, _ = s.SyscallConn()
	}
	c.peek = func(fd uintptr) {
		var one [1]byte
		c.peeked, _, _ = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	}
	return c
}

// Bind lets ctx end every wait until Unbind is called.
func (c *Conn) Bind(ctx context.Context) {
	if c.ctx = ctx; ctx.Done() != nil {
		c.unbind = context.AfterFunc(ctx, c.abort)
	}
}

// Unbind ends what Bind began. It closes a connection that ctx has ended, or ends now.
func (c *Conn) Unbind() {
	stop := c.unbind
	c.ctx, c.unbind = nil, nil
	if stop != nil && !stop() { // abort ran, or may yet run: the deadlines are not ours any more
		c.Close()
	}
}

// Context returns the context that the connection is bound to; nil: none.
func (c *Conn) Context() context.Context { return c.ctx }

// Err returns the error of that context.
func (c *Conn) Err() error {
	if c.ctx == nil {
		return nil
	}
	return c.ctx.Err()
}

// AwaitBy sets the deadline of the next reads. Whatever the order of this and
// abort, an ended context wins.
func (c *Conn) AwaitBy(t time.Duration) {
	c.raw.SetReadDeadline(time.Now().Add(t))
	if c.Err() != nil {
		c.abort()
	}
}

func (c *Conn) writeBy(t time.Duration) {
	c.raw.SetWriteDeadline(time.Now().Add(t))
	if c.Err() != nil {
		c.abort()
	}
}

// Await reads one reply into Last, which has t to arrive.
func (c *Conn) Await(t time.Duration) error {
	// When something has arrived it is nearly always a whole reply; if not, the
	// deadline of the reply before it, which is no later, holds.
	if c.in.buffered() == 0 {
		c.AwaitBy(t)
	}
	return c.Read()
}

// Read reads one reply into Last, within the deadline that is set.
func (c *Conn) Read() error { return c.Last.readReply(&c.in) }

// Flush writes the commands collected in Out, within t.
func (c *Conn) Flush(t time.Duration) error {
	c.writeBy(t)
	_, err := c.stream.Write(c.Out)
	c.Out = c.Out[:0]
	return err
}

// Buffered is how many bytes have arrived that no reply has used.
func (c *Conn) Buffered() int { return c.in.buffered() }

// Heard reports whether something has arrived that nobody has asked for, be it
// the end of the connection or, with TLS, nothing for us. It never waits. A
// reply too many puts all that follow off by one; with DATA that shows late,
// since only the reply to DATA has a class that no other has, and with BDAT never.
func (c *Conn) Heard() bool {
	if c.in.buffered() > 0 {
		return true
	}
	if c.Encrypted() { // TLS may have read more than it has given us
		c.raw.SetReadDeadline(time.Unix(1, 0))
		if c.in.readMore(); c.in.buffered() > 0 {
			return true
		}
	}

	// The socket is asked without taking anything out of it, nor waiting for it.
	if c.socket == nil {
		return false
	}
	c.peeked = -1
	return c.socket.Control(c.peek) != nil || c.peeked >= 0
}

// Handshake begins TLS within t.
func (c *Conn) Handshake(config *tls.Config, t time.Duration) (tls.ConnectionState, error) {
	encrypted := tls.Client(c.raw, config)
	c.raw.SetDeadline(time.Now().Add(t))
	if c.Err() != nil {
		c.abort()
	}
	if err := encrypted.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	c.stream, c.in = encrypted, newReader(encrypted)
	return encrypted.ConnectionState(), nil
}

// Encrypted reports whether TLS has begun.
func (c *Conn) Encrypted() bool { return c.stream != c.raw }

// Quit says goodbye, waits up to two seconds for the answer and closes.
func (c *Conn) Quit() {
	if !c.broken {
		c.raw.SetDeadline(time.Now().Add(quitTimeout))
		if _, err := c.stream.Write([]byte("QUIT\r\n")); err == nil {
			c.Read()
		}
		c.stream.Close() // with TLS, says so to the peer
	}
	c.Close()
}

// AwaitLast gives what the server may still say before it goes as long as Quit does.
func (c *Conn) AwaitLast() { c.AwaitBy(quitTimeout) }

// Close closes the connection at once. It may be called more than once.
func (c *Conn) Close() {
	if !c.broken {
		c.raw.Close()
	}
	c.broken = true
}

// Closed reports whether Close was called, or the context ended it.
func (c *Conn) Closed() bool { return c.broken }
