package dnslist

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"tarishi/internal/dns"
	"tarishi/internal/plugin"
)

// finding is what a list says of an address.
type finding struct {
	list    *List
	answers []netip.Addr // none: the address is not listed
	skipped bool         // the list does not have addresses of this kind
	failure string       // why nothing is known; "": something is
	fault   string       // why the list is not to be asked any more; "": it is
}

// The outcomes that are counted.
const (
	outcomeListed   = "listed"
	outcomeUnlisted = "unlisted"
	outcomeError    = "error"
)

// ask looks an address up in a list. It returns nil if the look-up was given up because
// ctx was cancelled: the list is not to blame then.
func (s *search) ask(ctx context.Context, l *List, addr netip.Addr) *finding {
	f := &finding{list: l}
	if addr.Is6() && l.IPv6 == "false" {
		f.skipped = true
		return f
	}
	answers, err := s.resolver.IPv4(ctx, queryName(addr, l.Zone))

	// Only an answer from the list's own range says something about the client.
	outcome := outcomeError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return nil
	case err == nil:
		if f.fault = wrong(l.Zone, answers); f.fault != "" {
			f.failure = f.fault
			break
		}
		f.answers, outcome = answers, outcomeListed
	case dns.IsNXDomain(err), dns.IsNoData(err):
		outcome = outcomeUnlisted
	case isTimeout(err):
		f.failure, f.fault = "ETIMEOUT", "does not answer"
	default:
		f.failure = "ESERVFAIL"
	}
	s.lookups.Add(1, l.Zone, outcome)
	return f
}

// queryName is the name under which a list has an address (RFC 5782 sections 2.1 and
// 2.4).
func queryName(addr netip.Addr, zone string) string {
	name := make([]byte, 0, 64+len(zone))
	if addr.Is4() {
		for _, octet := range slices.Backward(addr.AsSlice()) {
			name = append(strconv.AppendUint(name, uint64(octet), 10), '.')
		}
	} else {
		for _, digit := range slices.Backward([]byte(hex.EncodeToString(addr.AsSlice()))) {
			name = append(name, digit, '.')
		}
	}
	return string(append(name, zone...))
}

// blocked is the range in which lists tell a resolver that it may not ask: Spamhaus,
// SpamCop, URIBL and others use it for open resolvers and for too many queries.
var blocked = netip.MustParsePrefix("127.255.255.0/24")

// wrong says why the answers of a list cannot be right; "": they can be.
func wrong(zone string, answers []netip.Addr) string {
	for _, a := range answers {
		switch {
		case !a.IsLoopback():
			return "answers " + a.String() + ", which is outside 127.0.0.0/8: the zone may be abandoned, or the resolver makes answers up"
		case blocked.Contains(a), zone == zoneDNSWL && a == netip.AddrFrom4([4]byte{127, 0, 0, 255}):
			return "answers " + a.String() + ": it does not serve this resolver, which is a public one or asks too much"
		}
	}
	return ""
}

// isTimeout reports whether nobody answered in time.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// The answers of karma lists that decide.
var (
	karmaGood = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	karmaBad  = netip.AddrFrom4([4]byte{127, 0, 0, 2})
)

// isListed reports whether the address is on the list.
func (f *finding) isListed() bool { return len(f.answers) > 0 }

// isBad reports whether that speaks against the client.
func (f *finding) isBad() bool {
	switch f.list.Type {
	case Block:
		return f.isListed()
	case Karma:
		return slices.Contains(f.answers, karmaBad) && !slices.Contains(f.answers, karmaGood)
	}
	return false
}

// letsIn reports whether the client is let in whatever other lists say.
func (f *finding) letsIn() bool { return f.list.Type == Allow && f.isListed() }

// refuses reports whether the client is refused, unless another list lets it in.
func (f *finding) refuses() bool { return f.isBad() && f.list.Reject }

// decides reports whether the finding may settle what becomes of the client.
func (f *finding) decides() bool { return f.letsIn() || f.refuses() }

// record records the finding, as Haraka does.
func (f *finding) record(r plugin.Record) {
	zone := f.list.Zone
	for _, a := range f.answers {
		if text := f.list.Texts[a.String()]; text != "" {
			r.Msg(text)
		}
	}

	// A client that is on no allow or karma list is what nearly all are.
	switch {
	case f.skipped:
		r.Skip(zone + ": ipv6 disabled")
	case f.failure != "":
		r.Err(zone + ": " + f.failure)
	case f.isBad():
		r.Fail(zone)
	case f.letsIn(), f.list.Type == Block, slices.Contains(f.answers, karmaGood):
		r.Pass(zone)
	case f.isListed():
		r.Msg(zone)
	}
}
