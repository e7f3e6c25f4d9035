package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"go.uber.org/zap"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/mtasts"
	"tarishi/internal/reply"
)

// Bounds of one attempt, so that no domain can make it long.
const (
	maxMX        = 10
	maxAddresses = 20
)

// Plan is where a job may go, in order. It does not change, and does for every
// job of the same domain and hops for as long as the DNS says the same.
type Plan struct {
	domain string
	site   string
	hops   []mail.NextHop
	// ours is set for hops that a hook gave. Their names are configuration; all
	// others come from the DNS or from the recipient and are not trusted to
	// point at this host.
	ours   bool
	named  bool           // by MX records
	secure bool           // that these are the hosts
	alias  string         // where the aliases of domain ended when MX records were found
	sts    *mtasts.Policy // of the domain; nil: none
	fetch  *mtasts.Fetch  // of that, which is not known yet
}

// Pending reports whether the MTA-STS policy of the domain is still to be fetched:
// nothing can be sent by this Plan.
func (p *Plan) Pending() bool { return p.fetch != nil }

// WhenReady calls fn when the Plan of a job is not Pending any more.
func (p *Plan) WhenReady(fn func()) { p.fetch.Then(fn) }

// Site names what the destination shares with every other one that has the same
// mail exchangers: their names, sorted and joined by commas. It is the domain
// itself when that has no MX, and "hop:" before the hops that a hook gave.
func (p *Plan) Site() string { return p.site }

// Hosts returns the names, addresses or socket paths of the next hops, in the
// order in which they are tried.
func (p *Plan) Hosts() []string {
	hosts := make([]string, len(p.hops))
	for i, h := range p.hops {
		hosts[i] = cmp.Or(h.Path, h.Host)
	}
	return hosts
}

