package pool

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/smtpclient"
)

// key is the identity of a target: all that makes two connections different.
type key struct {
	network, addr, host string
	port                uint16 // of Target.Addrs
	protocol            mail.Protocol

	implicitTLS bool
	tls         smtpclient.TLSPolicy
	tlsConfig   *tls.Config
	verify      string
	bind        netip.Addr
	helo        string
	forwards    mail.ForwardsOrigin

	authType, authUser, authPass string
	tokens                       smtpclient.TokenSource
	authInsecure, authRequired   bool

	submission time.Duration // a connection has its own, and is not to wait longer or shorter than the route says
	minRate    int64

	single uint64 // set when the connection must not be shared
}

// key returns the key of t.
func (p *Pool) key(t *Target) key {
	k := key{
		network: t.Network, addr: t.Addr, host: strings.ToLower(strings.TrimSuffix(t.Host, ".")), protocol: t.Protocol,
		implicitTLS: t.ImplicitTLS, tls: t.TLS, tlsConfig: t.TLSConfig, verify: t.VerifyKey,
		bind: t.Bind, helo: t.Helo, forwards: t.Forwards,
		authType: t.AuthType, authUser: t.AuthUser, authPass: t.AuthPass,
		tokens: t.Tokens, authInsecure: t.AuthInsecure, authRequired: t.AuthRequired, minRate: t.MinRate,
		submission: t.SubmissionTimeout,
	}
	if len(t.Addrs) > 0 {
		k.port = t.Addrs[0].Port()
		if k.addr = ""; k.host == "" {
			k.addr = fmt.Sprint(t.Addrs)
		}
	}
	if t.Verify != nil && t.VerifyKey == "" {
		k.single = p.serial.Add(1)
	}
	return k
}
