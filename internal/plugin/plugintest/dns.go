package plugintest

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"tarishi/internal/dns"
)

// DNS is a resolver with a few answers. A name that it has no record of does not exist;
// one with other records has none of the kind that is asked for.
type DNS struct {
	Exchangers map[string][]string // by domain, best first; "" is the null MX
	Addresses  map[string][]string // by host
	Names      map[string][]string // by address
	Texts      map[string][]string // by name
	Errors     map[string]error    // by name or address, whatever is asked for
}

// ErrBroken is a temporary failure, ErrSlow one that comes when the time for an answer is
// over.
var (
	ErrBroken = errors.New("SERVFAIL")
	ErrSlow   = errors.New("slow")
)

// failure returns the error of a question without an answer.
func (d *DNS) failure(ctx context.Context, name, kind string) error {
	failed := &dns.Error{Name: name, Type: kind, Kind: dns.NXDomain}
	_, mail := d.Exchangers[name]
	_, host := d.Addresses[name]
	switch err := d.Errors[name]; {
	case errors.Is(err, ErrSlow):
		<-ctx.Done()
		failed.Kind, failed.Cause = dns.Temporary, ctx.Err()
	case err != nil:
		failed.Kind, failed.Cause = dns.Temporary, err
	case mail || host:
		failed.Kind = dns.NoData
	}
	return failed
}

// MX implements plugin.Resolver.
func (d *DNS) MX(ctx context.Context, domain string) ([]dns.MX, error) {
	hosts := d.Exchangers[domain]
	if len(hosts) == 0 || d.Errors[domain] != nil {
		return nil, d.failure(ctx, domain, "MX")
	}
	var all []dns.MX
	for i, host := range hosts {
		all = append(all, dns.MX{Host: host, Preference: 10 * i, Domain: domain})
	}
	return all, nil
}

// Addrs implements plugin.Resolver.
func (d *DNS) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if len(d.Addresses[host]) == 0 || d.Errors[host] != nil {
		return nil, d.failure(ctx, host, "A")
	}
	var all []netip.Addr
	for _, text := range d.Addresses[host] {
		all = append(all, netip.MustParseAddr(text))
	}
	return all, nil
}

// IPv4 implements plugin.Resolver.
func (d *DNS) IPv4(ctx context.Context, name string) ([]netip.Addr, error) {
	all, err := d.Addrs(ctx, name)
	all = slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.Is4() })
	if err == nil && len(all) == 0 {
		return nil, &dns.Error{Name: name, Type: "A", Kind: dns.NoData}
	}
	return all, err
}

// PTR implements plugin.Resolver.
func (d *DNS) PTR(ctx context.Context, addr netip.Addr) ([]string, error) {
	if names := d.Names[addr.String()]; len(names) > 0 && d.Errors[addr.String()] == nil {
		return slices.Clone(names), nil
	}
	return nil, d.failure(ctx, addr.String(), "PTR")
}

// TXT implements plugin.Resolver.
func (d *DNS) TXT(ctx context.Context, name string) ([]string, error) {
	if len(d.Texts[name]) == 0 || d.Errors[name] != nil {
		return nil, d.failure(ctx, name, "TXT")
	}
	return slices.Clone(d.Texts[name]), nil
}
