package session

import (
	"context"
	"slices"
	"strings"

	"tarishi/internal/dns"
)

// Values of hook.Remote.Host that are not names, as in Haraka.
const (
	nxDomain = "NXDOMAIN"
	dnsError = "DNSERROR"
	unknown  = "Unknown"
)

// lookup returns the client's name as its PTR record has it, or what stands for
// it.
func (s *session) lookup(ctx context.Context) string {
	if s.o.Resolver == nil {
		return unknown
	}
	// An address without a name is no failure, and mail servers have one.
	names, err := s.o.Resolver.PTR(ctx, s.c.Remote.Addr.Addr())
	switch {
	case dns.IsNXDomain(err):
		return nxDomain
	case err != nil && !dns.IsNoData(err):
		return dnsError
	case len(names) == 0 || names[0] == "":
		return unknown
	}
	return names[0]
}

// confirmation is the search for the addresses of the client's name. Anybody can
// write any name into the PTR record of an address of theirs: only one that has
// the address, too, goes to next hops and into our trace field.
type confirmation struct {
	cancel context.CancelFunc
	done   chan struct{} // nil: there is no name
	host   string        // valid after done is closed; "": not confirmed
}

// confirm begins to look for the addresses of Remote.Host, beside the
// conversation and within ctx, which it ends.
func (s *session) confirm(ctx context.Context, cancel context.CancelFunc) {
	host, addr := s.c.Remote.Host, s.c.Remote.Addr.Addr()
	if s.o.Resolver == nil || host == unknown || host == nxDomain || host == dnsError {
		cancel()
		return
	}
	c := &s.named
	c.cancel, c.done = cancel, make(chan struct{})
	go func() {
		defer close(c.done)
		// With the dot at its end no other domain is searched.
		addrs, err := s.o.Resolver.Host(ctx, strings.TrimSuffix(host, ".")+".")
		if err == nil && slices.Contains(addrs, addr) {
			c.host = host
		}
	}()
}

// confirmedName returns the confirmed name of the client, or "". If need be it waits, so
// that the same client has the same name each time: until RDNSTimeout has passed
// since the connection was looked at.
func (c *confirmation) confirmedName() string {
	if c.done == nil {
		return ""
	}
	<-c.done
	return c.host
}

// stopSearch ends the search and waits for it.
func (c *confirmation) stopSearch() {
	if c.done != nil {
		c.cancel()
		<-c.done
	}
}

// fromName is what our trace field calls the client beside its address.
func (s *session) fromName() string {
	if name := s.named.confirmedName(); name != "" {
		return name
	}
	if host := s.c.Remote.Host; host == nxDomain || host == dnsError {
		return host
	}
	return unknown
}