// site returns the canonical name of a set of hops.
func site(hops []mail.NextHop, name func(mail.NextHop) string) string {
	names := make([]string, len(hops))
	for i, h := range hops {
		names[i] = name(h)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}

// walk is one way through a plan, and what was learned on it.
type walk struct {
	d    *Delivery
	job  Job
	plan *Plan
	bind netip.Addr // of hops that have none
	helo string     // likewise; "": the job's

	failed  error        // a temporary failure of the DNS
	refused *reply.Reply // a host that a policy keeps us from
	wanted  string       // that policy
	loop    bool         // the best MX is this host
	self    bool         // an MX was left out because this host is as good
	family  bool         // an address was left out because of its family
}

// place is one host to connect to: some of its addresses, or hop.Path.
type place struct {
	hop      mail.NextHop
	addrs    []netip.Addr
	security security
}

// Plan resolves the job's domain, or its hops, to next hops. Without one it
// returns the reply for all recipients, which is temporary also when ctx ended.
func (d *Delivery) Plan(ctx context.Context, j Job) (*Plan, *reply.Reply) {
	p := &Plan{domain: j.Domain, site: j.Domain}
	switch {
	case len(j.Hops) > 0:
		p.hops, p.ours = j.Hops, true
		p.site = "hop:" + site(p.hops, mail.NextHop.String)
		return p, nil
	case j.Domain == "":
		return nil, reply.New(550, "5.1.2", "Recipient address has no domain")
	case j.Domain[0] == '[':
		ip, ok := mail.Address{Domain: j.Domain}.Literal()
		if !ok {
			return nil, reply.Newf(550, "5.1.2", "%s is not an address literal", j.Domain)
		}
		p.hops = []mail.NextHop{{Host: ip.String(), Port: d.o.Port}}
		return p, nil
	}
	if d.o.STS != nil && d.o.EnableTLS {
		looked := make(chan struct{})
		go func() {
			defer close(looked)
			p.sts, p.fetch = d.o.STS.Policy(ctx, j.Domain)
		}()
		defer func() { <-looked }()
	}
	mxs, err := d.o.Resolver.MX(ctx, j.Domain)
	switch {
	case dns.IsNXDomain(err):
		return nil, nowhere(j.Domain).Because(err)
	case err != nil && !dns.IsNoData(err):
		return nil, lookupFailed(j.Domain, err)
	case len(mxs) == 0: // the implicit MX (RFC 5321 section 5.1)
		return d.implicit(ctx, p)
	}
	if slices.IndexFunc(mxs, func(m dns.MX) bool { return m.Host != "" }) < 0 { // RFC 7505
		return nil, reply.Newf(556, "5.1.10", "Domain %s sends and receives no email (NULL MX)", j.Domain)
	}
	rand.Shuffle(len(mxs), func(i, k int) { mxs[i], mxs[k] = mxs[k], mxs[i] })
	slices.SortStableFunc(mxs, func(a, b dns.MX) int { return cmp.Compare(a.Preference, b.Preference) })
	p.named, p.secure, p.alias = true, mxs[0].Secure, mxs[0].Domain
	for _, m := range mxs {
		if m.Host != "" && len(p.hops) < maxMX {
			p.hops = append(p.hops, mail.NextHop{Host: m.Host, Port: d.o.Port, Priority: m.Preference})
		}
	}
	p.site = site(p.hops, func(h mail.NextHop) string { return h.Host })
	return d.withoutUs(p)
}

// implicit is the plan of a domain that exists and has no MX.
func (d *Delivery) implicit(ctx context.Context, p *Plan) (*Plan, *reply.Reply) {
	_, err := d.o.Resolver.Addresses(ctx, p.domain)
	switch {
	case dns.IsNXDomain(err) || dns.IsNoData(err):
		return nil, nowhere(p.domain).Because(err)
	case err != nil:
		return nil, lookupFailed(p.domain, err)
	}
	p.hops, p.secure = []mail.NextHop{{Host: p.domain, Port: d.o.Port}}, true // as far as its address is
	return d.withoutUs(p)
}

// withoutUs drops the MX of our own name and all that are not better (RFC 5321
// section 5.1). Those that only have our address are found when they are looked
// up.
func (d *Delivery) withoutUs(p *Plan) (*Plan, *reply.Reply) {
	if d.o.LocalMXOK {
		return p, nil
	}
	i := slices.IndexFunc(p.hops, func(h mail.NextHop) bool { return h.Host == d.me })
	if i < 0 {
		return p, nil
	}
	ours := p.hops[i].Priority
	p.hops = slices.DeleteFunc(p.hops, func(h mail.NextHop) bool { return h.Priority >= ours })
	if len(p.hops) == 0 {
		return nil, loops(p.domain)
	}
	return p, nil
}

func loops(domain string) *reply.Reply {
	return reply.Newf(550, "5.4.6", "Mail for %s loops back to myself", domain)
}

func nowhere(domain string) *reply.Reply {
	return reply.Newf(550, "5.1.2", "Nowhere to deliver mail to for domain: %s", domain)
}

func lookupFailed(name string, cause error) *reply.Reply {
	return reply.Newf(451, "4.4.3", "DNS lookup of %s failed temporarily", name).Because(cause)
}

// places yields where to connect, in order: host by host, or with inet_prefer
// one family of all hosts before the other. The MX of one preference are looked
// up when their turn comes, so that a slow name server of a back-up does not hold
// up mail that the first MX takes.
func (w *walk) places(ctx context.Context) iter.Seq[place] {
	all := w.resolve(ctx)
	prefer := w.d.o.InetPrefer
	if prefer != "v4" && prefer != "v6" {
		return all
	}
	return func(yield func(place) bool) {
		var first, then []place
		for c := range all {
			if c.hop.Path != "" {
				first = append(first, c)
				continue
			}
			byFamily := [2]place{c, c}
			byFamily[0].addrs, byFamily[1].addrs = nil, nil
			for _, a := range c.addrs {
				other := 0
				if a.Is4() != (prefer == "v4") {
					other = 1
				}
				byFamily[other].addrs = append(byFamily[other].addrs, a)
			}
			if len(byFamily[0].addrs) > 0 {
				first = append(first, byFamily[0])
			}
			if len(byFamily[1].addrs) > 0 {
				then = append(then, byFamily[1])
			}
		}
		for _, c := range append(first, then...) {
			if !yield(c) {
				return
			}
		}
	}
}

// host is a hop and what its lookup gave.
type host struct {
	hop   mail.NextHop
	addrs dns.Addresses
	err   error
}

func (w *walk) resolve(ctx context.Context) iter.Seq[place] {
	return func(yield func(place) bool) {
		hops := w.plan.hops
		var seen []netip.Addr
		n := 0
		for first := 0; first < len(hops) && n < maxAddresses; {
			last := first + 1
			for !w.plan.ours && last < len(hops) && hops[last].Priority == hops[first].Priority {
				last++
			}
			hosts := w.lookup(ctx, hops[first:last])
			if !w.plan.ours && !w.d.o.LocalMXOK && slices.ContainsFunc(hosts, w.isUs) {
				w.loop, w.self = first == 0, true
				return
			}
			for _, h := range hosts {
				if h.hop.Path != "" {
					n++
					if !yield(place{hop: h.hop, security: w.secure(h.hop, netip.Addr{}, security{})}) {
						return
					}
					continue
				}
				h.addrs.List = slices.DeleteFunc(slices.Clone(h.addrs.List), func(a netip.Addr) bool {
					return !w.usable(h.hop, a) || !w.plan.ours && slices.Contains(seen, a)
				})
				h.addrs.List = h.addrs.List[:min(len(h.addrs.List), maxAddresses-n)]
				if len(h.addrs.List) == 0 {
					continue
				}
				public, refused := w.published(ctx, h.hop, h.addrs)
				if refused != nil {
					w.refused, w.wanted = refused, public.wanted
					continue
				}
				seen = append(seen, h.addrs.List...)
				n += len(h.addrs.List)
				for _, c := range w.group(h, public) {
					if !yield(c) {
						return
					}
				}
			}
			first = last
		}
	}
}

// group divides the addresses of a host by how they are secured.
func (w *walk) group(h host, public security) []place {
	var all []place
	for _, a := range h.addrs.List {
		s := w.secure(h.hop, a, public)
		i := slices.IndexFunc(all, func(c place) bool { return c.security.same(s) })
		if i < 0 {
			all, i = append(all, place{hop: h.hop, security: s}), len(all)
		}
		all[i].addrs = append(all[i].addrs, a)
	}
	return all
}

// lookup finds the addresses of some hops; what goes wrong is kept in w.
func (w *walk) lookup(ctx context.Context, hops []mail.NextHop) []host {
	hosts := make([]host, len(hops))
	var all sync.WaitGroup
	for i, hop := range hops {
		if !hop.Bind.IsValid() {
			hop.Bind = w.bind
		}
		hop.Helo = cmp.Or(hop.Helo, w.helo)
		hosts[i].hop = hop
		if hop.Path != "" {
			continue
		}
		if len(hops) == 1 {
			w.find(ctx, &hosts[i])
			continue
		}
		all.Go(func() { w.find(ctx, &hosts[i]) })
	}
	all.Wait()
	for _, h := range hosts {
		if h.err == nil {
			continue
		}
		w.d.log.Debug("next hop not resolved", zap.String("domain", w.plan.domain), zap.String("host", h.hop.Host), zap.Error(h.err))
		if !dns.IsNXDomain(h.err) && !dns.IsNoData(h.err) {
			w.failed = h.err
		}
	}
	return hosts
}

// find resolves one host. It may run for several at a time.
func (w *walk) find(ctx context.Context, h *host) {
	name := strings.Trim(h.hop.Host, "[]")
	a, err := netip.ParseAddr(name)
	switch {
	case err == nil:
		h.addrs = dns.Addresses{List: []netip.Addr{a.Unmap()}, Name: name}
		if !w.plan.named { // by a person, not by the DNS
			return
		}
	case w.plan.ours:
		h.addrs.List, h.err = w.d.o.Resolver.Host(ctx, h.hop.Host)
	default:
		h.addrs, h.err = w.d.o.Resolver.Addresses(ctx, h.hop.Host)
	}
	for i, a := range h.addrs.List {
		h.addrs.List[i] = a.Unmap()
	}
	if w.d.o.NoIPv6 {
		n := len(h.addrs.List)
		h.addrs.List = slices.DeleteFunc(h.addrs.List, netip.Addr.Is6)
		if n > 0 && len(h.addrs.List) == 0 {
			h.err = &dns.Error{Name: h.hop.Host, Type: "A", Kind: dns.NoData}
		}
	}
}

// isUs reports whether one of a host's addresses is this host's.
func (w *walk) isUs(h host) bool { return slices.ContainsFunc(h.addrs.List, w.d.local.has) }

// usable reports whether a hop's local address can reach an address.
func (w *walk) usable(hop mail.NextHop, a netip.Addr) bool {
	if hop.Bind.IsValid() && hop.Bind.Unmap().Is4() != a.Is4() {
		w.family = true
		return false
	}
	return true
}

// unusable is the reply of a plan that had no place at all. It is permanent only
// where the domain says that its mail belongs here and we are told nothing of
// it; else the domain exists, and somebody can mend its hosts.
func (w *walk) unusable() *reply.Reply {
	switch {
	case w.loop:
		return loops(w.plan.domain)
	case w.failed != nil:
		return lookupFailed("the MX of "+w.plan.domain, w.failed)
	case w.refused != nil:
		return w.refused
	}
	what, reach := "MX of "+w.plan.domain, ""
	switch {
	case w.plan.ours:
		what = "next hop for " + w.plan.domain
	case w.self:
		what += " that is better than this host"
	}
	if w.family {
		reach = " of the outbound address's family"
	}
	return reply.Newf(451, "4.4.4", "No %s has an address%s", what, reach).Because(errors.New("looked for " + strings.Join(w.plan.Hosts(), ", ")))
}

// source returns the local address and the EHLO name that the transaction's notes
// ask for, or else the settings' address. A note that is neither is passed over,
// with a line that says so.
func (d *Delivery) source(j Job) (bind netip.Addr, helo string) {
	passOver := func(note string, value any, why string) {
		d.log.Warn("notes."+note+" is passed over: it is no "+why, zap.String("uuid", string(j.Envelope.ID)), zap.String("value", fmt.Sprintf("%.200v", value)))
	}
	bind = j.Settings.Bind
	if v := j.Envelope.Notes.Get(NoteIP); v != nil && v != "" {
		s, _ := v.(string)
		if a, err := netip.ParseAddr(s); err == nil {
			bind = a
		} else {
			passOver(NoteIP, v, "IP address")
		}
	}
	if v := j.Envelope.Notes.Get(NoteHelo); v != nil && v != "" {
		s, _ := v.(string)
		var ok bool
		if helo, ok = HeloName(s); !ok {
			passOver(NoteHelo, v, "host name or address literal")
		}
	}
	return bind, helo
}

// The notes of a transaction that choose the local address and the EHLO name, as
// Haraka has them.
const (
	NoteIP   = "outbound_ip"
	NoteHelo = "outbound_helo"
)

// HeloName returns a name as it may be said in EHLO (RFC 5321 section 4.1.1.1), a
// host name with A-labels or an address literal; "" and false if it is neither.
func HeloName(name string) (string, bool) {
	if _, ok := (mail.Address{Domain: name}).Literal(); ok {
		return name, true
	}
	ascii := strings.TrimSuffix(name, ".")
	if strings.ContainsFunc(ascii, func(r rune) bool { return r >= utf8.RuneSelf }) {
		ascii = mail.CanonicalDomain(ascii)
	}
	if ascii == "" || len(ascii) > 255 || strings.Contains(ascii, "..") || ascii[0] == '.' ||
		strings.Trim(ascii, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		return "", false
	}
	return ascii, true
}
