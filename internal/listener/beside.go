package listener

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// bindBeside binds an address that sockets of ours have a part in. The kernel gives it to
// two sockets of one user if both say SO_REUSEPORT. They say so for this moment only: no
// other process shall be able to take connections away.
func (c *Change) bindBeside(b binding, own []*socket) (net.Listener, error) {
	// Both sides have to agree, so those that are bound are asked for it first.
	for _, s := range own {
		if err := s.share(true); err != nil {
			return nil, err
		}
		defer func() { _ = s.share(false) }()
	}
	ln, err := b.bind(c.listener.o.Log, func(_, _ string, raw syscall.RawConn) error { return setReusePort(raw, true) })
	if err == nil && ln != nil {
		_ = newSocket(ln, b).share(false)
	}
	return ln, err
}

// share lets another socket bind the address of s, or no more.
func (s *socket) share(on bool) error {
	ln, ok := s.Listener.(syscall.Conn)
	if !ok {
		return syscall.ENOTSUP
	}
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	return setReusePort(raw, on)
}

func setReusePort(raw syscall.RawConn, on bool) error {
	value := 0
	if on {
		value = 1
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, value)
	})
	if err != nil {
		return err
	}
	return failed
}
