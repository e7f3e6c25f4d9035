// Package tlspolicy decides how a connection to a next hop is secured. What decides, the
// first that applies:
//
//   - REQUIRETLS (RFC 8689), force_tls_hosts and the note force_tls: verified, by
//     DANE or by a valid certificate. With REQUIRETLS, MX are used only where
//     DNSSEC or the domain's MTA-STS policy vouches for them (its section 4.2.1);
//   - the level that the hop or the destination's settings name: none and may
//     as they are, encrypt and verify unless DANE or MTA-STS asks for more;
//   - enable_tls and no_tls_hosts: none;
//   - "TLS-Required: No" (RFC 8689) in the message, which makes the next two not count,
//     unless the configuration itself asks for a certificate;
//   - DANE (RFC 7672), where the MX and its addresses are secure and it has TLSA
//     records;
//   - the MTA-STS policy of the recipients' domain (RFC 8461);
//   - credentials that go to a public address: verified;
//   - rejectUnauthorized: TLS where it is offered, and then a valid certificate.
//     It also adds the look at the certificate to the level encrypt, and to what
//     MTA-STS policies in testing and TLSA records that cannot be used leave out;
//   - opportunistic TLS without a look at the certificate, which against a
//     passive listener is better than nothing.
//
// DANE and MTA-STS are for the hosts of the DNS: a plan of hops that a hook gave
// is not secure and has no policy. The hosts of a route that the relay uses have the
// route's own level, and under REQUIRETLS are verified like all others.
package tlspolicy

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/dane"
	"tarishi/internal/dns"
	"tarishi/internal/localaddr"
	"tarishi/internal/mail"
	"tarishi/internal/mtasts"
	"tarishi/internal/nexthop"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/tlsconf"
)

// Policy is how a connection is secured.
type Policy struct {
	TLS     smtpclient.TLSPolicy
	Verify  func(tls.ConnectionState) error // nil: Go's own check, if TLS asks for any
	Key     string                          // of Verify
	Name    string                          // SNI; "": the host's
	Wanted  string                          // for the log: none, may, may-verify, encrypt, verify, dane, sts
	Testing bool                            // what MTA-STS would refuse is logged
}

// The policies without a verifier of their own.
var (
	inClear   = Policy{TLS: smtpclient.TLSNone, Wanted: "none"}
	offered   = Policy{TLS: smtpclient.TLSMay, Wanted: "may"}
	checked   = Policy{TLS: smtpclient.TLSMayVerify, Wanted: "may-verify"}
	encrypted = Policy{TLS: smtpclient.TLSEncrypt, Wanted: "encrypt"}
	verified  = Policy{TLS: smtpclient.TLSVerify, Wanted: "verify"}
	strict    = Policy{TLS: smtpclient.TLSVerify, Wanted: "sts"}
)

// levels are the policies that a configured level asks for.
var levels = [...]Policy{
	mail.TLSNone: inClear, mail.TLSMay: offered, mail.TLSMayVerify: checked, mail.TLSEncrypt: encrypted, mail.TLSVerify: verified,
}

// OfRoute is the policy for a host of a route with a level.
func OfRoute(level mail.TLSLevel, implicitTLS, requireTLS bool) Policy {
	if requireTLS {
		return verified
	}
	p := levels[level]
	if implicitTLS && p.TLS < smtpclient.TLSEncrypt {
		p.Wanted = encrypted.Wanted
	}
	return p
}

// Resolver asks the DNS for TLSA records; *dns.Resolver does.
type Resolver interface {
	TLSA(ctx context.Context, name string) ([]dns.TLSA, error)
}

// Decider knows what the configuration says.
type Decider struct {
	EnableTLS bool             // opportunistic TLS
	Hosts     tlsconf.Outbound // the lists of hosts, and rejectUnauthorized
	DANE      bool             // Resolver reports DNSSEC
	Resolver  Resolver
	TLSConfig func(show bool) *tls.Config // its roots count; nil: the system's
	Log       *zap.Logger
}

// Need is what a message and its destination ask for.
type Need struct {
	RequireTLS  bool
	TLSOptional bool          // by the message's header field
	Forced      bool          // by a note of the transaction
	Level       mail.TLSLevel // the destination's settings, for hops that have none
	Domain      string        // of the recipients
}

