// Package nexthop finds where the mail of a domain goes: a Plan, which is its next
// hops in the order in which they are tried.
//
// The hops come from a hook, from an address literal, or from the DNS: MX records,
// or without any the domain itself, the implicit MX (RFC 5321 section 5.1). A
// domain that does not exist, or has neither MX nor address, a null MX (RFC 7505)
// and a best MX that is this host are permanent failures; all else that the DNS
// does is temporary. The domain's MTA-STS policy (RFC 8461) is looked up at the
// same time. The addresses of the hops, and how they are secured, are the business
// of package delivery.
package nexthop

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"strings"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/mtasts"
	"tarishi/internal/reply"
)

// maxMX bounds the hops of a plan, so that no domain can make an attempt long.
const maxMX = 10

// Resolver asks the DNS; *dns.Resolver does.
type Resolver interface {
	MX(ctx context.Context, domain string) ([]dns.MX, error)
	Addresses(ctx context.Context, host string) (dns.Addresses, error)
}

// Policies knows the MTA-STS policies of domains; *mtasts.Cache does. With a Fetch
// the policy is not known before that has ended.
type Policies interface {
	Policy(ctx context.Context, domain string) (*mtasts.Policy, *mtasts.Fetch)
}

// Finder makes plans. It may be used from any goroutine.
type Finder struct {
	Me        string // our own name, canonical
	Port      int    // of MX
	LocalMXOK bool   // an MX may be this host
	Resolver  Resolver
	Policies  Policies // nil: not looked at
}

// Plan is where a domain's mail may go, in order. It does not change, and does for
// every message to the same domain and hops for as long as the DNS says the same.
type Plan struct {
	Domain string
	Hops   []mail.NextHop
	// Given is set for hops of a hook. Their names are configuration; all others come
	// from the DNS or from the recipient and are not trusted to point at this host.
	Given  bool
	Named  bool           // by MX records
	Secure bool           // DNSSEC vouches for these being the hosts
	Alias  string         // where the aliases of Domain ended when MX records were found
	STS    *mtasts.Policy // of Domain; nil: none

	site  string
	fetch *mtasts.Fetch // of the policy, which is not known yet
}

// Pending reports whether the MTA-STS policy of the domain is still to be fetched:
// nothing can be sent by this Plan.
func (p *Plan) Pending() bool { return p.fetch != nil }

// WhenReady calls fn when the plan of the domain is not Pending any more.
func (p *Plan) WhenReady(fn func()) { p.fetch.Then(fn) }

// Site names what the destination shares with every other one that has the same
// mail exchangers: their names, sorted and joined by commas. It is the domain
// itself when that has no MX, and "hop:" before the hops that a hook gave.
func (p *Plan) Site() string { return p.site }

