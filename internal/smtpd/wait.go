package smtpd

import (
	"errors"
	"sync"
	"syscall"
	"time"
)

// parkAfter is how long a session waits for a command before it gives back its
// buffers and most of its stack. That costs microseconds, and a client that is busy
// sends its next command earlier.
const parkAfter = 100 * time.Millisecond

// ErrIdle says that the client has sent nothing for so long that the caller should
// call Park, from high in the stack, and then ReadCommand again.
var ErrIdle = errors.New("the client is idle")

// waits is what a Conn knows of its waiting, which other goroutines may end.
type waits struct {
	due     time.Time // when the command that is awaited has to be here; zero: none is
	overdue error     // what to say when it is not

	mu      sync.Mutex
	waiting bool // blocked in a read that a Shutdown may end at any time
	blocked bool // in any read but a handshake
	ending  bool // a Shutdown wants no more commands
	yielded bool // the session has to give way
}

// beginWait announces that the session is about to wait, until then, for something
// that a Shutdown need not wait for.
func (c *Conn) beginWait(until time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return ErrShutdown
	}
	if err := c.block(until); err != nil {
		return err
	}
	c.waiting = true
	return nil
}

// beginRead announces a read of content.
func (c *Conn) beginRead(until time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.block(until)
}

// block announces a read. The caller holds c.mu.
func (c *Conn) block(until time.Time) error {
	if c.yielded {
		return ErrGiveWay
	}
	if err := c.raw.SetReadDeadline(until); err != nil {
		return err
	}
	c.blocked = true
	return nil
}

// endWait takes back what beginWait or beginRead announced. It returns why the read
// was ended, if somebody did that: ErrShutdown or ErrGiveWay.
func (c *Conn) endWait() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ended := c.waiting && c.ending
	c.waiting, c.blocked = false, false
	switch {
	case ended:
		return ErrShutdown
	case c.yielded:
		return ErrGiveWay
	}
	return nil
}

// Wake makes a session that waits for a command return with ErrShutdown, now or
// when it next wants to. It may be called from any goroutine.
func (c *Conn) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	if c.waiting {
		_ = c.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// yield makes the session return with ErrGiveWay from the read that it is in, or
// from the next. It may be called from any goroutine.
func (c *Conn) yield() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.yielded = true
	if c.blocked {
		_ = c.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// stay takes yield back.
func (c *Conn) stay() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.yielded = false
}

// isEnding reports whether a Shutdown wants no more commands.
func (c *Conn) isEnding() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending
}

// mayPark reports whether a wait for a command may end with ErrIdle: not in a
// transaction, where the wait is watched, nor where the socket cannot be polled.
func (c *Conn) mayPark() bool {
	_, polled := c.raw.(syscall.Conn)
	return polled && c.watch == nil
}

// Park waits, after ErrIdle, until the client has sent something or ReadCommand has
// another reason to return. It holds no buffers meanwhile and needs little stack, so
// it is for a goroutine that has never needed more: stacks grow and hardly shrink.
func (c *Conn) Park() {
	c.releaseBuffer()
	c.out = nil

	// The socket is polled and not read: under TLS too, where all that was received whole
	// has been read before.
	socket, err := c.raw.(syscall.Conn).SyscallConn()
	if err != nil {
		return // ReadCommand learns of it
	}
	if c.beginWait(c.due) != nil {
		return
	}
	_ = socket.Read(isReadable)
	_ = c.endWait()
}

// isReadable reports whether a read of the socket would return something, if only
// its end.
func isReadable(fd uintptr) bool {
	var first [1]byte
	_, _, err := syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return !errors.Is(err, syscall.EAGAIN)
}

// HasArrived reports whether the client has sent something that waits to be read. It may
// be called from any goroutine; where the socket cannot be polled, or is gone, nothing
// has. What TLS has taken off the socket already does not count.
func (c *Conn) HasArrived() bool {
	polled, ok := c.raw.(syscall.Conn)
	if !ok {
		return false
	}
	socket, err := polled.SyscallConn()
	if err != nil {
		return false
	}

	// The end of the connection can be read too, but it is nothing that was sent.
	waiting := 0
	err = socket.Control(func(fd uintptr) {
		var first [1]byte
		waiting, _, _ = syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && waiting > 0
}