// NewNeed returns the need of a message with recipients of one domain.
func NewNeed(env *mail.Envelope, level mail.TLSLevel) Need {
	return Need{
		RequireTLS: env.RequireTLS, TLSOptional: env.TLSOptional, Forced: env.Notes.Bool("force_tls") || env.Notes.Bool("outbound.force_tls"),
		Level: level, Domain: env.Recipients[0].Address.Host(),
	}
}

func (n *Need) forced() bool { return n.RequireTLS || n.Forced }

func (n *Need) level(hop *mail.NextHop) mail.TLSLevel { return cmp.Or(hop.TLS, n.Level) }

// ignoresPublished reports whether the message makes what is published about a host not count (RFC 8689
// section 4.2.2). Where our own configuration asks for a certificate nothing is loosened: what is
// published says there which one will do.
func (d *Decider) ignoresPublished(n *Need, hop *mail.NextHop, addrs []netip.Addr) bool {
	forces := func(a netip.Addr) bool { return d.Hosts.Forces(hop.Host, a, n.Domain) }
	return n.TLSOptional && d.Hosts.TLSRequiredHeader && !n.forced() && n.level(hop) != mail.TLSVerify &&
		!d.Hosts.RejectUnauthorized && !forces(netip.Addr{}) && !slices.ContainsFunc(addrs, forces)
}

// Same reports whether connections secured as p and as o are the same.
func (p Policy) Same(o Policy) bool {
	return p.TLS == o.TLS && p.Key == o.Key && p.Name == o.Name && p.Wanted == o.Wanted
}

// atLeast returns o, unless the published policy authenticates the server anyway.
func (p Policy) atLeast(o Policy) Policy {
	if p.TLS == smtpclient.TLSVerify {
		return p
	}
	return o
}

// Got is what authenticated a server: "dane", "pkix" or "no".
func (p *Policy) Got(isVerified bool) string {
	switch {
	case !isVerified:
		return "no"
	case p.Wanted == "dane":
		return "dane"
	}
	return "pkix"
}

// Published is what the DNS and the domain say about a host of a plan; without any of it
// its Wanted is empty. The reply says why the host must not be used at all now; Wanted is
// then what keeps us from it.
func (d *Decider) Published(ctx context.Context, n *Need, p *nexthop.Plan, hop *mail.NextHop, a *dns.Addresses) (Policy, *reply.Reply) {
	// An attacker who forges MX records can hold valid certificates for the hosts they name.
	if n.RequireTLS && p.Named && !p.Secure && (p.STS == nil || !p.STS.Allows(hop.Host)) {
		return verified, reply.Newf(451, "4.7.10", "REQUIRETLS needs DNSSEC or an MTA-STS policy of %s that names the MX %s", p.Domain, hop.Host)
	}
	level := n.level(hop)
	if d.ignoresPublished(n, hop, a.List) {
		return Policy{}, nil
	}
	if !d.EnableTLS || d.Hosts.Excludes(hop.Host, netip.Addr{}, p.Domain) || (level == mail.TLSNone || level == mail.TLSMay) && !n.forced() {
		return Policy{}, nil
	}

	// DANE comes first: a domain with TLSA records is not to be weakened by its policy.
	records, base, err := d.tlsa(ctx, p, hop, a)
	if err != nil {
		d.Log.Debug("TLSA records not found out", zap.String("domain", p.Domain), zap.String("host", hop.Host), zap.Error(err))
		return Policy{Wanted: "dane"}, reply.Newf(451, "4.4.3", "TLSA lookup of %s failed temporarily", base).Because(err)
	}
	if pol := dane.New(records, different(base, hop.Host, p.Domain, p.Alias)...); pol != nil {
		return Policy{TLS: smtpclient.TLSVerify, Wanted: "dane", Name: base, Verify: pol.Verify, Key: "dane:" + pol.Key()}, nil
	}
	var weaker Policy
	if len(records) > 0 { // that cannot be used (RFC 7672 section 2.1.1)
		weaker = encrypted
	}
	return d.sts(p, hop.Host, weaker)
}

