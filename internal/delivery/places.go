package delivery

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/nexthop"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/tlspolicy"
)

// maxAddresses bounds one attempt, so that no domain can make it long.
const maxAddresses = 20

// walk is the course of queued mail: one way through a plan, and what was learned
// on it.
type walk struct {
	offer
	d    *Delivery
	job  Job
	plan *nexthop.Plan
	need tlspolicy.Need
	bind netip.Addr // of hops that have none
	helo string     // likewise; "": the job's

	unresolved error        // a temporary failure of the DNS
	refused    *reply.Reply // a host that a policy keeps us from
	wanted     string       // that policy
	loop       bool         // the best MX is this host
	self       bool         // an MX was left out because this host is as good
	family     bool         // an address was left out because of its family
}

// visitPlaces goes host by host, or with inet_prefer
// one family of all hosts before the other. The MX of one preference are looked
// up when their turn comes, so that a slow name server of a back-up does not hold
// up mail that the first MX takes.
func (w *walk) visitPlaces(ctx context.Context, v visitor) {
	prefer := w.d.o.InetPrefer
	if prefer != "v4" && prefer != "v6" {
		w.resolve(ctx, v)
		return
	}

	// All hosts have to be looked up before the second family of the first one is tried.
	sorter := byFamily{v4First: prefer == "v4"}
	w.resolve(ctx, &sorter)
	for i := range sorter.first {
		if !v.visit(ctx, &sorter.first[i]) {
			return
		}
	}
	for i := range sorter.then {
		if !v.visit(ctx, &sorter.then[i]) {
			return
		}
	}
}

// byFamily is a visitor that sorts places.
type byFamily struct {
	v4First     bool
	first, then []place
}

// visit implements visitor. A host may have addresses in both halves. Sockets have no
// family and come first.
func (f *byFamily) visit(_ context.Context, c *place) bool {
	if c.hop.Path != "" {
		f.first = append(f.first, *c)
		return true
	}
	preferred, other := *c, *c
	preferred.addrs, other.addrs = nil, nil
	for _, a := range c.addrs {
		if a.Is4() == f.v4First {
			preferred.addrs = append(preferred.addrs, a)
		} else {
			other.addrs = append(other.addrs, a)
		}
	}
	if len(preferred.addrs) > 0 {
		f.first = append(f.first, preferred)
	}
	if len(other.addrs) > 0 {
		f.then = append(f.then, other)
	}
	return true
}

// host is a hop and what its lookup gave.
type host struct {
	hop   mail.NextHop
	addrs dns.Addresses
	err   error
}

// resolve visits the places of all hosts, looking up those of one preference at a time.
// It ends early at a preference that this host shares: better hosts were tried, and
// worse ones must not be (RFC 5321 section 5.1).
func (w *walk) resolve(ctx context.Context, v visitor) {
	hops := w.plan.Hops
	var seen []netip.Addr
	n := 0
	for first := 0; first < len(hops) && n < maxAddresses; {
		// Hosts of one preference are looked up together. Hops of a hook have an order
		// of their own and are looked up one by one.
		last := first + 1
		for !w.plan.Given && last < len(hops) && hops[last].Priority == hops[first].Priority {
			last++
		}
		hosts := w.lookup(ctx, hops[first:last])

		// A host that is us ends the walk; with the best preference the mail belongs
		// here, which our configuration does not know.
		if !w.plan.Given && !w.d.o.LocalMXOK && slices.ContainsFunc(hosts, w.isUs) {
			w.loop, w.self = first == 0, true
			return
		}
		for i := range hosts {
			places := w.ofHost(ctx, &hosts[i], seen, maxAddresses-n)
			for k := range places {
				seen = append(seen, places[k].addrs...)
				n += max(len(places[k].addrs), 1) // a socket counts too
			}
			for k := range places {
				if !v.visit(ctx, &places[k]) {
					return
				}
			}
		}
		first = last
	}
}

// ofHost returns the places of one host, of at most so many addresses. Names of
// the DNS may share addresses, and none is tried twice.
func (w *walk) ofHost(ctx context.Context, h *host, seen []netip.Addr, most int) []place {
	if h.hop.Path != "" {
		return []place{{hop: h.hop, tls: w.d.tls.Decide(&w.need, &h.hop, netip.Addr{}, tlspolicy.Policy{})}}
	}
	h.addrs.List = slices.DeleteFunc(slices.Clone(h.addrs.List), func(a netip.Addr) bool {
		return !w.usable(h.hop, a) || !w.plan.Given && slices.Contains(seen, a)
	})
	h.addrs.List = h.addrs.List[:min(len(h.addrs.List), most)]
	if len(h.addrs.List) == 0 {
		return nil
	}
	public, refused := w.d.tls.Published(ctx, &w.need, w.plan, &h.hop, &h.addrs)
	if refused != nil {
		w.refused, w.wanted = refused, public.Wanted
		return nil
	}
	return groupByPolicy(nil, h.hop, h.addrs.List, func(a netip.Addr) tlspolicy.Policy { return w.d.tls.Decide(&w.need, &h.hop, a, public) })
}

// lookup finds the addresses of some hops; what goes wrong is kept in w.
func (w *walk) lookup(ctx context.Context, hops []mail.NextHop) []host {
	// A hop's own address and name come before those of the message.
	hosts := make([]host, len(hops))
	for i, hop := range hops {
		if !hop.Bind.IsValid() {
			hop.Bind = w.bind
		}
		hop.Helo = cmp.Or(hop.Helo, w.helo)
		hosts[i].hop = hop
	}
	if len(hosts) == 1 {
		w.findAddrs(ctx, &hosts[0])
	} else {
		w.findTogether(ctx, hosts)
	}

	// A name that does not exist says nothing; that it could not be looked up makes the
	// outcome temporary.
	for _, h := range hosts {
		if h.err == nil {
			continue
		}
		w.d.log.Debug("next hop not resolved", zap.String("domain", w.plan.Domain), zap.String("host", h.hop.Host), zap.Error(h.err))
		if !dns.IsNXDomain(h.err) && !dns.IsNoData(h.err) {
			w.unresolved = h.err
		}
	}
	return hosts
}

