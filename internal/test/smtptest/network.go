package smtptest

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Network is a network in memory for servers and their clients. In a bubble of
// testing/synctest it takes no time to wait for a server on it that is silent, and a
// busy machine makes no timeout pass; sockets have neither. The zero Network is ready.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
}

// Listen makes a server listen on the network instead of a socket.
func (n *Network) Listen() Option { return func(s *Server) { s.memory = n } }

// Dial connects to the server with this Addr.
func (n *Network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	ours, theirs := newPair(l.addr)
	select {
	case l.incoming <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *Network) listen() net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners == nil {
		n.listeners = map[string]*listener{}
	}
	l := &listener{addr: loopback(1 + len(n.listeners)), incoming: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[l.addr.String()] = l
	return l
}

func loopback(port int) *net.TCPAddr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1).To4(), Port: port}
}

// listener is the address of one server.
type listener struct {
	addr     *net.TCPAddr
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// end is one end of a connection in memory. As with a socket, a write returns when
// its bytes are on their way, up to a limit.
type end struct {
	in, out       *stream
	local, remote *net.TCPAddr
	abrupt        bool // a Close is a reset
}

func newPair(server *net.TCPAddr) (client, accepted *end) {
	up, down := newStream(), newStream()
	port := loopback(50_000)
	return &end{in: down, out: up, local: port, remote: server}, &end{in: up, out: down, local: server, remote: port}
}

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }
func (e *end) LocalAddr() net.Addr         { return e.local }
func (e *end) RemoteAddr() net.Addr        { return e.remote }

// SetLinger makes the next Close a reset, whatever the number of seconds.
func (e *end) SetLinger(int) error {
	e.abrupt = true
	return nil
}

func (e *end) Close() error {
	gone := io.EOF
	if e.abrupt {
		gone = syscall.ECONNRESET
	}
	e.out.close(gone, net.ErrClosed)
	e.in.close(net.ErrClosed, syscall.EPIPE)
	return nil
}

func (e *end) SetDeadline(t time.Time) error {
	e.in.reading.set(e.in, t)
	e.out.writing.set(e.out, t)
	return nil
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.reading.set(e.in, t)
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.out.writing.set(e.out, t)
	return nil
}

// streamSize is how many bytes may be on their way in one direction, about as many
// as a socket's buffers hold.
const streamSize = 256 << 10

// stream is one direction of a connection.
type stream struct {
	mu               sync.Mutex
	changed          *sync.Cond
	b                bytes.Buffer
	noRead, noWrite  error // the direction has ended: for its reader (nil: not yet), and its writer
	reading, writing deadline
}

func newStream() *stream {
	s := &stream{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.reading.passed():
			return 0, os.ErrDeadlineExceeded
		case s.b.Len() > 0 && (s.noRead == nil || s.noRead == io.EOF):
			s.changed.Broadcast()
			return s.b.Read(p)
		case s.noRead != nil:
			return 0, s.noRead
		case len(p) == 0:
			return 0, nil
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.writing.passed():
			return n, os.ErrDeadlineExceeded
		case s.noWrite != nil:
			return n, s.noWrite
		}
		part := min(len(p), streamSize-s.b.Len())
		s.b.Write(p[:part])
		n, p = n+part, p[part:]
		s.changed.Broadcast()
		if len(p) == 0 {
			return n, nil
		}
		s.changed.Wait()
	}
}

// close ends the direction. The end that closed first decides what its reader and
// its writer see.
func (s *stream) close(read, write error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noRead == nil || read == net.ErrClosed {
		s.noRead = read
	}
	if s.noWrite == nil || write == net.ErrClosed {
		s.noWrite = write
	}
	s.reading.stop()
	s.writing.stop()
	s.changed.Broadcast()
}

// deadline is of the reads or the writes of a stream, under its mutex.
type deadline struct {
	at    time.Time // zero: none
	timer *time.Timer
}

func (d *deadline) set(s *stream, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.stop()
	d.at = at
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), s.wake)
	}
	s.changed.Broadcast()
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}
