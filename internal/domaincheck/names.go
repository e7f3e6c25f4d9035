package domaincheck

import (
	"net/netip"
	"slices"
	"strings"

	"tarishi/internal/dkim"
	"tarishi/internal/dmarc"
	"tarishi/internal/localaddr"
	"tarishi/internal/mail"
	"tarishi/internal/spf"
)

// checkExchangers looks at MX records and the addresses of the hosts in them.
func (k *check) checkExchangers() {
	all, err := k.Resolver.MX(k.ctx, k.domain)
	switch {
	case isMissing(err):
		// RFC 5321 section 5.1: without MX records the domain's own addresses take its mail.
		addrs, without := k.Resolver.Addresses(k.ctx, k.domain)
		if without != nil {
			k.add(Error, "MX", "%s has neither MX records nor addresses: it gets no mail", k.domain)
			return
		}
		k.add(Warning, "MX", "%s has no MX record: mail goes to its own addresses, and some senders doubt domains without one", k.domain)
		k.exchangers = []exchanger{{host: k.domain, addresses: addrs}}
		return
	case err != nil:
		k.add(Error, "MX", "%v", err)
		return
	case len(all) == 1 && all[0].Host == "":
		k.add(Note, "MX", "%s says that it takes no mail (null MX, RFC 7505)", k.domain)
		return
	}

	for _, mx := range all {
		addrs, err := k.Resolver.Addresses(k.ctx, mx.Host)
		switch _, literal := netip.ParseAddr(mx.Host); {
		case literal == nil:
			k.add(Error, "MX", "%s is an address: an MX record names a host (RFC 5321 section 5.1)", mx.Host)
			continue
		case err != nil:
			k.add(Error, "MX", "%s: %v", mx.Host, err)
			continue
		case addrs.Name != mx.Host:
			k.add(Warning, "MX", "%s is an alias of %s, which a mail exchanger must not be (RFC 2181 section 10.3)", mx.Host, addrs.Name)
		default:
			k.add(Good, "MX", "%d %s %s", mx.Preference, mx.Host, join(addrs.List))
		}
		for _, addr := range addrs.List {
			if localaddr.IsNear(addr) {
				k.add(Error, "MX", "%s has the address %s, which the world cannot reach", mx.Host, addr)
			}
		}
		k.exchangers = append(k.exchangers, exchanger{host: mx.Host, addresses: addrs, secure: k.DNSSEC && mx.Secure && addrs.Secure})
	}
}

// checkSenders looks at the addresses that mail leaves from: their names, and whether the
// domain allows them.
func (k *check) checkSenders() {
	addrs := k.Addresses
	if len(addrs) == 0 {
		var err error
		if addrs, err = k.Resolver.Addrs(k.ctx, k.Me); err != nil {
			k.add(Error, "PTR", "%s, which we say in EHLO, has no address (%v): it must have, or name the addresses that mail leaves from", k.Me, err)
			return
		}
	}

	// Large receivers refuse clients with a name that does not lead back to them.
	for _, addr := range addrs {
		names, err := k.Resolver.PTR(k.ctx, addr)
		switch i := slices.IndexFunc(names, func(name string) bool { return k.leadsTo(name, addr) }); {
		case err != nil:
			k.add(Error, "PTR", "%s has no name: %v", addr, err)
		case i < 0:
			k.add(Error, "PTR", "%s is called %s, which does not have that address", addr, strings.Join(names, " "))
		case !slices.ContainsFunc(names, func(name string) bool { return mail.CanonicalDomain(name) == k.Me }):
			k.add(Note, "PTR", "%s is called %s, and we say %s in EHLO", addr, names[i], k.Me)
		default:
			k.add(Good, "PTR", "%s is called %s, and back", addr, k.Me)
		}
	}
	k.checkSPF(addrs)
}

func (k *check) leadsTo(name string, addr netip.Addr) bool {
	back, err := k.Resolver.Addrs(k.ctx, name)
	return err == nil && slices.Contains(back, addr)
}