// Hosts returns the names, addresses or socket paths of the next hops, in the
// order in which they are tried.
func (p *Plan) Hosts() []string {
	hosts := make([]string, len(p.Hops))
	for i, h := range p.Hops {
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

// Plan resolves a domain, canonical or an address literal, to next hops; if hops
// are given it is those. Without any it returns the reply for all recipients, which
// is temporary also when ctx ended.
func (f *Finder) Plan(ctx context.Context, domain string, hops []mail.NextHop) (*Plan, *reply.Reply) {
	p := &Plan{Domain: domain, site: domain}
	switch {
	case len(hops) > 0:
		p.Hops, p.Given = hops, true
		p.site = "hop:" + site(p.Hops, mail.NextHop.String)
		return p, nil
	case domain == "":
		return nil, reply.New(550, "5.1.2", "Recipient address has no domain")
	case domain[0] == '[':
		ip, ok := mail.Address{Domain: domain}.Literal()
		if !ok {
			return nil, reply.Newf(550, "5.1.2", "%s is not an address literal", domain)
		}
		p.Hops = []mail.NextHop{{Host: ip.String(), Port: f.Port}}
		return p, nil
	}
	if f.Policies != nil {
		// The policy is mostly in the cache; where it is not, its TXT record is looked
		// up while the MX records are.
		looked := make(chan struct{})
		go func() {
			defer close(looked)
			p.STS, p.fetch = f.Policies.Policy(ctx, domain)
		}()
		defer func() { <-looked }()
	}
	return f.fromDNS(ctx, p)
}

// fromDNS completes the plan of a domain.
func (f *Finder) fromDNS(ctx context.Context, p *Plan) (*Plan, *reply.Reply) {
	// Only what the DNS says for certain fails the message.
	mxs, err := f.Resolver.MX(ctx, p.Domain)
	switch {
	case dns.IsNXDomain(err):
		return nil, nowhere(p.Domain).Because(err)
	case err != nil && !dns.IsNoData(err):
		return nil, LookupFailed(p.Domain, err)
	case len(mxs) == 0: // the implicit MX (RFC 5321 section 5.1)
		return f.implicit(ctx, p)
	}
	if slices.IndexFunc(mxs, func(m dns.MX) bool { return m.Host != "" }) < 0 { // RFC 7505
		return nil, reply.Newf(556, "5.1.10", "Domain %s sends and receives no email (NULL MX)", p.Domain)
	}

	// Hosts of one preference share the load, so their order is random.
	rand.Shuffle(len(mxs), func(i, k int) { mxs[i], mxs[k] = mxs[k], mxs[i] })
	slices.SortStableFunc(mxs, func(a, b dns.MX) int { return cmp.Compare(a.Preference, b.Preference) })
	p.Named, p.Secure, p.Alias = true, mxs[0].Secure, mxs[0].Domain
	p.Hops = make([]mail.NextHop, 0, min(len(mxs), maxMX))
	for _, m := range mxs {
		if m.Host != "" && len(p.Hops) < maxMX {
			p.Hops = append(p.Hops, mail.NextHop{Host: m.Host, Port: f.Port, Priority: m.Preference})
		}
	}

	// The site is the whole set, also what withoutUs drops: others that share it share its
	// limits.
	p.site = site(p.Hops, func(h mail.NextHop) string { return h.Host })
	return f.withoutUs(p)
}

// implicit is the plan of a domain that exists and has no MX.
func (f *Finder) implicit(ctx context.Context, p *Plan) (*Plan, *reply.Reply) {
	_, err := f.Resolver.Addresses(ctx, p.Domain)
	switch {
	case dns.IsNXDomain(err) || dns.IsNoData(err):
		return nil, nowhere(p.Domain).Because(err)
	case err != nil:
		return nil, LookupFailed(p.Domain, err)
	}
	p.Hops, p.Secure = []mail.NextHop{{Host: p.Domain, Port: f.Port}}, true // as far as its address is
	return f.withoutUs(p)
}

// withoutUs drops the MX of our own name and all that are not better (RFC 5321
// section 5.1). Those that only have our address are found when they are looked
// up.
func (f *Finder) withoutUs(p *Plan) (*Plan, *reply.Reply) {
	if f.LocalMXOK {
		return p, nil
	}
	i := slices.IndexFunc(p.Hops, func(h mail.NextHop) bool { return h.Host == f.Me })
	if i < 0 {
		return p, nil
	}
	ours := p.Hops[i].Priority
	p.Hops = slices.DeleteFunc(p.Hops, func(h mail.NextHop) bool { return h.Priority >= ours })
	if len(p.Hops) == 0 {
		return nil, Loops(p.Domain)
	}
	return p, nil
}

// Loops is the reply for a domain that has this host as its best mail exchanger.
func Loops(domain string) *reply.Reply {
	return reply.Newf(550, "5.4.6", "Mail for %s loops back to myself", domain)
}

// LookupFailed is the reply for a name that the DNS could not tell about now.
func LookupFailed(name string, cause error) *reply.Reply {
	return reply.Newf(451, "4.4.3", "DNS lookup of %s failed temporarily", name).Because(cause)
}

func nowhere(domain string) *reply.Reply {
	return reply.Newf(550, "5.1.2", "Nowhere to deliver mail to for domain: %s", domain)
}
