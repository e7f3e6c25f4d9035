package delivery

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
	"tarishi/internal/mail"
	"tarishi/internal/mtasts"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// security is how a connection is secured. What decides, the first that applies:
//
//   - REQUIRETLS (RFC 8689), force_tls_hosts and the note force_tls: verified, by
//     DANE or by a valid certificate. With REQUIRETLS, MX are used only where
//     DNSSEC or the domain's MTA-STS policy vouches for them (its section 4.2.1);
//   - the level that the hop or the destination's settings name: none and may
//     as they are, encrypt and verify unless DANE or MTA-STS asks for more;
//   - enable_tls and no_tls_hosts: none;
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
// is not secure and has no policy.
type security struct {
	policy  smtpclient.TLSPolicy
	verify  func(tls.ConnectionState) error // nil: Go's own check, if policy asks for any
	key     string                          // of verify
	name    string                          // SNI; "": the host's
	wanted  string                          // Result.PolicyWanted
	testing bool                            // what MTA-STS would refuse is told
}

// The securities without a verifier of their own.
var (
	inClear   = security{policy: smtpclient.TLSNone, wanted: "none"}
	offered   = security{policy: smtpclient.TLSMay, wanted: "may"}
	checked   = security{policy: smtpclient.TLSMayVerify, wanted: "may-verify"}
	encrypted = security{policy: smtpclient.TLSEncrypt, wanted: "encrypt"}
	verified  = security{policy: smtpclient.TLSVerify, wanted: "verify"}
	strict    = security{policy: smtpclient.TLSVerify, wanted: "sts"}
)

// levels are the securities that a configured level asks for.
var levels = [...]security{
	mail.TLSNone: inClear, mail.TLSMay: offered, mail.TLSMayVerify: checked, mail.TLSEncrypt: encrypted, mail.TLSVerify: verified,
}

// same reports whether connections secured as s and as o are the same.
func (s security) same(o security) bool {
	return s.policy == o.policy && s.key == o.key && s.name == o.name && s.wanted == o.wanted
}

// atLeast returns o, unless what is published authenticates the server anyway.
func (s security) atLeast(o security) security {
	if s.policy == smtpclient.TLSVerify {
		return s
	}
	return o
}

// got is what authenticated a server.
func (s security) got(sent smtpclient.Result) string {
	switch {
	case !sent.Verified:
		return "no"
	case s.wanted == "dane":
		return "dane"
	}
	return "pkix"
}

// published is what the DNS and the domain say about a host; without any of it
// its wanted is empty. The reply says why the host must not be used at all now;
// wanted is then what keeps us from it.
func (w *walk) published(ctx context.Context, hop mail.NextHop, a dns.Addresses) (security, *reply.Reply) {
	d, p := w.d, w.plan
	// An attacker who forges MX records can hold valid certificates for the hosts they name.
	if w.env.RequireTLS && p.Named && !p.Secure && (p.STS == nil || !p.STS.Allows(hop.Host)) {
		return verified, reply.Newf(451, "4.7.10", "REQUIRETLS needs DNSSEC or an MTA-STS policy of %s that names the MX %s", p.Domain, hop.Host)
	}
	if !d.o.EnableTLS || d.o.TLS.Excludes(hop.Host, netip.Addr{}, p.Domain) ||
		(w.level(hop) == mail.TLSNone || w.level(hop) == mail.TLSMay) && !w.forced() {
		return security{}, nil
	}
	records, base, err := w.tlsa(ctx, hop, a)
	if err != nil {
		w.d.log.Debug("TLSA records not found out", zap.String("domain", p.Domain), zap.String("host", hop.Host), zap.Error(err))
		return security{wanted: "dane"}, reply.Newf(451, "4.4.3", "TLSA lookup of %s failed temporarily", base).Because(err)
	}
	if pol := dane.New(records, names(base, hop.Host, p.Domain, p.Alias)...); pol != nil {
		return security{
			policy: smtpclient.TLSVerify, wanted: "dane", name: base, verify: pol.Verify, key: "dane:" + pol.Key(),
		}, nil
	}
	var s security
	if len(records) > 0 {
		s = encrypted
	}
	switch sts := p.STS; {
	case sts == nil:
	case sts.Mode == mtasts.Enforce && !sts.Allows(hop.Host):
		return strict, reply.Newf(451, "4.7.5", "MTA-STS policy of %s does not allow the MX %s", p.Domain, hop.Host)
	case sts.Mode == mtasts.Enforce:
		s = strict
	case !sts.Allows(hop.Host):
		d.mistrusted(p.Domain, hop.Host, errors.New("not an MX of the policy"))
	default:
		s = security{policy: cmp.Or(s.policy, offered.policy), wanted: cmp.Or(s.wanted, offered.wanted), testing: true}
		s.key = "sts-testing:" + p.Domain
		s.verify = func(cs tls.ConnectionState) error {
			if err := d.pkix(cs, hop.Host); err != nil {
				d.mistrusted(p.Domain, hop.Host, err)
			}
			return nil
		}
	}
	return s, nil
}

