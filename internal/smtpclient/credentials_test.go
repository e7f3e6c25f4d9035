package smtpclient

import (
	"net"
	"net/netip"
	"testing"

	"tarishi/internal/smtpclient/command"
	"tarishi/internal/smtpclient/wire"
)

type peer struct {
	net.Conn
	addr string
}

func (p peer) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(p.addr)) }

// TestClearCredentials: to whom credentials go without TLS.
func TestClearCredentials(t *testing.T) {
	const tls13 = "TLSv1.3 TLS_AES_128_GCM_SHA256"
	for _, tt := range []struct {
		addr, tls string
		policy    TLSPolicy
		set       func(o *Options)
		want      bool
	}{
		{addr: "127.0.0.1:25", tls: "none", want: true},
		{addr: "10.1.2.3:25", tls: "none", want: true},
		{addr: "[::1]:25", tls: "none", want: true},
		{addr: "[fd00::1]:25", tls: "none", want: true},
		{addr: "[::ffff:192.168.1.1]:25", tls: "none", want: true},
		{addr: "192.0.2.1:25", tls: "none", policy: TLSMay},
		{addr: "[2001:db8::1]:25", tls: "none"},
		{addr: "192.0.2.1:25", tls: "none", set: func(o *Options) { o.AuthInsecure = true }, want: true},
		{addr: "192.0.2.1:25", tls: tls13, policy: TLSMay},
		{addr: "192.0.2.1:25", tls: tls13, policy: TLSMay, set: func(o *Options) { o.AuthInsecure = true }, want: true},
		{addr: "10.1.2.3:25", tls: tls13, policy: TLSMay, want: true},
		{addr: "192.0.2.1:25", tls: tls13, policy: TLSEncrypt, want: true},
		{addr: "192.0.2.1:25", tls: tls13, policy: TLSVerify, want: true},
		{addr: "192.0.2.1:25", tls: tls13, set: func(o *Options) { o.ImplicitTLS = true }, want: true},
	} {
		for _, offer := range []string{"PLAIN", "LOGIN", "CRAM-MD5"} {
			c := &Client{
				o: Options{TLS: tt.policy, AuthType: "any", AuthUser: "u", AuthPass: "p"}, conn: wire.NewConn(peer{addr: tt.addr}, nil), tls: tt.tls,
				ext: command.Extensions{Auth: []string{offer}},
			}
			if tt.set != nil {
				tt.set(&c.o)
			}
			if _, err := c.chooseMechanism("p"); (err == nil) != tt.want {
				t.Errorf("%s to %s, TLS %s, policy %d: %v", offer, tt.addr, tt.tls, tt.policy, err)
			}
		}
	}
	clear := &Client{o: Options{AuthType: "external"}, conn: wire.NewConn(peer{addr: "127.0.0.1:25"}, nil), tls: "none", ext: command.Extensions{Auth: []string{"EXTERNAL"}}}
	if _, err := clear.chooseMechanism(""); err == nil {
		t.Error("EXTERNAL without TLS")
	}
	c := &Client{o: Options{AuthType: "plain", AuthUser: "u\x00v"}, tls: "none", conn: wire.NewConn(peer{addr: "127.0.0.1:25"}, nil)}
	if _, err := c.chooseMechanism("p"); err == nil {
		t.Error("NUL in a user name")
	}
}
