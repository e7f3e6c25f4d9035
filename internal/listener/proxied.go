package listener

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"tarishi/internal/proxyproto"
)

const (
	// headerTime is how long a proxy may take for its header, as in Haraka.
	headerTime = 30 * time.Second
	// A peer that is refused may be sending still. It is read from for so long, and so many
	// bytes, for a reset would destroy the reply.
	lingering  = time.Second
	lingerMost = 64 << 10
)

// receiveProxied serves the connection that a proxy hands on, or refuses it. It returns when
// that is decided.
func (l *Listener) receiveProxied(c *net.TCPConn, implicitTLS bool) {
	header, err := l.readHeader(c)
	ip := header.Source.Addr()
	if err != nil {
		l.o.Mail.Refused("", remoteIP(c).String(), "no PROXY header: "+err.Error())
		l.dismissProxied(c, implicitTLS, err)
		l.release(netip.Addr{})
		return
	}

	// From here on it is the client's connection.
	l.mu.Lock()
	why := l.countClient(ip)
	l.mu.Unlock()
	if why != "" {
		l.o.Mail.Refused("", ip.String(), why)
		l.refuse(c, implicitTLS, why)
		l.release(netip.Addr{})
		return
	}
	go func() {
		defer l.release(ip)
		l.serve(proxyproto.NewConn(c, header), implicitTLS)
	}()
}

// readHeader reads the header of a proxy. A stop of the Listener ends the wait for it.
func (l *Listener) readHeader(c *net.TCPConn) (proxyproto.Header, error) {
	if !l.await(c, l.o.HeaderTime) {
		return proxyproto.Header{}, net.ErrClosed
	}
	header, err := proxyproto.Read(c)
	if l.stopAwaiting(c) {
		return header, net.ErrClosed
	}
	return header, err
}

// await bounds how long c is read from, by a time and by a stop. It returns false after one.
func (l *Listener) await(c *net.TCPConn, limit time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.silent[c] = struct{}{}
	_ = c.SetReadDeadline(time.Now().Add(limit))
	return true
}

// stopAwaiting ends what await began. It returns true after a stop.
func (l *Listener) stopAwaiting(c *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.silent, c)
	_ = c.SetReadDeadline(time.Time{})
	return l.closed
}

// dismissProxied tells a proxy what is wrong with its header, in Haraka's words, and closes.
func (l *Listener) dismissProxied(c *net.TCPConn, implicitTLS bool, err error) {
	defer c.Close()
	line := ""
	switch {
	case errors.Is(err, proxyproto.ErrFormat):
		line = "421 4.7.0 Invalid PROXY format\r\n"
	case errors.Is(err, os.ErrDeadlineExceeded):
		line = "421 4.4.2 PROXY timeout\r\n"
	}
	if line == "" || implicitTLS { // a client that awaits TLS would not understand it
		return
	}
	answer(c, line)
	_ = c.CloseWrite()
	if l.await(c, lingering) {
		_, _ = io.CopyN(io.Discard, c, lingerMost)
		l.stopAwaiting(c)
	}
}
