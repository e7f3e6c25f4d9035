package conf

import (
	"bufio"
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/mail"
)

const outboundFile = "outbound.ini"

// Destination is what outbound.ini says for one destination: a section of it,
// where zero values are what it does not say, or all of it together, see
// Outbound.For.
type Destination struct {
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

	line       int
	bind, helo []weighted
	host       string
	authType   string
	authUser   string
	authPass   string
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

// weighted is one element of bind or helo.
type weighted struct {
	text   string
	weight int
}

// For returns what holds for mail to a domain, in canonical form, whose mail
// exchangers are hosts (nil: not known yet). Each key is taken from the first of
// these that has it: the section of the domain, that of the longest *.domain
// above it, those of the best host that has any (its own name before the longest
// pattern), [default], the main section.
func (o *Outbound) For(domain string, hosts []string) Destination {
	var d Destination
	d.Section, d.MX = o.Match(domain, hosts)
	exact, above := o.sections("", domain)
	main := &Destination{TempFailIntervals: o.TempFailIntervals, MaxLifetime: o.MaxLifetime, DelayWarning: o.DelayWarning}
	host := strings.TrimPrefix(d.MX, "mx:")
	_, pattern := o.sections("mx:", host)
	for _, l := range []*Destination{
		o.Destinations[exact], o.Destinations[above], o.Destinations[d.MX], o.Destinations[pattern], o.Destinations["default"], main,
	} {
		if l != nil {
			d.inherit(l)
		}
	}
	return d
}

// Match returns the names of the sections that hold for mail to a domain by its
// name and by its mail exchangers; "": there is none.
func (o *Outbound) Match(domain string, hosts []string) (section, mx string) {
	exact, above := o.sections("", domain)
	for _, h := range hosts {
		name, pattern := o.sections("mx:", strings.ToLower(strings.TrimSuffix(h, ".")))
		if mx = cmp.Or(name, pattern); mx != "" {
			break
		}
	}
	return cmp.Or(exact, above), mx
}

// HasMX reports whether any section is for mail exchangers.
func (o *Outbound) HasMX() bool {
	for name := range o.Destinations {
		if strings.HasPrefix(name, "mx:") {
			return true
		}
	}
	return false
}

// sections returns the names of the sections for a name itself, and for what is
// below the longest parent of it; "" where there is none.
func (o *Outbound) sections(prefix, name string) (exact, above string) {
	if len(o.Destinations) == 0 {
		return "", ""
	}
	if o.Destinations[prefix+name] != nil && prefix+name != "default" {
		exact = prefix + name
	}
	for parent := name; parent != ""; {
		_, parent, _ = strings.Cut(parent, ".")
		if s := prefix + "*." + parent; parent != "" && o.Destinations[s] != nil {
			return exact, s
		}
	}
	return exact, ""
}

// Apart reports whether a section of the domain's name limits its concurrency or
// rate, so that it shares neither with domains of the same MX.
func (o *Outbound) Apart(domain string) bool {
	exact, above := o.sections("", domain)
	for _, name := range []string{exact, above} {
		if s := o.Destinations[name]; s != nil && (s.Concurrency != Range{} || s.Rate != Rate{}) {
			return true
		}
	}
	return false
}

// inherit takes from l what d does not say.
func (d *Destination) inherit(l *Destination) {
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

// entries is the table of the keys of a section.
func (d *Destination) entries() []entry {
	all := []entry{
		{key: "concurrency", field: concurrency(&d.Concurrency)},
		{key: "rate", field: rate(&d.Rate)},
		{key: "max_messages", field: atLeast(&d.MaxMessages, 1)},
		{key: "temp_fail_intervals", field: intervals(&d.TempFailIntervals)},
		{key: "max_lifetime", field: duration(&d.MaxLifetime, time.Second)},
		{key: "delay_warning", field: delayWarning(&d.DelayWarning)},
		{key: "bind", field: weights(&d.bind, checkBind)},
		{key: "helo", field: weights(&d.helo, ownName)},
		{key: "tls", field: tlsLevel(&d.TLS)},
		{key: "host", field: text(&d.host)},
		{key: "auth_type", field: mechanisms(&d.authType)},
		{key: "auth_user", field: text(&d.authUser), once: "auth_pass"},
		{key: "auth_pass", field: secret(&d.authPass)},
	}
	unset := map[string]bool{
		"max_messages": d.MaxMessages == 0, "temp_fail_intervals": d.TempFailIntervals == nil,
		"max_lifetime": d.MaxLifetime == 0, "delay_warning": d.DelayWarning == 0,
	}
	for i := range all {
		if unset[all[i].key] { // printed as nothing
			all[i].field.text = func() []string { return nil }
		}
	}
	return all
}

// destinations reads the sections of outbound.ini.
func (l *loader) destinations() {
	o := &l.c.Outbound
	main := outboundINI(l.c)
	for _, s := range l.parsed(outboundFile).sections {
		if s.name == "main" {
			continue
		}
		problem := func(k *iniKey, nearest, text string) {
			p := Problem{File: place(outboundFile), Line: s.line, Section: s.name, Nearest: nearest, Text: text}
			if k != nil {
				p.Line, p.Key = k.line, k.name
			}
			l.add(p)
		}
		name, ok := destinationName(s.name)
		if !ok {
			problem(nil, Nearest(s.name, []string{"main", "default"}), "is neither a domain, nor mx:HOST, nor default")
			continue
		}
		if n := Nearest(name, []string{"main", "default"}); n != "" && name != "default" && !strings.Contains(name, ".") {
			l.add(Problem{File: place(outboundFile), Line: s.line, Section: s.name, Nearest: n, Text: "is read as a domain", Warning: true})
		}
		if other := o.Destinations[name]; other != nil {
			problem(nil, "", fmt.Sprintf("is the same destination as the section on line %d, which counts", other.line))
			continue
		}
		d := &Destination{line: s.line}
		l.section(outboundFile, s, d.entries(), main.entries, "destinations")
		d.pair(func(key, text string) { problem(s.key(key), "", text) })
		l.smartHosts(d, func(key, text string) { problem(s.key(key), "", text) })
		o.Destinations[name] = d
	}
}

// pair makes Sources of bind and helo.
func (d *Destination) pair(problem func(key, text string)) {
	n := len(d.bind)
	switch {
	case n == 0:
		n = len(d.helo)
	case len(d.helo) > 1 && len(d.helo) != n:
		problem("helo", fmt.Sprintf("%d names for %d addresses of bind: there must be one for all, or one for each", len(d.helo), n))
		d.helo = nil
	}
	for i := range n {
		var s Source
		if len(d.helo) > 0 {
			h := d.helo[min(i, len(d.helo)-1)]
			s.Helo, s.Weight = h.text, h.weight
		}
		if len(d.bind) > 0 {
			s.Bind, s.Weight = netip.MustParseAddr(d.bind[i].text), d.bind[i].weight
		}
		d.Sources = append(d.Sources, s)
	}
}

// smartHosts makes Hosts of host and auth_*.
func (l *loader) smartHosts(d *Destination, problem func(key, text string)) {
	switch {
	case d.authUser != "" && d.authPass == "":
		problem("auth_user", "auth_pass is missing")
		d.authUser = ""
	case d.authUser == "" && d.authPass != "":
		problem("auth_pass", "auth_user is missing")
	case d.authUser == "" && d.authType != "":
		problem("auth_type", "auth_user and auth_pass are missing")
	case d.authUser != "" && d.host == "":
		problem("auth_user", "has no effect without host")
	}
	if d.host == "" {
		return
	}
	for _, one := range strings.FieldsFunc(d.host, func(c rune) bool { return c == ',' || isBlank(c) }) {
		hop, err := nextHop(one, hostKeys{}, 0)
		if err == nil && hop.Path == "" && l.c.SMTP.listensOn(hop.Host, hop.Port) {
			err = fmt.Errorf("%s is where this server listens", hop)
		}
		if err != nil {
			problem("host", err.Error())
			d.Hosts, d.host = nil, ""
			return
		}
		if d.authUser != "" {
			hop.AuthType, hop.AuthUser, hop.AuthPass, hop.AuthRequired = d.authType, d.authUser, d.authPass, true
		}
		d.Hosts = append(d.Hosts, hop)
	}
}

// destinationName canonicalises the name of a section: a domain, *.domain for
// all below it, mx: and a host or *.host, or default.
func destinationName(s string) (string, bool) {
	prefix := ""
	name := s
	if rest, ok := strings.CutPrefix(s, "mx:"); ok {
		prefix, name = "mx:", rest
	} else if s == "default" {
		return s, true
	}
	name, ok := routeName(name)
	return prefix + name, ok && !strings.Contains(name, "@")
}

// printDestinations writes the sections of outbound.ini.
func (c *Config) printDestinations(b *bufio.Writer) {
	for _, name := range sortedKeys(c.Outbound.Destinations) {
		fmt.Fprintf(b, "\n[%s]\n", name)
		entries := c.Outbound.Destinations[name].entries()
		for i := range entries {
			entries[i].section = name
		}
		printKeys(b, name, entries)
	}
}

// concurrency reads a number or a range: 10, 2..40.
func concurrency(p *Range) field {
	return scalar(func(s string) error {
		low, high, isRange := strings.Cut(s, "..")
		if !isRange {
			high = low
		}
		l, err1 := strconv.Atoi(strings.TrimFunc(low, isBlank))
		h, err2 := strconv.Atoi(strings.TrimFunc(high, isBlank))
		if err1 != nil || err2 != nil || l < 1 || h < l || h > math.MaxInt32 {
			return fmt.Errorf("%s is no concurrency: a number from 1, or a range such as 2..40", excerpt(s))
		}
		*p = Range{l, h}
		return nil
	}, func() string {
		switch {
		case p.High == 0:
			return ""
		case p.Low == p.High:
			return strconv.Itoa(p.High)
		}
		return fmt.Sprintf("%d..%d", p.Low, p.High)
	})
}

// rateUnits are what a rate counts by.
var rateUnits = []struct {
	name string
	per  time.Duration
}{{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", day}}

// rate reads a number per second, minute, hour or day: 20/s, 600/m.
func rate(p *Rate) field {
	return scalar(func(s string) error {
		amount, unit, _ := strings.Cut(s, "/")
		n, err := strconv.Atoi(strings.TrimFunc(amount, isBlank))
		for _, u := range rateUnits {
			if err == nil && n > 0 && n <= math.MaxInt32 && strings.EqualFold(strings.TrimFunc(unit, isBlank), u.name) {
				*p = Rate{n, u.per}
				return nil
			}
		}
		return fmt.Errorf("%s is no rate: a number per second, minute, hour or day, such as 20/s, 600/m, 10000/h", excerpt(s))
	}, func() string {
		for _, u := range rateUnits {
			if u.per == p.Per {
				return fmt.Sprintf("%d/%s", p.Count, u.name)
			}
		}
		return ""
	})
}

// rateOrNone reads a rate or none, which is zero.
func rateOrNone(p *Rate) field {
	limit := rate(p)
	return scalar(func(s string) error {
		if strings.EqualFold(s, "none") {
			*p = Rate{}
			return nil
		}
		return limit.set([]string{s})
	}, func() string {
		if *p == (Rate{}) {
			return "none"
		}
		return limit.text()[0]
	})
}

// delayWarning reads a duration or none, which is negative.
func delayWarning(p *time.Duration) field {
	after := duration(p, time.Second)
	return scalar(func(s string) error {
		if strings.EqualFold(s, "none") {
			*p = -1
			return nil
		}
		return after.set([]string{s})
	}, func() string {
		if *p < 0 {
			return "none"
		}
		return formatDuration(*p)
	})
}

// percent reads 0 to 100, with or without a percent sign.
func percent(p *int) field {
	n := number(p, 0, 100)
	return scalar(func(s string) error {
		return n.set([]string{strings.TrimFunc(strings.TrimSuffix(s, "%"), isBlank)})
	}, func() string { return strconv.Itoa(*p) + "%" })
}

// tlsLevel reads the levels but for the default.
func tlsLevel(p *mail.TLSLevel) field {
	levels := []mail.TLSLevel{mail.TLSNone, mail.TLSMay, mail.TLSEncrypt, mail.TLSVerify}
	return scalar(func(s string) error {
		var known []string
		for _, l := range levels {
			if strings.EqualFold(s, l.String()) {
				*p = l
				return nil
			}
			known = append(known, l.String())
		}
		return &choiceError{s, known}
	}, func() string {
		if *p == mail.TLSDefault {
			return ""
		}
		return p.String()
	})
}

// weights reads a list, separated by blanks or commas, whose elements may end in
// @ and a weight: 192.0.2.1@3 192.0.2.2.
func weights(p *[]weighted, check func(string) error) field {
	return scalar(func(s string) error {
		var all []weighted
		for _, one := range strings.FieldsFunc(s, func(c rune) bool { return c == ',' || isBlank(c) }) {
			w := weighted{text: one, weight: 1}
			if name, amount, ok := strings.Cut(one, "@"); ok {
				n, err := strconv.Atoi(amount)
				if err != nil || n < 1 || n > 1000 {
					return fmt.Errorf("%s: the weight after @ is not between 1 and 1000", excerpt(one))
				}
				w = weighted{name, n}
			}
			if err := check(w.text); err != nil {
				return err
			}
			all = append(all, w)
		}
		*p = all
		return nil
	}, func() string {
		var parts []string
		for _, w := range *p {
			if w.weight != 1 {
				w.text += "@" + strconv.Itoa(w.weight)
			}
			parts = append(parts, w.text)
		}
		return strings.Join(parts, " ")
	})
}

func checkBind(s string) error {
	if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
		return fmt.Errorf("%s is no IP address", excerpt(s))
	}
	return nil
}
