package delivery

import (
	"net/netip"
	"slices"

	"tarishi/internal/grant"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/smtpclient"
	"tarishi/internal/tlspolicy"
)

// place is one host to connect to: some of its addresses, or hop.Path.
type place struct {
	hop   mail.NextHop // with all that the configuration and the message say of it
	addrs []netip.Addr
	tls   tlspolicy.Policy
}

// groupByPolicy divides the addresses of a host by how they are secured, and appends
// the places to all.
func groupByPolicy(all []place, hop mail.NextHop, addrs []netip.Addr, secure func(netip.Addr) tlspolicy.Policy) []place {
	// Lists such as no_tls_hosts may name single addresses of a host.
	policies := make([]tlspolicy.Policy, 0, 4)
	alike := true
	for _, a := range addrs {
		policies = append(policies, secure(a.Unmap()))
		alike = alike && policies[len(policies)-1].Same(policies[0])
	}
	if alike && len(addrs) > 0 { // nearly always
		return append(all, place{hop: hop, addrs: addrs, tls: policies[0]})
	}
	for n, a := range addrs {
		s := policies[n]
		i := slices.IndexFunc(all, func(c place) bool { return c.tls.Same(s) })
		if i < 0 {
			all, i = append(all, place{hop: hop, tls: s}), len(all)
		}
		all[i].addrs = append(all[i].addrs, a)
	}
	return all
}

// TokenSources returns the source of a grant's access tokens, always the same one.
type TokenSources func(grant.Handle) smtpclient.TokenSource

// of returns the source of the access tokens for a hop; nil: it needs none.
func (t TokenSources) of(h *mail.NextHop) smtpclient.TokenSource {
	if h.AuthGrant.IsZero() {
		return nil
	}
	return t(h.AuthGrant)
}

// target is the place as the pool has it. helo and limits hold where the hop has
// none.
func (c *place) target(helo string, limits mail.Limits) pool.Target {
	h, p := &c.hop, &c.tls
	if h.Limits != (mail.Limits{}) {
		limits = h.Limits
	}

	// All that makes two connections different is in the options, so that the pool never
	// mixes them up.
	t := pool.Target{
		Options: smtpclient.Options{
			Network: "tcp", Host: h.Host, Protocol: h.Protocol, ImplicitTLS: h.ImplicitTLS,
			TLS: p.TLS, Verify: p.Verify, VerifyKey: p.Key,
			Bind: h.Bind, Helo: h.Helo, Forwards: h.Forwards,
			AuthType: h.AuthType, AuthUser: h.AuthUser, AuthPass: h.AuthPass, AuthRequired: h.AuthRequired, AuthInsecure: h.AuthInsecure,
			ConnectTimeout: limits.Connect, CommandTimeout: limits.Command, SubmissionTimeout: limits.Submission,
		},
		MaxConnections: limits.Connections, MaxMessages: limits.Messages, MaxAge: limits.Age, IdleTimeout: limits.Idle,
	}
	if t.Helo == "" {
		t.Helo = helo
	}
	if p.Name != "" {
		t.Host = p.Name
	}
	if h.Path != "" {
		t.Network, t.Addr, t.Bind = "unix", h.Path, netip.Addr{}
		return t
	}

	// A host's addresses go to the pool together, which tries them as RFC 8305 says.
	t.Addrs = make([]netip.AddrPort, len(c.addrs))
	for i, a := range c.addrs {
		t.Addrs[i] = netip.AddrPortFrom(a.Unmap(), uint16(h.TCPPort()))
	}
	return t
}