// checkSPF asks the domain's policy about addresses.
func (k *check) checkSPF(addrs []netip.Addr) {
	checker := &spf.Checker{Resolver: k.Resolver}
	for _, addr := range addrs {
		r := checker.CheckMail(k.ctx, addr, k.Me, mail.Address{Local: "postmaster", Domain: k.domain})
		switch r.Status {
		case spf.Pass:
			k.add(Good, "SPF", "%s passes (%s)", addr, r.Reason)
		case spf.None:
			k.add(Error, "SPF", "%s has no record: anybody may send in its name", k.domain)
			return // for every address
		case spf.Neutral, spf.SoftFail:
			k.add(Warning, "SPF", "%s: %s (%s)", addr, r.Status, r.Reason)
		default:
			k.add(Error, "SPF", "%s: %s (%s)", addr, r.Status, r.Reason)
		}
	}
}

// checkKeys compares the records of keys with what signs.
func (k *check) checkKeys() {
	for _, key := range k.Keys {
		if err := key.CheckRecord(k.ctx, k.Resolver, k.domain); err != nil {
			k.add(Error, "DKIM", "%s: %v", key.Name(k.domain), err)
			continue
		}
		k.add(Good, "DKIM", "%s is the record of our key", key.Name(k.domain))
	}

	// Of keys that are not ours only the record can be looked at, whichever kind it has.
	for _, selector := range k.Selectors {
		key, err := dkim.LookupKey(k.ctx, k.Resolver, selector, k.domain, "rsa-sha256")
		if err != nil {
			if other, without := dkim.LookupKey(k.ctx, k.Resolver, selector, k.domain, "ed25519-sha256"); without == nil {
				key, err = other, nil
			}
		}
		name := dkim.Key{Selector: selector}.Name(k.domain)
		switch {
		case err != nil:
			k.add(Error, "DKIM", "%s: %v", name, err)
		case key.Testing:
			k.add(Note, "DKIM", "%s is being tested (t=y): its signatures may count for nothing", name)
		case key.Bits > 0 && key.Bits < 2048:
			k.add(Warning, "DKIM", "%s has %d bits: RFC 8301 asks for 2048", name, key.Bits)
		default:
			k.add(Good, "DKIM", "%s has a key", name)
		}
	}
	if len(k.Keys)+len(k.Selectors) == 0 {
		k.add(Warning, "DKIM", "no key signs for %s here: 'tarishi dkim new %s' makes one, --selector names one of others", k.domain, k.domain)
	}
}

// checkAlignment looks at the policy for mail that fails.
func (k *check) checkAlignment() {
	checker := &dmarc.Checker{Resolver: k.Resolver}
	r := checker.Check(k.ctx, dmarc.Identity{From: []string{"postmaster@" + k.domain}, DKIM: []string{k.domain}})
	switch {
	case r.Status == dmarc.TempError || r.Status == dmarc.PermError:
		k.add(Error, "DMARC", "%s: %s", r.Status, r.Reason)
		return
	case r.Record == nil:
		k.add(Error, "DMARC", "%s has no policy (_dmarc.%s): large receivers want one, if only p=none", k.domain, k.domain)
		return
	}

	// What happens to mail that others send in the domain's name.
	text := "p=" + r.Policy.String() + " of " + r.Record.Domain
	switch {
	case r.Policy == dmarc.PolicyNone:
		k.add(Note, "DMARC", "%s: forged mail is delivered", text)
	case r.Record.Testing:
		k.add(Note, "DMARC", "%s, applied one level below while t=y stands there", text)
	default:
		k.add(Good, "DMARC", "%s", text)
	}
	if len(r.Record.Aggregate) == 0 {
		k.add(Note, "DMARC", "%s asks for no reports (rua)", r.Record.Domain)
	}
}

func join(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, addr := range addrs {
		words[i] = addr.String()
	}
	return strings.Join(words, " ")
}
