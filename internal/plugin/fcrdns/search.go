package fcrdns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"tarishi/internal/dns"
	"tarishi/internal/hook"
	"tarishi/internal/hostname"
	"tarishi/internal/plugin"
)

// search is the search for the names of one client.
type search struct {
	*checker
	addr   netip.Addr
	record plugin.Record

	confirmed, invalid, others []string
	addresses                  map[string]any
	refusal                    hook.Verdict // due at connect; Code 0: none
}

// The outcomes of RFC 8601 section 2.7.3.
const (
	outcomePass      = "pass"
	outcomeFail      = "fail"
	outcomeTempError = "temperror"
	outcomePermError = "permerror"
)

// mostNames is how many names of a client are looked up.
const mostNames = 10

// found is a name and its addresses, or why they are not known.
type found struct {
	name  string
	addrs []netip.Addr
	err   error
}

// run makes the search and returns its outcome; "": the client is refused without one.
func (s *search) run(ctx context.Context) (outcome string) {
	// Only an answer of the DNS says that there is no name.
	names, err := s.resolver.PTR(ctx, s.addr)
	switch {
	case dns.IsNXDomain(err) || dns.IsNoData(err):
		s.record.Fail("has_rdns")
		s.refuse(s.Reject.NoRDNS, hook.Deny, " rejected; no rDNS")
		return outcomePermError
	case err != nil && ctx.Err() != nil:
		return s.giveUp()
	case err != nil:
		code := failureCode(err)
		s.record.Err(code)
		s.refuse(s.Reject.NoRDNS, hook.DenySoft, " rDNS lookup error ("+code+")")
		return outcomeTempError
	}
	s.record.Set(valueNames, names)
	s.record.Set(valueHasNames, true)

	// Names below no top-level domain that there is cannot have an address.
	var valid []string
	for _, name := range names {
		if hostname.Organisation(name) != "" {
			valid = append(valid, name)
			continue
		}
		s.record.Fail("valid_tld(" + name + ")")
		s.invalid = append(s.invalid, name)
		s.record.Set(valueInvalid, s.invalid)
		if s.refuse(s.Reject.InvalidTLD, hook.Deny, " rejected; invalid TLD in rDNS ("+name+")"); s.refusal.Code != 0 {
			return ""
		}
	}
	all := s.lookUpAll(ctx, valid)
	if ctx.Err() != nil {
		return s.giveUp()
	}
	return s.compare(all)
}

// giveUp records that the time was over.
func (s *search) giveUp() string {
	s.record.Err("timeout")
	s.refuse(s.Reject.NoRDNS, hook.DenySoft, " rDNS lookup timeout")
	return outcomeTempError
}

// refuse makes the verdict that is due, if a switch is on.
func (s *search) refuse(on bool, code hook.Code, text string) {
	if on {
		s.refusal = hook.Answer(code, "client ["+s.addr.String()+"]"+text)
	}
}

// lookUpAll returns the addresses of names, which are looked up side by side.
func (s *search) lookUpAll(ctx context.Context, names []string) []found {
	// Anybody can give an address any number of names.
	all := make([]found, min(len(names), mostNames))
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			addrs, err := s.resolver.Addrs(ctx, names[i])
			all[i] = found{names[i], addrs, err}
		})
	}
	wg.Wait()
	for _, one := range all {
		if len(one.addrs) == 0 {
			s.record.Fail("ptr_valid(" + one.name + ")")
		}
		s.addresses[one.name] = texts(one.addrs)
	}
	s.record.Set(valueAddresses, s.addresses)
	return all
}

// compare compares the addresses of names with the client's.
func (s *search) compare(all []found) (outcome string) {
	// All names are looked at, for the results show each of them.
	var failure error
	last := ""
	for _, one := range all {
		if org := hostname.Organisation(one.name); last != "" && org != last {
			s.record.Set(valueMultiple, true)
		} else {
			last = org
		}
		if one.err != nil && !dns.IsNXDomain(one.err) && !dns.IsNoData(one.err) {
			failure = one.err
		}
		s.confirm(one)
		if len(one.addrs) > 0 {
			s.record.Set(valueHasAddresses, true)
		}
		if s.isGeneric(one.name) {
			s.record.Set(valueGeneric, true)
			if s.Reject.GenericRDNS {
				s.refusal = hook.Answer(hook.Deny, "client "+one.name+" ["+s.addr.String()+"] rejected; generic rDNS, please use your ISPs SMTP relay")
				return ""
			}
		}
	}

	// From trouble with the DNS nothing follows for good.
	const noMatch = "Sorry, no FCrDNS match found"
	switch {
	case len(s.confirmed) > 0:
		return outcomePass
	case failure != nil:
		s.record.Err(failureCode(failure))
		if s.Reject.NoFCrDNS {
			s.refusal = hook.Answer(hook.DenySoft, noMatch)
		}
		return outcomeTempError
	}
	if s.Reject.NoFCrDNS {
		s.refusal = hook.Answer(hook.Deny, noMatch)
	}
	return outcomeFail
}

// confirm compares the addresses of one name with the client's. Mail servers behind
// balancers have one that is near.
func (s *search) confirm(one found) {
	switch {
	case slices.Contains(one.addrs, s.addr):
		s.record.Pass("fcrdns")
	case slices.ContainsFunc(one.addrs, func(a netip.Addr) bool { return hostname.IsSameNetwork(a, s.addr) }):
		s.record.Pass("fcrdns(net)")
	default:
		if len(one.addrs) > 0 {
			s.others = append(s.others, texts(one.addrs)...)
			s.record.Set(valueOthers, s.others)
		}
		return
	}
	s.confirmed = append(s.confirmed, one.name)
	s.record.Set(valueConfirmed, s.confirmed)
}

// isGeneric reports whether a name looks like that of a customer's line: it holds the
// client's address, and does not say that the line is one for servers.
func (s *search) isGeneric(name string) bool {
	if !hostname.HoldsAddress(name, s.addr) {
		s.record.Pass("is_generic_rdns")
		return false
	}
	s.record.Fail("is_generic_rdns")
	// Lines for servers may have names with the address too, if the name says so.
	labels := strings.Split(name, ".")
	most := strings.Count(hostname.Organisation(name), ".") + 2
	front := strings.Join(labels[:min(len(labels), most)], ",")
	return !strings.Contains(front, "static") && !strings.Contains(front, "business")
}

// failureCode is what Node.js calls a failure of the DNS.
func failureCode(err error) string {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return "ETIMEOUT"
	}
	return "ESERVFAIL"
}
