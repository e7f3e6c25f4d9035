package listener

import (
	"errors"
	"net"
	"os"
	"time"
)

const (
	// drainWait is how long the queue of a socket that is about to be closed has to be
	// empty, and drainTime how long that may take in all: clients that never let up must
	// not keep an address.
	drainWait = 50 * time.Millisecond
	drainTime = time.Second
)

// socket is one bound address.
type socket struct {
	net.Listener
	binding
	leaving chan struct{} // closed when the address is not listened on any more
	over    chan struct{} // closed when its accept loop has ended; nil: there is none
}

func newSocket(ln net.Listener, b binding) *socket {
	return &socket{Listener: ln, binding: b, leaving: make(chan struct{})}
}

// isLeaving reports whether the socket was dismissed.
func (s *socket) isLeaving() bool {
	select {
	case <-s.leaving:
		return true
	default:
		return false
	}
}

// dismiss closes the socket. If it has an accept loop, that first accepts the connections
// that wait in the queue of the kernel, which a close would reset.
func (s *socket) dismiss() {
	close(s.leaving)
	if s.over == nil || !s.limitAccept(time.Now()) {
		s.Close()
	}
}

// limitAccept bounds how long Accept waits. It returns false where that cannot be bounded.
func (s *socket) limitAccept(until time.Time) bool {
	ln, ok := s.Listener.(interface{ SetDeadline(t time.Time) error })
	return ok && ln.SetDeadline(until) == nil
}

// acceptWaiting accepts what waits in the queue of a socket that was dismissed, and closes
// it.
func (l *Listener) acceptWaiting(s *socket) {
	defer s.Close()
	for end := time.Now().Add(drainTime); time.Now().Before(end) && s.limitAccept(time.Now().Add(drainWait)); {
		switch c, err := s.Accept(); {
		case err == nil:
			l.receive(s, c)
		case errors.Is(err, os.ErrDeadlineExceeded) || !passing(err):
			return
		default:
			time.Sleep(drainWait) // descriptors may come back
		}
	}
}
