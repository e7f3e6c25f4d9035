package web

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// socketName is the socket in the queue's folder.
const socketName = "control.sock"

// maxSocketPath is what sockaddr_un has room for, without the final NUL.
const maxSocketPath = 107

// ErrStopped is the error of Dial where no daemon listens.
var ErrStopped = errors.New("no daemon answers, and this needs one")

// withAddress calls fn with an address of the socket in dir that fits into a
// sockaddr_un. A longer one is reached through a descriptor of the folder, which
// is the same place, whatever happens to the names above it meanwhile.
func withAddress(dir string, fn func(addr string) error) error {
	name := filepath.Join(dir, socketName)
	if len(name) <= maxSocketPath {
		return fn(name)
	}

	// Linux resolves the path through the descriptor, however long the name is.
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName))
}

// listen makes the socket and returns its path. The caller holds the queue's lock,
// so one that is there already is what a killed daemon left.
func listen(dir string) (ln net.Listener, path string, err error) {
	path = filepath.Join(dir, socketName)
	if err := clearPath(path); err != nil {
		return nil, "", err
	}

	// On Linux a socket's file is born with the mode of the socket, so that there
	// is no moment at which others can connect.
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmod error
		err := c.Control(func(fd uintptr) { chmod = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, chmod)
	}}
	err = withAddress(dir, func(addr string) (err error) {
		ln, err = private.Listen(context.Background(), "unix", addr)
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("control socket %s: %w", path, err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // its address may be gone by then
	return ln, path, nil
}

// clearPath removes the socket of a killed daemon, and nothing else.
func clearPath(name string) error {
	switch info, err := os.Lstat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is in the way: it is no socket", name)
	}
	return os.Remove(name)
}

// Dial connects to the socket in dir. ErrStopped: no daemon listens there.
func Dial(ctx context.Context, dir string) (net.Conn, error) {
	var c net.Conn
	err := withAddress(dir, func(addr string) (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, "unix", addr)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrStopped
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return c, nil
}
