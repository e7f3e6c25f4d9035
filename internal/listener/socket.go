package listener

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// drainWait is how long the queue of a socket that is about to be closed has to be
	// empty.
	drainWait = 50 * time.Millisecond
	// Clients that never let up must not keep an address: it is given up when the time is
	// over and as many were accepted as can have waited (the kernel's usual bound).
	drainTime  = time.Second
	maxWaiting = 4096
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
	end := time.Now().Add(drainTime)
	for accepted := 0; accepted < maxWaiting || time.Now().Before(end); {
		if !s.limitAccept(time.Now().Add(drainWait)) {
			return
		}
		switch c, err := s.Accept(); {
		case err == nil:
			accepted++
			l.receive(s, c)
		case errors.Is(err, os.ErrDeadlineExceeded):
			// On a busy machine the deadline can be over before the queue was looked at.
			if !s.hasWaiting() {
				return
			}
		case !passing(err) || !time.Now().Before(end):
			return
		default:
			time.Sleep(drainWait) // descriptors may come back
		}
	}
}

// hasWaiting reports whether connections wait in the queue of the kernel.
func (s *socket) hasWaiting() bool {
	ln, ok := s.Listener.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := ln.SyscallConn()
	if err != nil {
		return false
	}

	// A listening socket is readable while a connection waits.
	waiting := false
	err = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		waiting = n == 1 || errors.Is(err, unix.EINTR)
	})
	return waiting && err == nil
}