// tlsa returns the TLSA records of a host and the name under which they are
// (RFC 7672 section 2.2.2): that at the end of its aliases, or else its own. A
// host of which anything is not secure has none.
func (w *walk) tlsa(ctx context.Context, hop mail.NextHop, a dns.Addresses) (records []dane.Record, base string, err error) {
	if !w.d.o.DANE || !w.plan.Secure || !a.Secure && !a.Alias {
		return nil, "", nil
	}
	bases := []string{a.Name, hop.Host}
	if !a.Secure {
		bases = bases[1:]
	}
	for _, base = range slices.Compact(bases) {
		found, err := w.d.o.Resolver.TLSA(ctx, fmt.Sprintf("_%d._tcp.%s", hop.TCPPort(), base))
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

// names returns the different ones of some names, without the empty one.
func names(all ...string) []string {
	var different []string
	for _, n := range all {
		if n != "" && !slices.Contains(different, n) {
			different = append(different, n)
		}
	}
	return different
}

// pkix checks a server's certificate as Go does by itself.
func (d *Delivery) pkix(cs tls.ConnectionState, host string) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	o := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
	if d.o.TLSConfig != nil {
		o.Roots = d.o.TLSConfig(false).RootCAs
	}
	for _, c := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(o)
	return err
}

// mistrusted tells of a server that a policy in testing would refuse.
func (d *Delivery) mistrusted(domain, host string, err error) {
	d.log.Warn("MTA-STS policy in testing would refuse the server", zap.String("domain", domain), zap.String("host", host), zap.Error(err))
}

// forced reports whether the message itself asks for verified TLS.
func (w *walk) forced() bool {
	return w.env.RequireTLS || w.env.Notes.Bool("force_tls") || w.env.Notes.Bool("outbound.force_tls")
}

// level is what is set for a hop.
func (w *walk) level(hop mail.NextHop) mail.TLSLevel { return cmp.Or(hop.TLS, w.job.Settings.TLS) }

// secure decides for one address; public is what published said of its host.
func (w *walk) secure(hop mail.NextHop, a netip.Addr, public security) security {
	domain := w.env.Recipients[0].Address.Host()
	here := hop.Path != "" || a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast()
	o := w.d.o
	switch {
	case w.forced() || o.TLS.Forces(hop.Host, a, domain):
		return public.atLeast(verified)
	case w.level(hop) == mail.TLSMay && hop.AuthUser != "" && !here && !hop.AuthInsecure:
		return encrypted // in clear the credentials could not go
	case w.level(hop) == mail.TLSEncrypt && o.TLS.RejectUnauthorized && !hop.Backend: // backends have a setting of their own
		return public.atLeast(verified)
	case w.level(hop) != mail.TLSDefault:
		return public.atLeast(levels[w.level(hop)])
	case !o.EnableTLS && !hop.ImplicitTLS || o.TLS.Excludes(hop.Host, a, domain):
		return inClear
	case public.wanted != "" && o.TLS.RejectUnauthorized:
		return public.atLeast(authenticated(public))
	case public.wanted != "":
		return public
	case hop.AuthUser != "" && !here && !hop.AuthInsecure:
		return verified
	case o.TLS.RejectUnauthorized && hop.ImplicitTLS:
		return verified
	case o.TLS.RejectUnauthorized:
		return checked
	}
	return offered
}

// authenticated returns the security that is as s and looks at the certificate.
func authenticated(s security) security {
	if s.policy >= smtpclient.TLSEncrypt {
		return verified
	}
	return checked
}
