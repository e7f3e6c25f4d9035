package wire

import (
	"crypto/tls"
	"net"
	"net/netip"
	"os"

	"tarishi/internal/localaddr"
	"tarishi/internal/mail"
)

// OwnLiteral returns our end of the socket as an argument of EHLO.
func (c *Conn) OwnLiteral() string {
	ip := address(c.raw.LocalAddr())
	if !ip.IsValid() {
		return "localhost"
	}
	return mail.AddressLiteral(ip.WithZone(""))
}

// IsNear reports whether the server is on this host or on a private network.
func (c *Conn) IsNear() bool {
	remote := c.raw.RemoteAddr()
	if _, ok := remote.(*net.UnixAddr); ok {
		return true
	}
	return localaddr.IsNear(address(remote))
}

func address(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// ClientTLS returns the configuration of a handshake with a host. base: nil is TLS 1.2 or later; its
// ServerName, if set, replaces host. The certificate is checked by verify, if that is given, or else
// as Go does it with check, or else not at all.
func ClientTLS(base *tls.Config, host string, check bool, verify func(tls.ConnectionState) error) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		config = base.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = host
	}
	config.InsecureSkipVerify = !check
	if verify != nil {
		config.InsecureSkipVerify, config.VerifyConnection = true, verify
	}
	return config
}

// ErrTimeout is os.ErrDeadlineExceeded in fewer words.
var ErrTimeout error = timedOut{}

type timedOut struct{}

func (timedOut) Error() string        { return "timed out" }
func (timedOut) Is(target error) bool { return target == os.ErrDeadlineExceeded }
