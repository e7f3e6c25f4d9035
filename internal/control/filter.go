package control

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"tarishi/internal/mail"
)

// Filter says which messages a list has. Its fields are joined by "and"; the
// zero Filter lets every message pass.
type Filter struct {
	Domain string // of a pending recipient
	Sender string // an address, "@domain", or "<>" for the null reverse-path
	Limit  int    // as many at most; 0: all
}

// query returns f as parameters of a URL.
func (f Filter) query() url.Values {
	v := url.Values{}
	if f.Domain != "" {
		v.Set("domain", f.Domain)
	}
	if f.Sender != "" {
		v.Set("sender", f.Sender)
	}
	if f.Limit != 0 {
		v.Set("limit", strconv.Itoa(f.Limit))
	}
	return v
}

// parseFilter reads what query wrote.
func parseFilter(v url.Values) (f Filter, err error) {
	f = Filter{Domain: v.Get("domain"), Sender: v.Get("sender")}
	if n := v.Get("limit"); n != "" {
		f.Limit, err = number(n)
	}
	return f, err
}

func number(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %q is no number", ErrInvalid, s)
	}
	return n, nil
}

// matcher returns the test that f stands for, its Limit aside.
func (f Filter) matcher() (func(mail.Pending) bool, error) {
	if f.Limit < 0 {
		return nil, fmt.Errorf("%w: a negative limit", ErrInvalid)
	}
	var tests []func(mail.Pending) bool
	if f.Domain != "" {
		host, err := canonical(f.Domain)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(p mail.Pending) bool {
			for _, r := range p.Recipients {
				if r.Address.Host() == host {
					return true
				}
			}
			return false
		})
	}
	if domain, ok := strings.CutPrefix(f.Sender, "@"); ok {
		host, err := canonical(domain)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(p mail.Pending) bool { return p.From.Host() == host })
	} else if f.Sender != "" {
		from, err := mail.ParseAddress(f.Sender)
		if err != nil {
			return nil, fmt.Errorf("%w: sender %q: %w", ErrInvalid, f.Sender, err)
		}
		host := from.Host()
		tests = append(tests, func(p mail.Pending) bool {
			return strings.EqualFold(p.From.Local, from.Local) && p.From.Host() == host
		})
	}
	return func(p mail.Pending) bool {
		for _, t := range tests {
			if !t(p) {
				return false
			}
		}
		return true
	}, nil
}

// canonical returns a domain in the form in which domains are compared.
func canonical(domain string) (string, error) {
	a, err := mail.ParseAddress("x@" + strings.TrimSuffix(domain, "."))
	if err != nil || a.Local != "x" {
		return "", fmt.Errorf("%w: %q is no domain", ErrInvalid, domain)
	}
	return a.Host(), nil
}
