// Package peer finds out what a client's address says of it: which kind of address it
// is, and what its name in the DNS is.
package peer

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"tarishi/internal/dns"
)

// What stands for a name where there is none, as in Haraka.
const (
	NXDomain = "NXDOMAIN"
	DNSError = "DNSERROR"
	Unknown  = "Unknown"
)

// IsName reports whether host is a name and not what stands for one.
func IsName(host string) bool { return host != NXDomain && host != DNSError && host != Unknown }

// Resolver finds the names of an address, without trailing dots, and the
// addresses of a name. The end of ctx ends the search.
type Resolver interface {
	PTR(ctx context.Context, addr netip.Addr) ([]string, error)
	Host(ctx context.Context, host string) ([]netip.Addr, error)
}

// Lookup returns the name of an address as its PTR record has it, or what stands for
// it.
func Lookup(ctx context.Context, r Resolver, addr netip.Addr) string {
	if r == nil {
		return Unknown
	}
	// An address without a name is no failure, and mail servers have one.
	names, err := r.PTR(ctx, addr)
	switch {
	case dns.IsNXDomain(err):
		return NXDomain
	case err != nil && !dns.IsNoData(err):
		return DNSError
	case len(names) == 0 || names[0] == "":
		return Unknown
	}
	return names[0]
}

// Confirmation is the search for the addresses of the client's name. Anybody can
// write any name into the PTR record of an address of theirs: only one that has
// the address, too, goes to next hops and into our trace field. The zero value has found
// nothing.
type Confirmation struct {
	cancel context.CancelFunc
	done   chan struct{} // nil: there is no name
	host   string        // valid after done is closed; "": not confirmed
}

// Begin begins to look for addr among the addresses of a name, beside the conversation and
// within ctx, which cancel ends.
func (c *Confirmation) Begin(ctx context.Context, cancel context.CancelFunc, r Resolver, host string, addr netip.Addr) {
	if r == nil || !IsName(host) {
		cancel()
		return
	}
	// The conversation goes on meanwhile: most clients send nothing that needs the name.
	c.cancel, c.done = cancel, make(chan struct{})
	go func() {
		defer close(c.done)
		// With the dot at its end no other domain is searched.
		addrs, err := r.Host(ctx, strings.TrimSuffix(host, ".")+".")
		if err == nil && slices.Contains(addrs, addr) {
			c.host = host
		}
	}()
}

// Name returns the confirmed name of the client, or "". If need be it waits, so
// that the same client has the same name each time: until the context of Begin ends.
func (c *Confirmation) Name() string {
	if c.done == nil {
		return ""
	}
	<-c.done
	return c.host
}

// Stop ends the search and waits for it.
func (c *Confirmation) Stop() {
	if c.done != nil {
		c.cancel()
		<-c.done
	}
}
