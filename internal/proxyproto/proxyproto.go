// Package proxyproto reads the header in which a proxy says whose connection it hands on:
// versions 1 and 2 of HAProxy's PROXY protocol (proxy-protocol.txt, sections 2.1 and 2.2).
//
// A reader takes no byte off a connection that is not the header's, so what follows, TLS or
// SMTP, is read from the connection itself. What a peer can make it hold is one line, or the
// fixed part of version 2.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Header is what a proxy says about a connection.
type Header struct {
	Version int // 1 or 2
	// Source is the client, Destination the address of the proxy's that it has reached. Both
	// are invalid where the proxy names none: the connection is the proxy's own (LOCAL, for
	// a health check), or it does not know whose it is (UNKNOWN).
	Source, Destination netip.AddrPort
}

// ErrFormat says that what came is no header, or one that is malformed.
var ErrFormat = errors.New("invalid PROXY header")

const (
	prefix    = "PROXY "                 // of version 1
	signature = "\r\n\r\n\x00\r\nQUIT\n" // of version 2
	fixed     = len(signature) + 4       // of version 2: with version, family and length
	maxLine   = 107                      // of version 1, with its line end

	// The shortest lines of version 1; minLine is no longer than fixed.
	minLine = len("PROXY UNKNOWN\r\n")
	minTCP4 = len("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n")
	minTCP6 = len("PROXY TCP6 :: :: 0 0\r\n")
)

// Read reads a header. Its errors are ErrFormat and those of r.
func Read(r io.Reader) (Header, error) {
	var space [maxLine]byte
	got := space[:0]
	for {
		// The next read ends where the shortest header ends that begins like this.
		n, err := r.Read(space[len(got):least(got)])
		got = space[:len(got)+n]
		isLine := isTextual(got)
		switch {
		case !isBeginning(got):
			return Header{}, ErrFormat
		case isLine && bytes.IndexByte(got, '\n') >= 0:
			return parseLine(string(got))
		case isLine && len(got) == maxLine:
			return Header{}, ErrFormat
		case !isLine && len(got) == fixed:
			return readBinary(got, r)
		case err == io.EOF:
			return Header{}, io.ErrUnexpectedEOF
		case err != nil:
			return Header{}, err
		}
	}
}

// isTextual reports whether got can only begin a header of version 1.
func isTextual(got []byte) bool { return len(got) > 0 && got[0] == prefix[0] }

// isBeginning reports whether a header can begin with got. Nothing is a beginning as well.
func isBeginning(got []byte) bool {
	one := signature
	if isTextual(got) {
		one = prefix
	}
	n := min(len(got), len(one))
	return string(got[:n]) == one[:n]
}

// least returns how long a header is at least that begins with got and goes on behind it.
func least(got []byte) int {
	shortest := minLine
	switch text := string(got); {
	case strings.HasPrefix(text, signature[:1]):
		shortest = fixed
	case strings.HasPrefix(text, "PROXY TCP4 "):
		shortest = minTCP4
	case strings.HasPrefix(text, "PROXY TCP6 "):
		shortest = minTCP6
	}
	return max(shortest, len(got)+1)
}

// parseLine reads a header of version 1 up to its line end.
func parseLine(line string) (Header, error) {
	h := Header{Version: 1}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok || strings.ContainsAny(text, "\r\n") {
		return Header{}, ErrFormat
	}
	fields := strings.Split(text, " ")
	if fields[1] == "UNKNOWN" {
		return h, nil // whatever follows
	}
	if len(fields) != 6 {
		return Header{}, ErrFormat
	}
	var good [2]bool
	h.Source, good[0] = parseEndpoint(fields[1], fields[2], fields[4])
	h.Destination, good[1] = parseEndpoint(fields[1], fields[3], fields[5])
	if !good[0] || !good[1] {
		return Header{}, ErrFormat
	}
	return h, nil
}

// parseEndpoint reads an address of a family, "TCP4" or "TCP6", and a port.
func parseEndpoint(family, addr, port string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" || a.Is4() != (family == "TCP4") || a.Is6() != (family == "TCP6") {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}

// The commands, and the families with their transports, of version 2.
const (
	version2Local = 0x20
	version2Proxy = 0x21

	unspecified = 0x00
	tcp4        = 0x11
	tcp6        = 0x21
	unixStream  = 0x31
)

// readBinary reads the rest of a header of version 2 behind its fixed part.
func readBinary(head []byte, r io.Reader) (Header, error) {
	command, family := head[len(signature)], head[len(signature)+1]
	length := int(binary.BigEndian.Uint16(head[len(signature)+2:]))
	size := 0 // of one address
	switch {
	case command == version2Local: // the family is to be ignored
	case command != version2Proxy:
		return Header{}, ErrFormat
	case family == tcp4:
		size = net.IPv4len
	case family == tcp6:
		size = net.IPv6len
	case family != unspecified && family != unixStream:
		return Header{}, ErrFormat
	}

	// Two addresses and two ports, and then what proxies add: TLVs, which are passed over.
	var space [2*net.IPv6len + 4]byte
	block := space[:2*size+min(size, 1)*4]
	if length < len(block) {
		return Header{}, ErrFormat
	}
	if _, err := io.ReadFull(r, block); err != nil {
		return Header{}, err
	}
	if _, err := io.CopyN(io.Discard, r, int64(length-len(block))); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Header{}, err
	}

	h := Header{Version: 2}
	if size > 0 {
		h.Source = endpoint(block[:size], block[2*size:])
		h.Destination = endpoint(block[size:2*size], block[2*size+2:])
	}
	return h, nil
}

// endpoint makes one of an address and of the port with which another slice begins.
func endpoint(addr, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

// Conn is a connection that a proxy has handed on: its addresses are those of the header.
type Conn struct {
	*net.TCPConn // between the proxy and us
	source, dest net.Addr
}

// NewConn returns conn, which began with the header h, as the connection of the client. Where the
// proxy names none the addresses stay those of conn.
func NewConn(conn *net.TCPConn, h Header) *Conn {
	c := &Conn{conn, conn.RemoteAddr(), conn.LocalAddr()}
	if h.Source.IsValid() {
		c.source, c.dest = net.TCPAddrFromAddrPort(h.Source), net.TCPAddrFromAddrPort(h.Destination)
	}
	return c
}

// RemoteAddr implements net.Conn: it is the client's.
func (c *Conn) RemoteAddr() net.Addr { return c.source }

// LocalAddr implements net.Conn: it is the one that the client has reached.
func (c *Conn) LocalAddr() net.Addr { return c.dest }

// Socket returns the addresses between the proxy and us: the proxy's, and ours.
func (c *Conn) Socket() (proxy, own net.Addr) {
	return c.TCPConn.RemoteAddr(), c.TCPConn.LocalAddr()
}
