package helochecks

import (
	"context"
	"errors"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"tarishi/internal/dns"
	"tarishi/internal/hook"
	"tarishi/internal/hostname"
	"tarishi/internal/localaddr"
)

// compareVerb looks for a client that says HELO after EHLO, or the reverse.
func (c *checker) compareVerb(g *greeting) hook.Verdict {
	// Clients that fall back to HELO because EHLO was refused have not been accepted before.
	if g.before.verb == "" || g.before.verb == g.verb {
		return pass
	}
	protocol := "smtp"
	if g.verb == "EHLO" {
		protocol = "esmtp"
	}
	g.record.Fail("proto_mismatch(" + protocol + ")")
	return rejectIf(c.Reject.ProtoMismatch, g.verb+" protocol mismatch")
}

// matchExpressions compares the name with those of helo.checks.regexps.
func (c *checker) matchExpressions(g *greeting) hook.Verdict {
	if slices.ContainsFunc(c.Expressions, func(e *regexp.Regexp) bool { return e.MatchString(g.name) }) {
		g.record.Fail("match_re")
		return rejectIf(c.Reject.MatchRE, "That HELO not allowed here")
	}
	g.record.Pass("match_re")
	return pass
}

// findBareAddress looks for an address without the brackets of a literal (RFC 5321
// section 4.1.3).
func (c *checker) findBareAddress(g *greeting) hook.Verdict {
	if _, bare := hostname.Bare(g.name); bare {
		g.record.Fail("bare_ip(invalid literal)")
		return rejectIf(c.Reject.BareIP, "Invalid address format in HELO")
	}
	g.record.Pass("bare_ip")
	return pass
}

// findDynamicName looks for the client's address in the name, as customers' lines are
// called.
func (c *checker) findDynamicName(g *greeting) hook.Verdict {
	// An address is no name that a provider has made from one.
	_, bare := hostname.Bare(g.name)
	switch {
	case !strings.Contains(g.name, "."):
		g.record.Skip("dynamic(no dots)")
		return pass
	case g.literal || bare:
		g.record.Skip("dynamic(literal)")
		return pass
	case hostname.HoldsAddress(g.name, g.addr):
		g.record.Fail("dynamic")
		return rejectIf(c.Reject.Dynamic, "HELO is dynamic")
	}
	g.record.Pass("dynamic")
	return pass
}

// checkCompany asks of a client with the name of a large provider for the provider's name
// in the DNS.
func (c *checker) checkCompany(g *greeting) hook.Verdict {
	// The names are compared letter by letter: hosts of providers write them so.
	domains, known := c.Companies[g.name]
	switch {
	case g.literal:
		g.record.Skip("big_co(literal)")
		return pass
	case !known:
		g.record.Pass("big_co(not)")
		return pass
	case g.rdns == "":
		g.record.Fail("big_co(rDNS)")
		return deferIf(c.Reject.BigCompany, "Big company w/o rDNS? Unlikely.")
	case slices.ContainsFunc(domains, func(domain string) bool { return hostname.IsWithin(g.rdns, domain) }):
		g.record.Pass("big_co")
		return pass
	}
	g.record.Fail("big_co")
	return rejectIf(c.Reject.BigCompany, "You are not who you say you are")
}

// checkHostname asks for a name that can be in the DNS of the world, or an address
// literal (RFC 5321 section 2.3.5).
func (c *checker) checkHostname(g *greeting) hook.Verdict {
	if g.literal {
		g.record.Skip("valid_hostname(literal)")
		return pass
	}
	// A name may be wrong in several ways, which are all recorded until one rejects.
	failed := false
	if !strings.Contains(g.name, ".") {
		g.record.Fail("valid_hostname(no_dot)")
		if c.Reject.ValidHostname {
			return hook.Answer(hook.Deny, "HELO host must be a FQDN or address literal (RFC 5321 2.3.5)")
		}
		failed = true
	}
	if strings.ContainsFunc(g.name, func(r rune) bool { return r < ' ' || r > '~' }) {
		g.record.Fail("valid_hostname(not_ascii)")
		if c.Reject.ValidHostname {
			return notASCII()
		}
		failed = true
	}

	// Below some top-level domains names are good that are in no list.
	if hostname.Organisation(g.name) == "" {
		top := strings.ToLower(g.name[strings.LastIndexByte(g.name, '.')+1:])
		if slices.Contains(c.Skip.TLDs, top) || slices.Contains(c.Skip.TLDs, "."+top) {
			if !failed {
				g.record.Skip("valid_hostname(" + top + ")")
			}
			return pass
		}
		g.record.Fail("valid_hostname")
		return rejectIf(c.Reject.ValidHostname, "HELO host name invalid")
	}
	if !failed {
		g.record.Pass("valid_hostname")
		g.isValid = true
	}
	return pass
}

