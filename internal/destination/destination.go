// Package destination says how mail is delivered to each destination: outbound.ini.
// Its main section holds for all; the others hold for a domain, for the domains below
// one, or for domains by their mail exchangers. A key is taken from the
// first section that has it: Settings.For joins them.
package destination

import (
	"cmp"
	"net/netip"
	"strings"
	"time"

	"tarishi/internal/mail"
)

// Rules is what outbound.ini says for one destination: a section of it,
// where zero values stand for missing keys, or all sections together, see
// Settings.For.
type Rules struct {
	// Section and MX name the sections that hold by the domain and by its mail
	// exchanger; "": there is none.
	Section, MX string

	Concurrency       Range
	Rate              Rate
	MaxMessages       int             // on one connection
	TempFailIntervals []time.Duration // empty but not nil: no retries
	MaxLifetime       time.Duration
	DelayWarning      time.Duration // negative: none
	Sources           []Source      // to choose from by their weight
	TLS               mail.TLSLevel
	// Hosts are the smart hosts, with credentials, in the order in which they
	// are tried; none: the domain's MX.
	Hosts []mail.NextHop
}

// Range is how many attempts may run at a time: High at most, and not less than
// Low however badly they go. The zero value says nothing.
type Range struct{ Low, High int }

// Rate is so many messages in so much time. The zero value is no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

// Source is a local address and the EHLO name that goes with it; either may be
// missing.
type Source struct {
	Bind   netip.Addr
	Helo   string
	Weight int // at least 1
}

// For returns the rules for mail to a domain, in canonical form, with hosts as its
// mail exchangers (nil: not known yet). Each key is taken from the first of
// these that has it: the section of the domain, that of the longest *.domain
// above it, those of the best host that has any (its own name before the longest
// pattern), [default], the main section.
func (s *Settings) For(domain string, hosts []string) Rules {
	var d Rules
	// The order is from the most to the least particular: what an earlier
	// section says stays.
	d.Section, d.MX = s.Match(domain, hosts)
	exact, above := s.sections("", domain)
	main := &Rules{TempFailIntervals: s.TempFailIntervals, MaxLifetime: s.MaxLifetime, DelayWarning: s.DelayWarning}
	host := strings.TrimPrefix(d.MX, "mx:")
	_, pattern := s.sections("mx:", host)
	for _, l := range []*Rules{
		s.Destinations[exact], s.Destinations[above], s.Destinations[d.MX], s.Destinations[pattern], s.Destinations["default"], main,
	} {
		if l != nil {
			d.inherit(l)
		}
	}
	return d
}

// Match returns the names of the sections that hold for mail to a domain by its
// name and by its mail exchangers; "": there is none.
func (s *Settings) Match(domain string, hosts []string) (section, mx string) {
	exact, above := s.sections("", domain)

	// Hosts come in the order of preference, and the best one that has a section counts.
	for _, h := range hosts {
		name, pattern := s.sections("mx:", strings.ToLower(strings.TrimSuffix(h, ".")))
		if mx = cmp.Or(name, pattern); mx != "" {
			break
		}
	}
	return cmp.Or(exact, above), mx
}

// HasMX reports whether any section is for mail exchangers.
func (s *Settings) HasMX() bool {
	for name := range s.Destinations {
		if strings.HasPrefix(name, "mx:") {
			return true
		}
	}
	return false
}

// sections returns the names of the sections for a name itself, and for the names
// below the longest parent of it; "" where there is none.
func (s *Settings) sections(prefix, name string) (exact, above string) {
	if len(s.Destinations) == 0 {
		return "", ""
	}

	// [default] is no domain, though a domain could have that name.
	if s.Destinations[prefix+name] != nil && prefix+name != "default" {
		exact = prefix + name
	}
	for parent := name; parent != ""; {
		_, parent, _ = strings.Cut(parent, ".")
		if name := prefix + "*." + parent; parent != "" && s.Destinations[name] != nil {
			return exact, name
		}
	}
	return exact, ""
}

// Apart reports whether a section of the domain's name limits its concurrency or
// rate, so that it shares neither with domains of the same MX.
func (s *Settings) Apart(domain string) bool {
	exact, above := s.sections("", domain)

	// What [default] says is no limit of one domain's own.
	for _, name := range []string{exact, above} {
		if one := s.Destinations[name]; one != nil && (one.Concurrency != Range{} || one.Rate != Rate{}) {
			return true
		}
	}
	return false
}

// inherit takes from l what d does not say.
func (d *Rules) inherit(l *Rules) {
	// Lists are taken whole: a section with one source or host means only that.
	if d.Concurrency == (Range{}) {
		d.Concurrency = l.Concurrency
	}
	if d.Rate == (Rate{}) {
		d.Rate = l.Rate
	}
	if d.MaxMessages == 0 {
		d.MaxMessages = l.MaxMessages
	}
	if d.TempFailIntervals == nil {
		d.TempFailIntervals = l.TempFailIntervals
	}
	if d.MaxLifetime == 0 {
		d.MaxLifetime = l.MaxLifetime
	}
	if d.DelayWarning == 0 {
		d.DelayWarning = l.DelayWarning
	}
	if d.Sources == nil {
		d.Sources = l.Sources
	}
	if d.TLS == mail.TLSDefault {
		d.TLS = l.TLS
	}
	if d.Hosts == nil {
		d.Hosts = l.Hosts
	}
}