// findTogether resolves several hosts at a time.
func (w *walk) findTogether(ctx context.Context, hosts []host) {
	var all sync.WaitGroup
	for i := range hosts {
		all.Go(func() { w.findAddrs(ctx, &hosts[i]) })
	}
	all.Wait()
}

// findAddrs resolves one host.
func (w *walk) findAddrs(ctx context.Context, h *host) {
	if h.hop.Path != "" {
		return
	}
	name := strings.Trim(h.hop.Host, "[]")
	a, err := netip.ParseAddr(name)
	switch {
	// An address that stands in for a name, as some MX records have it, is looked up like
	// one, so that DNSSEC can tell about it.
	case err == nil:
		h.addrs = dns.Addresses{List: []netip.Addr{a.Unmap()}, Name: name}
		if !w.plan.Named { // by a person, not by the DNS
			return
		}
	case w.plan.Given:
		h.addrs.List, h.err = w.d.o.Resolver.Host(ctx, h.hop.Host)
	default:
		h.addrs, h.err = w.d.o.Resolver.Addresses(ctx, h.hop.Host)
	}
	for i, a := range h.addrs.List {
		h.addrs.List[i] = a.Unmap()
	}
	if !w.d.o.IPv6 {
		n := len(h.addrs.List)
		h.addrs.List = slices.DeleteFunc(h.addrs.List, netip.Addr.Is6)
		if n > 0 && len(h.addrs.List) == 0 {
			h.err = &dns.Error{Name: h.hop.Host, Type: "A", Kind: dns.NoData}
		}
	}
}

// isUs reports whether one of a host's addresses is this host's.
func (w *walk) isUs(h host) bool { return slices.ContainsFunc(h.addrs.List, w.d.isUs) }

// usable reports whether a hop's local address can reach an address.
func (w *walk) usable(hop mail.NextHop, a netip.Addr) bool {
	if hop.Bind.IsValid() && hop.Bind.Unmap().Is4() != a.Is4() {
		w.family = true
		return false
	}
	return true
}

// target says how to talk to a place. The hop has got the values of the transaction's
// notes already: its own settings win over those, and they over the job's settings.
func (w *walk) target(c *place) pool.Target {
	d, s := w.d, w.job.Settings
	t := c.target(cmp.Or(s.Helo, d.o.Me), mail.Limits{
		Connections: cmp.Or(s.MaxConnections, d.o.PoolConcurrencyMax), Messages: cmp.Or(s.MaxMessages, maxMessages),
		Age: maxAge, Idle: d.o.PoolTimeout, Connect: d.o.ConnectTimeout,
	})
	t.Tokens = d.o.Tokens.of(&c.hop)
	t.MinRate = cmp.Or(d.o.MinRate, -1) // 0 is no limit to outbound.ini, and a default to smtpclient
	switch {
	case c.hop.Backend && d.o.BackendTLS != nil:
		t.TLSConfig = d.o.BackendTLS()
	case d.o.TLSConfig != nil:
		t.TLSConfig = d.o.TLSConfig(d.o.TLS.Shows(c.hop.Host, w.job.Domain))
	}
	return t
}

// answered logs what a destination's policy, or ours, would have had otherwise.
func (w *walk) answered(c *place, sent smtpclient.Result) {
	if c.tls.Testing && sent.TLS == "none" {
		w.d.tls.Mistrust(w.job.Domain, c.hop.Host, errors.New("no TLS"))
	}
	if c.hop.AuthUser != "" && !sent.Authenticated {
		w.d.log.Warn("sent without authentication, which was not offered", zap.String("uuid", string(w.env.ID)),
			zap.Stringer("hop", c.hop), zap.String("user", c.hop.AuthUser))
	}
}

// failed logs a place where no server replied about recipients.
func (w *walk) failed(c *place, err error) {
	w.d.log.Debug("next hop failed", zap.String("uuid", string(w.env.ID)), zap.String("domain", w.job.Domain),
		zap.Stringer("hop", c.hop), zap.String("ip", w.res.IP), zap.String("policy", c.tls.Wanted), zap.Error(err))
}

// complete reports whether all hosts of the plan have been asked.
func (w *walk) complete() bool { return w.refused == nil && w.unresolved == nil }

// unusable is the reply of a plan that had no place at all. It is permanent only
// where the domain says that its mail belongs here and our own configuration says
// nothing of it; else the domain exists, and somebody can mend its hosts.
func (w *walk) unusable() *reply.Reply {
	switch {
	case w.loop:
		return nexthop.Loops(w.plan.Domain)
	case w.unresolved != nil:
		return nexthop.LookupFailed("the MX of "+w.plan.Domain, w.unresolved)
	case w.refused != nil:
		return w.refused
	}
	what, reach := "MX of "+w.plan.Domain, ""
	switch {
	case w.plan.Given:
		what = "next hop for " + w.plan.Domain
	case w.self:
		what += " that is better than this host"
	}
	if w.family {
		reach = " of the outbound address's family"
	}
	return reply.Newf(451, "4.4.4", "No %s has an address%s", what, reach).Because(errors.New("looked for " + strings.Join(w.plan.Hosts(), ", ")))
}