// compareRDNS compares the name with the client's in the DNS.
func (c *checker) compareRDNS(g *greeting) hook.Verdict {
	switch {
	case g.literal:
		g.record.Fail("rdns_match(literal)")
		return pass
	case g.rdns != noName && strings.EqualFold(g.name, g.rdns):
		g.record.Pass("rdns_match")
		g.matchRDNS = true
		return pass
	case hostname.IsSameOrganisation(g.name, g.rdns):
		g.record.Pass("rdns_match(org_dom)")
		g.matchRDNS = true
		return pass
	}
	g.record.Fail("rdns_match")
	if g.rdns == "" {
		return deferIf(c.Reject.RDNSMatch, "HELO host does not match rDNS")
	}
	return rejectIf(c.Reject.RDNSMatch, "HELO host does not match rDNS")
}

// lookUpTime bounds the search for the addresses of a name.
const lookUpTime = 20 * time.Second

// lookUp compares the addresses of the name with the client's. Some large providers greet
// with a name that has others: for them it is enough that the name in the DNS is in the
// same organisation.
func (c *checker) lookUp(g *greeting) hook.Verdict {
	switch {
	case !c.Check.ValidHostname:
		g.record.Err("forward_dns(valid_hostname disabled)")
		return pass
	case g.literal:
		g.record.Skip("forward_dns(literal)")
		return pass
	case !g.isValid:
		g.record.Fail("forward_dns(invalid_hostname)")
		return rejectIf(c.Reject.ForwardDNS, "Invalid HELO host cannot achieve forward DNS match")
	}

	// A name without addresses is no reason for a refusal, nor are name servers in
	// trouble.
	ctx, cancel := context.WithTimeout(g.ctx, lookUpTime)
	defer cancel()
	addrs, err := c.resolver.Addrs(ctx, g.name)
	if isTimeout(err) {
		g.record.Fail("forward_dns(ETIMEOUT)")
		if c.Reject.ForwardDNS {
			return hook.Answer(hook.DenySoft, "DNS timeout resolving your HELO hostname")
		}
		g.record.Err("forward_dns(" + err.Error() + ")")
		return pass
	}
	if len(addrs) == 0 {
		if err != nil && !dns.IsNXDomain(err) && !dns.IsNoData(err) {
			g.record.Err("forward_dns(" + err.Error() + ")")
		}
		g.record.Fail("forward_dns(no ips)")
		return pass
	}
	// Other plugins find the addresses in the results.
	var texts []string
	for _, addr := range addrs {
		texts = append(texts, addr.String())
	}
	g.record.Set(lookedUp, texts)
	switch {
	case slices.Contains(addrs, g.addr):
		g.record.Pass("forward_dns")
		return pass
	case g.matchRDNS && hostname.IsSameOrganisation(g.name, g.rdns):
		g.record.Pass("forward_dns(domain)")
		return pass
	}
	g.record.Fail("forward_dns(no IP match)")
	return rejectIf(c.Reject.ForwardDNS, "HELO host has no forward DNS match")
}

// isTimeout reports whether a look-up has taken too long.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// compareName looks for a client that calls itself something else than before.
func (c *checker) compareName(g *greeting) hook.Verdict {
	// The first name matches itself, as in Haraka.
	if g.before.name == "" || g.before.name == g.name {
		g.record.Pass("host_mismatch")
		return pass
	}
	text := "host_mismatch(" + g.before.name + " / " + g.name + ")"
	g.record.Fail(text)
	return rejectIf(c.Reject.HostMismatch, "HELO host "+text)
}

// compareLiteral compares the address in a literal with the client's.
func (c *checker) compareLiteral(g *greeting) hook.Verdict {
	switch {
	case !g.literal:
		g.record.Pass("literal_mismatch")
		return pass
	case c.LiteralMode >= literalPrivate && localaddr.IsPrivate(g.inside):
		g.record.Pass("literal_mismatch(private)")
		return pass
	case c.LiteralMode >= literalNetwork && hostname.IsSameNetwork(g.inside, g.addr), c.LiteralMode < literalNetwork && g.inside.Unmap() == g.addr.Unmap():
		g.record.Pass("literal_mismatch")
		return pass
	}
	// The text says how near the address would have to be.
	g.record.Fail("literal_mismatch")
	if c.LiteralMode >= literalNetwork {
		return rejectIf(c.Reject.LiteralMismatch, "HELO IP literal not in the same /24 as your IP address")
	}
	return rejectIf(c.Reject.LiteralMismatch, "HELO IP literal does not match your IP address")
}
