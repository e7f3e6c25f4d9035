package web

import (
	"net"
	"sync"
)

// limited is a listener with so many connections at a time; more of them wait to be
// accepted. Unlike that of golang.org/x/net/netutil its connections can be closed for
// writing alone, which net/http needs to get the answer to a request that it does
// not read to its end through to the client.
type limited struct {
	net.Listener
	places chan struct{}
	ended  chan struct{}
	end    func() // closes ended
}

func limit(ln net.Listener, connections int) net.Listener {
	ended := make(chan struct{})
	return &limited{ln, make(chan struct{}, connections), ended, sync.OnceFunc(func() { close(ended) })}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.ended:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &placed{c, sync.OnceFunc(func() { <-l.places })}, nil
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.end()
	return l.Listener.Close()
}

// placed is a connection that gives its place up when it is closed.
type placed struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *placed) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite ends the stream to the client.
func (c *placed) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
