package filter

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/mail"
)

// The kinds of the conditions.
var (
	// Domain is a domain, or a pattern for domains.
	Domain = control.Kind{Placeholder: "DOMAIN", Check: func(_, value string) error {
		_, err := parseDomain(value)
		return err
	}}
	// Address is an address, a pattern for addresses, "@domain", or "<>".
	Address = control.Kind{Placeholder: "ADDR", Check: func(name, value string) error {
		if _, err := parseAddress(value); err != nil {
			return fmt.Errorf("%s %q: %w", strings.TrimLeft(name, "-"), value, err)
		}
		return nil
	}}
	// Age is a time that has passed.
	Age = control.Kind{Placeholder: "AGE", Check: func(name, value string) error {
		if _, err := parseAge(value); err != nil {
			return fmt.Errorf("%s: %q: %w", name, value, err)
		}
		return nil
	}}
	// Expression is a regular expression of package regexp.
	Expression = control.Kind{Placeholder: "RE", Check: func(name, value string) error {
		if len(value) > maxReason {
			return fmt.Errorf("%s is longer than %d bytes", name, maxReason)
		}
		if _, err := regexp.Compile(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}}
	// State is the state of a pending recipient.
	State = control.Kind{Placeholder: "STATE", Values: states, Check: func(name, value string) error {
		if !slices.Contains(states, value) {
			return fmt.Errorf("%s: %q is none of %s", name, value, strings.Join(states, ", "))
		}
		return nil
	}}
)

// pattern is the pieces of a text between its stars.
type pattern []string

func parsePattern(s string) pattern { return strings.Split(s, "*") }

// match reports whether s is the pattern with anything in place of its stars.
func (p pattern) match(s string) bool {
	first, last := p[0], p[len(p)-1]
	if len(p) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}

	// The leftmost place of a piece leaves the most room for those behind it.
	s = s[len(first) : len(s)-len(last)]
	for _, piece := range p[1 : len(p)-1] {
		i := strings.Index(s, piece)
		if i < 0 {
			return false
		}
		s = s[i+len(piece):]
	}
	return true
}

// parseDomain returns the test that a domain or a pattern stands for. It gets
// hosts as mail.Address.Host returns them.
func parseDomain(s string) (match func(host string) bool, err error) {
	// Whether the rest is in order is seen with a letter in place of each star.
	sample := strings.ReplaceAll(s, "*", "x")
	if a, err := mail.ParseAddress("x@" + strings.TrimSuffix(sample, ".")); err != nil || a.Local != "x" || a.Domain == "" {
		return nil, fmt.Errorf("%q is no domain", s)
	}
	if sample == s {
		host := mail.Address{Local: "x", Domain: strings.TrimSuffix(s, ".")}.Host()
		return func(h string) bool { return h == host }, nil
	}

	// A label with a star cannot be converted; the others can.
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	for i, l := range labels {
		if strings.Contains(l, "*") {
			labels[i] = strings.ToLower(l)
		} else {
			labels[i] = mail.CanonicalDomain(l)
		}
	}
	return parsePattern(strings.Join(labels, ".")).match, nil
}

// parseAddress returns the test that an address or a pattern stands for.
func parseAddress(s string) (match func(mail.Address) bool, err error) {
	if s == "*" {
		return func(mail.Address) bool { return true }, nil
	}
	if len(s) > 2 && s[0] == '<' && s[len(s)-1] == '>' {
		s = s[1 : len(s)-1]
	}
	if domain, ok := strings.CutPrefix(s, "@"); ok {
		host, err := parseDomain(domain)
		if err != nil {
			return nil, err
		}
		return func(a mail.Address) bool { return !a.IsNull() && host(a.Host()) }, nil
	}

	// Without a star it is an address like any other, quoted or in angle brackets.
	at := strings.LastIndexByte(s, '@')
	if !strings.Contains(s, "*") || at < 0 {
		want, err := mail.ParseAddress(s)
		if err != nil {
			return nil, err
		}
		host := want.Host()
		return func(a mail.Address) bool { return strings.EqualFold(a.Local, want.Local) && a.Host() == host }, nil
	}

	// The null sender has neither part, and only <> and * mean it.
	host, err := parseDomain(s[at+1:])
	if err != nil {
		return nil, err
	}
	local := parsePattern(strings.ToLower(s[:at]))
	return func(a mail.Address) bool {
		return !a.IsNull() && host(a.Host()) && local.match(strings.ToLower(a.Local))
	}, nil
}

var errAge = errors.New("a number with s, m, h, d or w is needed, such as 12h")

// parseAge reads a number with a unit.
func parseAge(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	unit, ok := units[s[len(s)-1]]
	n, err := strconv.ParseInt(s[:len(s)-1], 10, 64)
	if !ok || err != nil || n < 0 || n > int64(math.MaxInt64/unit) {
		return 0, errAge
	}
	return time.Duration(n) * unit, nil
}