// sts is what the MTA-STS policy of the domain makes of what TLSA records left.
func (d *Decider) sts(p *nexthop.Plan, host string, s Policy) (Policy, *reply.Reply) {
	// Only enforce keeps mail back; for a policy in testing each server that it would refuse
	// is logged (RFC 8461 section 5).
	switch sts := p.STS; {
	case sts == nil:
	case sts.Mode == mtasts.Enforce && !sts.Allows(host):
		return strict, reply.Newf(451, "4.7.5", "MTA-STS policy of %s does not allow the MX %s", p.Domain, host)
	case sts.Mode == mtasts.Enforce:
		s = strict
	case !sts.Allows(host):
		d.Mistrust(p.Domain, host, errors.New("not an MX of the policy"))
	default:
		s = Policy{TLS: cmp.Or(s.TLS, offered.TLS), Wanted: cmp.Or(s.Wanted, offered.Wanted), Testing: true}

		// The verifier outlives the plan: connections with it are shared.
		domain := p.Domain
		s.Key = "sts-testing:" + domain
		s.Verify = func(cs tls.ConnectionState) error {
			if err := d.pkix(cs, host); err != nil {
				d.Mistrust(domain, host, err)
			}
			return nil
		}
	}
	return s, nil
}

// tlsa returns the TLSA records of a host and the name under which they are
// (RFC 7672 section 2.2.2): that at the end of its aliases, or else its own. A
// host that is not secure in every part has none.
func (d *Decider) tlsa(ctx context.Context, p *nexthop.Plan, hop *mail.NextHop, a *dns.Addresses) (records []dane.Record, base string, err error) {
	if !d.DANE || !p.Secure || !a.Secure && !a.Alias {
		return nil, "", nil
	}

	// Records at the end of the host's aliases come first, if all of these are secure.
	bases := []string{a.Name, hop.Host}
	if !a.Secure {
		bases = bases[1:]
	}
	for _, base = range slices.Compact(bases) {
		found, err := d.Resolver.TLSA(ctx, fmt.Sprintf("_%d._tcp.%s", hop.TCPPort(), base))
		if err != nil && !dns.IsNXDomain(err) && !dns.IsNoData(err) {
			return nil, base, err
		}
		for _, r := range found {
			records = append(records, dane.Record(r))
		}
		if len(records) > 0 {
			return records, base, nil
		}
	}
	return nil, "", nil
}

// different returns the different ones of some names, without the empty one.
func different(all ...string) []string {
	var different []string
	for _, n := range all {
		if n != "" && !slices.Contains(different, n) {
			different = append(different, n)
		}
	}
	return different
}

// pkix checks a server's certificate as Go does by itself.
func (d *Decider) pkix(cs tls.ConnectionState, host string) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	o := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
	if d.TLSConfig != nil {
		o.Roots = d.TLSConfig(false).RootCAs
	}

	// The server sends the intermediate certificates itself.
	for _, c := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(o)
	return err
}

// Mistrust logs a server that a policy in testing would refuse.
func (d *Decider) Mistrust(domain, host string, err error) {
	d.Log.Warn("MTA-STS policy in testing would refuse the server", zap.String("domain", domain), zap.String("host", host), zap.Error(err))
}

// Decide decides for one address of a hop, or for its socket; public is what Published
// said of its host.
func (d *Decider) Decide(n *Need, hop *mail.NextHop, a netip.Addr, public Policy) Policy {
	here := hop.Path != "" || localaddr.IsNear(a)

	// The order of the cases is that of the package comment.
	exposed := hop.AuthUser != "" && !here && !hop.AuthInsecure // credentials go to a public address
	level := n.level(hop)
	switch {
	case n.forced() || d.Hosts.Forces(hop.Host, a, n.Domain):
		return public.atLeast(verified)
	case level == mail.TLSMay && exposed:
		return encrypted // in clear the credentials could not go
	case level == mail.TLSEncrypt && d.Hosts.RejectUnauthorized && !hop.Backend: // backends have a setting of their own
		return public.atLeast(verified)
	case level != mail.TLSDefault:
		return public.atLeast(levels[level])
	case !d.EnableTLS && !hop.ImplicitTLS || d.Hosts.Excludes(hop.Host, a, n.Domain):
		return inClear
	case public.Wanted != "" && d.Hosts.RejectUnauthorized:
		return public.atLeast(authenticated(public))
	case public.Wanted != "":
		return public
	case exposed:
		return verified
	case d.Hosts.RejectUnauthorized && hop.ImplicitTLS:
		return verified
	case d.Hosts.RejectUnauthorized:
		return checked
	}
	return offered
}

// authenticated returns the policy that is as p and looks at the certificate.
func authenticated(p Policy) Policy {
	if p.TLS >= smtpclient.TLSEncrypt {
		return verified
	}
	return checked
}
