package delivery

import (
	"cmp"
	"context"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// Bounds of one attempt, so that no domain can make it long.
const (
	maxMX        = 10
	maxAddresses = 20
)

// route is where a job may go, in order, and what was learned on the way.
type route struct {
	domain string
	hops   []mail.NextHop
	// ours is set for hops that a hook gave. Their names are configuration; all
	// others come from the DNS or from the recipient and are not trusted to
	// point at this host.
	ours bool
	bind netip.Addr // of hops that have none

	failed error // a temporary failure of the DNS
	local  bool  // an address was left out because it is this host's
	family bool  // an address was left out because of the local address
}

// candidate is one place to connect to: addr, or hop.Path.
type candidate struct {
	hop  mail.NextHop
	addr netip.Addr
}

// route resolves the job's domain to hops. The reply is final for the attempt.
func (d *Delivery) route(ctx context.Context, j Job) (*route, *reply.Reply) {
	r := &route{domain: j.Domain, bind: d.bind(j.Envelope)}
	switch {
	case len(j.Hops) > 0:
		r.hops, r.ours = j.Hops, true
		return r, nil
	case j.Domain == "":
		return nil, reply.New(550, "5.1.2", "Recipient address has no domain")
	case j.Domain[0] == '[':
		ip, ok := mail.Address{Domain: j.Domain}.Literal()
		if !ok {
			return nil, reply.Newf(550, "5.1.2", "%s is not an address literal", j.Domain)
		}
		r.hops = []mail.NextHop{{Host: ip.String(), Port: d.o.Port}}
		return r, nil
	}
	mxs, err := d.o.Resolver.MX(ctx, j.Domain)
	switch {
	case dns.IsNXDomain(err):
		return nil, nowhere(j.Domain).Because(err)
	case err != nil && !dns.IsNoData(err):
		return nil, lookupFailed(j.Domain, err)
	case len(mxs) == 0: // the implicit MX (RFC 5321 section 5.1)
		return d.implicit(ctx, r)
	}
	if slices.IndexFunc(mxs, func(m dns.MX) bool { return m.Host != "" }) < 0 { // RFC 7505
		return nil, reply.Newf(556, "5.1.10", "Domain %s sends and receives no email (NULL MX)", j.Domain)
	}
	rand.Shuffle(len(mxs), func(i, k int) { mxs[i], mxs[k] = mxs[k], mxs[i] })
	slices.SortStableFunc(mxs, func(a, b dns.MX) int { return cmp.Compare(a.Preference, b.Preference) })
	for _, m := range mxs {
		if m.Host != "" && len(r.hops) < maxMX {
			r.hops = append(r.hops, mail.NextHop{Host: m.Host, Port: d.o.Port, Priority: m.Preference})
		}
	}
	return r, nil
}

// implicit is the route of a domain that exists and has no MX.
func (d *Delivery) implicit(ctx context.Context, r *route) (*route, *reply.Reply) {
	_, err := d.o.Resolver.Addrs(ctx, r.domain)
	switch {
	case dns.IsNXDomain(err) || dns.IsNoData(err):
		return nil, nowhere(r.domain).Because(err)
	case err != nil:
		return nil, lookupFailed(r.domain, err)
	}
	r.hops = []mail.NextHop{{Host: r.domain, Port: d.o.Port}}
	return r, nil
}

func nowhere(domain string) *reply.Reply {
	return reply.Newf(550, "5.1.2", "Nowhere to deliver mail to for domain: %s", domain)
}

func lookupFailed(name string, cause error) *reply.Reply {
	return reply.Newf(451, "4.4.3", "DNS lookup of %s failed temporarily", name).Because(cause)
}

// candidates yields where to connect, in order: each hop's IPv6 addresses, then
// its IPv4 ones, or with inet_prefer one family of all hops before the other.
// Hops are resolved when their turn comes, so that a slow name server of a
// back-up does not hold up mail that the first MX takes.
func (d *Delivery) candidates(ctx context.Context, r *route) iter.Seq[candidate] {
	all := d.resolve(ctx, r)
	if d.o.InetPrefer != "v4" && d.o.InetPrefer != "v6" {
		return all
	}
	return func(yield func(candidate) bool) {
		list := slices.Collect(all)
		slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(d.rank(a), d.rank(b)) })
		for _, c := range list {
			if !yield(c) {
				return
			}
		}
	}
}

// rank is 0 for what inet_prefer wants first.
func (d *Delivery) rank(c candidate) int {
	if c.hop.Path == "" && c.addr.Is4() != (d.o.InetPrefer == "v4") {
		return 1
	}
	return 0
}

func (d *Delivery) resolve(ctx context.Context, r *route) iter.Seq[candidate] {
	return func(yield func(candidate) bool) {
		var seen []netip.Addr
		n := 0
		for _, hop := range r.hops {
			if hop.Path != "" {
				n++
				if !yield(candidate{hop: hop}) || n == maxAddresses {
					return
				}
				continue
			}
			if !hop.Bind.IsValid() {
				hop.Bind = r.bind
			}
			for _, a := range d.lookup(ctx, r, hop.Host) {
				if !d.usable(r, hop, a) || !r.ours && slices.Contains(seen, a) {
					continue
				}
				seen = append(seen, a)
				n++
				if !yield(candidate{hop, a}) || n == maxAddresses {
					return
				}
			}
		}
	}
}

// lookup returns the addresses of a hop; what goes wrong is kept in r.
func (d *Delivery) lookup(ctx context.Context, r *route, host string) []netip.Addr {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}
	}
	find := d.o.Resolver.Addrs
	if r.ours {
		find = d.o.Resolver.Host
	}
	addrs, err := find(ctx, host)
	if err != nil {
		d.log.Debug("next hop not resolved", zap.String("domain", r.domain), zap.String("host", host), zap.Error(err))
		if !dns.IsNXDomain(err) && !dns.IsNoData(err) {
			r.failed = err
		}
		return nil
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs
}

// usable reports whether an address may be connected to; if not, r says why.
func (d *Delivery) usable(r *route, hop mail.NextHop, a netip.Addr) bool {
	switch {
	case !r.ours && !d.o.LocalMXOK && d.local.has(a):
		r.local = true
		return false
	case hop.Bind.IsValid() && hop.Bind.Unmap().Is4() != a.Is4():
		r.family = true
		return false
	}
	return true
}

// unusable is the deferral of a route that had no candidate at all. None of it
// is permanent: the domain exists, and somebody can mend its hosts.
func (r *route) unusable() *reply.Reply {
	switch {
	case r.failed != nil:
		return lookupFailed("the MX of "+r.domain, r.failed)
	case r.local:
		return reply.Newf(451, "4.4.6", "All MX of %s are this host (and local_mx_ok is not set)", r.domain)
	case r.family:
		return reply.Newf(451, "4.4.4", "No MX of %s has an address of the outbound address's family", r.domain)
	default:
		return reply.Newf(451, "4.4.4", "No MX of %s has an address", r.domain)
	}
}

// bind returns the local address that the transaction's notes ask for.
func (d *Delivery) bind(env *mail.Envelope) netip.Addr {
	s := env.Notes.String("outbound_ip")
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		d.log.Warn("notes.outbound_ip is no IP address", zap.String("uuid", string(env.ID)), zap.String("value", s))
	}
	return a
}
